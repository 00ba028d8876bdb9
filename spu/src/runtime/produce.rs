//! Produce: level, leadership, in-sync set, append, acknowledgement; in this order.

use std::time::Duration;

use bytes::BytesMut;
use plimsoll_proto::disk::WriteClass;
use plimsoll_proto::ids::PartitionId;
use plimsoll_proto::v1::{self, Acks, ErrorDetail, Reason, produce_response};
use plimsoll_storage::log::{AppendError, Appended};
use plimsoll_storage::space::Verdict;

use super::job::ProduceJob;
use super::refusal;
use super::replica::{AckToken, Replica, Role};
use super::work::{QueuedProduce, Shared};
use super::worker::Worker;
use crate::replica::{Leader, LogEnds};

/// Appends of one partition that wait for followers at most.
pub(super) const WAITING_ACKS_MAX: usize = 65_536;

impl Worker {
    pub(super) fn on_produce(&mut self, queued: QueuedProduce) {
        // Whatever is held goes first: the order of appends is the order of the queue.
        if self.held.is_empty() {
            self.try_produce(queued);
        } else {
            self.hold(queued);
        }
    }

    fn hold(&mut self, queued: QueuedProduce) {
        self.held_bytes += queued.job.batch.len();
        self.held.push_back(queued);
    }

    /// When the first held batch is looked at again.
    pub(super) fn look_again_at(&self, held: &QueuedProduce) -> Duration {
        let now = self.now();
        match self.verdict(held, now) {
            Verdict::Delay { retry_after } => now + retry_after,
            Verdict::Accept | Verdict::Refuse { .. } => now,
        }
    }

    /// Lets go of held batches, in order, that need not wait longer.
    pub(super) fn release_held(&mut self) {
        while let Some(front) = self.held.front() {
            if matches!(self.verdict(front, self.now()), Verdict::Delay { .. }) {
                return;
            }
            let Some(queued) = self.held.pop_front() else { return };
            self.held_bytes -= queued.job.batch.len();
            self.produce_now(queued);
        }
    }

    fn verdict(&self, queued: &QueuedProduce, now: Duration) -> Verdict {
        if queued.refused.is_some() {
            // It takes no room.
            return Verdict::Accept;
        }
        let bytes = u64::try_from(queued.job.batch.len()).unwrap_or(u64::MAX);
        self.volume.admit(WriteClass::Produce, bytes, now.saturating_sub(queued.asked_at), now)
    }

    fn try_produce(&mut self, queued: QueuedProduce) {
        match self.verdict(&queued, self.now()) {
            Verdict::Delay { .. } => self.hold(queued),
            Verdict::Accept | Verdict::Refuse { .. } => self.produce_now(queued),
        }
    }

    /// Appends or refuses. What has its offset is only answered UNKNOWN from here on, should it fail.
    fn produce_now(&mut self, mut queued: QueuedProduce) {
        if let Some(admitted) = queued.admitted.take() {
            // A session that has gone needs no word.
            let _ = admitted.send(());
        }
        if let Some(refused) = queued.refused.take() {
            return self.refuse(queued, *refused);
        }
        match self.append(&mut queued) {
            Ok(appended) => self.await_ack(queued, appended),
            Err(detail) => self.refuse(queued, detail),
        }
    }

    /// Answers a refusal, unless the batch is in the log already: why nothing new is appended is no reason not to
    /// acknowledge that one, and NOT_WRITTEN would be wrong of it.
    pub(super) fn refuse(&mut self, queued: QueuedProduce, mut detail: ErrorDetail) {
        if let Some(repeated) = self.volume.appended_before(&queued.job.partition, &queued.job.batch) {
            // The metadata may name another leader a moment before this one steps down.
            if detail.leader.is_none() && self.stands_by(&queued.job) {
                return self.await_ack(queued, repeated);
            }
            detail.outcome = v1::Outcome::Unknown.into();
        }
        self.pulse.count(&detail);
        drop(queued.reply.send(produce_response::Result::Error(detail)));
    }

    /// Whether an earlier append can be answered for here and now: this node leads in the epoch that the producer knows, may
    /// say so, counts what it has, and the set is large enough for what is asked. With acks=all it is acknowledged when the
    /// high watermark has reached it, as any append.
    fn stands_by(&self, job: &ProduceJob) -> bool {
        let Some(replica) = self.replicas.get(&job.partition) else { return false };
        let Role::Leads(leader) = &replica.role else { return false };
        let all = matches!(job.acks, Acks::All | Acks::Unspecified);
        leader.term().epoch == job.leader_epoch
            && self.shared.lease.borrow().runs(self.now())
            && !self.is_uncertain(&job.partition)
            && (!all || leader.acknowledges())
            && replica.waiting_acks.len() < WAITING_ACKS_MAX
    }

