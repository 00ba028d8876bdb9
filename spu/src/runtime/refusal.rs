//! Errors of the runtime in the words of the wire.

use std::time::Duration;

use plimsoll_proto::batch::BatchError;
use plimsoll_proto::disk::{DiskCause, DiskLevel};
use plimsoll_proto::ids::{Offset, PartitionId, SpuId, VolumeId};
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use plimsoll_storage::log::{AppendError, LogView, ReadError};
use plimsoll_storage::volume::VolumeFacts;

use super::work::millis;
use crate::replica::ProduceRefusal;

/// Longest time worth waiting while a volume is ReadOnly. An upper bound: a waiting producer is woken by
/// metadata.
pub(super) const READ_ONLY_RETRY: Duration = Duration::from_secs(5);
const SHORT_RETRY: Duration = Duration::from_millis(200);

/// Where a volume is, for errors.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) spu: SpuId,
    pub(super) volume: VolumeId,
    pub(super) path: String,
}

impl Place {
    fn detail(&self, facts: &VolumeFacts, cause: DiskCause, needed_bytes: u64) -> v1::DiskDetail {
        v1::DiskDetail {
            spu_id: self.spu.0,
            volume_id: self.volume.to_bytes(),
            path: self.path.clone(),
            cause: v1::DiskCause::from(cause).into(),
            level: v1::DiskLevel::from(facts.level).into(),
            free_bytes: facts.free_bytes,
            needed_bytes,
            capacity_bytes: facts.capacity_bytes,
            free_inodes: facts.free_inodes.unwrap_or(0),
        }
    }

    /// DISK_FULL, `outcome = NOT_WRITTEN`.
    pub(super) fn disk_full(&self, facts: &VolumeFacts, cause: DiskCause, needed_bytes: u64) -> ErrorDetail {
        let message = format!(
            "volume {} of SPU {} is {} ({cause}): {} of {} bytes free; free space there, or delete topics; reads go on",
            self.path, self.spu, facts.level, facts.free_bytes, facts.capacity_bytes
        );
        ErrorDetail::not_written(Reason::DiskFull, message).retry_after(READ_ONLY_RETRY).on_disk(self.detail(
            facts,
            cause,
            needed_bytes,
        ))
    }

    /// VOLUME_FAILED, `outcome = NOT_WRITTEN`.
    pub(super) fn failed(&self, facts: &VolumeFacts) -> ErrorDetail {
        let why = facts.failure.map_or_else(|| "failed".to_owned(), |cause| cause.to_string());
        let message = format!(
            "volume {} of SPU {} has failed ({why}): replace the device, then restart the node",
            self.path, self.spu
        );
        let cause = facts.cause.unwrap_or(DiskCause::Bytes);
        let mut disk = self.detail(facts, cause, 0);
        disk.cause = v1::DiskCause::Unspecified.into();
        disk.level = v1::DiskLevel::from(DiskLevel::Failed).into();
        ErrorDetail::not_written(Reason::VolumeFailed, message).retry_after(READ_ONLY_RETRY).on_disk(disk)
    }

    /// VOLUME_FAILED for a volume that does not answer.
    pub(super) fn stuck(&self, age: Duration) -> ErrorDetail {
        let message =
            format!("volume {} of SPU {} has not answered for {} ms", self.path, self.spu, age.as_millis());
        ErrorDetail::not_written(Reason::VolumeFailed, message).retry_after(READ_ONLY_RETRY)
    }

