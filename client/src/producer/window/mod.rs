//! The batches of one partition on their way to its leader: events in, commands out, the time an argument.
//!
//! ```text
//!            +--- acknowledged or failed: gone
//!            |
//!   [ Sent ][ Sent ][ Sent ] [ Ready ][ Ready ]   <- enqueue
//!     oldest                                newest
//! ```
//!
//! Batches are sent in order and keep their order: when one is refused, nothing more is sent until everything
//! under way is answered (`Draining`), then there is a pause (`Waiting`) that news of the leader or its disk
//! cut short, then sending goes on from the refused batch. With idempotence a batch gets its sequence when it
//! is first sent and keeps it, so that one that may have been written can be sent again safely.

mod give_up;
mod parts;
mod pause;
mod send;

use std::collections::VecDeque;
use std::time::Duration;

use plimsoll_host::Random;
use plimsoll_host::retry::Backoff;
use plimsoll_proto::batch::Sequence;
use plimsoll_proto::ids::{ProducerEpoch, ProducerId, SpuId};
use plimsoll_proto::v1::Reason;

use self::parts::{Cause, Entry, EntryState, Identity, Phase};
pub(crate) use self::pause::NO_ROOM_PAUSE;
use self::pause::{BACKOFF_FIRST, BACKOFF_MAX};
use super::connection::Lost;
use super::event::ProducerEvent;
use crate::error::{LastCause, ProduceErrorKind};
use crate::refusal::{Outcome, Refusal};

pub(crate) use self::parts::{Ack, BatchNo, Command, Route, Target, WindowSettings};

#[derive(Debug)]
pub(crate) struct Window {
    settings: WindowSettings,
    queue: VecDeque<Entry>,
    route: Route,
    phase: Phase,
    identity: Identity,
    next_sequence: Sequence,
    /// A batch with a sequence was given up without knowing its fate: a new producer id is needed.
    renew: bool,
    /// After a failure one batch tries alone; an acknowledgement lets the others follow.
    probing: bool,
    /// Refusals for lack of space since the last acknowledgement or news.
    no_room: u32,
    /// News ended the pause: nobody has to be asked whose turn it is.
    called: bool,
    /// Times in a row that the oldest batch was out of order.
    disorder: u32,
    next_batch: BatchNo,
    next_request: u64,
    connection: u64,
    connected_to: Option<(SpuId, String)>,
    sent_to: Option<SpuId>,
    /// What stood in the way since the last acknowledgement.
    last: Option<LastCause>,
    backoff: Backoff,
    random: Random,
}

