//! The level of a volume: what feeds it and what it makes the volume do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::disk::WriteClass;

use super::sampler::{Measured, SpaceSampler};
use super::{Volume, VolumeEvent, VolumeFacts};
use crate::fs::{DiskError, SharedDisk};
use crate::space::level::Command;
use crate::space::{
    Borrowed, Demand, Drill, LevelCause, LevelView, Marks, Observation, OwnUse, RunningReclaim, Verdict,
    Want, admit, canary,
};

impl Volume {
    /// Takes what came of sampling the disk's space, which the owner does on a lane of its own; `now` is the
    /// moment of the answer. A canary, if one is due, runs in here and blocks for one small sync.
    pub fn observe(&mut self, observation: Observation, now: Duration) -> Vec<VolumeEvent> {
        let committed = self.ledger.committed_total();
        let own = self.own_use();
        self.take_over(observation, own, committed, now)
    }

    /// As [`Volume::observe`], for a sample that was taken on another thread while this volume went on writing. One
    /// that is older than what the volume has looked at itself since is dropped.
    pub fn observe_measured(&mut self, measured: Measured, now: Duration) -> Vec<VolumeEvent> {
        let observation = match measured.result {
            Ok(_) if measured.committed_before < self.committed_at_sample => return self.take_events(),
            Ok(sample) => Observation::Sample(sample),
            Err(error) => Observation::Failed(error),
        };
        let own = self.own_use();
        // Preallocated since: no longer available in the sample, or still so; given back since: available in it.
        let preallocated_unused = own.preallocated_unused.min(measured.preallocated_before);
        let own = OwnUse { preallocated_unused, written_total: measured.committed_before, ..own };
        self.take_over(observation, own, measured.committed_before, now)
    }

    /// Takes the samples for [`Volume::observe_measured`]; may be used on any thread.
    pub fn sampler(&self) -> SpaceSampler {
        SpaceSampler::new(SharedDisk::clone(&self.disk), Arc::clone(&self.meter))
    }

    fn take_over(
        &mut self,
        observation: Observation,
        own: OwnUse,
        committed_before: u64,
        now: Duration,
    ) -> Vec<VolumeEvent> {
        self.time.now = now;
        let sampled = matches!(observation, Observation::Sample(_));
        let commands = self.sensor.observe(observation, own, now);
        if sampled {
            self.committed_at_sample = committed_before;
            self.refresh_ledger();
        }
        self.obey(commands);
        self.take_events()
    }

    /// How long to wait for the next sample: the worse the level, the shorter.
    pub fn next_sample_in(&self) -> Duration {
        self.sensor.next_sample_in()
    }

    /// The level and its figures.
    pub fn level(&self) -> LevelView {
        self.sensor.view()
    }

    /// Judges a batch of `bytes` that has `waited` so far: append it, hold it, or refuse it.
    pub fn admit(&self, class: WriteClass, bytes: u64, waited: Duration, now: Duration) -> Verdict {
        let demand = Demand { class, bytes, waited };
        admit(&self.sensor.view(), &self.ledger, self.running_reclaim, demand, now)
    }

    /// The marks in force.
    pub fn marks(&self) -> &Marks {
        self.sensor.marks()
    }

    /// Lowers the mark of ReadOnly for a while, or ends that; it counts from the next sample.
    pub fn borrow(&mut self, borrowed: Option<Borrowed>) {
        self.sensor.borrow(borrowed);
    }

    /// Makes the volume behave as if it had less free, for a while, or ends that; it counts from the next sample.
    pub fn drill(&mut self, drill: Option<Drill>) {
        self.sensor.drill(drill);
    }

    /// Changes the configured byte limit; it counts from the next sample.
    pub fn set_byte_limit(&mut self, byte_limit: Option<u64>) {
        self.sensor.set_byte_limit(byte_limit);
    }

