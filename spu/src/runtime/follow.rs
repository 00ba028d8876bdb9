//! The follower's side of replication: positions for the next fetch, and what its answer brings.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId, SpuId};
use plimsoll_proto::v1::{self, Reason, replica_batches};
use plimsoll_storage::fs::DiskError;
use plimsoll_storage::log::{AppendError, LogView};

use super::replica::{Role, epoch_lookup};
use super::work::{offset, partition_of};
use super::worker::Worker;
use crate::replica::{Asked, EpochEnd, FollowerStep, LeaderAnswer, OwnLog};

/// Pause of one partition after its leader refused it.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// Pause of one partition whose bytes found no room here.
const FULL_PAUSE: Duration = Duration::from_millis(500);
/// Pause after something that does not pass by itself.
const BROKEN_PAUSE: Duration = Duration::from_secs(5);

impl Worker {
    /// Where the replicas stand that follow `leader` and may ask now.
    pub(super) fn positions(&self, leader: SpuId) -> Vec<v1::ReplicaPosition> {
        let now = self.now();
        let facts = self.volume.facts();
        if facts.failure.is_some() {
            // What a failed device holds beyond its durable end counts for nothing, at the leader neither.
            return Vec::new();
        }
        let level = v1::DiskLevel::from(facts.level).into();
        let follows = |(partition, replica): (&PartitionId, &super::replica::Replica)| {
            let Role::Follows(follower) = &replica.role else { return None };
            if follower.leader != leader || follower.stopped.is_some() || replica.fetch_not_before > now {
                return None;
            }
            let log = self.volume.log(partition)?;
            Some(v1::ReplicaPosition {
                topic_id: partition.topic_id.to_bytes(),
                partition: partition.index,
                leader_epoch: follower.epoch.0,
                log_end: log.log_end.get(),
                durable_end: log.durable_end.get(),
                last_epoch: self.last_record_epoch(partition, &log).map_or(0, |epoch| epoch.0),
                level,
                paused: replica.paused_until > now,
            })
        };
        self.replicas.iter().filter_map(follows).collect()
    }

    /// The leader's answer, partition by partition.
    pub(super) fn on_replicated(
        &mut self,
        leader: SpuId,
        asked: &[v1::ReplicaPosition],
        answers: Vec<v1::ReplicaBatches>,
    ) {
        let asked: BTreeMap<PartitionId, Asked> = asked
            .iter()
            .filter_map(|position| {
                let last_epoch = (position.last_epoch > 0).then_some(LeaderEpoch(position.last_epoch));
                let asked = Asked { log_end: offset(position.log_end), last_epoch };
                Some((partition_of(&position.topic_id, position.partition)?, asked))
            })
            .collect();
        for answer in answers {
            let partition = partition_of(&answer.topic_id, answer.partition);
            if let Some((partition, asked)) = partition.and_then(|id| Some((id, *asked.get(&id)?))) {
                self.follow(leader, &partition, asked, answer);
            }
        }
    }

    fn follow(&mut self, leader: SpuId, partition: &PartitionId, asked: Asked, answer: v1::ReplicaBatches) {
        let now = self.now();
        let Some(replica) = self.replicas.get_mut(partition) else { return };
        let Role::Follows(follower) = &mut replica.role else { return };
        if follower.leader != leader || follower.epoch.0 != answer.leader_epoch {
            return;
        }
        let (log_start, high_watermark) = (offset(answer.log_start), offset(answer.high_watermark));
        let told = match answer.result {
            Some(replica_batches::Result::Batches(batches)) => LeaderAnswer::Batches(batches),
            Some(replica_batches::Result::Diverging(end)) => LeaderAnswer::Diverging(EpochEnd {
                epoch: LeaderEpoch(end.epoch),
                end: offset(end.end_offset),
            }),
            Some(replica_batches::Result::Error(detail)) if detail.reason() == Reason::OffsetTrimmed => {
                LeaderAnswer::Trimmed
            }
            Some(replica_batches::Result::Error(_)) | None => {
                replica.fetch_not_before = now + REFUSED_PAUSE;
                return;
            }
        };
        let batches = matches!(told, LeaderAnswer::Batches(_));
        if batches && self.volume.is_offsets_area(partition) {
            // What the leader trimmed makes room for what it appended since.
            self.follow_ends(partition, high_watermark, log_start);
        }
        let Some(own) = self.own_log(partition) else { return };
        let Some(replica) = self.replicas.get_mut(partition) else { return };
        let Role::Follows(follower) = &mut replica.role else { return };
        let step = follower.on_answer(own, asked, told, log_start, epoch_lookup(&self.volume, partition));
        if step.is_some_and(|step| !self.take_step(partition, step)) {
            return;
        }
        self.follow_ends(partition, high_watermark, log_start);
    }

