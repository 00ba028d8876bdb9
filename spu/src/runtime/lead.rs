//! The leader's side of replication: answers to followers, in-sync proposals.

use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{Incarnation, LeaderEpoch, PartitionEpoch, PartitionId, SpuId};
use plimsoll_proto::v1::{self, ErrorDetail, Reason, replica_batches};
use tokio::sync::oneshot;

use super::job::{ChangeInSync, ControlRequest};
use super::refusal;
use super::replica::{Role, epoch_lookup};
use super::work::{ReplicateAnswer, ReplicateWork, Shared, offset};
use super::worker::Worker;
use crate::replica::{LogEnds, Position, Proposal, ProposalOutcome, ReportedPosition, Share, Wish};

impl Worker {
    /// Answers a follower's fetch from the replicas here; if nothing is worth sending, its `grown` is told
    /// when that changes.
    pub(super) fn on_replicate(&mut self, work: ReplicateWork) {
        let ReplicateWork { spu, incarnation, positions, bytes_max, grown, reply } = work;
        let mut answer = ReplicateAnswer::default();
        let (mut any_live, mut wishes) = (false, Vec::new());
        for (at, (partition, position)) in positions.iter().enumerate() {
            let (one, wish) = self.replicate_one(spu, incarnation, partition, position, at);
            answer.ready |= one.result.is_some();
            any_live |= wish.is_some_and(|(_, live)| live);
            wishes.extend(wish.and_then(|(wish, _)| wish));
            answer.partitions.push(one);
        }
        self.answers = self.answers.saturating_add(1);
        let mut share = Share::new(bytes_max, any_live, wishes);
        while let Some((wish, bytes)) = share.next_wish() {
            let Some((partition, position)) = positions.get(wish.at) else { continue };
            let result = self.batches_for(spu, partition, position, bytes);
            if let replica_batches::Result::Batches(batches) = &result {
                share.took(wish, batches.len());
            }
            answer.ready = true;
            if let Some(one) = answer.partitions.get_mut(wish.at) {
                one.result = Some(result);
            }
        }
        // Who gets nothing now is told so: an empty answer has counted the follower's progress.
        for one in &mut answer.partitions {
            one.result.get_or_insert(replica_batches::Result::Batches(bytes::Bytes::new()));
        }
        if !answer.ready {
            for (partition, position) in &positions {
                // A paused follower can't take what grows.
                if let Some(replica) = self.replicas.get_mut(partition).filter(|_| !position.paused) {
                    replica.waiting_followers.insert(spu, grown.clone());
                }
            }
        }
        // A follower that has gone asks again.
        drop(reply.send(answer));
    }

    /// The answer without batches, and where the follower's log continues: what it may get, and whether the partition
    /// is live.
    fn replicate_one(
        &mut self,
        spu: SpuId,
        incarnation: Incarnation,
        partition: &PartitionId,
        position: &v1::ReplicaPosition,
        at: usize,
    ) -> (v1::ReplicaBatches, Option<(Option<Wish>, bool)>) {
        let mut answer = v1::ReplicaBatches {
            topic_id: partition.topic_id.to_bytes(),
            partition: partition.index,
            leader_epoch: position.leader_epoch,
            ..v1::ReplicaBatches::default()
        };
        let mut wish = None;
        match self.compare(spu, incarnation, partition, position, &mut answer) {
            Ok(Compared::Diverging(diverging)) => {
                answer.result = Some(replica_batches::Result::Diverging(diverging));
            }
            Ok(Compared::Continues) => wish = self.wish(spu, partition, position, at),
            Err(detail) => answer.result = Some(replica_batches::Result::Error(detail)),
        }
        (answer, wish)
    }

    fn wish(
        &self,
        spu: SpuId,
        partition: &PartitionId,
        position: &v1::ReplicaPosition,
        at: usize,
    ) -> Option<(Option<Wish>, bool)> {
        let Role::Leads(leader) = &self.replicas.get(partition)?.role else { return None };
        let live = leader.counts(spu);
        let log_end = self.volume.log(partition)?.log_end;
        let wants = !position.paused && offset(position.log_end) < log_end;
        Some((wants.then(|| Wish { at, live, served: leader.served(spu) }), live))
    }

