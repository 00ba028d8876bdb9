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

/// A partition on its way to other nodes. Its replicas are the old and the new ones meanwhile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reassignment {
    /// The replicas that there will be, in order of preference.
    pub to: Vec<(SpuId, VolumeId)>,
    /// The replicas that there were.
    pub from: Vec<(SpuId, VolumeId)>,
    /// Why.
    pub cause: MoveCause,
    /// Index of the entry that began it.
    pub since_index: u64,
}

/// Why replicas move.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MoveCause {
    /// Somebody asked for just this.
    Asked,
    /// A node is drained.
    Drain,
    /// A volume is short of room.
    Relief,
}

impl MoveCause {
    /// The cause as it travels.
    pub fn to_wire(self) -> v1::MoveCause {
        match self {
            Self::Asked => v1::MoveCause::Asked,
            Self::Drain => v1::MoveCause::Drain,
            Self::Relief => v1::MoveCause::Relief,
        }
    }

    /// Reads the cause as it travels; `None` when the sender did not say.
    pub fn from_wire(cause: v1::MoveCause) -> Option<Self> {
        match cause {
            v1::MoveCause::Unspecified => None,
            v1::MoveCause::Asked => Some(Self::Asked),
            v1::MoveCause::Drain => Some(Self::Drain),
            v1::MoveCause::Relief => Some(Self::Relief),
        }
    }

    /// In a word, for events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked for",
            Self::Drain => "its node is drained",
            Self::Relief => "its volume is short of room",
        }
    }
}

/// Replicas as they travel.
pub(super) fn assignments(places: &[(SpuId, VolumeId)]) -> Vec<v1::ReplicaAssignment> {
    places
        .iter()
        .map(|(spu, volume)| v1::ReplicaAssignment { spu_id: spu.0, volume_id: volume.to_bytes() })
        .collect()
}

/// One partition.
///
/// Invariants: the in-sync set is never empty and holds replicas only; a leader is in the set; `eligible` holds
/// replicas outside of the set only, and nobody while the set has its minimum; every change raises
/// `partition_epoch`, every change of the leader or of its incarnation raises `leader_epoch`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// In order of preference: the first one leads when it can.
    pub replicas: Vec<Replica>,
    /// Who holds every committed record.
    pub in_sync: BTreeSet<SpuId>,
    /// Who left the set when it fell below the minimum of the topic, and holds every committed record all the
    /// same: nothing is committed by a smaller set.
    pub eligible: BTreeSet<SpuId>,
    /// Who leads; `None` only while every candidate lost its page cache and not all have reported.
    pub leader: Option<(SpuId, Incarnation)>,
    /// Fences former leaders.
    pub leader_epoch: LeaderEpoch,
    /// Version of this partition.
    pub partition_epoch: PartitionEpoch,
    /// Leader epoch of the last election that may have lost committed records; 0 when there was none.
    pub lossy_epoch: LeaderEpoch,
    /// Where it is going, while it is.
    pub reassignment: Option<Reassignment>,
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

    /// Whether the replica holds every committed record, as far as its page cache is intact.
    pub fn is_complete(&self, spu: SpuId) -> bool {
        self.in_sync.contains(&spu) || self.eligible.contains(&spu)
    }

    /// Whether a replica is on the node.
    pub fn is_on(&self, spu: SpuId) -> bool {
        self.replica(spu).is_some()
    }

    /// Where its replicas are, in order of preference.
    pub fn places(&self) -> Vec<(SpuId, VolumeId)> {
        self.replicas.iter().map(|replica| (replica.spu, replica.volume)).collect()
    }

    /// The partition as metadata shows it.
    pub fn to_info(&self, index: u32) -> v1::PartitionInfo {
        v1::PartitionInfo {
            index,
            replicas: assignments(&self.places()),
            in_sync: self.in_sync.iter().map(|spu| spu.0).collect(),
            leader: self.leader.map_or(0, |(spu, _)| spu.0),
            leader_epoch: self.leader_epoch.0,
            partition_epoch: self.partition_epoch.0,
            leader_incarnation: self.leader.map_or(0, |(_, incarnation)| incarnation.0),
            eligible: self.eligible.iter().map(|spu| spu.0).collect(),
            lossy_epoch: self.lossy_epoch.0,
            reassignment: self.reassignment.as_ref().map(|moving| v1::Reassignment {
                to: assignments(&moving.to),
                from: assignments(&moving.from),
                cause: moving.cause.to_wire().into(),
                since_index: moving.since_index,
            }),
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
    /// It was once not `flush = ack`: a lost page cache may have cost acknowledged records.
    pub was_not_synced: bool,
}

impl Topic {
    /// The topic as metadata shows it.
    pub fn to_info(&self, id: TopicId) -> v1::TopicInfo {
        v1::TopicInfo {
            topic_id: id.to_bytes(),
            name: self.name.clone(),
            config: Some(self.config),
            partitions: (0u32..).zip(&self.partitions).map(|(index, p)| p.to_info(index)).collect(),
            was_not_synced: self.was_not_synced,
        }
    }
}
