//! Topics, partitions and where their replicas are.

use std::collections::BTreeSet;

use plimsoll_proto::ids::{Incarnation, LeaderEpoch, PartitionEpoch, SpuId, TopicId, VolumeId};
use plimsoll_proto::v1;

/// Where the log of a replica stood that lost its page cache.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CacheLoss {
    /// Leader epoch of its last batch.
    pub last_epoch: LeaderEpoch,
    /// End of its log when it reported.
    pub log_end: u64,
}

/// One copy of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replica {
    /// The node that holds it.
    pub spu: SpuId,
    /// The volume that holds it.
    pub volume: VolumeId,
    /// Set while the replica may not lead because it lost its page cache and has not caught up since.
    pub cache_lost: Option<CacheLoss>,
}

/// One partition.
///
/// Invariants: the in-sync set is never empty and holds replicas only; a leader is in the set; every change
/// raises `partition_epoch`, every change of the leader or of its incarnation raises `leader_epoch`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// In order of preference: the first one leads when it can.
    pub replicas: Vec<Replica>,
    /// Who holds every committed record.
    pub in_sync: BTreeSet<SpuId>,
    /// Who leads; `None` only while every candidate lost its page cache and not all have reported.
    pub leader: Option<(SpuId, Incarnation)>,
    /// Fences former leaders.
    pub leader_epoch: LeaderEpoch,
    /// Version of this partition.
    pub partition_epoch: PartitionEpoch,
}

impl Partition {
    /// The replica on a node, if there is one.
    pub fn replica(&self, spu: SpuId) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.spu == spu)
    }

    /// The node that leads.
    pub fn leader_spu(&self) -> Option<SpuId> {
        self.leader.map(|(spu, _)| spu)
    }

    /// Whether a replica is on the node.
    pub fn is_on(&self, spu: SpuId) -> bool {
        self.replica(spu).is_some()
    }

    /// The partition as metadata shows it.
    pub fn to_info(&self, index: u32) -> v1::PartitionInfo {
        v1::PartitionInfo {
            index,
            replicas: self
                .replicas
                .iter()
                .map(|replica| v1::ReplicaAssignment {
                    spu_id: replica.spu.0,
                    volume_id: replica.volume.to_bytes(),
                })
                .collect(),
            in_sync: self.in_sync.iter().map(|spu| spu.0).collect(),
            leader: self.leader.map_or(0, |(spu, _)| spu.0),
            leader_epoch: self.leader_epoch.0,
            partition_epoch: self.partition_epoch.0,
            leader_incarnation: self.leader.map_or(0, |(_, incarnation)| incarnation.0),
        }
    }
}

/// One topic.
#[derive(Clone, PartialEq, Debug)]
pub struct Topic {
    /// Unique among the topics that exist.
    pub name: String,
    /// How its partitions are stored.
    pub config: v1::TopicConfig,
    /// By index.
    pub partitions: Vec<Partition>,
}

impl Topic {
    /// The topic as metadata shows it.
    pub fn to_info(&self, id: TopicId) -> v1::TopicInfo {
        v1::TopicInfo {
            topic_id: id.to_bytes(),
            name: self.name.clone(),
            config: Some(self.config),
            partitions: (0u32..).zip(&self.partitions).map(|(index, p)| p.to_info(index)).collect(),
        }
    }
}
