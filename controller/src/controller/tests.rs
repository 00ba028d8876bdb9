//! Whole controllers in one process, on the loopback network, with journals in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use plimsoll_host::{ChannelOptions, Host, Task};
use plimsoll_proto::ids::{ControllerId, PartitionId, TopicId, VolumeId};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1::{
    self, ErrorDetail, Reason, VolumeState, admin_client::AdminClient, control_client::ControlClient,
    metadata_client::MetadataClient,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{Controller, ControllerError, ControllerSettings, Parts};
use crate::liveness::LivenessSettings;
use crate::raft_runtime::journal::{MemoryJournal, Recovered};
use crate::raft_runtime::metadata::MemoryStore;
use crate::raft_runtime::{DataDirError, MemoryIdentity, RaftSettings};
use crate::session::SessionSettings;

mod digests;
mod elections;
mod failover;
mod fake_node;
mod full_disks;
mod named_nodes;
mod relief;
mod stopped_replicas;
mod vantage;

const PATIENCE: Duration = Duration::from_secs(30);

/// Controllers with ids from 1, and their addresses.
async fn controllers(host: &Host, count: u64) -> Vec<Controller> {
    controllers_with(host, count, SessionSettings::default()).await
}

async fn controllers_with(host: &Host, count: u64, session: SessionSettings) -> Vec<Controller> {
    controllers_on(host, count, session, Vec::new()).await
}

/// The same on these disks, as far as there are any.
async fn controllers_on(
    host: &Host,
    count: u64,
    session: SessionSettings,
    disks: Vec<plimsoll_storage::fs::SharedDisk>,
) -> Vec<Controller> {
    let mut disks = disks.into_iter();
    let mut listeners = BTreeMap::new();
    for id in 1..=count {
        listeners.insert(ControllerId(id), host.network.bind("127.0.0.1:0").await.unwrap());
    }
    let address = |l: &plimsoll_host::Listener| l.local_addr().unwrap().to_string();
    let peers: BTreeMap<_, _> = listeners.iter().map(|(id, listener)| (*id, address(listener))).collect();
    let mut started = Vec::new();
    for (id, listener) in listeners {
        let voters = peers.keys().map(|id| id.0);
        let parts = Parts {
            identity: Box::new(MemoryIdentity::default()),
            journal: Box::new(MemoryJournal::new(Recovered::fresh(voters), 64 << 20)),
            store: Box::new(MemoryStore::default()),
            disk: disks.next(),
        };
        let raft = RaftSettings::new(id, peers.clone());
        started.push(
            Controller::start_with(host.clone(), raft, session.clone(), parts, listener).await.unwrap(),
        );
    }
    started
}

async fn leader(host: &Host, controllers: &[Controller]) -> usize {
    let leading = controllers.iter().map(|controller| {
        let mut views = controller.raft().watch();
        Box::pin(async move { drop(views.wait_for(|v| v.is_leader && v.state.cluster_id().is_some()).await) })
    });
    let (_, index, _) = host.clock.timeout(PATIENCE, futures::future::select_all(leading)).await.unwrap();
    index
}

fn channel(host: &Host, controller: &Controller) -> Channel {
    host.network.channel(&controller.address().to_string(), &ChannelOptions::default()).unwrap()
}

/// Registers a node. A controller that has just begun to lead does not take one yet.
async fn register(
    host: &Host,
    control: &mut ControlClient<Channel>,
    registration: v1::RegisterRequest,
) -> v1::RegisterResponse {
    let registering = async {
        loop {
            match control.register(registration.clone()).await {
                Ok(answer) => return answer.into_inner(),
                Err(status) => assert_eq!(reason(&status).0, Reason::NoQuorum, "{status}"),
            }
        }
    };
    host.clock.timeout(PATIENCE, registering).await.unwrap()
}

/// A node that registers and sends heartbeats, nothing else.
struct Node {
    id: u32,
    incarnation: u64,
    cluster_id: bytes::Bytes,
    control: ControlClient<Channel>,
    level: watch::Sender<v1::DiskLevel>,
    _beating: Task,
}

fn volume(id: u32) -> VolumeId {
    VolumeId([u8::try_from(id).unwrap(); 16])
}

fn facts(id: u32, level: v1::DiskLevel) -> v1::VolumeFacts {
    v1::VolumeFacts {
        volume_id: volume(id).to_bytes(),
        path: format!("/d{id}"),
        level: level.into(),
        free_bytes: 1 << 30,
        capacity_bytes: 2 << 30,
        ..Default::default()
    }
}

fn registration(id: u32) -> v1::RegisterRequest {
    v1::RegisterRequest {
        spu_id: id,
        start_nonce: vec![1; 16].into(),
        address: format!("127.0.0.1:{id}"),
        volumes: vec![facts(id, v1::DiskLevel::Normal)],
        protocol_min: 1,
        protocol_max: 1,
        ..Default::default()
    }
}

impl Node {
    async fn start(host: &Host, controller: &Controller, id: u32) -> Self {
        Self::start_as(host, controller, registration(id)).await
    }

    async fn start_as(host: &Host, controller: &Controller, registration: v1::RegisterRequest) -> Self {
        let id = registration.spu_id;
        let mut control = ControlClient::new(channel(host, controller));
        let registered = register(host, &mut control, registration).await;
        let (level, levels) = watch::channel(v1::DiskLevel::Normal);
        let (beats, queue) = mpsc::channel(4);
        let mut client = control.clone();
        let (clock, cluster_id, incarnation) =
            (host.clock.clone(), registered.cluster_id.clone(), registered.incarnation);
        let claimed = cluster_id.clone();
        let beating = host.tasks.spawn("heartbeats", async move {
            let mut answers = client.heartbeat(ReceiverStream::new(queue)).await.unwrap().into_inner();
            for sequence in 1.. {
                let level = *levels.borrow();
                let beat = v1::HeartbeatRequest {
                    cluster_id: claimed.clone(),
                    spu_id: id,
                    incarnation,
                    sequence,
                    volumes: vec![facts(id, level)],
                };
                if beats.send(beat).await.is_err() {
                    return;
                }
                match answers.message().await {
                    Ok(Some(answer)) if answer.error.is_none() => assert_eq!(answer.sequence, sequence),
                    _ => return,
                }
                clock.sleep(Duration::from_millis(200)).await;
            }
        });
        Self { id, incarnation, cluster_id, control, level, _beating: beating }
    }

    async fn change_volume(
        &mut self,
        expected: VolumeState,
        wanted: VolumeState,
    ) -> v1::ChangeVolumeResponse {
        let request = v1::ChangeVolumeRequest {
            cluster_id: self.cluster_id.clone(),
            spu_id: self.id,
            incarnation: self.incarnation,
            volume_id: volume(self.id).to_bytes(),
            expected: expected.into(),
            wanted: wanted.into(),
            reason: "bytes".to_owned(),
        };
        self.control.change_volume(request).await.unwrap().into_inner()
    }
}

async fn watch_metadata(
    client: &mut MetadataClient<Channel>,
    mut until: impl FnMut(&MetadataImage) -> bool,
) -> MetadataImage {
    let mut updates = client.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    let mut image = MetadataImage::empty();
    while let Some(update) = updates.next().await {
        image.apply(update.unwrap()).unwrap();
        if until(&image) {
            return image;
        }
    }
    panic!("the watch ended");
}

fn reason(status: &tonic::Status) -> (Reason, String) {
    let detail = ErrorDetail::from_status(status).unwrap();
    (detail.reason(), detail.controller_address)
}

fn create(name: &str, config: v1::TopicConfig) -> v1::CreateTopicRequest {
    v1::CreateTopicRequest { name: name.to_owned(), config: Some(config) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_leader_makes_way_and_everybody_hears_of_it() {
    let host = Host::real();
    let controllers = controllers(&host, 3).await;
    let leading = leader(&host, &controllers).await;
    let (leader, follower) = (&controllers[leading], &controllers[(leading + 1) % 3]);

    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(Node::start(&host, leader, id).await);
    }
    // The nodes are still joining: creating waits for them.
    let mut admin = AdminClient::new(channel(&host, leader));
    let config = v1::TopicConfig { partitions: 3, ..Default::default() };
    let created = admin.create_topic(create("flights", config)).await.unwrap().into_inner();
    let topic_id = TopicId::from_slice(&created.topic_id).unwrap();

    // Any controller serves metadata and reads; only the leader takes changes.
    let mut metadata = MetadataClient::new(channel(&host, follower));
    let image = watch_metadata(&mut metadata, |image| image.topic_by_name("flights").is_some()).await;
    let topic = image.topic_by_name("flights").unwrap();
    assert_eq!(topic.config.unwrap().replicas, 3);
    assert_eq!(topic.config.unwrap().min_in_sync, 2);
    let mut other = AdminClient::new(channel(&host, follower));
    let request = v1::DescribeTopicRequest { name: "flights".to_owned() };
    assert!(other.describe_topic(request).await.unwrap().into_inner().topic.is_some());
    let refused = other.create_topic(create("x", v1::TopicConfig::default())).await.unwrap_err();
    let address = leader.address().to_string();
    assert_eq!(reason(&refused), (Reason::NotControllerLeader, address.clone()));
    let refused = other.cluster_status(v1::ClusterStatusRequest::default()).await.unwrap_err();
    assert_eq!(reason(&refused), (Reason::NotControllerLeader, address));

    // One entry: leaders move, sets shrink, once.
    let led = topic.partitions.iter().filter(|p| p.leader == 1).count();
    assert_eq!(led, 1, "leaders are spread");
    nodes[0].level.send_replace(v1::DiskLevel::ReadOnly);
    let changed = nodes[0].change_volume(VolumeState::Writable, VolumeState::WriteOffline).await;
    assert!(changed.applied);
    let again = nodes[0].change_volume(VolumeState::Writable, VolumeState::WriteOffline).await;
    assert_eq!((again.applied, again.current()), (false, VolumeState::WriteOffline));
    let moved = |image: &MetadataImage| {
        let partitions =
            (0..3).filter_map(|index| image.partition(&PartitionId { topic_id, index }).cloned());
        partitions.into_iter().all(|p| p.leader != 1 && !p.in_sync.contains(&1))
    };
    watch_metadata(&mut metadata, |image| image.version.0 >= changed.version && moved(image)).await;
    let events = other.list_events(v1::ListEventsRequest::default()).await.unwrap().into_inner().events;
    assert_eq!(events.iter().filter(|event| event.kind == "volume_state").count(), 1);

    // Back: the volume is writable, leaders return when their replica is in sync again, not before.
    nodes[0].level.send_replace(v1::DiskLevel::Normal);
    assert!(nodes[0].change_volume(VolumeState::WriteOffline, VolumeState::Writable).await.applied);
    let state = controllers[leading].raft().view().state.clone();
    for (id, _, partition) in state.partitions() {
        let (spu, incarnation) = partition.leader.unwrap();
        let node = nodes.iter_mut().find(|node| node.id == spu.0).unwrap();
        let all = (1..=3).map(|spu| v1::InSyncMember {
            spu_id: spu,
            incarnation: state.incarnation(plimsoll_proto::ids::SpuId(spu)).unwrap().0,
        });
        let request = v1::ChangeInSyncRequest {
            cluster_id: node.cluster_id.clone(),
            spu_id: spu.0,
            incarnation: incarnation.0,
            topic_id: id.topic_id.to_bytes(),
            partition: id.index,
            leader_epoch: partition.leader_epoch.0,
            partition_epoch: partition.partition_epoch.0,
            in_sync: all.collect(),
            reason: "caught up".to_owned(),
        };
        assert!(node.control.change_in_sync(request).await.unwrap().into_inner().applied);
    }
    let back = |image: &MetadataImage| image.topics[&topic_id].partitions.iter().any(|p| p.leader == 1);
    host.clock.timeout(PATIENCE, watch_metadata(&mut metadata, back)).await.unwrap();

    let status = admin.cluster_status(v1::ClusterStatusRequest::default()).await.unwrap().into_inner();
    // Besides the topic's there are those that keep the offsets of groups.
    assert!(status.partitions >= 3, "{}", status.partitions);
    assert_eq!((status.spus.len(), status.partitions_under_replicated), (3, 0));
    assert!(status.spus.iter().all(|spu| spu.heartbeat_age_ms > 0 && spu.volumes.len() == 1));
    assert_eq!(status.controllers.iter().filter(|c| c.leader && c.reachable).count(), 1);

    // Stopping hands leadership over; the others go on.
    let mut rest: Vec<_> = controllers.into_iter().collect();
    rest.remove(leading).stop(Duration::from_secs(5)).await;
    let next = self::leader(&host, &rest).await;
    let mut admin = AdminClient::new(channel(&host, &rest[next]));
    let first = admin.init_producer(v1::InitProducerRequest {}).await.unwrap().into_inner();
    let second = admin.init_producer(v1::InitProducerRequest {}).await.unwrap().into_inner();
    assert_eq!(second.producer_id, first.producer_id + 1);
    admin.delete_topic(v1::DeleteTopicRequest { name: "flights".to_owned() }).await.unwrap();
    for controller in rest {
        controller.stop(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_gets_typed_errors_and_changes_nothing() {
    let host = Host::real();
    let controllers = controllers(&host, 1).await;
    leader(&host, &controllers).await;
    let mut admin = AdminClient::new(channel(&host, &controllers[0]));
    let mut control = ControlClient::new(channel(&host, &controllers[0]));
    let mut node = Node::start(&host, &controllers[0], 1).await;

    for name in ["", "..", "a/b", "a\0b", &"x".repeat(201)] {
        let refused = admin.create_topic(create(name, v1::TopicConfig::default())).await.unwrap_err();
        assert_eq!(reason(&refused).0, Reason::InvalidTopic, "{name:?}");
    }
    for config in [
        v1::TopicConfig { partitions: 1_000_000, ..Default::default() },
        v1::TopicConfig { replicas: 17, ..Default::default() },
        v1::TopicConfig { replicas: 1, min_in_sync: 2, ..Default::default() },
        v1::TopicConfig { segment_bytes: 1, ..Default::default() },
        v1::TopicConfig { flush: 77, ..Default::default() },
    ] {
        let refused = admin.create_topic(create("t", config)).await.unwrap_err();
        assert_eq!(reason(&refused).0, Reason::InvalidArgument, "{config:?}");
    }
    admin.create_topic(create("one", v1::TopicConfig::default())).await.unwrap();
    let refused = admin.create_topic(create("one", v1::TopicConfig::default())).await.unwrap_err();
    assert_eq!(reason(&refused).0, Reason::TopicExists);
    let too_many = v1::TopicConfig { replicas: 2, ..Default::default() };
    let refused = admin.create_topic(create("two", too_many)).await.unwrap_err();
    assert_eq!(reason(&refused).0, Reason::NoPlacement);
    let unknown = v1::DescribeTopicRequest { name: "none".to_owned() };
    assert_eq!(reason(&admin.describe_topic(unknown).await.unwrap_err()).0, Reason::UnknownTopic);

    let other_cluster = v1::RegisterRequest { cluster_id: vec![9; 16].into(), ..registration(2) };
    assert_eq!(reason(&control.register(other_cluster).await.unwrap_err()).0, Reason::WrongCluster);
    let too_new = v1::RegisterRequest { protocol_min: 5, protocol_max: 9, ..registration(2) };
    assert_eq!(reason(&control.register(too_new).await.unwrap_err()).0, Reason::UnsupportedProtocol);
    let stranger = v1::RegisterRequest { spu_id: 1, start_nonce: vec![8; 16].into(), ..registration(7) };
    assert_eq!(reason(&control.register(stranger).await.unwrap_err()).0, Reason::InvalidArgument);

    // A second start fences the first: its changes are stale.
    let restarted = v1::RegisterRequest { start_nonce: vec![2; 16].into(), ..registration(1) };
    let incarnation = control.register(restarted).await.unwrap().into_inner().incarnation;
    assert!(incarnation > node.incarnation);
    let stale =
        v1::HandOverRequest { cluster_id: node.cluster_id.clone(), spu_id: 1, incarnation: node.incarnation };
    let refused = node.control.hand_over(stale).await.unwrap_err();
    let detail = ErrorDetail::from_status(&refused).unwrap();
    assert_eq!((detail.reason(), detail.current_incarnation), (Reason::StaleIncarnation, incarnation));
    for controller in controllers {
        controller.stop(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_falls_silent_is_replaced_and_fenced() {
    let host = Host::real();
    let liveness = LivenessSettings {
        suspect_after: Duration::from_millis(1200),
        confirm: Duration::from_millis(600),
        join_age: Duration::from_millis(500),
        ..LivenessSettings::default()
    };
    let controllers = controllers_with(&host, 1, SessionSettings { liveness, ..Default::default() }).await;
    leader(&host, &controllers).await;
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(Node::start(&host, &controllers[0], id).await);
    }
    let mut admin = AdminClient::new(channel(&host, &controllers[0]));
    admin.create_topic(create("t", v1::TopicConfig::default())).await.unwrap();
    let mut metadata = MetadataClient::new(channel(&host, &controllers[0]));
    let image = watch_metadata(&mut metadata, |image| image.topic_by_name("t").is_some()).await;
    let led_by =
        |image: &MetadataImage| image.topic_by_name("t").map_or(0, |topic| topic.partitions[0].leader);
    let dead = led_by(&image);

    let node = nodes.remove(usize::try_from(dead - 1).unwrap());
    let (incarnation, cluster_id) = (node.incarnation, node.cluster_id.clone());
    drop(node);
    let replaced = |image: &MetadataImage| led_by(image) != dead;
    let image = host.clock.timeout(PATIENCE, watch_metadata(&mut metadata, replaced)).await.unwrap();
    let topic = image.topic_by_name("t").unwrap();
    assert!(!topic.partitions[0].in_sync.contains(&dead));

    // The old run wakes up: it is told that it is over, and what it learns changes nothing.
    let beat =
        v1::HeartbeatRequest { cluster_id, spu_id: dead, incarnation, sequence: 1, ..Default::default() };
    let mut control = ControlClient::new(channel(&host, &controllers[0]));
    let beats = futures::stream::iter([beat]);
    let answer = control.heartbeat(beats).await.unwrap().into_inner().message().await.unwrap().unwrap();
    assert_eq!(answer.error.unwrap().reason(), Reason::StaleIncarnation);
    let again = control.register(registration(dead)).await.unwrap().into_inner();
    assert!(again.incarnation > incarnation, "the same process starts a new run");
    let events = admin.list_events(v1::ListEventsRequest::default()).await.unwrap().into_inner().events;
    let offline = events.iter().filter(|event| event.kind == "spu_state" && event.to == "offline");
    assert_eq!(offline.count(), 1);
    for controller in controllers {
        controller.stop(Duration::from_secs(1)).await;
    }
}

/// A directory that goes when dropped.
struct TempDir(std::path::PathBuf);

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_comes_back_with_what_it_had() {
    let host = Host::real();
    let dir = TempDir(std::env::temp_dir().join(format!("plimsoll-controller-{}", std::process::id())));
    let start = async |bootstrap: bool| {
        let listener = host.network.bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let peers = BTreeMap::from([(ControllerId(1), address)]);
        let settings = ControllerSettings { bootstrap, ..ControllerSettings::new(ControllerId(1), peers) };
        let disk = ControllerSettings::open_disk(&dir.0).unwrap();
        Controller::start(host.clone(), settings, disk, &dir.0, listener).await
    };
    let refused = start(false).await.unwrap_err();
    assert!(matches!(refused, ControllerError::DataDir(DataDirError::NotBootstrapped { .. })), "{refused}");

    let first = [start(true).await.unwrap()];
    leader(&host, &first).await;
    let node = Node::start(&host, &first[0], 1).await;
    let mut admin = AdminClient::new(channel(&host, &first[0]));
    admin.create_topic(create("kept", v1::TopicConfig::default())).await.unwrap();
    let producer = admin.init_producer(v1::InitProducerRequest {}).await.unwrap().into_inner().producer_id;
    let cluster_id = first[0].cluster_id();
    let state = first[0].raft().view().state.clone();
    drop(node);
    let [first] = first;
    first.stop(Duration::from_secs(1)).await;

    let second = [start(false).await.unwrap()];
    leader(&host, &second).await;
    assert_eq!(second[0].cluster_id(), cluster_id);
    let view = second[0].raft().view();
    assert_eq!(view.state.topics(), state.topics());
    let mut admin = AdminClient::new(channel(&host, &second[0]));
    let next = admin.init_producer(v1::InitProducerRequest {}).await.unwrap().into_inner().producer_id;
    assert!(next > producer, "ids are never given twice");
    let [second] = second;
    second.stop(Duration::from_secs(1)).await;
}