impl Window {
    pub(crate) fn new(
        settings: WindowSettings,
        identity: Option<(ProducerId, ProducerEpoch)>,
        random: &Random,
    ) -> Self {
        let identity = match (settings.idempotent, identity) {
            (false, _) => Identity::NotNeeded,
            (true, None) => Identity::Absent,
            (true, Some((id, epoch))) => Identity::Known { id, epoch },
        };
        Self {
            settings,
            queue: VecDeque::new(),
            route: Route::NoLeader,
            phase: Phase::Sending,
            identity,
            next_sequence: Sequence::ZERO,
            renew: false,
            probing: false,
            no_room: 0,
            called: false,
            disorder: 0,
            next_batch: 0,
            next_request: 1,
            connection: 0,
            connected_to: None,
            sent_to: None,
            last: None,
            backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_MAX, random),
            random: random.clone(),
        }
    }

    /// Whether another batch would be sent at once. Until then its records had better wait for company.
    pub(crate) fn wants_batch(&self) -> bool {
        match self.phase {
            Phase::Sending => {
                matches!(self.route, Route::Leader(_))
                    && self.queue.iter().all(|entry| entry.state != EntryState::Ready)
                    && self.queue.len() < self.in_flight_limit()
            }
            Phase::Draining { .. } | Phase::Waiting { .. } | Phase::Asking => false,
            // So that it fails.
            Phase::Stopped(_) => true,
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether batches get through, as far as is known.
    pub(crate) fn takes(&self) -> bool {
        !self.probing && matches!(&self.route, Route::Leader(target) if target.writable)
    }

    /// When [`Window::tick`] has something to do.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        let phase = match self.phase {
            Phase::Waiting { until, .. } => Some(until),
            _ => None,
        };
        let deadline = self.queue.front().map(|entry| entry.deadline);
        let answer = self.oldest_sent().map(|at| at.saturating_add(self.settings.answer_max));
        [phase, deadline, answer].into_iter().flatten().min()
    }

    /// Takes a batch; its number counts from 0.
    pub(crate) fn enqueue(
        &mut self,
        records: u32,
        deadline: Duration,
        now: Duration,
        out: &mut Vec<Command>,
    ) -> BatchNo {
        let batch = self.next_batch;
        self.next_batch += 1;
        self.queue.push_back(Entry {
            batch,
            records,
            deadline,
            sequence: None,
            maybe_written: false,
            sent_before: false,
            state: EntryState::Ready,
            last: None,
        });
        self.pump(now, out);
        batch
    }

    /// The metadata name a leader, or none.
    pub(crate) fn route(&mut self, route: Route, now: Duration, out: &mut Vec<Command>) {
        let news = match (&self.route, &route) {
            (old, new) if old == new => return,
            // An answer named a newer leader before the metadata did.
            (Route::Leader(old), Route::Leader(new)) if new.leader_epoch < old.leader_epoch => return,
            (Route::Leader(old), Route::Leader(new)) => (old.spu != new.spu
                || old.leader_epoch != new.leader_epoch)
                .then_some(Cause::Leader)
                .or_else(|| {
                    let room =
                        new.writable && !old.writable || new.enough && !old.enough || new.copies > old.copies;
                    (room || old.address != new.address).then_some(Cause::Disk)
                }),
            (_, Route::Leader(_)) => Some(Cause::Leader),
            (_, Route::NoLeader | Route::Gone) => None,
        };
        // A leader whose disk takes nothing is no news to one that waits for room: it would refuse as the last did.
        let takes = matches!(&route, Route::Leader(target) if target.writable);
        let news = news.filter(|_| takes || !self.probing);
        self.tell_leader(&route, out);
        self.route = route;
        if self.route == Route::NoLeader {
            self.stands_in_the_way(&LastCause::NoLeader);
        }
        if self.route == Route::Gone {
            self.stop(ProduceErrorKind::UnknownTopic(self.settings.topic.clone()), out);
            return;
        }
        self.leave_old_leader(now);
        if let Some(news) = news {
            self.wake(news, now);
        }
        self.pump(now, out);
    }

    /// The producer id that was asked for.
    pub(crate) fn identity(
        &mut self,
        id: ProducerId,
        epoch: ProducerEpoch,
        now: Duration,
        out: &mut Vec<Command>,
    ) {
        if self.identity == Identity::Asked {
            self.identity = Identity::Known { id, epoch };
            self.next_sequence = Sequence::ZERO;
        }
        self.pump(now, out);
    }

    /// A producer id can't be had now; ask again later.
    pub(crate) fn no_identity(&mut self, now: Duration, out: &mut Vec<Command>) {
        if self.identity == Identity::Asked {
            self.identity = Identity::Absent;
            let pause = self.backoff_pause();
            self.pause(pause, Cause::Leader, now);
        }
        self.pump(now, out);
    }

    /// A request was acknowledged.
    pub(crate) fn acked(&mut self, request: u64, ack: Ack, now: Duration, out: &mut Vec<Command>) {
        if let Some(entry) = self.position(request).and_then(|at| self.queue.remove(at)) {
            self.backoff.reset();
            if self.probing {
                out.push(Command::Opened);
            }
            self.probing = false;
            self.no_room = 0;
            self.disorder = 0;
            self.last = None;
            out.push(Command::Acked { batch: entry.batch, ack });
            out.push(Command::Tell(ProducerEvent::Acked {
                partition: self.settings.partition,
                spu: ack.spu,
                leader_epoch: ack.leader_epoch,
                base_offset: ack.base_offset,
                records: entry.records,
                duplicate: ack.duplicate,
                meaning: ack.meaning,
            }));
        }
        self.pump(now, out);
    }

    /// A request was refused by `spu`.
    pub(crate) fn refused(
        &mut self,
        request: u64,
        spu: SpuId,
        refusal: Refusal,
        now: Duration,
        out: &mut Vec<Command>,
    ) {
        let Some(at) = self.position(request) else {
            return self.pump(now, out);
        };
        let entry = &mut self.queue[at];
        let after = match std::mem::replace(&mut entry.state, EntryState::Ready) {
            EntryState::Sent { at, .. } => now.saturating_sub(at),
            EntryState::Ready => Duration::ZERO,
        };
        entry.last = Some(refusal.clone().into());
        entry.maybe_written |= refusal.outcome() == Outcome::Unknown;
        let maybe_written = entry.maybe_written;
        out.push(Command::Tell(ProducerEvent::Refused {
            partition: self.settings.partition,
            spu,
            records: entry.records,
            refusal: refusal.clone(),
            after,
        }));
        self.last = Some(refusal.clone().into());
        if maybe_written && !self.settings.idempotent {
            self.fail(at, ProduceErrorKind::Refused(refusal), now, out);
            return self.pump(now, out);
        }
        match refusal.reason() {
            Reason::OutOfOrderSequence => {
                // Behind a refused batch that is as it must be. The oldest one has nothing in front of it: the
                // leader lost something it had acknowledged, or forgot this producer.
                if at == 0 {
                    self.disorder += 1;
                    self.renew |= self.disorder > 1;
                }
                self.pause(Duration::ZERO, Cause::Leader, now);
            }
            Reason::UnknownProducer => {
                // Where very many producers push each other out this may come again soon.
                self.renew = true;
                let pause = self.backoff_pause();
                self.pause(pause, Cause::Leader, now);
            }
            Reason::ProducerFenced => return self.stop(ProduceErrorKind::Refused(refusal), out),
            Reason::DiskFull if self.settings.fail_when_full && !maybe_written => {
                self.fail(at, ProduceErrorKind::Refused(refusal), now, out);
            }
            // The node may not have heard of the topic yet; the metadata say when it is really gone.
            Reason::UnknownTopic | Reason::UnknownPartition => {
                let pause = self.backoff_pause();
                self.pause(pause, Cause::Leader, now);
            }
            _ if !refusal.is_retryable() => self.fail(at, ProduceErrorKind::Refused(refusal), now, out),
            Reason::DiskFull | Reason::NotEnoughInSync => {
                self.probing = true;
                self.called = false;
                if !self.follow_hint(&refusal, now, out) {
                    let pause = self.no_room_pause(refusal.reason());
                    self.pause(pause, Cause::Disk, now);
                }
            }
            Reason::Throttled | Reason::VolumeFailed | Reason::MemoryPressure => {
                self.probing = true;
                // Each node has its own reasons: what another producer meets says nothing.
                self.called = true;
                if !self.follow_hint(&refusal, now, out) {
                    // `retry_after` is an upper bound: trying one batch earlier is welcome.
                    let limit = refusal.retry_after().unwrap_or(BACKOFF_MAX);
                    let pause = self.backoff_pause().min(limit);
                    self.pause(pause, Cause::Disk, now);
                }
            }
            _ => {
                self.try_alone();
                if !self.follow_hint(&refusal, now, out) {
                    let pause = self.backoff_pause();
                    self.pause(pause, Cause::Leader, now);
                }
            }
        }
        self.pump(now, out);
    }

    /// The connection broke.
    pub(crate) fn connection_lost(&mut self, lost: &Lost, now: Duration, out: &mut Vec<Command>) {
        let Lost { number, why, sent } = lost;
        if *number != self.connection {
            return;
        }
        let spu = self.connected_to.take().map_or(SpuId(0), |(spu, _)| spu);
        self.connection += 1;
        out.push(Command::Tell(ProducerEvent::ConnectionLost {
            partition: self.settings.partition,
            spu,
            why: why.clone(),
        }));
        let waiting = self.queue.iter().any(|entry| entry.state != EntryState::Ready);
        if waiting {
            self.stands_in_the_way(&LastCause::ConnectionLost { spu, why: why.clone() });
        }
        if self.settings.idempotent || !sent {
            self.forget_answers(*sent);
        } else {
            while let Some(at) = self.queue.iter().position(|entry| entry.state != EntryState::Ready) {
                let kind = ProduceErrorKind::ConnectionLost { spu: spu.0, why: why.clone() };
                self.fail(at, kind, now, out);
            }
        }
        if waiting {
            self.try_alone();
            let pause = self.backoff_pause();
            self.pause(pause, Cause::Leader, now);
        }
        self.pump(now, out);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Duration, out: &mut Vec<Command>) {
        while self.queue.front().is_some_and(|entry| entry.deadline <= now) {
            let entry = &self.queue[0];
            let known = entry.state == EntryState::Ready && !entry.maybe_written;
            let kind = ProduceErrorKind::DeadlineExceeded {
                waited: self.settings.deadline,
                outcome: if known { Outcome::NotWritten } else { Outcome::Unknown },
                last: self.last_cause(entry),
            };
            self.fail(0, kind, now, out);
        }
        if self.oldest_sent().is_some_and(|at| now >= at.saturating_add(self.settings.answer_max)) {
            let lost = Lost { number: self.connection, why: "no answer in time".to_owned(), sent: true };
            self.connection_lost(&lost, now, out);
        }
        self.pump(now, out);
    }

    fn position(&self, request: u64) -> Option<usize> {
        self.queue.iter().position(|e| matches!(e.state, EntryState::Sent { request: r, .. } if r == request))
    }

    fn oldest_sent(&self) -> Option<Duration> {
        self.queue
            .iter()
            .filter_map(|entry| match entry.state {
                EntryState::Sent { at, .. } => Some(at),
                EntryState::Ready => None,
            })
            .min()
    }

    fn in_flight(&self) -> usize {
        self.queue.iter().filter(|entry| entry.state != EntryState::Ready).count()
    }

    fn in_flight_limit(&self) -> usize {
        if self.probing { 1 } else { self.settings.in_flight_max }
    }
}

#[cfg(test)]
mod tests;