    /// Compares the follower's log with the own one by epochs, and counts its progress when it continues.
    fn compare(
        &mut self,
        spu: SpuId,
        incarnation: Incarnation,
        partition: &PartitionId,
        position: &v1::ReplicaPosition,
        answer: &mut v1::ReplicaBatches,
    ) -> Result<Compared, ErrorDetail> {
        let now = self.now();
        let image = self.shared.image();
        let hint = || Shared::hint(&image, partition);
        let not_leader = || refusal::not_leader(partition, hint(), self.shared.spu);
        let log = self.volume.log(partition).ok_or_else(not_leader)?;
        let replica = self.replicas.get_mut(partition).ok_or_else(not_leader)?;
        let Role::Leads(leader) = &mut replica.role else { return Err(not_leader()) };
        let epoch = leader.term().epoch;
        if position.leader_epoch != epoch.0 {
            return Err(refusal::stale_epoch(position.leader_epoch, epoch.0, hint()));
        }
        if self.volume.facts().failure.is_some() {
            // What a failed device holds beyond its durable end counts for nothing.
            return Err(self.place.failed(&self.volume.facts()));
        }
        answer.high_watermark = leader.high_watermark().get();
        answer.log_start = log.log_start.get();
        let level = position.level().known().unwrap_or(DiskLevel::Normal);
        let log_end = offset(position.log_end);
        let last_epoch = (position.last_epoch > 0).then_some(LeaderEpoch(position.last_epoch));
        let ends = (log.log_start, log.log_end);
        match Position::of(log_end, last_epoch, ends, epoch_lookup(&self.volume, partition)) {
            Position::Trimmed => {
                leader.on_level(spu, level);
                Err(refusal::trimmed(log_end, log.log_start, log.log_end))
            }
            Position::Diverging(end) => {
                leader.on_level(spu, level);
                Ok(Compared::Diverging(v1::Diverging { epoch: end.epoch.0, end_offset: end.end.get() }))
            }
            Position::Continues => {
                let durable_end = offset(position.durable_end).min(log_end);
                let report = ReportedPosition { incarnation, ends: LogEnds { log_end, durable_end }, level };
                let moved = leader.on_fetch(spu, report, now).map_err(|stale| {
                    ErrorDetail::not_written(Reason::StaleIncarnation, format!("SPU {spu}: {stale}"))
                })?;
                answer.high_watermark = leader.high_watermark().get();
                if moved {
                    self.committed(partition);
                }
                Ok(Compared::Continues)
            }
        }
    }

    fn batches_for(
        &mut self,
        spu: SpuId,
        partition: &PartitionId,
        position: &v1::ReplicaPosition,
        bytes: usize,
    ) -> replica_batches::Result {
        let from = offset(position.log_end);
        let log = self.volume.log(partition);
        let log_end = log.map_or(from, |log| log.log_end);
        match self.volume.read(partition, from, log_end, bytes) {
            Ok(batches) => {
                if let Some(Role::Leads(leader)) = self.replicas.get_mut(partition).map(|r| &mut r.role) {
                    leader.on_served(spu, self.answers);
                }
                replica_batches::Result::Batches(batches)
            }
            Err(error) => {
                self.check_failed();
                replica_batches::Result::Error(self.place.read_error(&error, log))
            }
        }
    }

    /// Lets every leader look for members that lag or have caught up.
    pub(super) fn tick_leaders(&mut self, now: Duration) {
        if self.volume.facts().failure.is_some() {
            return;
        }
        let mut proposals = Vec::new();
        for (partition, replica) in &mut self.replicas {
            if let Role::Leads(leader) = &mut replica.role
                && let Some(proposal) = leader.tick(now)
            {
                proposals.push((*partition, leader.term().epoch, proposal));
            }
        }
        for (partition, epoch, proposal) in proposals {
            self.propose(partition, epoch, &proposal);
        }
    }

    fn propose(&mut self, partition: PartitionId, epoch: LeaderEpoch, proposal: &Proposal) {
        let image = self.shared.image();
        let incarnation_of =
            |spu: &SpuId| image.spus.get(spu).map_or(Incarnation(0), |info| Incarnation(info.incarnation));
        let expected = proposal.partition_epoch;
        let (answer, answered) = oneshot::channel();
        let request = ControlRequest::ChangeInSync(ChangeInSync {
            partition,
            incarnation: self.shared.incarnation().unwrap_or_default(),
            leader_epoch: epoch,
            partition_epoch: expected,
            in_sync: proposal.in_sync.iter().map(|spu| (*spu, incarnation_of(spu))).collect(),
            reason: proposal.reason.clone(),
            answer,
        });
        // A full queue drops the request, and with it `answer`: not known, so it is sent again later.
        drop(self.control.try_send(request));
        self.proposals.push(Box::pin(async move {
            let outcome = match answered.await {
                Ok(response) if response.applied => ProposalOutcome::Applied,
                Ok(response) => {
                    ProposalOutcome::Rejected { partition_epoch: PartitionEpoch(response.partition_epoch) }
                }
                Err(_) => ProposalOutcome::Unknown,
            };
            (partition, epoch, expected, outcome)
        }));
    }

    pub(super) fn on_proposal(
        &mut self,
        partition: &PartitionId,
        epoch: LeaderEpoch,
        expected: PartitionEpoch,
        outcome: ProposalOutcome,
    ) {
        let now = self.now();
        let Some(replica) = self.replicas.get_mut(partition) else { return };
        let Role::Leads(leader) = &mut replica.role else { return };
        if leader.term().epoch == epoch {
            leader.on_proposal(expected, outcome, now);
        }
    }
}

enum Compared {
    Continues,
    Diverging(v1::Diverging),
}
