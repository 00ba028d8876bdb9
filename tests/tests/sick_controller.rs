//! A controller whose disk takes nothing, or has failed: whoever asks it is sent on to the others, and who follows its
//! metadata leaves it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_client::{Client, TopicConfig};
use plimsoll_controller::raft_runtime::journal::JournalSettings;
use plimsoll_controller::raft_runtime::metadata::MemoryStore;
use plimsoll_controller::raft_runtime::{DataDir, JournalState, RaftSettings, View};
use plimsoll_controller::session::SessionSettings;
use plimsoll_controller::{Controller, Parts};
use plimsoll_host::{ChannelOptions, Host, Listener};
use plimsoll_proto::ids::ControllerId;
use plimsoll_proto::v1::{self, ErrorDetail, Outcome, Reason, admin_client::AdminClient};
use plimsoll_spu::{Spu, SpuSettings};
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::fs::faulty::{Fault, FaultKind, Faults, FaultyDisk, Then};
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings};
use tonic::transport::Channel;

const LIMIT: Duration = Duration::from_secs(30);

/// Three controllers in this process, and what makes the disk of each fail.
async fn three(host: &Host) -> Vec<(Controller, Faults)> {
    let mut bound = Vec::new();
    for _ in 0..3 {
        bound.push(host.network.bind("127.0.0.1:0").await.expect("a free port"));
    }
    let address = |listener: &Listener| listener.local_addr().expect("bound").to_string();
    let peers: BTreeMap<_, _> = (1..).map(ControllerId).zip(bound.iter().map(address)).collect();
    let mut started = Vec::new();
    for (id, listener) in (1..).map(ControllerId).zip(bound) {
        let disk = Arc::new(MemoryDisk::new(MemoryDiskSettings::plain(256 << 20)));
        let (disk, faults) = FaultyDisk::new(disk);
        let disk: SharedDisk = Arc::new(disk);
        let journal = JournalSettings { file_bytes: 1 << 20, ..JournalSettings::default() };
        let (identity, journal) =
            DataDir::open(&disk, id, true, peers.keys().copied(), &journal).expect("an empty disk");
        let parts = Parts {
            identity: Box::new(identity),
            journal: Box::new(journal),
            store: Box::<MemoryStore>::default(),
            disk: Some(disk),
        };
        let raft = RaftSettings::new(id, peers.clone());
        let session = SessionSettings { offsets_topic_early: false, ..SessionSettings::default() };
        let controller = Controller::start_with(host.clone(), raft, session, parts, listener).await;
        started.push((controller.expect("starts"), faults));
    }
    started
}

fn admin(host: &Host, controller: &Controller) -> AdminClient<Channel> {
    let channel = host.network.channel(&controller.address().to_string(), &ChannelOptions::default());
    AdminClient::new(channel.expect("an address"))
}

async fn until(host: &Host, controller: &Controller, wanted: impl FnMut(&Arc<View>) -> bool) {
    let mut views = controller.raft().watch();
    let reached = host.clock.timeout(LIMIT, views.wait_for(wanted)).await;
    drop(reached.expect("in time").expect("it runs"));
}