    /// Figures for heartbeats and people.
    pub fn facts(&self) -> VolumeFacts {
        let view = self.sensor.view();
        let sample = self.sensor.last_sample();
        let counts_inodes = sample.total_inodes > 0;
        VolumeFacts {
            capacity_bytes: view.capacity_bytes,
            free_bytes: view.facts.free_bytes,
            used_bytes: self.accounts.used_bytes,
            total_inodes: counts_inodes.then_some(sample.total_inodes),
            free_inodes: view.facts.free_inodes,
            preallocated_bytes: self.accounts.preallocated_bytes,
            // Every file is closed before it is unlinked, and reads copy: nothing of ours stays pending.
            pending_bytes: 0,
            reserve_bytes: self.reserve.bytes(),
            level: view.level,
            cause: match view.cause {
                None | Some(LevelCause::Failure(_)) => None,
                Some(_) => Some(view.disk_cause()),
            },
            failure: match view.cause {
                Some(LevelCause::Failure(cause)) => Some(cause),
                _ => None,
            },
            since: view.since,
            time_to_full: view.facts.time_to_full,
            fill_bytes_per_s: self
                .sensor
                .trend()
                .own_rate()
                .saturating_add(self.sensor.trend().foreign_rate()),
            hold_until: view.hold_until,
            unreserved: !self.disk.reserves(),
            stale: !view.known,
            drill: self.sensor.running(),
            borrowed: self.sensor.borrowed(),
            reclaim_missing_bytes: self.reclaim_missing_bytes,
        }
    }

    /// What has happened since events were last taken.
    pub fn take_events(&mut self) -> Vec<VolumeEvent> {
        std::mem::take(&mut self.events)
    }

    pub(super) fn own_use(&self) -> OwnUse {
        OwnUse {
            used: self.accounts.used_bytes + self.reserve.bytes(),
            preallocated_unused: self.accounts.preallocated_bytes,
            written_total: self.accounts.written_total,
            active_replicas: u64::try_from(self.logs.len()).unwrap_or(u64::MAX),
            reserves: self.disk.reserves(),
        }
    }

    pub(super) fn refresh_ledger(&mut self) {
        let view = self.sensor.view();
        let committed = self.committed_at_sample;
        self.ledger.observe(view.facts.free_bytes, view.capacity_bytes, view.facts.scarce, committed);
    }

    /// Does what the level machine commands; canaries answer with further commands.
    pub(super) fn obey(&mut self, commands: Vec<Command>) {
        let mut queue = VecDeque::from(commands);
        while let Some(command) = queue.pop_front() {
            match command {
                Command::Changed(change) => {
                    self.events.push(VolumeEvent::LevelChanged {
                        from: change.from,
                        to: change.to,
                        cause: change.cause,
                        free_bytes: change.free_bytes,
                    });
                    if let Some(LevelCause::Failure(cause)) = change.cause {
                        self.events.push(VolumeEvent::Failed { cause });
                        self.run_noted = false;
                        self.note_device_failed();
                    }
                }
                Command::Reclaim { bytes, inodes } => {
                    self.reclaim_wanted = Some(Want { bytes, inodes });
                    self.expect_reclaim();
                }
                Command::StopReclaim => {
                    self.reclaim_wanted = None;
                    self.reclaim_missing_bytes = 0;
                    self.running_reclaim = RunningReclaim::default();
                }
                Command::GiveBackPreallocation => self.give_back_all(),
                // The owner asks the controller: it sees the level change.
                Command::MoveLeaders => {}
                Command::RunCanary(trial) => {
                    let outcome = canary::run(self.disk.as_ref(), trial);
                    let replies = self.sensor.canary_done(trial.attempt, &outcome, self.time.now);
                    match outcome {
                        Ok(()) => self.refresh_ledger(),
                        Err(error) => self.tell_canary_failure(error),
                    }
                    queue.extend(replies);
                }
            }
        }
    }

    /// One event for a run of failures alike.
    fn tell_canary_failure(&mut self, error: DiskError) {
        let event = VolumeEvent::CanaryFailed { error };
        if self.events.last() != Some(&event) {
            self.events.push(event);
        }
    }

    fn give_back_all(&mut self) {
        for partition in self.partitions() {
            let holds = self.logs.get(&partition).is_some_and(|entry| entry.log.preallocated() > 0);
            if !holds {
                continue;
            }
            if let Some(Err(error)) = self.with_log(&partition, |log, env| log.give_back(env)) {
                let commands =
                    self.sensor.operation_failed(&error, crate::space::Repeat::Create, self.time.now);
                // Only failures of the device change anything here, and they command nothing further of us.
                for command in commands {
                    if let Command::Changed(change) = command {
                        self.events.push(VolumeEvent::LevelChanged {
                            from: change.from,
                            to: change.to,
                            cause: change.cause,
                            free_bytes: change.free_bytes,
                        });
                    }
                }
                return;
            }
        }
    }
}
