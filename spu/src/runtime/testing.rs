//! Nodes on disks in memory, with metadata made by hand, for tests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plimsoll_host::Host;
use plimsoll_proto::batch::{BatchBuilder, Compression, NewRecord, ProducerSequence, Sequence, records};
use plimsoll_proto::ids::{
    ClusterId, Incarnation, LeaderEpoch, MetadataVersion, PartitionId, ProducerEpoch, ProducerId, TopicId,
    VolumeId,
};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1::{self, Acks};
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings};
use tokio::sync::mpsc;

use super::{
    ControlRequest, FetchFrom, FetchJob, Fetched, Following, Node, NodeHandle, NodeSettings, ProduceJob,
    ProduceResult,
};

pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);
pub(crate) const PARTITION: PartitionId = PartitionId { topic_id: TopicId([9; 16]), index: 0 };

/// One node and its disk.
pub(crate) struct TestNode {
    pub(crate) handle: NodeHandle,
    pub(crate) disk: MemoryDisk,
    pub(crate) requests: mpsc::Receiver<ControlRequest>,
    pub(crate) volume: VolumeId,
}

/// Some nodes, numbered from 1, and the metadata they were last given. Incarnation = node * 10.
pub(crate) struct TestCluster {
    pub(crate) host: Host,
    pub(crate) nodes: Vec<TestNode>,
    pub(crate) image: MetadataImage,
}

impl TestCluster {
    /// `count` nodes with `capacity_bytes` each; one topic with one partition led by node 1.
    pub(crate) async fn new(count: u32, capacity_bytes: u64, config: v1::TopicConfig) -> Self {
        let host = Host::real();
        let mut image = MetadataImage { cluster_id: CLUSTER, ..MetadataImage::empty() };
        let mut nodes = Vec::new();
        for id in 1..=count {
            let disk = MemoryDisk::new(MemoryDiskSettings::plain(capacity_bytes));
            let node = start(&host, id, &disk).await;
            let info = v1::SpuInfo {
                spu_id: id,
                incarnation: u64::from(id) * 10,
                state: v1::SpuState::Online.into(),
                address: format!("node-{id}:1"),
                rack: String::new(),
                volumes: vec![v1::VolumeInfo {
                    volume_id: node.volume.to_bytes(),
                    state: v1::VolumeState::Writable.into(),
                    ..v1::VolumeInfo::default()
                }],
                ..v1::SpuInfo::default()
            };
            image.spus.insert(plimsoll_proto::ids::SpuId(id), info);
            nodes.push(node);
        }
        let replicas = nodes
            .iter()
            .zip(1..)
            .map(|(node, spu_id)| v1::ReplicaAssignment { spu_id, volume_id: node.volume.to_bytes() });
        let partition = v1::PartitionInfo {
            index: 0,
            replicas: replicas.collect(),
            in_sync: (1..=count).collect(),
            leader: 1,
            leader_epoch: 1,
            partition_epoch: 1,
            leader_incarnation: 10,
            ..v1::PartitionInfo::default()
        };
        let topic = v1::TopicInfo {
            topic_id: PARTITION.topic_id.to_bytes(),
            name: "t".to_owned(),
            config: Some(config),
            partitions: vec![partition],
            ..v1::TopicInfo::default()
        };
        image.topics.insert(PARTITION.topic_id, topic);
        let mut cluster = Self { host, nodes, image };
        for (node, id) in cluster.nodes.iter().zip(1..) {
            node.handle.set_incarnation(CLUSTER, Incarnation(id * 10));
            node.handle.heartbeat_answered(cluster.host.clock.now());
        }
        cluster.change(|_| {});
        cluster
    }

    pub(crate) fn node(&self, id: usize) -> &TestNode {
        &self.nodes[id - 1]
    }