/// The leading controller falls ill while a client knows it as the leader.
async fn reads_go_on_when_the_leader_has(kind: FaultKind) {
    let host = Host::real();
    let controllers = three(&host).await;
    let addresses = controllers.iter().map(|(controller, _)| controller.address().to_string());
    let client = Client::builder().controllers(addresses).build().await.expect("three controllers");
    assert!(client.wait_metadata(LIMIT, |image| image.controller_leader.is_some()).await);
    client.admin().list_topics().await.expect("listed");
    let (led, _) = client.metadata().controller_leader.clone().expect("waited for");
    let (sick, faults) = controllers
        .iter()
        .find(|(controller, _)| {
            controller.raft().view().leader == Some(led) && controller.raft().view().is_leader
        })
        .expect("it leads");

    faults.arm(Fault { kind, call: 1, then: Then::StaysSo });
    let mut asked = admin(&host, sick);
    // What becomes of it nobody can tell; it is the write that its disk does not take.
    let open = host
        .tasks
        .spawn("a write", async move { drop(asked.init_producer(v1::InitProducerRequest {}).await) });
    until(&host, sick, |view| view.journal != JournalState::Healthy).await;
    // The client still believes in it.
    client.admin().list_topics().await.expect("the others answer");
    for _ in 0..10 {
        client.admin().list_topics().await.expect("the others answer");
        client.admin().metrics().await.expect("the others answer");
    }
    let refused = admin(&host, sick).list_topics(v1::ListTopicsRequest {}).await.expect_err("it can't");
    let detail = ErrorDetail::from_status(&refused).expect("typed");
    assert_eq!((detail.reason(), detail.outcome()), (Reason::NoQuorum, Outcome::NotWritten), "{detail:?}");
    // What it knew it still tells, and that it may be old.
    let stale = v1::ClusterStatusRequest { stale: true };
    let status = admin(&host, sick).cluster_status(stale).await.expect("told").into_inner();
    assert!(status.stale && status.leader == 0, "{status:?}");

    faults.disarm();
    if kind == FaultKind::NoSpace {
        until(&host, sick, |view| view.leader.is_some()).await;
        admin(&host, sick).list_topics(v1::ListTopicsRequest {}).await.expect("it takes part again");
    }
    drop(open);
    for (controller, _) in controllers {
        controller.stop(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_when_the_journal_of_the_leader_takes_nothing() {
    reads_go_on_when_the_leader_has(FaultKind::NoSpace).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_when_a_sync_of_the_leader_failed() {
    reads_go_on_when_the_leader_has(FaultKind::SyncIo).await;
}

/// A storage node that knows this controller only, to begin with.
async fn node(host: &Host, id: u32, controller: &Controller) -> Spu {
    let settings = SpuSettings {
        id,
        data_dirs: vec![format!("/s{id}").into()],
        listen: "127.0.0.1:0".to_owned(),
        controllers: vec![controller.address().to_string()],
        ..SpuSettings::default()
    };
    let disk = Arc::new(MemoryDisk::new(MemoryDiskSettings::plain(256 << 20)));
    Spu::start(host.clone(), settings, vec![disk as SharedDisk]).await.expect("starts")
}

/// Creates a topic and waits until each of the three nodes has its replica in sync.
async fn create(client: &Client, name: &str) {
    let config = TopicConfig { partitions: 3, replicas: 3, min_in_sync: 2, ..TopicConfig::default() };
    client.admin().create_topic(name, config).await.expect("created");
    let in_sync = client.wait_metadata(LIMIT, |image| {
        image.topic_by_name(name).is_some_and(|topic| topic.partitions.iter().all(|p| p.in_sync.len() == 3))
    });
    assert!(in_sync.await, "{name}: {:?}", client.metadata().topic_by_name(name));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_follow_a_controller_whose_disk_failed_learn_of_new_topics() {
    let host = Host::real();
    let controllers = three(&host).await;
    let addresses = controllers.iter().map(|(controller, _)| controller.address().to_string());
    let client = Client::builder().controllers(addresses).build().await.expect("three controllers");
    assert!(client.wait_metadata(LIMIT, |image| image.controller_leader.is_some()).await);
    let (sick, faults) =
        controllers.iter().find(|(controller, _)| !controller.raft().view().is_leader).expect("a follower");
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(node(&host, id, sick).await);
    }
    create(&client, "before").await;

    // The next entry is one too many for it.
    faults.arm(Fault { kind: FaultKind::SyncIo, call: 1, then: Then::StaysSo });
    create(&client, "meanwhile").await;
    assert!(matches!(sick.raft().view().journal, JournalState::Failed(_)));
    let topics = sick.raft().view().state.topics().len();
    assert_eq!(topics, 1, "it knows of no other");
    create(&client, "afterwards").await;
    for node in nodes {
        node.stop().await;
    }
    for (controller, _) in controllers {
        controller.stop(Duration::from_secs(1)).await;
    }
}
