//! What a volume tells its owner: on opening, on ticks, on request.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_proto::disk::{DiskCause, DiskLevel};
use plimsoll_proto::ids::{ClusterId, Offset, PartitionId, SpuId, VolumeId};

use crate::fs::{DiskError, FailureCause};
use crate::space::{Borrowed, Drill, LevelCause, MarksInvalid, ReclaimReason};

/// Why a volume can't be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the directory. Exit code 5.
    #[error("{directory} is in use by another process")]
    Locked {
        /// The directory, for people.
        directory: String,
    },
    /// The directory belongs to another cluster or node. Exit code 5.
    #[error("{directory} belongs to SPU {found_spu} of cluster {found_cluster}, volume {volume}")]
    ForeignIdentity {
        /// The directory, for people.
        directory: String,
        /// Whose cluster it is.
        found_cluster: ClusterId,
        /// Whose node it is.
        found_spu: SpuId,
        /// The volume's own identity.
        volume: VolumeId,
    },
    /// The directory's identity file is damaged, or of a newer version.
    #[error("{directory}: the identity file is {why}")]
    BadIdentity {
        /// The directory, for people.
        directory: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The configured marks do not fit this volume. Exit code 7.
    #[error("{directory}: {invalid}")]
    Marks {
        /// The directory, for people.
        directory: String,
        /// Which marks, and why.
        invalid: MarksInvalid,
    },
    /// The disk refuses.
    #[error("{directory}: {error}")]
    Disk {
        /// The directory, for people.
        directory: String,
        /// What it said.
        error: DiskError,
    },
}

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OpenReport {
    /// The directory was fresh.
    pub created: bool,
    /// The last run closed the volume in order.
    pub clean: bool,
    /// The machine or the mount is another one than at the last run, and that run did not end in order:
    /// logs without `flush = ack` may have lost acknowledged records.
    pub page_cache_lost: bool,
    /// This open or an earlier one found the page cache lost, and [`super::Volume::loss_told`] was not called since:
    /// a start that could not tell anybody must not make the loss forgotten.
    pub loss_untold: bool,
    /// The device failed in the last run: what no sync covers counts as lost with the page cache, and is written
    /// anew before a sync covers it.
    pub device_failed: bool,
    /// Torn tails that were cut, all beyond the durable end.
    pub cut: Vec<TailCut>,
    /// Offset ranges to be fetched from other replicas.
    pub damaged: Vec<DamagedRange>,
    /// Partition directories that could not be opened; they are left alone.
    pub failed: Vec<(PartitionId, DiskError)>,
    /// Entries of the directory that are not ours; they are left alone.
    pub unknown_entries: u64,
}

/// A tail that recovery cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailCut {
    /// Where.
    pub partition: PartitionId,
    /// New end of the log.
    pub log_end: Offset,
    /// Bytes that were cut.
    pub bytes: u64,
}

/// Offsets that are not readable here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// Where.
    pub partition: PartitionId,
    /// First offset.
    pub from: Offset,
    /// Offset behind the last.
    pub to: Offset,
}

/// Something that happened to a volume; each is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeEvent {
    /// The level changed.
    LevelChanged {
        /// Before.
        from: DiskLevel,
        /// Now.
        to: DiskLevel,
        /// Why, when it is not Normal.
        cause: Option<LevelCause>,
        /// Free bytes as last known.
        free_bytes: u64,
    },
    /// A segment was deleted: an audit event.
    Reclaimed {
        /// Where.
        partition: PartitionId,
        /// First offset that went.
        from: Offset,
        /// The log starts here now.
        to: Offset,
        /// Bytes given back.
        bytes: u64,
        /// By what right.
        reason: ReclaimReason,
    },
    /// The volume could leave ReadOnly by its figures, but the trial of what had failed fails still.
    CanaryFailed {
        /// What it said.
        error: DiskError,
    },
    /// The volume failed; it takes no more writes.
    Failed {
        /// What failed.
        cause: FailureCause,
    },
    /// Damage was met while reading.
    Damaged(DamagedRange),
}

/// What replication knows and deletion must respect, by partition; a partition without an entry is only
/// trimmed by retention, up to its high watermark.
pub type ReplicaGuards = BTreeMap<PartitionId, ReplicaGuard>;

/// See [`ReplicaGuards`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReplicaGuard {
    /// This replica leads: only then may pressure trim unexpired data.
    pub leads: bool,
    /// Nothing at or beyond this offset may go: it is on fewer than `min_in_sync` replicas. `None` = the high
    /// watermark is the bound.
    pub replicated_to: Option<Offset>,
    /// Lowest offset of the groups active in the last 24 h; pressure trimming stops there.
    pub group_floor: Option<Offset>,
}

/// Figures of a volume, for heartbeats and people. Bytes unless named otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeFacts {
    /// Size of the filesystem, or the byte limit.
    pub capacity_bytes: u64,
    /// Free for records, own unused preallocation included.
    pub free_bytes: u64,
    /// Taken by logs.
    pub used_bytes: u64,
    /// Inodes of the filesystem; `None` when it does not say.
    pub total_inodes: Option<u64>,
    /// Free inodes; `None` when the filesystem does not say.
    pub free_inodes: Option<u64>,
    /// Own preallocation not written yet.
    pub preallocated_bytes: u64,
    /// Unlinked but still open.
    pub pending_bytes: u64,
    /// Physical reserve held.
    pub reserve_bytes: u64,
    /// The level.
    pub level: DiskLevel,
    /// Why it is not Normal.
    pub cause: Option<DiskCause>,
    /// Why it is Failed.
    pub failure: Option<FailureCause>,
    /// Since when, on the caller's clock.
    pub since: Duration,
    /// At the present slope; `None` when not filling.
    pub time_to_full: Option<Duration>,
    /// Bytes a second that become less, by everybody; negative when they become more.
    pub fill_bytes_per_s: i64,
    /// End of a hold against flapping, on the caller's clock.
    pub hold_until: Option<Duration>,
    /// Allocation does not reserve on this filesystem.
    pub unreserved: bool,
    /// The last sample is missing, late or impossible: the figures are old.
    pub stale: bool,
    /// A drill that runs: `free_bytes` is what it pretends.
    pub drill: Option<Drill>,
    /// By how much the mark of ReadOnly is lowered.
    pub borrowed: Option<Borrowed>,
    /// What the last reclaim under pressure wanted and nothing allowed could give.
    pub reclaim_missing_bytes: u64,
}
