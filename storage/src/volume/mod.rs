//! One data directory: its logs, its space, its level.
//!
//! One owner, blocking calls, no clock: `now` is a time since any fixed start, `wall_ms` is cluster time in
//! milliseconds since 1970. What a call does not return at once, such as a change of level met by an append,
//! comes with the next [`Volume::tick`] or [`Volume::observe`].
//!
//! Start at [`Volume::open`].

mod areas;
mod identity;
mod level;
mod open;
mod rebuild;
mod reclaim;
mod report;
mod sampler;
mod settings;
mod upkeep;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId, VolumeId};

pub use identity::{VolumeIdentity, read_identity};
pub use open::LOCK_FILE;
pub use rebuild::RebuildError;
pub use report::{
    DamagedRange, OpenError, OpenReport, ReplicaGuard, ReplicaGuards, TailCut, VolumeEvent, VolumeFacts,
};
pub use sampler::{Measured, SpaceSampler};
pub use settings::VolumeSettings;

use crate::fs::{DiskError, LockGuard, SharedDisk};
use crate::log::{AppendError, Env, LogSettings, LogView, PartitionLog, ReadBuffers, ReadError};
use crate::segment::ReadHandles;
use crate::space::{PhysicalReserve, Repeat, RunningReclaim, Sensor, SpaceLedger};
use identity::{IdentityFile, RunState};

/// A data directory in use. Send, but not shared: its owner is one worker.
pub struct Volume {
    disk: SharedDisk,
    settings: VolumeSettings,
    identity: IdentityFile,
    run: RunState,
    /// Whether the identity file says that this run is under way. Nothing is written to logs before.
    run_noted: bool,
    /// When a note of the device's failure that it refused is tried again.
    failure_note_at: Duration,
    logs: BTreeMap<PartitionId, Entry>,
    /// Logs of consumer offsets.
    areas: areas::Areas,
    /// Logs whose deletion has begun, with the bytes of their files.
    deleting: BTreeMap<PartitionId, u64>,
    handles: ReadHandles,
    buffers: ReadBuffers,
    /// Logs with an open file for appending.
    open_logs: usize,
    sensor: Sensor,
    ledger: SpaceLedger,
    reserve: PhysicalReserve,
    accounts: Accounts,
    /// [`SpaceLedger::committed_total`] from before the last sample was asked for.
    committed_at_sample: u64,
    meter: Arc<sampler::Meter>,
    running_reclaim: RunningReclaim,
    reclaim_wanted: Option<crate::space::Want>,
    reclaim_missing_bytes: u64,
    unclassified: bool,
    time: Time,
    uses: u64,
    events: Vec<VolumeEvent>,
    /// Dropped last: the directory is ours until everything else is gone.
    lock: Arc<dyn LockGuard>,
}

/// A log with what its upkeep needs.
struct Entry {
    log: PartitionLog,
    /// Its settings are known: before that, retention leaves it alone.
    configured: bool,
    /// Counts uses of the volume.
    used: u64,
    /// Last append.
    appended_at: Duration,
    /// First append that no sync covers.
    unsynced_since: Option<Duration>,
    checkpoint_at: Duration,
}

/// Sums over all logs, kept by difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Accounts {
    used_bytes: u64,
    preallocated_bytes: u64,
    written_total: u64,
}

/// What the clocks said, and when upkeep is due.
#[derive(Clone, Copy, Debug)]
struct Time {
    now: Duration,
    wall_ms: u64,
    /// Ages count; false after a jump of the wall clock.
    ages_trusted: bool,
    retention_at: Duration,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume")
            .field("id", &self.id())
            .field("logs", &self.logs.len())
            .finish_non_exhaustive()
    }
}

impl Volume {
    /// Identity of the directory.
    pub fn id(&self) -> VolumeId {
        self.run.identity.volume_id
    }

    /// All partitions, those of offsets last.
    pub fn partitions(&self) -> Vec<PartitionId> {
        self.logs.keys().chain(self.areas.keys()).copied().collect()
    }

