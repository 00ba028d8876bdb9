//! What changes the logs of a volume.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use plimsoll_proto::batch::{self, BatchError, BatchHeader, Limits};
use plimsoll_proto::disk::{DiskCause, DiskLevel, WriteClass};
use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId};

use super::{Entry, Volume};
use crate::fs::{DiskError, FailureCause};
use crate::log::{
    AppendError, AppendFailure, Appended, Env, LogSettings, PartitionLog, remove_partition_files,
};
use crate::recovery;
use crate::space::{LevelCause, Repeat, canary};

/// Bytes of the files of a new log.
const NEW_LOG_BYTES: u64 = 16 * 1024;
const NEW_LOG: Repeat = Repeat::Allocate { bytes: NEW_LOG_BYTES };

impl Volume {
    /// Makes a log, durable when this returns; one that exists gets the settings.
    ///
    /// # Errors
    /// `OutOfSpace`: no log was made. `VolumeFailed`, `Temporary`.
    pub fn create_partition(
        &mut self,
        partition: PartitionId,
        settings: LogSettings,
        now: Duration,
    ) -> Result<(), AppendError> {
        if self.logs.contains_key(&partition) {
            self.configure(&partition, settings);
            return Ok(());
        }
        self.time.now = now;
        if self.areas.contains_key(&partition) {
            return Ok(());
        }
        self.check_writable(WriteClass::ControlPlane, NEW_LOG_BYTES)?;
        if self.deleting.contains_key(&partition) {
            self.finish_deletion(&partition)
                .map_err(|error| self.disk_refused(&error, NEW_LOG_BYTES, NEW_LOG, false))?;
        }
        if let Some(bytes) = settings.offsets_area_bytes {
            return self.create_area(partition, bytes);
        }
        let mut env = Env {
            disk: self.disk.as_ref(),
            handles: &mut self.handles,
            buffers: &mut self.buffers,
            spares: None,
            now,
            wall_ms: self.time.wall_ms,
            capacity_bytes: self.sensor.marks().shape().capacity_bytes,
            extra_max: 0,
        };
        match recovery::create_log(&mut env, partition, settings, self.settings.producers_max) {
            Ok(log) => {
                self.accounts.used_bytes += log.disk_bytes();
                self.insert(partition, log, true);
                Ok(())
            }
            Err(error) => Err(self.disk_refused(&error, NEW_LOG_BYTES, NEW_LOG, false)),
        }
    }

    pub(super) fn insert(&mut self, partition: PartitionId, log: PartitionLog, configured: bool) {
        let now = self.time.now;
        let checkpoint_at = now + self.settings.checkpoint_interval;
        let entry =
            Entry { log, configured, used: self.uses, appended_at: now, unsynced_since: None, checkpoint_at };
        self.open_logs += usize::from(entry.log.is_open());
        self.logs.insert(partition, entry);
        self.bound_open_logs(&partition);
    }

    /// Removes a log and returns the bytes that its files took; 0 when there is none. Needs no space. Once this
    /// was called the partition is gone for good, unless its error came before anything was removed.
    ///
    /// # Errors
    /// What the disk says. A deletion that has begun is completed by the next tick, or the next open.
    pub fn delete_partition(&mut self, partition: &PartitionId) -> Result<u64, DiskError> {
        self.mark_area_deleted(partition)?;
        if self.logs.contains_key(partition) {
            if let Some(Err(error)) = self.with_log(partition, PartitionLog::mark_deleted) {
                self.note_failure(&error, 0);
                return Err(error);
            }
            if let Some(entry) = self.logs.remove(partition) {
                self.accounts.preallocated_bytes =
                    self.accounts.preallocated_bytes.saturating_sub(entry.log.preallocated());
                self.deleting.insert(*partition, entry.log.disk_bytes());
            }
        }
        self.finish_deletion(partition)
    }

    /// Removes the files of a log that is being deleted.
    pub(super) fn finish_deletion(&mut self, partition: &PartitionId) -> Result<u64, DiskError> {
        let Some(&bytes) = self.deleting.get(partition) else { return Ok(0) };
        let removed = remove_partition_files(self.disk.as_ref(), &recovery::dir_of(*partition));
        // Not durable before this; a crash until then does it again.
        match removed.and_then(|()| self.disk.sync_dir(recovery::PARTITIONS_DIR)) {
            Ok(()) => {
                self.deleting.remove(partition);
                self.accounts.used_bytes = self.accounts.used_bytes.saturating_sub(bytes);
                Ok(bytes)
            }
            Err(error) => {
                self.note_failure(&error, 0);
                Err(error)
            }
        }
    }

