//! An event that never reached this node: the next digest tells, and the node asks for everything again.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use plimsoll_host::{Clock, ServerOptions};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1;
use plimsoll_proto::v1::metadata_server::{Metadata, MetadataServer};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::controllers::Controllers;
use super::metadata;
use super::testing::settings;
use crate::runtime::testing::{CLUSTER, LIMIT, PARTITION, TestCluster, config};

const FIRST: u64 = 5000;
/// Often enough that nobody takes the controller for silent.
const BOOKMARKS: Duration = Duration::from_millis(100);

/// Loses an event on the first watch that it serves, and tells the digest afterwards; then it goes on with bookmarks.
#[derive(Clone)]
struct Forgetful {
    clock: Clock,
    before: MetadataImage,
    after: MetadataImage,
    watches: Arc<AtomicUsize>,
}

fn update(version: u64, previous: u64) -> v1::MetadataUpdate {
    v1::MetadataUpdate {
        cluster_id: CLUSTER.to_bytes(),
        version,
        previous_version: previous,
        ..v1::MetadataUpdate::default()
    }
}

fn full(image: &MetadataImage, version: u64) -> v1::MetadataUpdate {
    v1::MetadataUpdate {
        full: true,
        spus: image.spus.values().cloned().collect(),
        topics: image.topics.values().cloned().collect(),
        digest: image.digest(),
        ..update(version, 0)
    }
}

#[tonic::async_trait]
impl Metadata for Forgetful {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::MetadataUpdate, Status>> + Send>>;

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let updates = if self.watches.fetch_add(1, Ordering::SeqCst) == 0 {
            // The second should have brought the new leader.
            let digest = v1::MetadataUpdate { digest: self.after.digest(), ..update(FIRST + 2, FIRST + 1) };
            vec![full(&self.before, FIRST), update(FIRST + 1, FIRST), digest]
        } else {
            vec![full(&self.after, FIRST + 2)]
        };
        let bookmarks = stream::unfold(self.clock.clone(), |clock| async {
            clock.sleep(BOOKMARKS).await;
            Some((Ok(update(FIRST + 2, FIRST + 2)), clock))
        });
        Ok(Response::new(stream::iter(updates.into_iter().map(Ok)).chain(bookmarks).boxed()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_an_event_finds_out_by_the_digest_and_asks_for_everything() {
    let cluster = TestCluster::new(2, 64 << 20, config(2, 1)).await;
    let host = cluster.host.clone();
    let mut after = cluster.image.clone();
    let topic = after.topics.get_mut(&PARTITION.topic_id).expect("the topic is there");
    (topic.partitions[0].leader, topic.partitions[0].leader_epoch) = (2, 2);
    let controller = Forgetful {
        clock: host.clock.clone(),
        before: cluster.image.clone(),
        after: after.clone(),
        watches: Arc::default(),
    };
    let watches = controller.watches.clone();
    let listener = host.network.bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let server = plimsoll_host::server(&ServerOptions::default())
        .add_service(MetadataServer::new(controller))
        .serve_with_incoming(listener.into_incoming());
    let _server = host.tasks.spawn("forgetful controller", async move { drop(server.await) });

    let (images, mut seen) = watch::channel(Arc::new(MetadataImage::empty()));
    let node = cluster.node(1).handle.clone();
    let controllers = Controllers::new(host.clone(), vec![address]);
    let _watching =
        host.tasks.spawn("metadata watch", metadata::run(controllers, node.clone(), settings(), images));
    let reconciled = seen.wait_for(|image| image.topics == after.topics);
    host.clock.timeout(LIMIT, reconciled).await.expect("it finds out").expect("the watch goes on");
    assert_eq!(node.metadata().partition(&PARTITION).map(|info| info.leader), Some(2), "and acts by it");
    assert_eq!(watches.load(Ordering::SeqCst), 2);
}