    /// After the batches are in: the leader's ends, and the sync before the next fetch tells of it.
    fn follow_ends(&mut self, partition: &PartitionId, high_watermark: Offset, log_start: Offset) {
        self.sync_what_was_left(partition);
        let Some(own) = self.own_log(partition) else { return };
        let Some(Role::Follows(follower)) = self.replicas.get(partition).map(|replica| &replica.role) else {
            return;
        };
        for step in follower.after_append(own, high_watermark, log_start) {
            self.take_step(partition, step);
        }
        if own.log_end >= high_watermark && self.cache_lost.remove(partition) {
            self.volume.offsets_repaired(partition);
            self.tell(partition, "replica has caught up after the loss of its page cache");
        }
        self.serve_waiting_fetches(partition);
    }

    /// Where the durable end counts, batches of an earlier run that no sync covers are synced too: while nothing new
    /// is accepted for lack of in-sync replicas, no append would bring a sync.
    fn sync_what_was_left(&mut self, partition: &PartitionId) {
        let counts = self.replicas.get(partition).is_some_and(super::replica::Replica::flush_ack);
        let left = self.volume.log(partition).is_some_and(|log| log.durable_end < log.log_end);
        if counts && left && !self.failed {
            self.sync(partition);
        }
    }

    /// Returns whether it went well.
    fn take_step(&mut self, partition: &PartitionId, step: FollowerStep) -> bool {
        let (now, wall_ms) = (self.now(), self.cluster_ms());
        let done = match step {
            FollowerStep::Append(batches) => {
                return match self.volume.append_as_follower(partition, batches, now, wall_ms) {
                    Ok(_) => self.appended_as_follower(partition),
                    Err(error) => {
                        self.follower_append_failed(partition, &error);
                        false
                    }
                };
            }
            FollowerStep::TruncateTail(to) => {
                tracing::debug!(%partition, %to, "tail cut back");
                self.tell(partition, "tail cut back to what the leader has");
                self.volume.truncate_tail(partition, to)
            }
            FollowerStep::Restart(at) => {
                tracing::debug!(%partition, log_start = %at, "log restarts");
                self.tell(partition, "the leader's log starts later: restarting there");
                self.volume.trim_head(partition, at).map(drop)
            }
            FollowerStep::HighWatermark(to) => {
                self.volume.set_high_watermark(partition, to);
                Ok(())
            }
            FollowerStep::TrimHead(to) => self.volume.trim_head(partition, to).map(drop),
            FollowerStep::Stop(reason) => {
                self.replica_stops += 1;
                if let Some(replica) = self.replicas.get_mut(partition) {
                    replica.stopped_at = now;
                }
                tracing::error!(%partition, %reason, "replica stopped: its history is not the leader's");
                return false;
            }
        };
        match done {
            Ok(()) => true,
            Err(error) => {
                self.follower_step_failed(partition, &error);
                false
            }
        }
    }