    /// What a failed append says to its producer.
    pub(super) fn append_error(&self, error: &AppendError, facts: &VolumeFacts) -> ErrorDetail {
        match error {
            AppendError::OutOfSpace { cause, needed_bytes, .. } => {
                self.disk_full(facts, *cause, *needed_bytes)
            }
            AppendError::VolumeFailed { written, .. } => {
                let mut detail = self.failed(facts);
                if *written {
                    detail.outcome = v1::Outcome::Unknown.into();
                }
                detail
            }
            AppendError::Temporary(error) => {
                ErrorDetail::not_written(Reason::MemoryPressure, format!("passing failure: {error}"))
                    .retry_after(SHORT_RETRY)
            }
            AppendError::OutOfOrderSequence { expected } => {
                let mut detail = ErrorDetail::not_written(Reason::OutOfOrderSequence, error.to_string());
                detail.expected_sequence = expected.to_i32();
                detail
            }
            AppendError::ProducerFenced => {
                ErrorDetail::not_written(Reason::ProducerFenced, error.to_string())
            }
            AppendError::UnknownProducer => {
                ErrorDetail::not_written(Reason::UnknownProducer, error.to_string())
            }
            AppendError::StaleEpoch { .. } => {
                ErrorDetail::not_written(Reason::StaleLeaderEpoch, error.to_string()).retry_after(SHORT_RETRY)
            }
            AppendError::Corrupt(BatchError::TooLarge { bytes, limit }) => too_large(*bytes, *limit),
            AppendError::Corrupt(_) => ErrorDetail::not_written(Reason::CorruptBatch, error.to_string()),
            AppendError::TooLarge { limit } => {
                let limit = u64::try_from(*limit).unwrap_or(u64::MAX);
                let mut detail = ErrorDetail::not_written(Reason::RecordTooLarge, error.to_string());
                detail.limit = limit;
                detail
            }
            AppendError::NotContiguous { .. } | AppendError::OffsetsExhausted => {
                ErrorDetail::not_written(Reason::InvalidArgument, error.to_string())
            }
            AppendError::NotFound => ErrorDetail::not_written(Reason::UnknownPartition, error.to_string()),
        }
    }

    /// What a failed read says to its consumer.
    pub(super) fn read_error(&self, error: &ReadError, log: Option<LogView>) -> ErrorDetail {
        match error {
            ReadError::OffsetTrimmed { requested, log_start } => {
                trimmed(*requested, *log_start, log.map_or(*log_start, |log| log.log_end))
            }
            ReadError::OffsetNotAvailable { requested, log_end } => {
                let log_start = log.map_or(Offset::ZERO, |log| log.log_start);
                not_available(*requested, log_start, *log_end, "it is not written yet")
            }
            ReadError::Damaged { .. } => ErrorDetail::not_written(
                Reason::VolumeFailed,
                format!("{error} on SPU {}; another replica may have them", self.spu),
            )
            .retry_after(READ_ONLY_RETRY),
            ReadError::Disk(disk) => {
                ErrorDetail::not_written(Reason::VolumeFailed, format!("volume {}: {disk}", self.path))
                    .retry_after(READ_ONLY_RETRY)
            }
            ReadError::NotFound => ErrorDetail::not_written(Reason::UnknownPartition, error.to_string()),
        }
    }
}

fn too_large(bytes: u64, limit: u64) -> ErrorDetail {
    let mut detail = ErrorDetail::not_written(
        Reason::RecordTooLarge,
        format!("{bytes} bytes are over the limit of {limit}"),
    );
    detail.limit = limit;
    detail
}

/// OFFSET_TRIMMED.
pub(super) fn trimmed(requested: Offset, log_start: Offset, log_end: Offset) -> ErrorDetail {
    let message = format!("offset {requested} was trimmed; the log starts at {log_start}");
    let mut detail = ErrorDetail::not_written(Reason::OffsetTrimmed, message);
    (detail.requested_offset, detail.log_start, detail.log_end) =
        (requested.get(), log_start.get(), log_end.get());
    detail
}

/// OFFSET_NOT_AVAILABLE.
pub(super) fn not_available(requested: Offset, log_start: Offset, log_end: Offset, why: &str) -> ErrorDetail {
    let message = format!("offset {requested} is not available: {why}");
    let mut detail = ErrorDetail::not_written(Reason::OffsetNotAvailable, message).retry_after(SHORT_RETRY);
    (detail.requested_offset, detail.log_start, detail.log_end) =
        (requested.get(), log_start.get(), log_end.get());
    detail
}

/// NOT_LEADER with who leads, NO_LEADER when nobody does.
pub(super) fn not_leader(partition: &PartitionId, hint: Option<v1::LeaderHint>, me: SpuId) -> ErrorDetail {
    let detail = match &hint {
        Some(leader) if leader.spu_id != me.0 => ErrorDetail::not_written(
            Reason::NotLeader,
            format!("SPU {me} does not lead {partition}; SPU {} does", leader.spu_id),
        ),
        Some(_) => {
            ErrorDetail::not_written(Reason::NoLeader, format!("SPU {me} is about to lead {partition}"))
        }
        None => ErrorDetail::not_written(Reason::NoLeader, format!("{partition} has no leader now")),
    };
    detail.retry_after(SHORT_RETRY).led_by(hint.filter(|leader| leader.spu_id != me.0))
}

