//! The volume's level as the node lives it: samples, refusals, what is asked of the controller, what is shown.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::Host;
use plimsoll_host::log_budget::Key;
use plimsoll_proto::disk::{DiskCause, DiskLevel, WriteClass};
use plimsoll_proto::group::OFFSETS_TOPIC;
use plimsoll_proto::ids::PartitionId;
use plimsoll_proto::v1::{self, ErrorDetail};
use plimsoll_storage::fs::{DiskError, SharedDisk};
use plimsoll_storage::space::{Observation, RefuseReason, Verdict};
use plimsoll_storage::volume::{Measured, ReplicaGuard, ReplicaGuards, SpaceSampler, VolumeEvent};
use tokio::sync::watch;

use super::byte_limit::ByteLimit;
use super::job::{ChangeVolume, ControlRequest};
use super::refusal;
use super::replica::Role;
use super::work::{Gate, VolumeView, millis};
use super::worker::Worker;
use crate::replica::StopReason;

/// A sample that is older than this, with none newer, is unknown, and unknown is never plenty.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How often an unanswered wish for another volume state is repeated.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How often figures are shown that change nothing for producers.
const FIGURES: Duration = Duration::from_millis(50);
/// How often the replicas' ends are shown.
const REPORTS: Duration = Duration::from_millis(500);

/// One sample of the space, and when it came.
#[derive(Clone, Debug)]
pub(super) struct SampleSeen {
    pub(super) measured: Measured,
    /// The byte limit in force, which may have changed since the last sample.
    pub(super) byte_limit: Option<u64>,
}

/// Asks the disk for its space, for ever, as often as `pause` says. Runs on a lane of its own: a hung mount
/// never answers.
pub(super) async fn sample_space(
    host: Host,
    sampler: SpaceSampler,
    disk: SharedDisk,
    mut limit: ByteLimit,
    samples: watch::Sender<Option<SampleSeen>>,
    pause: watch::Receiver<Duration>,
) {
    while !samples.is_closed() {
        let measured = sampler.sample();
        let byte_limit = limit.read(disk.as_ref());
        samples.send_replace(Some(SampleSeen { measured, byte_limit }));
        let wait = *pause.borrow();
        let mut changed = pause.clone();
        tokio::select! {
            () = host.clock.sleep(wait) => {}
            () = sooner(&mut changed, wait) => {}
            () = samples.closed() => {}
        }
    }
}

