//! Retention and reclaim: from the logs to a plan, and from the plan to deletions.

use std::time::Duration;

use plimsoll_proto::ids::PartitionId;

use super::{Entry, ReplicaGuards, Volume, VolumeEvent};
use crate::log::OnPressure;
use crate::space::reclaim::{Deletion, Pressure};
use crate::space::{Observation, ReclaimPlan, ReplicaFacts, RunningReclaim, SegmentFacts, Want, reclaim};

/// Logs trimmed in one turn: more wait for the next tick, so that the owner's other work goes on.
const TRIMS_A_TURN: usize = 32;

impl Volume {
    /// What reclaim would do for `want` now; a dry run.
    pub fn reclaim_plan(&self, want: Want, guards: &ReplicaGuards) -> ReclaimPlan {
        reclaim::plan(&self.replica_facts(guards), want)
    }

    /// Reclaims for `want` with the next tick.
    pub fn reclaim_now(&mut self, want: Want) {
        self.reclaim_wanted = Some(want);
    }

    /// Whether a tick would reclaim at once.
    pub fn reclaim_due(&self) -> bool {
        self.reclaim_wanted.is_some()
    }

    /// Tells whether cluster time is synchronised: retention by age pauses after a jump until it is.
    pub fn set_time_trusted(&mut self, trusted: bool) {
        self.time.ages_trusted = trusted;
    }

    /// What retention alone will free, so that producers wait for it instead of being refused.
    pub(super) fn expect_reclaim(&mut self) {
        let want = Want::default();
        let plan = reclaim::plan(&self.replica_facts(&ReplicaGuards::new()), want);
        self.running_reclaim = RunningReclaim { bytes_to_come: plan.bytes };
    }

    /// Carries out what is wanted under pressure, or what retention allows.
    pub(super) fn run_reclaim(&mut self, guards: &ReplicaGuards) {
        let pressed = self.reclaim_wanted.take();
        let plan = reclaim::plan(&self.replica_facts(guards), pressed.unwrap_or_default());
        if pressed.is_some() {
            self.reclaim_missing_bytes = plan.missing_bytes;
        }
        let trims = trims(&plan);
        let (mut freed, mut segments) = (0u64, 0usize);
        for (partition, deletions) in trims.iter().take(TRIMS_A_TURN) {
            freed += self.carry_out(*partition, deletions);
            segments += deletions.len();
        }
        let left = plan.bytes.saturating_sub(freed);
        let more = trims.len() > TRIMS_A_TURN;
        if more {
            // With the next tick: what retention allows, whatever becomes of the pressure, and what is wanted still.
            self.time.retention_at = self.time.now;
            self.reclaim_wanted = pressed.map(|want| want.less(freed, segments));
        }
        self.running_reclaim = RunningReclaim { bytes_to_come: if more { left } else { 0 } };
        if freed > 0 {
            self.look_again();
        }
    }

    fn carry_out(&mut self, partition: PartitionId, deletions: &[Deletion]) -> u64 {
        let Some(last) = deletions.last() else { return 0 };
        let to = last.end_offset;
        match self.with_log(&partition, |log, env| log.trim_head(env, to)) {
            Some(Ok(freed)) => {
                self.events.extend(deletions.iter().map(reclaimed));
                freed
            }
            Some(Err(error)) => {
                self.note_failure(&error, 0);
                0
            }
            None => 0,
        }
    }

    /// Room that was just made is seen at once, not with the next sample.
    fn look_again(&mut self) {
        if let Ok(sample) = self.disk.space() {
            let own = self.own_use();
            let commands = self.sensor.observe(Observation::Sample(sample), own, self.time.now);
            self.committed_at_sample = self.ledger.committed_total();
            self.refresh_ledger();
            self.obey(commands);
        }
    }

    fn replica_facts(&self, guards: &ReplicaGuards) -> Vec<ReplicaFacts> {
        let configured = self.logs.iter().filter(|(_, entry)| entry.configured);
        configured.map(|(partition, entry)| self.facts_of(*partition, entry, guards)).collect()
    }

    fn facts_of(&self, partition: PartitionId, entry: &Entry, guards: &ReplicaGuards) -> ReplicaFacts {
        let guard = guards.get(&partition).copied().unwrap_or_default();
        let offsets = entry.log.offsets();
        let settings = entry.log.settings();
        let age = |at_ms: u64| Duration::from_millis(self.time.wall_ms.saturating_sub(at_ms));
        let mut segments: Vec<SegmentFacts> = entry
            .log
            .sealed()
            .iter()
            .map(|s| SegmentFacts {
                base_offset: s.base_offset,
                end_offset: s.end_offset,
                bytes: s.disk_bytes(),
                last_append_age: age(s.last_append_ms),
                sealed: true,
            })
            .collect();
        let active = entry.log.active();
        segments.push(SegmentFacts {
            base_offset: active.base_offset,
            end_offset: if active.size == 0 { active.base_offset } else { active.end_offset },
            bytes: active.disk_bytes(),
            last_append_age: age(active.last_append_ms),
            sealed: false,
        });
        let trim =
            |past_active_groups| Pressure::Trim { min_retention: settings.min_retention, past_active_groups };
        ReplicaFacts {
            partition,
            leads: guard.leads,
            log_start: offsets.log_start(),
            high_watermark: offsets.high_watermark(),
            replicated_to: guard.replicated_to,
            group_floor: guard.group_floor,
            ages_trusted: self.time.ages_trusted,
            retention_age_max: settings.retention_age_max,
            retention_bytes_max: settings.retention_bytes_max,
            pressure: match settings.on_pressure {
                OnPressure::Refuse => Pressure::Refuse,
                OnPressure::Trim => trim(false),
                OnPressure::TrimPastActiveGroups => trim(true),
            },
            segments,
        }
    }
}

fn reclaimed(deletion: &Deletion) -> VolumeEvent {
    let Deletion { partition, base_offset, end_offset, bytes, reason } = *deletion;
    VolumeEvent::Reclaimed { partition, from: base_offset, to: end_offset, bytes, reason }
}

/// The deletions of a plan by log: one trim of each log does them all.
fn trims(plan: &ReclaimPlan) -> Vec<(PartitionId, Vec<Deletion>)> {
    let mut trims: Vec<(PartitionId, Vec<Deletion>)> = Vec::new();
    for deletion in plan.deletions() {
        match trims.iter_mut().find(|(partition, _)| *partition == deletion.partition) {
            Some((_, deletions)) => deletions.push(*deletion),
            None => trims.push((deletion.partition, vec![*deletion])),
        }
    }
    trims
}
