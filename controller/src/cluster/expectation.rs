//! Why an entry was applied without effect.

use std::fmt;

/// The expectation of an entry that did not hold when it was applied. Such an entry is a counted no-op.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mismatch {
    /// The entry is of rules this build does not know; all controllers must be upgraded first.
    UnknownRules,
    /// The entry is malformed; no honest proposer makes it.
    Malformed,
    /// The index was applied before.
    AlreadyApplied,
    /// The cluster has its identity already.
    AlreadyBootstrapped,
    /// The cluster has no identity yet.
    NotBootstrapped,
    /// No such storage node is registered.
    UnknownSpu,
    /// The node has no such volume.
    UnknownVolume,
    /// No such topic, or no such partition of it.
    UnknownPartition,
    /// A topic of this name or id exists.
    TopicExists,
    /// The entry is about a run of the node, or of a member, that is over.
    StaleIncarnation,
    /// The state to change from is another one.
    OtherState,
    /// The states do not follow one another.
    ForbiddenTransition,
    /// The partition is led by another replica or in another leader epoch.
    StaleLeaderEpoch,
    /// The partition changed since the entry was made.
    StalePartitionEpoch,
    /// A member may not join: its volume takes no writes, its node is offline, or it has no replica.
    IneligibleMember,
    /// The replica chosen to lead may not.
    IneligibleLeader,
    /// A chosen node or volume is no longer fit to hold a new replica.
    PlacementChanged,
    /// Nothing would change.
    Unchanged,
    /// The configuration to change from is another one.
    OtherConfig,
    /// The only in-sync copy that lives would be out of service.
    LastCopy,
    /// The partition is on its way already.
    MoveUnderWay,
    /// The partition is not on its way anywhere.
    NoMove,
    /// Not every new replica is in sync yet.
    NotInSyncYet,
    /// The operator of the node keeps it out of service.
    OutOfService,
    /// The id was a controller's that left: it is never used again.
    FormerController,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownRules => "rules of a newer version",
            Self::Malformed => "malformed entry",
            Self::AlreadyApplied => "already applied",
            Self::AlreadyBootstrapped => "the cluster is bootstrapped",
            Self::NotBootstrapped => "the cluster is not bootstrapped",
            Self::UnknownSpu => "unknown SPU",
            Self::UnknownVolume => "unknown volume",
            Self::UnknownPartition => "unknown partition",
            Self::TopicExists => "the topic exists",
            Self::StaleIncarnation => "stale incarnation",
            Self::OtherState => "another state than expected",
            Self::ForbiddenTransition => "forbidden transition",
            Self::StaleLeaderEpoch => "stale leader epoch",
            Self::StalePartitionEpoch => "stale partition epoch",
            Self::IneligibleMember => "a member is not eligible",
            Self::IneligibleLeader => "the replica may not lead",
            Self::PlacementChanged => "a placement target is no longer fit",
            Self::Unchanged => "nothing to change",
            Self::OtherConfig => "another configuration than expected",
            Self::LastCopy => "the only in-sync copy of a partition is there",
            Self::MoveUnderWay => "the partition is on its way already",
            Self::NoMove => "the partition is not on its way",
            Self::NotInSyncYet => "new replicas are not in sync yet",
            Self::OutOfService => "the node is out of service: `plimsoll spu online` brings it back",
            Self::FormerController => "the id was that of a former controller; take another one",
        })
    }
}
