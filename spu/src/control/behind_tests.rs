//! A controller that has fallen behind goes on to send bookmarks: the node leaves it for one that knows a leader.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{Stream, StreamExt as _, stream};
use plimsoll_host::{Clock, Host, ServerOptions, Task};
use plimsoll_proto::v1::metadata_server::{Metadata, MetadataServer};
use tonic::{Request, Response, Status};

use super::*;
use crate::control::testing::settings;
use crate::runtime::testing::{CLUSTER, LIMIT, PARTITION, TestCluster, config};

/// Often enough that nobody takes a controller for silent.
const BOOKMARKS: Duration = Duration::from_millis(100);
const NOBODY: usize = usize::MAX;

/// One of several controllers. Whichever is asked first is cut off from the others: it knows an older state and no
/// leader, for ever.
#[derive(Clone)]
struct Fake {
    clock: Clock,
    number: usize,
    behind: Arc<AtomicUsize>,
    old: MetadataImage,
    new: MetadataImage,
}

fn update(image: &MetadataImage, full: bool, leader: u64) -> v1::MetadataUpdate {
    let (spus, topics) = (image.spus.values().cloned(), image.topics.values().cloned());
    v1::MetadataUpdate {
        cluster_id: CLUSTER.to_bytes(),
        version: image.version.0,
        previous_version: if full { 0 } else { image.version.0 },
        full,
        spus: spus.filter(|_| full).collect(),
        topics: topics.filter(|_| full).collect(),
        controller_leader: leader,
        ..v1::MetadataUpdate::default()
    }
}

#[tonic::async_trait]
impl Metadata for Fake {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::MetadataUpdate, Status>> + Send>>;

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let first =
            self.behind.compare_exchange(NOBODY, self.number, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let behind = first || self.behind.load(Ordering::SeqCst) == self.number;
        let (image, leader) = if behind { (&self.old, 0) } else { (&self.new, 7) };
        let bookmark = update(image, false, leader);
        let bookmarks = stream::unfold((self.clock.clone(), bookmark), |(clock, bookmark)| async {
            clock.sleep(BOOKMARKS).await;
            Some((Ok(bookmark.clone()), (clock, bookmark)))
        });
        let all = stream::iter([Ok(update(image, true, leader))]).chain(bookmarks);
        Ok(Response::new(all.boxed()))
    }
}

async fn serve(host: &Host, fake: Fake) -> (String, Task) {
    let listener = host.network.bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let server = plimsoll_host::server(&ServerOptions::default())
        .add_service(MetadataServer::new(fake))
        .serve_with_incoming(listener.into_incoming());
    (address, host.tasks.spawn("controller", async move { drop(server.await) }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_without_a_leader_is_left_for_one_that_knows_more() {
    let cluster = TestCluster::new(2, 64 << 20, config(2, 1)).await;
    let host = cluster.host.clone();
    let (mut old, mut new) = (cluster.image.clone(), cluster.image.clone());
    (old.version.0, new.version.0) = (5000, 5001);
    let topic = new.topics.get_mut(&PARTITION.topic_id).expect("the topic is there");
    (topic.partitions[0].leader, topic.partitions[0].leader_epoch) = (2, 2);
    let behind = Arc::new(AtomicUsize::new(NOBODY));
    let (mut addresses, mut servers) = (Vec::new(), Vec::new());
    for number in 0..2 {
        let (clock, behind) = (host.clock.clone(), behind.clone());
        let fake = Fake { clock, number, behind, old: old.clone(), new: new.clone() };
        let (address, server) = serve(&host, fake).await;
        addresses.push(address);
        servers.push(server);
    }
    let (images, mut seen) = watch::channel(Arc::new(MetadataImage::empty()));
    let node = cluster.node(1).handle.clone();
    let controllers = Controllers::new(host.clone(), addresses);
    let _watching = host.tasks.spawn("metadata watch", run(controllers, node.clone(), settings(), images));
    let older = seen.wait_for(|image| image.version == old.version);
    drop(host.clock.timeout(LIMIT, older).await.expect("the first answers").expect("the watch goes on"));
    let newer = seen.wait_for(|image| image.topics == new.topics);
    drop(host.clock.timeout(LIMIT, newer).await.expect("it goes elsewhere").expect("the watch goes on"));
    assert_eq!(node.metadata().partition(&PARTITION).map(|info| info.leader), Some(2), "and acts by it");
}