    /// State of a log.
    pub fn log(&self, partition: &PartitionId) -> Option<LogView> {
        let area = || self.areas.get(partition).map(|entry| entry.area.view());
        self.logs.get(partition).map(|entry| entry.log.view()).or_else(area)
    }

    /// Gives a log its settings. Retention touches no log before this was called in this run.
    pub fn configure(&mut self, partition: &PartitionId, settings: LogSettings) {
        if let Some(entry) = self.logs.get_mut(partition) {
            entry.log.configure(settings);
            entry.configured = true;
        }
    }

    /// Whole batches from the one that holds `from` on, none that ends beyond `limit`; at most `max_bytes`, or
    /// one batch if that is larger. The first batch may begin before `from`. Empty at the limit.
    ///
    /// # Errors
    /// `OffsetTrimmed` carries the next offset that is there.
    pub fn read(
        &mut self,
        partition: &PartitionId,
        from: Offset,
        limit: Offset,
        max_bytes: usize,
    ) -> Result<Bytes, ReadError> {
        if let Some(entry) = self.areas.get(partition) {
            let result = entry.area.read(from, limit, max_bytes);
            self.note_read(partition, &result);
            return result;
        }
        let found = self.with_log(partition, |log, env| log.read(env, from, limit, max_bytes));
        let result = found.unwrap_or(Err(ReadError::NotFound));
        self.note_read(partition, &result);
        result
    }

