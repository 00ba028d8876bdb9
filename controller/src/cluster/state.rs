//! The state itself and the questions asked of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use plimsoll_proto::ids::{ClusterId, Incarnation, MetadataVersion, PartitionId, SpuId, TopicId, VolumeId};
use plimsoll_proto::v1;

use super::controllers::Controllers;
use super::node::{Duty, Spu, SpuState, Volume};
use super::partition::{Partition, Topic};

/// How many events are remembered; the oldest make room.
pub const EVENTS_MAX: usize = 10_000;

/// Everything the cluster has agreed on.
///
/// A clone shares what did not change since (nodes, topics and events are behind `Arc`), so that a picture
/// can be handed to readers after each batch of entries.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ClusterState {
    pub(super) cluster_id: Option<ClusterId>,
    /// Index of the last entry applied.
    pub(super) version: u64,
    pub(super) next_producer_id: u64,
    pub(super) no_ops: u64,
    /// Version of the rules of the latest entry.
    pub(super) rules: u32,
    pub(super) controllers: Controllers,
    pub(super) spus: BTreeMap<SpuId, Arc<Spu>>,
    pub(super) topics: BTreeMap<TopicId, Arc<Topic>>,
    /// Derived from `topics`.
    pub(super) names: BTreeMap<String, TopicId>,
    pub(super) events: VecDeque<Arc<v1::ClusterEvent>>,
    /// How many events of each kind there ever were; their memory is shorter.
    pub(super) event_counts: BTreeMap<String, u64>,
    /// Topics that were deleted, by the entry that did it, oldest first: nodes delete nothing else.
    pub(super) deleted: VecDeque<(u64, TopicId)>,
}

/// How many partitions are short of something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaderlessCounts {
    /// All partitions.
    pub partitions: u32,
    /// Without a leader on a live node.
    pub without_leader: u32,
    /// With fewer in-sync members than replicas.
    pub under_replicated: u32,
    /// With fewer in-sync members than the topic asks for.
    pub below_min_in_sync: u32,
}

impl ClusterState {
    /// The state before the first entry.
    pub fn empty() -> Self {
        Self { next_producer_id: 1, ..Self::default() }
    }

    /// The identity of the cluster, once it is bootstrapped.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster_id
    }

    /// Index of the last entry that was applied.
    pub fn version(&self) -> MetadataVersion {
        MetadataVersion(self.version)
    }

    /// How many entries were applied without effect.
    pub fn no_ops(&self) -> u64 {
        self.no_ops
    }

    /// The controllers, as agreed on.
    pub fn controllers(&self) -> &Controllers {
        &self.controllers
    }

    /// Every registered node.
    pub fn spus(&self) -> &BTreeMap<SpuId, Arc<Spu>> {
        &self.spus
    }

    /// One node.
    pub fn spu(&self, id: SpuId) -> Option<&Spu> {
        self.spus.get(&id).map(Arc::as_ref)
    }

    /// One volume of a node.
    pub fn volume(&self, spu: SpuId, volume: VolumeId) -> Option<&Volume> {
        self.spu(spu)?.volumes.get(&volume)
    }

    /// The run of the node that is registered, offline or not.
    pub fn incarnation(&self, spu: SpuId) -> Option<Incarnation> {
        self.spu(spu).map(|spu| spu.incarnation)
    }

    /// The state of a node; an unknown one is offline.
    pub fn spu_state(&self, spu: SpuId) -> SpuState {
        self.spu(spu).map_or(SpuState::Offline, |spu| spu.state)
    }

    /// What the operator of a node wants of it.
    pub fn duty(&self, spu: SpuId) -> Duty {
        self.spu(spu).map_or(Duty::Serving, |spu| spu.duty)
    }

    /// Whether a volume takes writes; an unknown one does not.
    pub fn is_writable(&self, spu: SpuId, volume: VolumeId) -> bool {
        self.volume(spu, volume).is_some_and(|volume| volume.state.is_writable())
    }

    /// Every topic.
    pub fn topics(&self) -> &BTreeMap<TopicId, Arc<Topic>> {
        &self.topics
    }

    /// Topics that were deleted, oldest first; the latest `DELETED_TOPICS_MAX` of them.
    pub fn deleted_topics(&self) -> impl Iterator<Item = TopicId> {
        self.deleted.iter().map(|(_, id)| *id)
    }

    /// One topic.
    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id).map(Arc::as_ref)
    }

    /// The topic of a name.
    pub fn topic_by_name(&self, name: &str) -> Option<(TopicId, &Topic)> {
        let id = *self.names.get(name)?;
        Some((id, self.topic(id)?))
    }

    /// One partition.
    pub fn partition(&self, id: PartitionId) -> Option<&Partition> {
        let index = usize::try_from(id.index).ok()?;
        self.topic(id.topic_id)?.partitions.get(index)
    }

    /// Every partition with its topic, in order.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, &Topic, &Partition)> {
        self.topics.iter().flat_map(|(topic_id, topic)| {
            (0u32..).zip(&topic.partitions).map(move |(index, partition)| {
                (PartitionId { topic_id: *topic_id, index }, topic.as_ref(), partition)
            })
        })
    }

    /// Events of entries after `index`, oldest first.
    pub fn events_after(&self, index: u64) -> impl Iterator<Item = &v1::ClusterEvent> {
        let start = self.events.partition_point(|event| event.index <= index);
        self.events.range(start..).map(Arc::as_ref)
    }

    /// How many events of each kind there ever were, in order of kinds.
    pub fn event_counts(&self) -> Vec<v1::EventCount> {
        let count = |(kind, total): (&String, &u64)| v1::EventCount { kind: kind.clone(), total: *total };
        self.event_counts.iter().map(count).collect()
    }

    /// What is short of something, over all partitions.
    pub fn counts(&self) -> LeaderlessCounts {
        let mut counts = LeaderlessCounts::default();
        for (_, topic, partition) in self.partitions() {
            counts.partitions += 1;
            let led = partition.leader_spu().is_some_and(|spu| self.spu_state(spu).is_live());
            counts.without_leader += u32::from(!led);
            counts.under_replicated += u32::from(partition.in_sync.len() < partition.replicas.len());
            let minimum = usize::try_from(topic.config.min_in_sync).unwrap_or(usize::MAX);
            counts.below_min_in_sync += u32::from(partition.in_sync.len() < minimum);
        }
        counts
    }
}