/// Waits until samples are wanted more often than every `wait`.
async fn sooner(pause: &mut watch::Receiver<Duration>, wait: Duration) {
    if pause.wait_for(|pause| *pause < wait).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Worker {
    pub(super) fn on_sample(&mut self) {
        let Some(seen) = self.inbox.samples.borrow_and_update().clone() else { return };
        let now = self.now();
        self.sampled_at = now;
        self.volume.set_byte_limit(seen.byte_limit);
        let events = self.volume.observe_measured(seen.measured, now);
        self.observed(events);
    }

    fn observed(&mut self, events: Vec<VolumeEvent>) {
        self.on_events(events);
        self.sample_pause.send_if_modified(|pause| {
            let next = self.volume.next_sample_in();
            let changed = *pause != next;
            *pause = next;
            changed
        });
    }

    /// The volume's own upkeep: retention, reclaim, checkpoints, canaries.
    pub(super) fn tick_volume(&mut self, now: Duration) {
        if now.saturating_sub(self.sampled_at) > ANSWER_MAX {
            self.sampled_at = now;
            let events = self.volume.observe(Observation::NoAnswer, now);
            self.observed(events);
        }
        let guards = if self.volume.reclaims_at(now) { self.guards() } else { ReplicaGuards::default() };
        let wall_ms = self.cluster_ms();
        let events = self.volume.tick(now, wall_ms, &guards);
        self.on_events(events);
        if self.inbox.cluster_time.has_changed().unwrap_or(false) {
            // After the tick, which may have seen the very correction as a jump.
            self.inbox.cluster_time.mark_unchanged();
            self.volume.set_time_trusted(true);
        }
        self.rebuild_failed(now);
        if self.missing && now.saturating_sub(self.retried_at) >= REPORTS {
            self.retried_at = now;
            self.reconcile();
        }
    }

    pub(super) fn guards(&self) -> ReplicaGuards {
        let floors = self.shared.group_floors.borrow();
        let groups = self.shared.image().topic_by_name(OFFSETS_TOPIC).is_some();
        let guard = |partition: &PartitionId, role: &Role| match role {
            Role::Leads(leader) => ReplicaGuard {
                leads: true,
                replicated_to: Some(leader.replicated_to()),
                group_floor: floors.floor(partition, groups, self.volume.log(partition)),
            },
            Role::Follows(_) | Role::Idle => ReplicaGuard::default(),
        };
        self.replicas
            .iter()
            .map(|(partition, replica)| (*partition, guard(partition, &replica.role)))
            .collect()
    }

    fn on_events(&mut self, events: Vec<VolumeEvent>) {
        for event in events {
            match event {
                VolumeEvent::LevelChanged { to, .. } if to < DiskLevel::ReadOnly => {
                    for replica in self.replicas.values_mut() {
                        replica.paused_until = Duration::ZERO;
                    }
                }
                VolumeEvent::LevelChanged { .. } => {}
                VolumeEvent::Reclaimed { partition, from, to, bytes, reason } => {
                    self.levels.reclaimed(bytes);
                    tracing::debug!(%partition, %from, %to, bytes, ?reason, "records deleted");
                }
                VolumeEvent::CanaryFailed { error } => tracing::debug!(%error, "volume stays read-only"),
                VolumeEvent::Failed { .. } => self.check_failed(),
                VolumeEvent::Damaged(range) => {
                    let text = format!("offsets {} to {} are damaged", range.from, range.to);
                    self.report(range.partition.to_string(), "damage", &text);
                }
            }
        }
    }

    /// After an error of the disk: a failed volume answers everybody who waits. What they wrote has its
    /// offset, so the outcome is unknown.
    pub(super) fn check_failed(&mut self) {
        let facts = self.volume.facts();
        if facts.failure.is_none() || self.failed {
            return;
        }
        self.failed = true;
        let detail = self.place.failed(&facts);
        for replica in self.replicas.values_mut() {
            replica.wake_followers();
            let waiting = replica.waiting_acks.take_all().into_iter();
            for token in waiting.chain(std::mem::take(&mut replica.waiting_syncs)) {
                let mut detail = detail.clone();
                detail.outcome = v1::Outcome::Unknown.into();
                drop(token.reply.send(v1::produce_response::Result::Error(detail)));
            }
        }
    }

    /// DISK_FULL or VOLUME_FAILED as admission says it.
    pub(super) fn refused(&self, reason: RefuseReason, needed_bytes: u64) -> ErrorDetail {
        let facts = self.volume.facts();
        match reason {
            RefuseReason::VolumeFailed { .. } => self.place.failed(&facts),
            RefuseReason::DiskFull { cause, retry_after, .. } => {
                self.place.disk_full(&facts, cause, needed_bytes).retry_after(retry_after)
            }
        }
    }

    /// Shows the level and the figures, logs a change once, and asks the controller for the state that goes
    /// with it.
    pub(super) fn publish(&mut self, now: Duration) {
        let facts = self.volume.facts();
        let refused = self.pulse.refused();
        if let Some(line) = self.levels.observe(facts.level, refused, now) {
            let (from, to) = (line.from, line.to);
            let what = if from == to { "disk still refuses" } else { "disk level changed" };
            let cause = facts.cause.map(|cause| cause.to_string()).unwrap_or_default();
            let failure = facts.failure.map(|failure| failure.to_string()).unwrap_or_default();
            tracing::warn!(
                volume = %self.place.path, %from, %to, cause, failure,
                free_bytes = facts.free_bytes, capacity_bytes = facts.capacity_bytes,
                reclaimed_bytes = line.reclaimed_bytes, refused = line.refused, changes = line.changes,
                "{what}"
            );
        }
        self.ask_controller(facts.level, facts.cause, now);
        let verdict = self.volume.admit(WriteClass::Produce, 1, Duration::ZERO, now);
        let fresh = self.shown_at.is_some_and(|at| now.saturating_sub(at) < FIGURES);
        if fresh && self.view.borrow().shows(facts.level, &verdict) {
            return;
        }
        self.shown_at = Some(now);
        let gate = self.gate(verdict);
        let level = facts.level;
        let mut shown = refusal::wire_facts(&self.place, &facts, now);
        let leads = self.replicas.values().filter(|replica| matches!(replica.role, Role::Leads(_))).count();
        shown.leaders = u32::try_from(leads).unwrap_or(u32::MAX);
        shown.replicas = u32::try_from(self.replicas.len()).unwrap_or(u32::MAX);
        shown.replica_stops_total = self.replica_stops;
        (shown.stopped_replicas, shown.replicas_stopped) = self.stopped_replicas(now);
        let marks = self.volume.marks();
        shown.reclaim_enter_bytes = marks.bytes(DiskLevel::Reclaim).enter;
        shown.throttle_enter_bytes = marks.bytes(DiskLevel::Throttle).enter;
        shown.read_only_enter_bytes = marks.bytes(DiskLevel::ReadOnly).enter;
        shown.read_only_exit_bytes = marks.bytes(DiskLevel::ReadOnly).exit;
        let reports_due = self.reported_at.is_none_or(|at| now.saturating_sub(at) >= REPORTS);
        let replicas = if reports_due {
            self.reported_at = Some(now);
            Arc::new(self.reports())
        } else {
            self.view.borrow().replicas.clone()
        };
        self.view.send_replace(Arc::new(VolumeView { facts: shown, level, gate, replicas }));
    }

    /// Replicas that are stopped, the longest first, as far as they are named; and how many there are.
    fn stopped_replicas(&self, now: Duration) -> (Vec<v1::StoppedReplica>, u32) {
        let mut stopped: Vec<_> = self
            .replicas
            .iter()
            .filter_map(|(partition, replica)| Some((replica.stopped_at, partition, replica.stopped()?)))
            .collect();
        let count = u32::try_from(stopped.len()).unwrap_or(u32::MAX);
        stopped.sort_by_key(|(at, partition, _)| (*at, **partition));
        stopped.truncate(v1::VolumeFacts::STOPPED_REPLICAS_MAX);
        let named = stopped.into_iter().map(|(at, partition, (follower, why))| {
            let StopReason::CutBelowHighWatermark { to, high_watermark } = why;
            v1::StoppedReplica {
                topic_id: partition.topic_id.to_bytes(),
                partition: partition.index,
                stopped_ms: millis(now.saturating_sub(at)),
                leader: follower.leader.0,
                leader_epoch: follower.epoch.0,
                cut_to: to.get(),
                high_watermark: high_watermark.get(),
            }
        });
        (named.collect(), count)
    }

    fn gate(&self, verdict: Verdict) -> Gate {
        match verdict {
            Verdict::Accept => Gate::Open,
            Verdict::Delay { .. } => Gate::Slow,
            Verdict::Refuse { reason } => Gate::Shut {
                detail: Box::new(self.refused(reason, 0)),
                hold_until: self.volume.facts().hold_until,
            },
        }
    }

    fn reports(&self) -> Vec<v1::ReplicaReport> {
        let report = |partition: &plimsoll_proto::ids::PartitionId| {
            let log = self.volume.log(partition)?;
            // Above the durable end nothing counts once a sync failed.
            let log_end = if log.sync_failed { log.durable_end } else { log.log_end };
            Some(v1::ReplicaReport {
                topic_id: partition.topic_id.to_bytes(),
                partition: partition.index,
                last_epoch: self.last_record_epoch(partition, &log).map_or(0, |epoch| epoch.0),
                log_end: log_end.get(),
                high_watermark: log.high_watermark.min(log_end).get(),
                cache_lost: self.is_uncertain(partition),
            })
        };
        self.volume.partitions().iter().filter_map(report).collect()
    }

    /// Wishes for the committed state of this volume, repeated while the metadata does not show it.
    fn ask_controller(&mut self, level: DiskLevel, cause: Option<DiskCause>, now: Duration) {
        let Some(incarnation) = self.shared.incarnation() else { return };
        if self.rebuilding.awaits_registration(Some(incarnation)) {
            return;
        }
        let expected = self.shared.image().volume_state(self.shared.spu, self.place.volume);
        let wanted = match level {
            DiskLevel::Failed => v1::VolumeState::Failed,
            DiskLevel::ReadOnly => v1::VolumeState::WriteOffline,
            DiskLevel::Normal | DiskLevel::Reclaim | DiskLevel::Throttle => v1::VolumeState::Writable,
        };
        // Whether a stalled volume works again is the controller's to see.
        let idle = expected == wanted
            || expected == v1::VolumeState::Unspecified
            || (expected == v1::VolumeState::Stalled && wanted == v1::VolumeState::Writable);
        if idle {
            self.asked = None;
            return;
        }
        if self.asked.is_some_and(|(asked, at)| asked == wanted && now.saturating_sub(at) < ASK_AGAIN) {
            return;
        }
        let drill = if self.volume.facts().drill.is_some() { "drill: " } else { "" };
        let reason = match (level, cause) {
            (DiskLevel::Failed, _) => {
                let failure = self.volume.facts().failure;
                failure.map_or_else(|| "failed".to_owned(), |failure| failure.to_string())
            }
            (DiskLevel::ReadOnly, Some(cause)) => format!("{drill}disk full: {cause}"),
            (DiskLevel::ReadOnly, None) => "disk full".to_owned(),
            (DiskLevel::Normal | DiskLevel::Reclaim | DiskLevel::Throttle, _) => "space is back".to_owned(),
        };
        let wish = ChangeVolume { volume: self.place.volume, incarnation, expected, wanted, reason };
        if self.control.try_send(ControlRequest::ChangeVolume(wish)).is_ok() {
            self.asked = Some((wanted, now));
        }
    }

    /// Something that repeats: logged within the budget.
    pub(super) fn report(&self, subject: String, kind: &'static str, text: &str) {
        let key = Key::new("volume", subject.clone(), kind);
        if let Some(suppressed) = self.log_budget.report(key, self.now()) {
            tracing::warn!(volume = %self.place.path, subject, suppressed, "{kind}: {text}");
        }
    }

    /// Something that many replicas do at the same time: one line for the first, then how many more.
    pub(super) fn tell(&self, partition: &plimsoll_proto::ids::PartitionId, what: &'static str) {
        let key = Key::new("volume", self.place.path.clone(), what);
        if let Some(suppressed) = self.log_budget.report(key, self.now()) {
            tracing::info!(volume = %self.place.path, %partition, suppressed, "{what}");
        }
    }

    pub(super) fn report_disk_error(&self, kind: &'static str, error: &DiskError) {
        if !matches!(error, DiskError::OutOfSpace { .. }) {
            self.report(self.place.path.clone(), kind, &error.to_string());
        }
    }
}
