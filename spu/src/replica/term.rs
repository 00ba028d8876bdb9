//! What the metadata image tells a leader, and what the leader asks for.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_proto::ids::{Incarnation, LeaderEpoch, Offset, PartitionEpoch, SpuId};

/// A partition as the committed metadata has it, from the point of view of its leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The leader.
    pub me: SpuId,
    /// Its epoch.
    pub epoch: LeaderEpoch,
    /// Version of set and assignment.
    pub partition_epoch: PartitionEpoch,
    /// The committed in-sync set, the leader included.
    pub in_sync: BTreeSet<SpuId>,
    /// The other replicas.
    pub peers: BTreeMap<SpuId, Peer>,
    /// Members that a set needs for acks=all.
    pub min_in_sync: usize,
    /// Whether only synced records count.
    pub flush_ack: bool,
    /// Its replicas live in the physical reserve: a full volume is as good as another.
    pub in_reserve: bool,
}

/// Another replica of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The incarnation of its node that is registered; `None` when the node is not known.
    pub incarnation: Option<Incarnation>,
    /// Whether its node is online and its volume writable.
    pub writable: bool,
}

/// Ends of the leader's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnds {
    /// End of the log, exclusive.
    pub log_end: Offset,
    /// End of what is synced, exclusive.
    pub durable_end: Offset,
}

/// Another in-sync set that the leader wants committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The set it should be.
    pub in_sync: BTreeSet<SpuId>,
    /// The version that it replaces.
    pub partition_epoch: PartitionEpoch,
    /// Why, for events.
    pub reason: String,
}

/// Why a produce is refused before it is appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProduceRefusal {
    /// The in-sync set is too small, or too many of its members have no room.
    NotEnoughInSync {
        /// The committed set.
        in_sync: Vec<SpuId>,
        /// Members needed.
        min_in_sync: usize,
        /// Who is out, or in and full, and why.
        out: Vec<(SpuId, String)>,
    },
    /// No heartbeat was answered for the length of the lease: another leader may be at work.
    LeaseRanOut,
}
