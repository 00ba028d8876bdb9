//! What sessions, peers and the control link ask of the node, and what they get.

use std::time::Duration;

use bytes::Bytes;
use plimsoll_proto::ids::{Incarnation, LeaderEpoch, Offset, PartitionEpoch, PartitionId, SpuId, VolumeId};
use plimsoll_proto::v1;
use tokio::sync::oneshot;

/// One batch for one partition.
#[derive(Clone, Debug)]
pub struct ProduceJob {
    /// Where to.
    pub partition: PartitionId,
    /// The leader epoch as the client knows it; another one is refused.
    pub leader_epoch: LeaderEpoch,
    /// When it is acknowledged.
    pub acks: v1::Acks,
    /// How long the in-sync set may take; at most 60 s.
    pub timeout: Duration,
    /// One record batch, version 2.
    pub batch: Bytes,
}

/// The answer to one produce.
pub type ProduceResult = v1::produce_response::Result;

/// Where a fetch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchFrom {
    /// At this offset.
    Offset(Offset),
    /// At the start of the log.
    Earliest,
    /// At the high watermark.
    Latest,
}

/// One read of a partition.
#[derive(Clone, Copy, Debug)]
pub struct FetchJob {
    /// Where from.
    pub partition: PartitionId,
    /// Which offset.
    pub from: FetchFrom,
    /// Bytes wanted at most; a first batch that is larger comes whole.
    pub bytes_max: usize,
    /// Serve also when not leading, up to the high watermark known here.
    pub any_replica: bool,
    /// As the client knows it; another one is refused. `None` when it does not know.
    pub leader_epoch: Option<LeaderEpoch>,
    /// How long to wait for the first record. Zero answers at once.
    pub wait_max: Duration,
}

/// What a fetch found. Empty `batches` after `wait_max` without a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Whole batches in order, none at or beyond the high watermark.
    pub batches: Bytes,
    /// End of committed records.
    pub high_watermark: Offset,
    /// First offset that is there.
    pub log_start: Offset,
    /// Where the next fetch goes on.
    pub next_offset: Offset,
    /// Epoch of the leader as known here.
    pub leader_epoch: LeaderEpoch,
}

/// Which ends of a partition are asked for.
#[derive(Clone, Copy, Debug)]
pub struct ListOffsetsJob {
    /// Which partition.
    pub partition: PartitionId,
    /// Answer also when not leading.
    pub any_replica: bool,
    /// Look for the first record at or after this time, milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
}

/// What the node wants of the leading controller. The control link sends it, with its cluster id.
#[derive(Debug)]
pub enum ControlRequest {
    /// A leader proposes another in-sync set.
    ChangeInSync(ChangeInSync),
    /// One of the node's volumes should change its state. Retried by the control link with backoff until an
    /// applied one answers; the node asks again while the metadata image does not show the wanted state, so a
    /// request for a volume replaces an older one for the same volume.
    ChangeVolume(ChangeVolume),
    /// The node should be registered anew, as this registration is spent: what a volume had under it is uncertain.
    /// Asked again while no other one is there.
    RegisterAgain(Incarnation),
}

/// See [`ControlRequest::ChangeInSync`].
#[derive(Debug)]
pub struct ChangeInSync {
    /// Which partition.
    pub partition: PartitionId,
    /// Incarnation of this node.
    pub incarnation: Incarnation,
    /// Epoch of the proposing leader.
    pub leader_epoch: LeaderEpoch,
    /// Expected; another one is a no-op.
    pub partition_epoch: PartitionEpoch,
    /// The set proposed.
    pub in_sync: Vec<(SpuId, Incarnation)>,
    /// Why, for events.
    pub reason: String,
    /// What became of it. Dropped without an answer means not known: the leader proposes again, with the same
    /// expectation.
    pub answer: oneshot::Sender<v1::ChangeInSyncResponse>,
}

/// See [`ControlRequest::ChangeVolume`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeVolume {
    /// Which volume.
    pub volume: VolumeId,
    /// Incarnation of this node.
    pub incarnation: Incarnation,
    /// The state the node believes the volume is in.
    pub expected: v1::VolumeState,
    /// The state it should be in.
    pub wanted: v1::VolumeState,
    /// Why, for events.
    pub reason: String,
}