    fn appended_as_follower(&mut self, partition: &PartitionId) -> bool {
        let Some(replica) = self.replicas.get_mut(partition) else { return false };
        replica.paused_until = Duration::ZERO;
        if replica.flush_ack() {
            return self.sync(partition);
        }
        self.dirty.insert(*partition);
        true
    }

    fn follower_append_failed(&mut self, partition: &PartitionId, error: &AppendError) {
        let now = self.now();
        let Some(replica) = self.replicas.get_mut(partition) else { return };
        match error {
            AppendError::OutOfSpace { .. } => replica.paused_until = now + FULL_PAUSE,
            AppendError::NotContiguous { .. } => {}
            AppendError::VolumeFailed { .. } => {
                replica.fetch_not_before = now + BROKEN_PAUSE;
                self.check_failed();
            }
            AppendError::Temporary(_) | AppendError::StaleEpoch { .. } | AppendError::NotFound => {
                replica.fetch_not_before = now + REFUSED_PAUSE;
            }
            AppendError::OutOfOrderSequence { .. }
            | AppendError::ProducerFenced
            | AppendError::UnknownProducer
            | AppendError::Corrupt(_)
            | AppendError::TooLarge { .. }
            | AppendError::OffsetsExhausted => {
                replica.fetch_not_before = now + BROKEN_PAUSE;
                self.report(partition.to_string(), "follow", &error.to_string());
            }
        }
    }

    fn follower_step_failed(&mut self, partition: &PartitionId, error: &DiskError) {
        let pause = if matches!(error, DiskError::OutOfSpace { .. }) { FULL_PAUSE } else { BROKEN_PAUSE };
        let until = self.now() + pause;
        if let Some(replica) = self.replicas.get_mut(partition) {
            replica.fetch_not_before = until;
        }
        self.report_disk_error("follow", error);
        self.check_failed();
    }

    /// Epoch of the last record; `None` for an empty log. A former leader may have noted epochs in which it
    /// never wrote: they say nothing about the log.
    pub(super) fn last_record_epoch(&self, partition: &PartitionId, log: &LogView) -> Option<LeaderEpoch> {
        let mut last = log.last_epoch.filter(|_| log.log_start < log.log_end)?;
        while let Some(before) = last.0.checked_sub(1).map(LeaderEpoch) {
            match self.volume.epoch_end(partition, before) {
                Some((epoch, end)) if end >= log.log_end => last = epoch,
                Some(_) | None => break,
            }
        }
        Some(last)
    }

    /// What a controller asks before an election that may lose records.
    pub(super) fn standing(&self, partition: &PartitionId) -> Option<v1::StandingResponse> {
        let log = self.volume.log(partition)?;
        let high_watermark = match self.replicas.get(partition).map(|replica| &replica.role) {
            Some(Role::Leads(leader)) => leader.high_watermark(),
            Some(Role::Idle | Role::Follows(_)) | None => log.high_watermark,
        };
        Some(v1::StandingResponse {
            held: true,
            last_epoch: self.last_record_epoch(partition, &log).map_or(0, |epoch| epoch.0),
            log_start: log.log_start.get(),
            log_end: log.log_end.get(),
            durable_end: log.durable_end.get(),
            high_watermark: high_watermark.get(),
            cache_lost: self.is_uncertain(partition),
            ..v1::StandingResponse::default()
        })
    }

    /// Whether the replica may have lost records that it had: with its page cache, or by a failed sync.
    pub(super) fn is_uncertain(&self, partition: &PartitionId) -> bool {
        let sync_failed = || self.volume.log(partition).is_some_and(|log| log.sync_failed);
        self.failed || self.cache_lost.contains(partition) || sync_failed()
    }

    fn own_log(&self, partition: &PartitionId) -> Option<OwnLog> {
        let log = self.volume.log(partition)?;
        Some(OwnLog {
            log_start: log.log_start,
            high_watermark: log.high_watermark,
            log_end: log.log_end,
            last_epoch: self.last_record_epoch(partition, &log),
        })
    }
}