    /// Appends a producer's batch as the leader of `epoch`: verifies it, checks its sequence, stamps offset and
    /// epoch, takes blocks, writes. Not durable before [`Volume::sync`]. A duplicate is answered with its
    /// original offset, also where there is no room.
    ///
    /// # Errors
    /// Nothing was appended, unless `VolumeFailed{written: true}`. A refusal consumes no sequence.
    pub fn append_as_leader(
        &mut self,
        partition: &PartitionId,
        mut batch: BytesMut,
        epoch: LeaderEpoch,
        now: Duration,
        wall_ms: u64,
    ) -> Result<Appended, AppendError> {
        self.set_time(now, wall_ms);
        let limit = self.logs.get(partition).ok_or(AppendError::NotFound)?.log.settings().batch_bytes_max;
        let limits = Limits { batch_bytes_max: limit, ..Limits::CLIENT };
        let header = batch::verify(&batch, &limits).map_err(|error| match error {
            BatchError::TooLarge { .. } if batch.len() > limit => AppendError::TooLarge { limit },
            other => AppendError::Corrupt(other),
        })?;
        let appended = self.append(partition, WriteClass::Produce, batch.len(), |log, env| {
            log.append_as_leader(env, &mut batch, &header, epoch)
        });
        match appended {
            // What is there already needs no room.
            Err(AppendError::OutOfSpace { .. }) => self.repeated(partition, &header).map_or(appended, Ok),
            _ => appended,
        }
    }

    /// Where a producer's batch is, if it is in the log already and among those that a duplicate is told by. Reads no
    /// disk.
    pub fn appended_before(&self, partition: &PartitionId, batch: &[u8]) -> Option<Appended> {
        let repeated = self.repeated(partition, &BatchHeader::parse(batch).ok()?)?;
        // Only an undamaged batch says who wrote it.
        let limits = Limits { batch_bytes_max: batch.len(), ..Limits::CLIENT };
        batch::verify(batch, &limits).is_ok().then_some(repeated)
    }

    fn repeated(&self, partition: &PartitionId, header: &BatchHeader) -> Option<Appended> {
        self.logs.get(partition)?.log.appended_before(header)
    }

    /// Appends batches that a leader stamped. They must continue the log and their CRCs must fit. Not durable
    /// before [`Volume::sync`].
    ///
    /// # Errors
    /// Nothing was appended, unless `VolumeFailed{written: true}`; `NotContiguous` says where the log ends.
    pub fn append_as_follower(
        &mut self,
        partition: &PartitionId,
        batches: Bytes,
        now: Duration,
        wall_ms: u64,
    ) -> Result<Appended, AppendError> {
        self.set_time(now, wall_ms);
        if self.areas.contains_key(partition) {
            return self.append_to_area(partition, &batches);
        }
        let mut headers = Vec::new();
        for item in batch::iter_batches(&batches) {
            let (_, bytes) = item?;
            let header = batch::verify(&bytes, &Limits::REPLICA)?;
            if header.leader_epoch.is_none() {
                let why =
                    BatchError::Header { field: "leader_epoch", why: "is missing in a replicated batch" };
                return Err(AppendError::Corrupt(why));
            }
            headers.push(header);
        }
        if headers.is_empty() {
            return Err(AppendError::Corrupt(BatchError::Truncated { have: 0, need: batch::HEADER_BYTES }));
        }
        self.append(partition, WriteClass::FollowerCatchUp, batches.len(), |log, env| {
            log.append_as_follower(env, &batches, &headers)
        })
    }