/// The caller's leader epoch is not the current one.
pub(super) fn stale_epoch(given: u32, current: u32, hint: Option<v1::LeaderHint>) -> ErrorDetail {
    let message = format!("leader epoch is {current}, not {given}");
    ErrorDetail::not_written(Reason::StaleLeaderEpoch, message).retry_after(SHORT_RETRY).led_by(hint)
}

/// The topic or partition is not in the metadata.
pub(super) fn unknown(partition: &PartitionId, topic_known: bool) -> ErrorDetail {
    if topic_known {
        ErrorDetail::not_written(
            Reason::UnknownPartition,
            format!("the topic has no partition {}", partition.index),
        )
    } else {
        ErrorDetail::not_written(Reason::UnknownTopic, format!("there is no topic {}", partition.topic_id))
    }
}

/// The node stops.
pub(super) fn shutting_down() -> ErrorDetail {
    ErrorDetail::not_written(Reason::ShuttingDown, "the node is shutting down").retry_after(SHORT_RETRY)
}

/// A bounded list is full.
pub(super) fn busy(what: &str) -> ErrorDetail {
    ErrorDetail::not_written(Reason::MemoryPressure, format!("too many {what}")).retry_after(SHORT_RETRY)
}

/// The leader's refusal before the append.
pub(super) fn produce_refusal(refusal: ProduceRefusal) -> ErrorDetail {
    match refusal {
        ProduceRefusal::NotEnoughInSync { in_sync, min_in_sync, out } => {
            let names: Vec<String> = out.iter().map(|(spu, why)| format!("SPU {spu}: {why}")).collect();
            let have: Vec<String> = in_sync.iter().map(|spu| spu.to_string()).collect();
            let message = format!(
                "in sync: SPU {}; at least {min_in_sync} must be, and each must have room ({})",
                have.join(", "),
                names.join("; ")
            );
            let mut detail = ErrorDetail::not_written(Reason::NotEnoughInSync, message)
                .retry_after(Duration::from_secs(1));
            detail.in_sync = in_sync.iter().map(|spu| spu.0).collect();
            detail.min_in_sync = u32::try_from(min_in_sync).unwrap_or(u32::MAX);
            detail.out_of_sync =
                out.into_iter().map(|(spu, why)| v1::OutOfSync { spu_id: spu.0, why }).collect();
            detail
        }
        ProduceRefusal::LeaseRanOut => ErrorDetail::not_written(
            Reason::NoLeader,
            "this node has not heard from a controller for 9 s; another leader may be at work",
        )
        .retry_after(SHORT_RETRY),
    }
}

/// Facts for heartbeats and people.
pub(super) fn wire_facts(place: &Place, facts: &VolumeFacts, now: Duration) -> v1::VolumeFacts {
    v1::VolumeFacts {
        volume_id: place.volume.to_bytes(),
        path: place.path.clone(),
        level: v1::DiskLevel::from(facts.level).into(),
        cause: facts.cause.map_or(v1::DiskCause::Unspecified, v1::DiskCause::from).into(),
        capacity_bytes: facts.capacity_bytes,
        free_bytes: facts.free_bytes,
        used_bytes: facts.used_bytes,
        capacity_inodes: facts.total_inodes.unwrap_or(0),
        free_inodes: facts.free_inodes.unwrap_or(0),
        pending_bytes: facts.pending_bytes,
        preallocated_unused_bytes: facts.preallocated_bytes,
        fill_bytes_per_s: facts.fill_bytes_per_s,
        time_to_full_ms: facts.time_to_full.map_or(0, |left| millis(left).max(1)),
        unreserved: facts.unreserved,
        failure: facts.failure.map(|cause| cause.to_string()).unwrap_or_default(),
        unknown: facts.stale,
        hold_ms: facts.hold_until.map_or(0, |until| millis(until.saturating_sub(now))),
        since_ms: millis(now.saturating_sub(facts.since)),
        drill_ms: facts.drill.map_or(0, |drill| millis(drill.until.saturating_sub(now)).max(1)),
        borrowed_bytes: facts.borrowed.map_or(0, |borrowed| borrowed.bytes),
        borrow_ms: facts.borrowed.map_or(0, |borrowed| millis(borrowed.until.saturating_sub(now)).max(1)),
        reclaim_missing_bytes: facts.reclaim_missing_bytes,
        ..v1::VolumeFacts::default()
    }
}