    /// Commits a change of the partition and tells every node.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut v1::PartitionInfo)) {
        let topic = self.image.topics.get_mut(&PARTITION.topic_id).expect("the topic is there");
        change(&mut topic.partitions[0]);
        topic.partitions[0].partition_epoch += 1;
        self.publish();
    }

    /// Tells every node of the next version.
    pub(crate) fn publish(&mut self) {
        // The first version is beyond every incarnation.
        self.image.version = MetadataVersion(self.image.version.0.max(1000) + 1);
        for node in &self.nodes {
            node.handle.apply_metadata(Arc::new(self.image.clone()));
        }
    }

    /// Moves the leadership.
    pub(crate) fn lead(&mut self, id: u32) {
        self.change(|partition| {
            partition.leader = id;
            partition.leader_incarnation = u64::from(id) * 10;
            partition.leader_epoch += 1;
        });
    }

    /// One round of fetches: every follower asks its leader, as the fetchers do, without waiting.
    pub(crate) async fn replicate_round(&self) {
        for id in 1..=self.nodes.len() {
            self.replicate_by(id).await;
        }
    }

    /// The same by one node only.
    pub(crate) async fn replicate_by(&self, id: usize) {
        let node = self.node(id);
        for following in node.handle.following() {
            self.fetch_once(node, &following).await;
        }
    }

    async fn fetch_once(&self, node: &TestNode, following: &Following) {
        let positions = node.handle.positions(following).await.expect("the volume answers");
        let (spu, incarnation) = node.handle.identity();
        let request = v1::ReplicateRequest {
            cluster_id: CLUSTER.to_bytes(),
            fetch_id: 1,
            spu_id: spu.0,
            incarnation: incarnation.0,
            wait_ms_max: 0,
            bytes_max: 1 << 20,
            positions: positions.clone(),
        };
        let leader = self.node(following.leader.0 as usize);
        let response = leader.handle.replicate(request).await;
        assert_eq!(response.error, None);
        node.handle.replicated(following, positions, response.partitions).await;
    }

    /// Replicates until `done` says so.
    pub(crate) async fn replicate_until(&self, mut done: impl FnMut() -> bool) {
        let until = self.host.clock.now() + LIMIT;
        while !done() {
            assert!(self.host.clock.now() < until, "the condition was not met in time");
            self.replicate_round().await;
        }
    }
}

/// Longest wait of a test for a condition.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Opens a node on `disk`.
pub(crate) async fn start(host: &Host, id: u32, disk: &MemoryDisk) -> TestNode {
    let settings = NodeSettings {
        cluster_id: CLUSTER,
        spu_id: plimsoll_proto::ids::SpuId(id),
        disks: vec![Arc::new(disk.clone()) as SharedDisk],
        byte_limit: None,
        tuning: super::VolumeTuning::default(),
    };
    let (handle, report) = Node::open(host.clone(), settings).await.expect("the node opens");
    let requests = handle.control_requests().expect("taken once");
    TestNode { handle, disk: disk.clone(), requests, volume: report.volumes[0].id }
}

/// Opens a node with one volume on each of `disks`.
pub(crate) async fn open_on(
    host: &Host,
    disks: &[&MemoryDisk],
) -> Result<(NodeHandle, super::OpenReport), super::NodeError> {
    let settings = NodeSettings {
        cluster_id: CLUSTER,
        spu_id: plimsoll_proto::ids::SpuId(1),
        disks: disks.iter().map(|disk| Arc::new((*disk).clone()) as SharedDisk).collect(),
        byte_limit: None,
        tuning: super::VolumeTuning::default(),
    };
    Node::open(host.clone(), settings).await
}

/// Partition `n` of the topic.
pub(crate) fn partition(n: u32) -> PartitionId {
    PartitionId { index: n, ..PARTITION }
}

/// One registered node with two volumes; partition 0 is alone on the first, partition 1 on the second.
pub(crate) struct TwoVolumes {
    pub(crate) host: Host,
    pub(crate) disks: [MemoryDisk; 2],
    pub(crate) handle: NodeHandle,
    pub(crate) requests: mpsc::Receiver<ControlRequest>,
    pub(crate) volumes: [VolumeId; 2],
    pub(crate) image: MetadataImage,
}

impl TwoVolumes {
    pub(crate) async fn new(config: v1::TopicConfig) -> Self {
        let host = Host::real();
        let disks = [(); 2].map(|()| MemoryDisk::new(MemoryDiskSettings::plain(64 << 20)));
        let (handle, report) = open_on(&host, &[&disks[0], &disks[1]]).await.expect("both open");
        let volumes = [report.volumes[0].id, report.volumes[1].id];
        let info = |volume: &VolumeId| v1::VolumeInfo {
            volume_id: volume.to_bytes(),
            state: v1::VolumeState::Writable.into(),
            ..v1::VolumeInfo::default()
        };
        let spu = v1::SpuInfo {
            spu_id: 1,
            incarnation: 10,
            state: v1::SpuState::Online.into(),
            address: "node-1:1".to_owned(),
            volumes: volumes.iter().map(info).collect(),
            ..v1::SpuInfo::default()
        };
        let partitions = volumes.iter().zip(0..).map(|(volume, index)| v1::PartitionInfo {
            index,
            replicas: vec![v1::ReplicaAssignment { spu_id: 1, volume_id: volume.to_bytes() }],
            in_sync: vec![1],
            leader: 1,
            leader_epoch: 1,
            partition_epoch: 1,
            leader_incarnation: 10,
            ..v1::PartitionInfo::default()
        });
        let topic = v1::TopicInfo {
            topic_id: PARTITION.topic_id.to_bytes(),
            name: "t".to_owned(),
            config: Some(config),
            partitions: partitions.collect(),
            ..v1::TopicInfo::default()
        };
        let mut image = MetadataImage { cluster_id: CLUSTER, ..MetadataImage::empty() };
        image.version = MetadataVersion(1000);
        image.spus.insert(plimsoll_proto::ids::SpuId(1), spu);
        image.topics.insert(PARTITION.topic_id, topic);
        handle.set_incarnation(CLUSTER, Incarnation(10));
        handle.heartbeat_answered(host.clock.now());
        handle.apply_metadata(Arc::new(image.clone()));
        let requests = handle.control_requests().expect("taken once");
        Self { host, disks, handle, requests, volumes, image }
    }