    fn append(
        &mut self,
        partition: &PartitionId,
        class: WriteClass,
        length: usize,
        work: impl FnOnce(&mut PartitionLog, &mut Env<'_>) -> Result<Appended, AppendFailure>,
    ) -> Result<Appended, AppendError> {
        let bytes = u64::try_from(length).expect("usize is at most 64 bits");
        self.check_writable(class, bytes)?;
        let volume = self.id();
        let reservation =
            self.ledger.reserve(volume, class, bytes).map_err(|refusal| AppendError::OutOfSpace {
                cause: refusal.cause,
                free_bytes: refusal.free,
                needed_bytes: refusal.needed,
                capacity_bytes: refusal.capacity,
                level: self.sensor.view().level,
            })?;
        let result = self.with_log(partition, work);
        match result {
            Some(Ok(appended)) if appended.duplicate => {
                self.ledger.forfeit(reservation);
                Ok(appended)
            }
            Some(Ok(appended)) => {
                self.ledger.commit(reservation, bytes);
                self.accounts.written_total += bytes;
                self.meter.set(self.ledger.committed_total(), self.accounts.preallocated_bytes);
                self.note_success();
                let now = self.time.now;
                if let Some(entry) = self.logs.get_mut(partition) {
                    entry.appended_at = now;
                    entry.unsynced_since.get_or_insert(now);
                }
                Ok(appended)
            }
            Some(Err(AppendFailure::Refused(error))) => {
                self.ledger.forfeit(reservation);
                Err(error)
            }
            Some(Err(AppendFailure::Disk { error, needed_bytes, file_end, uncut })) => {
                self.ledger.forfeit(reservation);
                let repeat = match &error {
                    // A limit on the size of files is met only that far into one.
                    DiskError::OutOfSpace { cause: DiskCause::Limit, .. } => {
                        Repeat::WriteAt { offset: file_end.saturating_sub(canary::WRITE_BYTES) }
                    }
                    _ => Repeat::Allocate { bytes: needed_bytes },
                };
                Err(self.disk_refused(&error, needed_bytes, repeat, uncut))
            }
            None => {
                self.ledger.forfeit(reservation);
                Err(AppendError::NotFound)
            }
        }
    }

    pub(super) fn set_time(&mut self, now: Duration, wall_ms: u64) {
        self.time.now = now;
        self.time.wall_ms = wall_ms;
    }

    /// Refuses by level, before the ledger is asked.
    pub(super) fn check_writable(&mut self, class: WriteClass, needed_bytes: u64) -> Result<(), AppendError> {
        let view = self.sensor.view();
        if let Some(LevelCause::Failure(cause)) = view.cause {
            return Err(AppendError::VolumeFailed { cause, written: false });
        }
        if !self.run_noted {
            self.note_run();
        }
        let refused = (view.level == DiskLevel::ReadOnly && class == WriteClass::Produce) || !self.run_noted;
        if !refused {
            return Ok(());
        }
        Err(AppendError::OutOfSpace {
            cause: view.disk_cause(),
            free_bytes: view.facts.free_bytes,
            needed_bytes,
            capacity_bytes: view.capacity_bytes,
            level: view.level,
        })
    }

    /// The door's error as the caller's; the level learns of it in the same call.
    pub(super) fn disk_refused(
        &mut self,
        error: &DiskError,
        needed_bytes: u64,
        repeat: Repeat,
        uncut: bool,
    ) -> AppendError {
        let before = self.sensor.view();
        self.note_failure_of(error, repeat);
        let level = self.sensor.view().level;
        match error {
            DiskError::OutOfSpace { cause, .. } => AppendError::OutOfSpace {
                cause: *cause,
                free_bytes: before.facts.free_bytes,
                needed_bytes,
                capacity_bytes: before.capacity_bytes,
                level,
            },
            DiskError::VolumeFailed { cause, .. } => {
                AppendError::VolumeFailed { cause: *cause, written: uncut }
            }
            other if uncut => {
                // What can't be cut can't be refused either: no more appends to this volume.
                let cause = FailureCause::AppendErrors;
                self.note_failure(&DiskError::VolumeFailed { cause, operation: "cut" }, 0);
                tracing::debug!(error = %other, "a failed append could not be cut back");
                AppendError::VolumeFailed { cause, written: true }
            }
            other => AppendError::Temporary(other.clone()),
        }
    }

    /// Cuts a log to end at `to`, or at the start of the batch that holds it. High watermark and durable end
    /// come down with it; whether that is allowed is the caller's to know. Needs no space.
    ///
    /// # Errors
    /// What the disk says; the log is never shorter than asked.
    pub fn truncate_tail(&mut self, partition: &PartitionId, to: Offset) -> Result<(), DiskError> {
        if let Some(cut) = self.cut_area(partition, to) {
            return cut;
        }
        let missing = DiskError::NotFound { operation: "truncate" };
        let result = self.with_log(partition, |log, env| log.truncate_tail(env, to)).unwrap_or(Err(missing));
        if let Err(error) = &result {
            self.note_failure(error, 0);
        }
        result
    }

    /// Moves a log's start to `to` and removes whole segments below; returns the bytes given back. The high
    /// watermark follows. Beyond the log end the log restarts empty at `to`. Needs no space.
    ///
    /// # Errors
    /// What the disk says; the log start has moved nevertheless.
    pub fn trim_head(&mut self, partition: &PartitionId, to: Offset) -> Result<u64, DiskError> {
        if let Some(trimmed) = self.trim_area(partition, to) {
            return trimmed;
        }
        let missing = DiskError::NotFound { operation: "trim" };
        let result = self.with_log(partition, |log, env| log.trim_head(env, to)).unwrap_or(Err(missing));
        if let Err(error) = &result {
            self.note_failure(error, 0);
        }
        result
    }
}
