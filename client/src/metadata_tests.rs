//! An event that never reached this client: the next digest tells, and the client asks for everything again.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{Stream, stream};
use plimsoll_host::{Clock, ServerOptions};
use plimsoll_proto::v1;
use plimsoll_proto::v1::metadata_server::{Metadata, MetadataServer};
use tonic::{Request, Response, Status};

use super::*;
use crate::{Client, ConnectError};

/// Loses an event on the first watch that it serves, and tells the digest afterwards; then it goes on with bookmarks.
#[derive(Clone)]
struct Forgetful {
    clock: Clock,
    watches: Arc<AtomicUsize>,
}

fn update(version: u64, previous_version: u64) -> MetadataUpdate {
    let cluster_id = vec![9; 16].into();
    MetadataUpdate { cluster_id, version, previous_version, ..MetadataUpdate::default() }
}

fn topic(name: &str) -> v1::TopicInfo {
    v1::TopicInfo { topic_id: vec![1; 16].into(), name: name.to_owned(), ..v1::TopicInfo::default() }
}

fn full(version: u64, topic: v1::TopicInfo) -> MetadataUpdate {
    let topics = vec![topic];
    MetadataUpdate { full: true, topics, controller_leader: 1, ..update(version, 0) }
}

fn digest(topic: v1::TopicInfo) -> u64 {
    let mut image = MetadataImage::empty();
    image.apply(full(1, topic)).expect("a full one");
    image.digest()
}

#[tonic::async_trait]
impl Metadata for Forgetful {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<MetadataUpdate, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let updates = if self.watches.fetch_add(1, Ordering::SeqCst) == 0 {
            // The second should have brought the new name.
            let bookmark = MetadataUpdate { digest: digest(topic("after")), ..update(7, 6) };
            vec![full(5, topic("before")), update(6, 5), bookmark]
        } else {
            vec![full(7, topic("after"))]
        };
        // Often enough that nobody takes the controller for silent.
        let bookmarks = stream::unfold(self.clock.clone(), |clock| async {
            clock.sleep(Duration::from_millis(100)).await;
            Some((Ok(MetadataUpdate { controller_leader: 1, ..update(7, 7) }), clock))
        });
        Ok(Response::new(stream::iter(updates.into_iter().map(Ok)).chain(bookmarks).boxed()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_missed_an_event_finds_out_by_the_digest_and_asks_for_everything() {
    let watches = Arc::new(AtomicUsize::new(0));
    let (address, host, _serving) = forgetful(&watches).await;
    let source = Source {
        connections: Connections::new(host.network.clone()),
        host: host.clone(),
        controllers: vec![address],
        cluster_id: None,
    };
    let mut watch = source.start();
    let found = watch.images.wait_for(|image| image.topic_by_name("after").is_some());
    host.clock.timeout(Duration::from_secs(20), found).await.expect("it finds out").expect("it goes on");
    assert_eq!(watches.load(Ordering::SeqCst), 2);
}

/// Serves with the cluster id of [`update`], whatever is asked for.
async fn forgetful(watches: &Arc<AtomicUsize>) -> (String, Host, Task) {
    let host = Host::real();
    let controller = Forgetful { clock: host.clock.clone(), watches: Arc::clone(watches) };
    let listener = host.network.bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let server = plimsoll_host::server(&ServerOptions::default())
        .add_service(MetadataServer::new(controller))
        .serve_with_incoming(listener.into_incoming());
    let serving = host.tasks.spawn("forgetful controller", async move { drop(server.await) });
    (address, host, serving)
}

#[tokio::test]
async fn a_controller_of_another_cluster_is_told_by_its_type() {
    let (address, _host, _serving) = forgetful(&Arc::default()).await;
    let client = Client::builder().controllers([address.clone()]).cluster_id(ClusterId([1; 16]));
    let built = client.connect_timeout(Duration::from_secs(2)).build().await;
    let Err(ConnectError::NoController { attempts, .. }) = built else { panic!("{built:?}") };
    let failure = ControllerFailure::OtherCluster { cluster_id: ClusterId([9; 16]) };
    assert_eq!(attempts, [ControllerAttempt { address, failure }]);
}
