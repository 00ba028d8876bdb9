//! Errors of appending and reading, by what the caller must do.

use plimsoll_proto::batch::{BatchError, Sequence};
use plimsoll_proto::disk::{DiskCause, DiskLevel};
use plimsoll_proto::ids::{LeaderEpoch, Offset};

use crate::fs::{DiskError, FailureCause};

/// Why nothing was appended. Whatever the variant: the batch is not in the log and never will be, and no
/// sequence was consumed, unless the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No room. Refuse with DISK_FULL; room may come back.
    #[error(
        "out of space ({cause}): {needed_bytes} bytes needed, {free_bytes} of {capacity_bytes} free, level {level}"
    )]
    OutOfSpace {
        /// Which resource ran out.
        cause: DiskCause,
        /// Free bytes as last known.
        free_bytes: u64,
        /// Bytes that the append needs.
        needed_bytes: u64,
        /// Size of the volume.
        capacity_bytes: u64,
        /// Level of the volume after this refusal.
        level: DiskLevel,
    },
    /// The device failed; the volume takes no more writes. Try elsewhere.
    ///
    /// Nothing of this append stays visible in this process. Bytes that the failing device took may turn up
    /// when the log is opened again, so the outcome is unknown if `written` says so.
    #[error("volume failed: {cause}")]
    VolumeFailed {
        /// What failed.
        cause: FailureCause,
        /// Whether bytes of the batch may have reached the file and could not be cut away.
        written: bool,
    },
    /// A passing lack of file handles or memory, or an unclassified failure. Retry later.
    #[error("temporary failure: {0}")]
    Temporary(DiskError),
    /// The producer skipped or repeated a sequence. Resend from `expected`.
    #[error("out of order: sequence {expected} was expected")]
    OutOfOrderSequence {
        /// The next sequence of this producer.
        expected: Sequence,
    },
    /// A newer epoch of this producer has written. Stop.
    #[error("producer is fenced by a newer epoch")]
    ProducerFenced,
    /// The state of this producer is no longer known, so a duplicate could not be told. Start a new
    /// producer epoch.
    #[error("producer is not known (any more)")]
    UnknownProducer,
    /// A newer leader epoch is in the log. Refresh metadata.
    #[error("leader epoch {given} is behind {current}")]
    StaleEpoch {
        /// Of the append.
        given: LeaderEpoch,
        /// Of the log.
        current: LeaderEpoch,
    },
    /// The bytes are not an acceptable batch. Don't retry.
    #[error("corrupt batch: {0}")]
    Corrupt(#[from] BatchError),
    /// The batch is larger than the topic allows. Don't retry.
    #[error("batch is over the limit of {limit} bytes")]
    TooLarge {
        /// Greatest batch.
        limit: usize,
    },
    /// A follower's batch does not continue its log. Truncate or fetch from `log_end`.
    #[error("batch at {found} does not continue the log, which ends at {log_end}")]
    NotContiguous {
        /// Base offset of the batch.
        found: Offset,
        /// End of the log.
        log_end: Offset,
    },
    /// No offsets are left in this partition.
    #[error("offsets are exhausted")]
    OffsetsExhausted,
    /// There is no such partition on this volume.
    #[error("partition is not on this volume")]
    NotFound,
}

/// Why nothing could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The offset was deleted by retention. Go on at `log_start`, or as the consumer's policy says.
    #[error("offset {requested} was trimmed; the log starts at {log_start}")]
    OffsetTrimmed {
        /// What was asked for.
        requested: Offset,
        /// The next offset that is there.
        log_start: Offset,
    },
    /// The offset is not written yet.
    #[error("offset {requested} is behind the end of the log, {log_end}")]
    OffsetNotAvailable {
        /// What was asked for.
        requested: Offset,
        /// End of the log.
        log_end: Offset,
    },
    /// The bytes of these offsets are damaged; the segment is quarantined. Read from another replica.
    #[error("offsets {from} to {to} are damaged")]
    Damaged {
        /// First damaged offset.
        from: Offset,
        /// Offset behind the damage.
        to: Offset,
    },
    /// The disk could not be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no such partition on this volume.
    #[error("partition is not on this volume")]
    NotFound,
}
