//! What a volume does by itself, turn by turn, and how it is closed.

use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::PartitionId;

use super::{Entry, ReplicaGuards, Volume, VolumeEvent};
use crate::fs::DiskError;
use crate::log::{Env, FlushPolicy, PartitionLog};

/// Checkpoints written in one turn, each with one sync.
const CHECKPOINTS_A_TURN: usize = 8;
/// A log that nothing was appended to for this long keeps no preallocation and no open file.
const IDLE_AFTER: Duration = Duration::from_secs(30);
/// A difference between the two clocks beyond this is a jump, not drift.
const CLOCK_JUMP: Duration = Duration::from_secs(5 * 60);

type LogWork = fn(&mut PartitionLog, &mut Env<'_>) -> Result<(), DiskError>;

impl Volume {
    /// Does what is due: reclaim at once under pressure, else retention at its interval; interval flushes;
    /// checkpoints; syncs of sealed segments. Bounded work: what is left waits for the next call. Returns what
    /// has happened since the last call.
    pub fn tick(&mut self, now: Duration, wall_ms: u64, guards: &ReplicaGuards) -> Vec<VolumeEvent> {
        self.watch_clocks(now, wall_ms);
        if self.sensor.view().level == DiskLevel::Failed {
            self.note_device_failed();
            return self.take_events();
        }
        self.forget_device_failed();
        if !self.run_noted {
            self.note_run();
        }
        if self.reclaims_at(now) {
            self.time.retention_at = now + self.settings.retention_interval;
            self.run_reclaim(guards);
        }
        self.finish_deletions();
        self.flush_intervals();
        self.write_checkpoints();
        self.checkpoint_areas();
        self.settle_idle();
        if self.sensor.view().level == DiskLevel::Normal
            && !self.reserve.is_complete()
            && let Err(error) = self.reserve.replenish(self.disk.as_ref())
        {
            self.note_failure(&error, 0);
        }
        self.take_events()
    }

    /// Whether a tick at `now` deletes records: only then its guards matter.
    pub fn reclaims_at(&self, now: Duration) -> bool {
        self.reclaim_wanted.is_some() || now >= self.time.retention_at
    }

    fn finish_deletions(&mut self) {
        let begun: Vec<PartitionId> = self.deleting.keys().copied().collect();
        for partition in begun {
            if self.finish_deletion(&partition).is_err() {
                return;
            }
        }
    }

    fn watch_clocks(&mut self, now: Duration, wall_ms: u64) {
        let elapsed = now.saturating_sub(self.time.now);
        let by_wall = Duration::from_millis(wall_ms.abs_diff(self.time.wall_ms));
        let back = wall_ms < self.time.wall_ms;
        let differ = if back { by_wall + elapsed } else { by_wall.abs_diff(elapsed) };
        if self.time.wall_ms > 0 && differ > CLOCK_JUMP {
            self.time.ages_trusted = false;
        }
        self.time.now = now;
        self.time.wall_ms = wall_ms;
    }

    fn flush_intervals(&mut self) {
        let now = self.time.now;
        let due = |entry: &Entry| match entry.log.settings().flush {
            FlushPolicy::Interval(interval) => {
                entry.unsynced_since.is_some_and(|since| now.saturating_sub(since) >= interval)
            }
            FlushPolicy::Os | FlushPolicy::Ack => false,
        };
        for partition in self.select(usize::MAX, due) {
            if self.sync(&partition).is_err() {
                return;
            }
        }
    }

    fn write_checkpoints(&mut self) {
        let now = self.time.now;
        let due = |entry: &Entry| entry.checkpoint_at <= now && entry.log.is_changed();
        for partition in self.select(CHECKPOINTS_A_TURN, due) {
            let interval = self.settings.checkpoint_interval;
            if let Some(entry) = self.logs.get_mut(&partition) {
                entry.checkpoint_at = now + interval;
            }
            // Sealed segments become durable bit by bit, so that a power loss never costs a long scan.
            if !self.work(&partition, |log, env| log.sync_one_sealed(env).map(drop))
                || !self.work(&partition, PartitionLog::checkpoint)
            {
                return;
            }
        }
    }

    fn settle_idle(&mut self) {
        let now = self.time.now;
        let idle = |entry: &Entry| {
            now.saturating_sub(entry.appended_at) >= IDLE_AFTER
                && (entry.log.preallocated() > 0 || entry.log.is_open())
        };
        for partition in self.select(CHECKPOINTS_A_TURN, idle) {
            if !self.work(&partition, PartitionLog::rest) {
                return;
            }
        }
    }

    fn select(&self, most: usize, due: impl Fn(&Entry) -> bool) -> Vec<PartitionId> {
        self.logs.iter().filter(|(_, entry)| due(entry)).map(|(partition, _)| *partition).take(most).collect()
    }

    /// Whether upkeep may go on. Without room it just waits; the level decides about everything else.
    fn work(&mut self, partition: &PartitionId, work: LogWork) -> bool {
        match self.with_log(partition, work) {
            None | Some(Ok(()) | Err(DiskError::OutOfSpace { .. })) => true,
            Some(Err(error)) => {
                self.note_failure(&error, 0);
                false
            }
        }
    }

    /// Keeps the number of open files bounded: the logs that were used longest ago are closed, some at once so that
    /// this rarely looks at them all.
    pub(super) fn bound_open_logs(&mut self, keep: &PartitionId) {
        let most = self.settings.open_logs_max.max(1);
        if self.open_logs <= most {
            return;
        }
        let open = self.logs.iter().filter(|(id, entry)| entry.log.is_open() && *id != keep);
        let mut by_use: Vec<(u64, PartitionId)> = open.map(|(id, entry)| (entry.used, *id)).collect();
        by_use.sort_unstable();
        for (_, partition) in by_use.into_iter().take(self.open_logs - most + most / 8) {
            if let Some(entry) = self.logs.get_mut(&partition) {
                entry.log.close_file();
                self.open_logs -= 1;
            }
        }
    }

    /// Writes into the identity file that a run is under way on this boot and mount. Where that needs room
    /// which is not there, nothing is appended until it succeeds.
    pub(super) fn note_run(&mut self) {
        match self.identity.write(self.disk.as_ref(), &self.run) {
            Ok(()) => self.run_noted = true,
            Err(error) => self.note_failure(&error, 0),
        }
    }

    /// Writes into the identity file that the device failed, so that the next run does not trust what no sync
    /// covers. Needs no space; tried again with the checkpoint interval as long as the device refuses. Where it is
    /// never taken, the device does not take the note of the next run either, and nothing is appended then.
    pub(super) fn note_device_failed(&mut self) {
        if self.run.failed && (self.run_noted || self.time.now < self.failure_note_at) {
            return;
        }
        self.run.failed = true;
        self.failure_note_at = self.time.now + self.settings.checkpoint_interval;
        // What the device says is known already.
        self.run_noted = self.identity.write(self.disk.as_ref(), &self.run).is_ok();
    }

    /// All that a failed device left uncertain is written anew or cut: a crash from here on is a crash.
    fn forget_device_failed(&mut self) {
        let distrusted = self.logs.values().any(|entry| entry.log.is_distrusted())
            || self.areas.values().any(|entry| entry.area.is_distrusted());
        if self.run.failed && !distrusted {
            self.run.failed = false;
            self.run_noted = false;
        }
    }

    /// Those who decide about the replicas know of the loss that [`super::OpenReport::loss_untold`] told of: the next
    /// open does not tell of it again. Written with the next [`Volume::tick`] or append; a crash before that makes
    /// the next open tell of it once more.
    pub fn loss_told(&mut self) {
        if self.run.loss_untold {
            self.run.loss_untold = false;
            self.run_noted = false;
        }
    }

    /// Syncs and checkpoints everything and marks the run as ended in order. Needs no space.
    ///
    /// # Errors
    /// The first failure; the mark is not set then, and the next open takes the way of a crash.
    pub fn close(mut self, wall_ms: u64) -> Result<(), DiskError> {
        self.time.wall_ms = wall_ms;
        for partition in self.partitions() {
            let closed = self.with_log(&partition, |log, env| {
                log.give_back(env)?;
                log.sync(env)?;
                if log.is_changed() { log.checkpoint(env) } else { Ok(()) }
            });
            match closed {
                None | Some(Ok(())) => {}
                Some(Err(error)) => return Err(error),
            }
        }
        self.close_areas()?;
        (self.run.clean, self.run.failed) = (true, false);
        self.identity.write(self.disk.as_ref(), &self.run)
    }
}