    /// First offset whose timestamp is at least `timestamp_ms`; `None` when all are earlier.
    ///
    /// # Errors
    /// As [`Volume::read`].
    pub fn offset_at(
        &mut self,
        partition: &PartitionId,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>, ReadError> {
        let found = self.with_log(partition, |log, env| log.offset_at(env, timestamp_ms));
        let result = found.unwrap_or(Err(ReadError::NotFound));
        self.note_read(partition, &result);
        result
    }

    fn note_read<T>(&mut self, partition: &PartitionId, result: &Result<T, ReadError>) {
        match result {
            Err(ReadError::Damaged { from, to }) => {
                let range = DamagedRange { partition: *partition, from: *from, to: *to };
                if !self.events.contains(&VolumeEvent::Damaged(range)) {
                    self.events.push(VolumeEvent::Damaged(range));
                }
            }
            Err(ReadError::Disk(error)) => self.note_failure(&error.clone(), 0),
            Ok(_)
            | Err(
                ReadError::OffsetTrimmed { .. } | ReadError::OffsetNotAvailable { .. } | ReadError::NotFound,
            ) => {}
        }
    }

    /// The greatest leader epoch at or below `epoch` and the offset behind its last record, for finding where
    /// two logs diverge; `None` when `epoch` is newer than all, or older than all that are remembered.
    pub fn epoch_end(&self, partition: &PartitionId, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        if let Some(entry) = self.areas.get(partition) {
            return entry.area.epoch_end(epoch);
        }
        self.logs.get(partition)?.log.epoch_end(epoch)
    }

    /// Notes that `epoch` writes from `start` on, which is the log end: as its new leader does, before its
    /// first batch. Durable with the next checkpoint, or with that batch.
    ///
    /// # Errors
    /// `StaleEpoch`; `NotContiguous` when `start` is not the log end; `NotFound`.
    pub fn note_epoch(
        &mut self,
        partition: &PartitionId,
        epoch: LeaderEpoch,
        start: Offset,
    ) -> Result<(), AppendError> {
        if let Some(entry) = self.areas.get_mut(partition) {
            return match entry.area.log_end() {
                log_end if log_end == start => entry.area.note_epoch(epoch),
                log_end => Err(AppendError::NotContiguous { found: start, log_end }),
            };
        }
        let log = &mut self.logs.get_mut(partition).ok_or(AppendError::NotFound)?.log;
        if start != log.log_end() {
            return Err(AppendError::NotContiguous { found: start, log_end: log.log_end() });
        }
        log.note_epoch(epoch)
    }

    /// Moves the high watermark forward, at most to the log end; never back.
    pub fn set_high_watermark(&mut self, partition: &PartitionId, high_watermark: Offset) {
        if let Some(entry) = self.logs.get_mut(partition) {
            entry.log.set_high_watermark(high_watermark);
        } else if let Some(entry) = self.areas.get_mut(partition) {
            entry.area.set_high_watermark(high_watermark);
        }
    }

    /// Syncs all that is written to a log; group commit: append several times, then sync once. Returns the
    /// durable end.
    ///
    /// # Errors
    /// `VolumeFailed` is final: nothing at or above `durable_end` counts any more.
    pub fn sync(&mut self, partition: &PartitionId) -> Result<Offset, DiskError> {
        if let Some(synced) = self.sync_area(partition) {
            return synced;
        }
        let missing = DiskError::NotFound { operation: "sync" };
        let result = self.with_log(partition, |log, env| log.sync(env)).unwrap_or(Err(missing));
        match &result {
            Ok(_) => {
                if let Some(entry) = self.logs.get_mut(partition) {
                    entry.unsynced_since = None;
                }
            }
            Err(error) => self.note_failure(error, 0),
        }
        result
    }

    /// Runs `work` on a log and keeps the accounts.
    fn with_log<T>(
        &mut self,
        partition: &PartitionId,
        work: impl FnOnce(&mut PartitionLog, &mut Env<'_>) -> T,
    ) -> Option<T> {
        let extra_max = self.extra_max();
        let capacity_bytes = self.sensor.marks().shape().capacity_bytes;
        let entry = self.logs.get_mut(partition)?;
        self.uses += 1;
        entry.used = self.uses;
        let before = (entry.log.disk_bytes(), entry.log.preallocated());
        let was_open = entry.log.is_open();
        let mut env = Env {
            disk: self.disk.as_ref(),
            handles: &mut self.handles,
            buffers: &mut self.buffers,
            spares: self.reserve.spares(),
            now: self.time.now,
            wall_ms: self.time.wall_ms,
            capacity_bytes,
            extra_max,
        };
        let result = work(&mut entry.log, &mut env);
        let after = (entry.log.disk_bytes(), entry.log.preallocated());
        let is_open = entry.log.is_open();
        self.accounts.used_bytes = (self.accounts.used_bytes + after.0).saturating_sub(before.0);
        self.accounts.preallocated_bytes =
            (self.accounts.preallocated_bytes + after.1).saturating_sub(before.1);
        self.meter.set(self.ledger.committed_total(), self.accounts.preallocated_bytes);
        self.open_logs = self.open_logs + usize::from(is_open) - usize::from(was_open);
        self.bound_open_logs(partition);
        Some(result)
    }

    /// Bytes that one more preallocation may take beyond its need: all unused preallocation together stays
    /// below an eighth of what is free, and there is none from Throttle on.
    fn extra_max(&self) -> u64 {
        let view = self.sensor.view();
        if view.level >= DiskLevel::Throttle || !view.known {
            return 0;
        }
        (view.facts.free_bytes / 8).saturating_sub(self.accounts.preallocated_bytes)
    }

    /// Tells the level machine of a failed operation; `needed` bytes are what a canary would allocate.
    fn note_failure(&mut self, error: &DiskError, needed: u64) {
        self.note_failure_of(error, Repeat::Allocate { bytes: needed });
    }

    /// As [`Self::note_failure`], with what a canary must repeat.
    fn note_failure_of(&mut self, error: &DiskError, repeat: Repeat) {
        self.unclassified |= matches!(error, DiskError::Unknown { .. });
        if let DiskError::OutOfSpace { cause, .. } = error {
            self.ledger.met_no_space(*cause);
        }
        let commands = self.sensor.operation_failed(error, repeat, self.time.now);
        self.obey(commands);
    }

    fn note_success(&mut self) {
        if std::mem::take(&mut self.unclassified) {
            self.sensor.operation_worked();
        }
    }
}

#[cfg(test)]
mod tests;