    /// Produces to a partition, and again while its leadership has not been heard of.
    pub(crate) async fn produce(&self, index: u32, value: &[u8]) -> ProduceResult {
        loop {
            let job = ProduceJob { partition: partition(index), ..job(1, Acks::All, batch(value)) };
            match self.handle.produce(job).await.await.expect("every produce is answered") {
                ProduceResult::Error(detail) if detail.reason() == v1::Reason::NoLeader => {}
                answer => return answer,
            }
        }
    }
}

/// A topic with this many replicas.
pub(crate) fn config(replicas: u32, min_in_sync: u32) -> v1::TopicConfig {
    v1::TopicConfig {
        partitions: 1,
        replicas,
        min_in_sync,
        segment_bytes: 1 << 20,
        ..v1::TopicConfig::default()
    }
}

/// One batch with one record.
pub(crate) fn batch(value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(&NewRecord { value: Some(value), timestamp_ms: 5, ..NewRecord::default() }).expect("small");
    builder.build_shared().expect("one record")
}

/// One batch with one record of the same producer each time, which is its `base`-th.
pub(crate) fn sequenced(base: i32, value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(&NewRecord { value: Some(value), timestamp_ms: 5, ..NewRecord::default() }).expect("small");
    builder.set_producer(Some(ProducerSequence {
        id: ProducerId(7),
        epoch: ProducerEpoch(0),
        base: Sequence::from_i32(base).expect("not negative"),
    }));
    builder.build_shared().expect("one record")
}

/// Produces a batch in `epoch`.
pub(crate) fn job(epoch: u32, acks: Acks, batch: Bytes) -> ProduceJob {
    let timeout = Duration::from_secs(30);
    ProduceJob { partition: PARTITION, leader_epoch: LeaderEpoch(epoch), acks, timeout, batch }
}

/// Produces and waits for the answer.
pub(crate) async fn produce(node: &TestNode, job: ProduceJob) -> ProduceResult {
    node.handle.produce(job).await.await.expect("every produce is answered")
}

/// Produces, and again while the node has not heard of its leadership.
pub(crate) async fn produce_when_led(node: &TestNode, job: ProduceJob) -> ProduceResult {
    loop {
        match produce(node, job.clone()).await {
            ProduceResult::Error(detail)
                if matches!(detail.reason(), v1::Reason::NoLeader | v1::Reason::StaleLeaderEpoch) => {}
            answer => return answer,
        }
    }
}

/// The values from `from` on, as a consumer of that node reads them.
pub(crate) async fn read(
    node: &TestNode,
    from: FetchFrom,
    any_replica: bool,
) -> Result<Fetched, v1::ErrorDetail> {
    let job = FetchJob {
        partition: PARTITION,
        from,
        bytes_max: 1 << 20,
        any_replica,
        leader_epoch: None,
        wait_max: Duration::ZERO,
    };
    node.handle.fetch(job).await
}

/// Values of the records in whole batches.
pub(crate) fn values(fetched: &Fetched) -> Vec<String> {
    let batches = plimsoll_proto::batch::iter_batches(&fetched.batches);
    let values = |bytes: &Bytes| -> Vec<String> {
        let found = records(bytes, &plimsoll_proto::batch::Limits::CLIENT).expect("a good batch");
        found
            .map(|record| {
                let record = record.expect("a good record");
                String::from_utf8(record.value.expect("a value").to_vec()).expect("text")
            })
            .collect()
    };
    batches.flat_map(|item| values(&item.expect("a whole batch").1)).collect()
}