    fn append(&mut self, queued: &mut QueuedProduce) -> Result<Appended, ErrorDetail> {
        let now = self.now();
        let verdict = self.verdict(queued, now);
        let job = &mut queued.job;
        let image = self.shared.image();
        let hint = Shared::hint(&image, &job.partition);
        // The level comes before leadership: who ignores metadata still learns which disk is full.
        if let Verdict::Refuse { reason } = verdict {
            let elsewhere = hint.filter(|leader| leader.spu_id != self.shared.spu.0);
            let bytes = u64::try_from(job.batch.len()).unwrap_or(u64::MAX);
            return Err(self.refused(reason, bytes).led_by(elsewhere));
        }
        let lease_runs = self.shared.lease.borrow().runs(now);
        let replica = self.replicas.get(&job.partition);
        let leader = match replica.map(|replica| &replica.role) {
            Some(Role::Leads(leader)) => leader,
            Some(Role::Idle | Role::Follows(_)) | None => {
                return Err(refusal::not_leader(&job.partition, hint, self.shared.spu));
            }
        };
        let epoch = leader.term().epoch;
        if job.leader_epoch != epoch {
            return Err(refusal::stale_epoch(job.leader_epoch.0, epoch.0, hint));
        }
        leader.admit(job.acks, lease_runs).map_err(refusal::produce_refusal)?;
        if replica.is_some_and(|replica| replica.waiting_acks.len() >= WAITING_ACKS_MAX) {
            return Err(refusal::busy("appends wait for the in-sync set"));
        }
        let wall_ms = self.cluster_ms();
        let batch = BytesMut::from(std::mem::take(&mut job.batch));
        self.volume.append_as_leader(&job.partition, batch, epoch, now, wall_ms).map_err(|error| {
            let elsewhere = hint.filter(|leader| leader.spu_id != self.shared.spu.0);
            let detail = self.place.append_error(&error, &self.volume.facts());
            if matches!(error, AppendError::OutOfSpace { .. }) { detail.led_by(elsewhere) } else { detail }
        })
    }

    fn await_ack(&mut self, queued: QueuedProduce, appended: Appended) {
        let QueuedProduce { job, deadline, reply, .. } = queued;
        self.dirty.insert(job.partition);
        self.waited_on.insert(job.partition);
        let Some(replica) = self.replicas.get_mut(&job.partition) else { return };
        let token = AckToken {
            base: appended.base_offset,
            end: appended.end_offset,
            duplicate: appended.duplicate,
            reply,
        };
        match job.acks {
            Acks::All | Acks::Unspecified => replica.waiting_acks.push(appended.end_offset, deadline, token),
            Acks::Leader if replica.flush_ack() => replica.waiting_syncs.push(token),
            Acks::Leader => acknowledge(token, v1::AckMeaning::Leader, 1),
            Acks::None => acknowledge(token, v1::AckMeaning::None, 0),
        }
    }

    /// Syncs what must be synced, once for all appends of this turn; moves high watermarks; acknowledges.
    pub(super) fn settle_dirty(&mut self) {
        for partition in std::mem::take(&mut self.dirty) {
            self.settle(&partition);
        }
    }

    fn settle(&mut self, partition: &PartitionId) {
        let flush_ack = self.replicas.get(partition).is_some_and(Replica::flush_ack);
        if flush_ack && !self.sync(partition) {
            return;
        }
        let Some(view) = self.volume.log(partition) else { return };
        let Some(replica) = self.replicas.get_mut(partition) else { return };
        replica.wake_followers();
        for token in std::mem::take(&mut replica.waiting_syncs) {
            acknowledge(token, v1::AckMeaning::Synced, 1);
        }
        if let Role::Leads(leader) = &mut replica.role {
            leader.on_own_log(LogEnds { log_end: view.log_end, durable_end: view.durable_end });
        }
        self.committed(partition);
    }

    /// Returns whether it went well. A failed sync is final for the volume.
    pub(super) fn sync(&mut self, partition: &PartitionId) -> bool {
        match self.volume.sync(partition) {
            Ok(_) => true,
            Err(error) => {
                self.report_disk_error("sync", &error);
                self.check_failed();
                false
            }
        }
    }

    /// The high watermark may have moved: tell the log, acknowledge, and wake consumers.
    pub(super) fn committed(&mut self, partition: &PartitionId) {
        let Some(replica) = self.replicas.get(partition) else { return };
        if let Role::Leads(leader) = &replica.role {
            let high_watermark = leader.high_watermark();
            self.volume.set_high_watermark(partition, high_watermark);
            let acknowledges = leader.acknowledges();
            self.volume_settles_offsets(partition);
            if let Some(replica) = self.replicas.get_mut(partition).filter(|_| acknowledges) {
                acknowledge_reached(replica);
            }
        }
        self.serve_waiting_fetches(partition);
    }

    /// Answers whose time is up.
    pub(super) fn answer_late(&mut self, now: Duration) {
        for partition in &self.waited_on {
            let Some(replica) = self.replicas.get_mut(partition) else { continue };
            for token in replica.waiting_acks.take_late(now) {
                let message = format!("the in-sync set of {partition} did not confirm in time");
                let detail = ErrorDetail::unknown(Reason::TimedOut, message);
                drop(token.reply.send(produce_response::Result::Error(detail)));
            }
        }
        self.answer_late_fetches(now);
        let replicas = &self.replicas;
        self.waited_on.retain(|partition| replicas.get(partition).is_some_and(Replica::is_waited_on));
    }
}

fn acknowledge_reached(replica: &mut Replica) {
    let Role::Leads(leader) = &replica.role else { return };
    let leader: &Leader = leader;
    let meaning = if leader.term().flush_ack { v1::AckMeaning::Synced } else { v1::AckMeaning::Replicated };
    for token in replica.waiting_acks.take_reached(leader.high_watermark()) {
        let copies = leader.copies(token.end);
        acknowledge(token, meaning, copies);
    }
}

pub(super) fn acknowledge(token: AckToken, meaning: v1::AckMeaning, copies: u32) {
    let ack = v1::ProduceAck {
        base_offset: token.base.get(),
        meaning: meaning.into(),
        copies,
        duplicate: token.duplicate,
    };
    // A session that has gone gets no answer; the record is there all the same.
    drop(token.reply.send(produce_response::Result::Ack(ack)));
}
