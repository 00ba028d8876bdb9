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

use std::collections::VecDeque;
use std::time::Duration;

use plimsoll_host::Random;
use plimsoll_host::retry::Backoff;
use plimsoll_proto::batch::{ProducerSequence, Sequence};
use plimsoll_proto::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, SpuId};
use plimsoll_proto::v1::Reason;

use super::event::ProducerEvent;
use crate::error::ProduceErrorKind;
use crate::refusal::{Outcome, Refusal};

/// Spread of the producers that news of a disk wake all at once.
const DISK_NEWS_JITTER: Duration = Duration::from_millis(500);
/// Spread of those that news of a leader wake.
const LEADER_NEWS_JITTER: Duration = Duration::from_millis(50);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A batch by its place in what the partition was given.
pub(crate) type BatchNo = u64;

#[derive(Clone, Debug)]
pub(crate) struct WindowSettings {
    pub(crate) partition: u32,
    pub(crate) topic: String,
    pub(crate) in_flight_max: usize,
    pub(crate) idempotent: bool,
    /// Fail batches that a full disk refuses instead of waiting.
    pub(crate) fail_when_full: bool,
    /// A request without an answer for so long means that the connection is dead.
    pub(crate) answer_max: Duration,
    /// The delivery deadline, for messages.
    pub(crate) deadline: Duration,
}

/// Who leads the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) spu: SpuId,
    pub(crate) address: String,
    pub(crate) leader_epoch: LeaderEpoch,
    /// Whether the metadata say that its volume takes writes.
    pub(crate) writable: bool,
}

/// What the metadata say of the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    NoLeader,
    Leader(Target),
    /// The topic was deleted.
    Gone,
}

#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Ask for a producer id; answer with [`Window::identity`].
    NewIdentity,
    /// Send the batch on this connection; a number not seen before means a new connection to `target`, and
    /// that the one before is to be dropped.
    Send { batch: BatchNo, request: u64, connection: u64, target: Target, stamp: Option<ProducerSequence> },
    /// The batch is through.
    Acked { batch: BatchNo, base_offset: Option<Offset>, duplicate: bool },
    /// The batch failed for good.
    Failed { batch: BatchNo, kind: ProduceErrorKind },
    /// Tell who listens.
    Tell(ProducerEvent),
}

/// An acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    pub(crate) spu: SpuId,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) base_offset: Option<Offset>,
    pub(crate) duplicate: bool,
}

#[derive(Debug)]
struct Entry {
    batch: BatchNo,
    records: u32,
    deadline: Duration,
    sequence: Option<Sequence>,
    /// An earlier attempt ended without an answer that says otherwise.
    maybe_written: bool,
    sent_before: bool,
    state: EntryState,
    last: Option<Refusal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryState {
    Ready,
    Sent { request: u64, at: Duration },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Disk,
    Leader,
}

#[derive(Debug)]
enum Phase {
    Sending,
    /// Nothing is sent until everything under way is answered.
    Draining {
        until: Duration,
        cause: Cause,
    },
    /// Nothing is under way.
    Waiting {
        until: Duration,
        cause: Cause,
    },
    /// Nothing can be sent any more.
    Stopped(ProduceErrorKind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    NotNeeded,
    Absent,
    Asked,
    Known { id: ProducerId, epoch: ProducerEpoch },
}

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
    /// After a full disk one batch tries it alone.
    probing: bool,
    /// Times in a row that the oldest batch was out of order.
    disorder: u32,
    next_batch: BatchNo,
    next_request: u64,
    connection: u64,
    connected_to: Option<(SpuId, String)>,
    sent_to: Option<SpuId>,
    last_refusal: Option<Refusal>,
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
            disorder: 0,
            next_batch: 0,
            next_request: 1,
            connection: 0,
            connected_to: None,
            sent_to: None,
            last_refusal: None,
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
            Phase::Draining { .. } | Phase::Waiting { .. } => false,
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
            (Route::Leader(old), Route::Leader(new)) => {
                (old.spu != new.spu || old.leader_epoch != new.leader_epoch).then_some(Cause::Leader).or_else(
                    || (new.writable && !old.writable || old.address != new.address).then_some(Cause::Disk),
                )
            }
            (_, Route::Leader(_)) => Some(Cause::Leader),
            (_, Route::NoLeader | Route::Gone) => None,
        };
        self.tell_leader(&route, out);
        self.route = route;
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
            self.probing = false;
            self.disorder = 0;
            self.last_refusal = None;
            out.push(Command::Acked {
                batch: entry.batch,
                base_offset: ack.base_offset,
                duplicate: ack.duplicate,
            });
            out.push(Command::Tell(ProducerEvent::Acked {
                partition: self.settings.partition,
                spu: ack.spu,
                leader_epoch: ack.leader_epoch,
                base_offset: ack.base_offset,
                records: entry.records,
                duplicate: ack.duplicate,
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
        entry.state = EntryState::Ready;
        entry.last = Some(refusal.clone());
        entry.maybe_written |= refusal.outcome() == Outcome::Unknown;
        let maybe_written = entry.maybe_written;
        out.push(Command::Tell(ProducerEvent::Refused {
            partition: self.settings.partition,
            spu,
            records: entry.records,
            refusal: refusal.clone(),
        }));
        self.last_refusal = Some(refusal.clone());
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
                self.renew = true;
                self.pause(Duration::ZERO, Cause::Leader, now);
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
            Reason::DiskFull | Reason::Throttled | Reason::VolumeFailed | Reason::MemoryPressure => {
                self.probing = true;
                if !self.follow_hint(&refusal, now, out) {
                    // `retry_after` is an upper bound: trying one batch earlier is welcome.
                    let limit = refusal.retry_after().unwrap_or(BACKOFF_MAX);
                    let pause = self.backoff_pause().min(limit);
                    self.pause(pause, Cause::Disk, now);
                }
            }
            _ => {
                if !self.follow_hint(&refusal, now, out) {
                    let pause = self.backoff_pause();
                    self.pause(pause, Cause::Leader, now);
                }
            }
        }
        self.pump(now, out);
    }

    /// The connection broke.
    pub(crate) fn connection_lost(
        &mut self,
        connection: u64,
        why: &str,
        now: Duration,
        out: &mut Vec<Command>,
    ) {
        if connection != self.connection {
            return;
        }
        let spu = self.connected_to.take().map_or(SpuId(0), |(spu, _)| spu);
        self.connection += 1;
        out.push(Command::Tell(ProducerEvent::ConnectionLost {
            partition: self.settings.partition,
            spu,
            why: why.to_owned(),
        }));
        let waiting = self.queue.iter().any(|entry| entry.state != EntryState::Ready);
        if self.settings.idempotent {
            self.forget_answers();
        } else {
            while let Some(at) = self.queue.iter().position(|entry| entry.state != EntryState::Ready) {
                let kind = ProduceErrorKind::ConnectionLost { spu: spu.0, why: why.to_owned() };
                self.fail(at, kind, now, out);
            }
        }
        if waiting {
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
                last: entry.last.clone().or_else(|| self.last_refusal.clone()),
            };
            self.fail(0, kind, now, out);
        }
        if self.oldest_sent().is_some_and(|at| now >= at.saturating_add(self.settings.answer_max)) {
            self.connection_lost(self.connection, "no answer in time", now, out);
        }
        self.pump(now, out);
    }

    /// Sends what may be sent.
    fn pump(&mut self, now: Duration, out: &mut Vec<Command>) {
        if let Phase::Stopped(kind) = &self.phase {
            let kind = kind.clone();
            return self.stop(kind, out);
        }
        if let Phase::Draining { until, cause } = self.phase
            && self.in_flight() == 0
        {
            self.drained(out);
            self.phase = Phase::Waiting { until, cause };
        }
        if matches!(self.phase, Phase::Waiting { until, .. } if until <= now) {
            self.phase = Phase::Sending;
        }
        if !matches!(self.phase, Phase::Sending) || self.queue.is_empty() {
            return;
        }
        if self.identity == Identity::Absent {
            self.identity = Identity::Asked;
            out.push(Command::NewIdentity);
        }
        if self.identity == Identity::Asked {
            return;
        }
        let Route::Leader(target) = self.route.clone() else { return };
        let mut room = self.in_flight_limit().saturating_sub(self.in_flight());
        for at in 0..self.queue.len() {
            if room == 0 {
                break;
            }
            if self.queue[at].state == EntryState::Ready {
                self.send(at, &target, now, out);
                room -= 1;
            }
        }
    }

    fn send(&mut self, at: usize, target: &Target, now: Duration, out: &mut Vec<Command>) {
        let here = (target.spu, target.address.clone());
        if self.connected_to.as_ref() != Some(&here) {
            self.connection += 1;
            self.connected_to = Some(here);
        }
        let from = self.sent_to.replace(target.spu);
        if let Some(from) = from.filter(|from| *from != target.spu)
            && self.queue[at].sent_before
        {
            out.push(Command::Tell(ProducerEvent::Rerouted {
                partition: self.settings.partition,
                from,
                to: target.spu,
                leader_epoch: target.leader_epoch,
            }));
        }
        let request = self.next_request;
        self.next_request += 1;
        let entry = &mut self.queue[at];
        entry.state = EntryState::Sent { request, at: now };
        entry.sent_before = true;
        let stamp = match self.identity {
            Identity::Known { id, epoch } => {
                let base = *entry.sequence.get_or_insert_with(|| {
                    let base = self.next_sequence;
                    self.next_sequence = base.advance(entry.records);
                    base
                });
                Some(ProducerSequence { id, epoch, base })
            }
            Identity::NotNeeded | Identity::Absent | Identity::Asked => None,
        };
        let (batch, connection, target) = (entry.batch, self.connection, target.clone());
        out.push(Command::Send { batch, request, connection, target, stamp });
    }

    /// Everything under way is answered: the moment to take another producer id if one is needed.
    fn drained(&mut self, out: &mut Vec<Command>) {
        if !std::mem::take(&mut self.renew) {
            return;
        }
        self.disorder = 0;
        self.identity = Identity::Absent;
        self.next_sequence = Sequence::ZERO;
        // Under another id what may have been written would be written twice.
        let (doubtful, rest) =
            std::mem::take(&mut self.queue).into_iter().partition(|e: &Entry| e.maybe_written);
        self.queue = rest;
        for entry in &mut self.queue {
            entry.sequence = None;
        }
        let doubtful: VecDeque<Entry> = doubtful;
        for entry in doubtful {
            let kind = ProduceErrorKind::DeadlineExceeded {
                waited: self.settings.deadline,
                outcome: Outcome::Unknown,
                last: entry.last.or_else(|| self.last_refusal.clone()),
            };
            self.give_up(entry.batch, entry.records, kind, out);
        }
    }

    /// Gives one batch up and mends the sequences behind it.
    fn fail(&mut self, at: usize, kind: ProduceErrorKind, now: Duration, out: &mut Vec<Command>) {
        let Some(entry) = self.queue.remove(at) else { return };
        if let Some(sequence) = entry.sequence {
            if entry.maybe_written || entry.state != EntryState::Ready {
                self.renew = true;
            } else {
                // It was never written, so nothing behind it was: the leader takes sequences without a gap.
                self.next_sequence = sequence;
                for behind in self.queue.iter_mut().skip(at) {
                    behind.sequence = None;
                    behind.maybe_written = false;
                }
            }
            self.pause(Duration::ZERO, Cause::Leader, now);
        }
        self.give_up(entry.batch, entry.records, kind, out);
    }

    fn give_up(&self, batch: BatchNo, records: u32, kind: ProduceErrorKind, out: &mut Vec<Command>) {
        out.push(Command::Tell(ProducerEvent::Failed {
            partition: self.settings.partition,
            records,
            why: kind.to_string(),
        }));
        out.push(Command::Failed { batch, kind });
    }

    /// Fails everything, now and later.
    fn stop(&mut self, kind: ProduceErrorKind, out: &mut Vec<Command>) {
        for entry in std::mem::take(&mut self.queue) {
            let doubtful = entry.maybe_written || entry.state != EntryState::Ready;
            let kind = if doubtful {
                ProduceErrorKind::DeadlineExceeded {
                    waited: self.settings.deadline,
                    outcome: Outcome::Unknown,
                    last: entry.last.or_else(|| self.last_refusal.clone()),
                }
            } else {
                kind.clone()
            };
            self.give_up(entry.batch, entry.records, kind, out);
        }
        self.phase = Phase::Stopped(kind);
    }

    /// Goes on at the leader that a refusal names, if that is news. Whether it was.
    fn follow_hint(&mut self, refusal: &Refusal, now: Duration, out: &mut Vec<Command>) -> bool {
        let Some((spu, address)) = refusal.leader() else { return false };
        let epoch = LeaderEpoch(refusal.detail().leader.as_ref().map_or(0, |hint| hint.leader_epoch));
        let newer = match &self.route {
            Route::Leader(known) => epoch > known.leader_epoch,
            Route::NoLeader => true,
            Route::Gone => false,
        };
        if !newer || address.is_empty() {
            return false;
        }
        let target = Target { spu, address: address.to_owned(), leader_epoch: epoch, writable: true };
        self.pause(Duration::ZERO, Cause::Leader, now);
        self.route(Route::Leader(target), now, out);
        true
    }

    /// What was sent to a former leader is sent again to the new one; with idempotence at once, without it
    /// only after its answers.
    fn leave_old_leader(&mut self, now: Duration) {
        let Route::Leader(target) = &self.route else { return };
        let moved = self
            .connected_to
            .as_ref()
            .is_some_and(|(spu, address)| (*spu, address) != (target.spu, &target.address));
        if !moved || self.in_flight() == 0 {
            return;
        }
        if self.settings.idempotent {
            self.forget_answers();
            self.connection += 1;
        }
        self.pause(Duration::ZERO, Cause::Leader, now);
    }

    fn forget_answers(&mut self) {
        for entry in self.queue.iter_mut().filter(|entry| entry.state != EntryState::Ready) {
            entry.state = EntryState::Ready;
            entry.maybe_written = true;
        }
    }

    fn backoff_pause(&mut self) -> Duration {
        self.backoff.next_pause()
    }

    /// Stops sending until everything under way is answered and `pause` has passed. A pause never shortens
    /// one that is on.
    fn pause(&mut self, pause: Duration, cause: Cause, now: Duration) {
        let until = now.saturating_add(pause);
        self.phase = match self.phase {
            Phase::Draining { until: other, cause: c } | Phase::Waiting { until: other, cause: c }
                if other >= until =>
            {
                Phase::Draining { until: other, cause: c }
            }
            Phase::Stopped(_) => return,
            _ => Phase::Draining { until, cause },
        };
    }

    /// News cut the pause short, with a spread so that not all producers come at once.
    fn wake(&mut self, news: Cause, now: Duration) {
        let spread = |cause: Cause| match (news, cause) {
            (_, Cause::Disk) | (Cause::Disk, _) => DISK_NEWS_JITTER,
            (Cause::Leader, Cause::Leader) => LEADER_NEWS_JITTER,
        };
        if let Phase::Draining { until, cause } | Phase::Waiting { until, cause } = &mut self.phase {
            *until = (*until).min(now.saturating_add(self.random.jitter(spread(*cause))));
        }
        if news == Cause::Leader {
            self.probing = false;
            self.backoff.reset();
        }
    }

    fn tell_leader(&self, route: &Route, out: &mut Vec<Command>) {
        let leader = |route: &Route| match route {
            Route::Leader(target) => Some((target.spu, target.leader_epoch)),
            Route::NoLeader | Route::Gone => None,
        };
        let (from, to) = (leader(&self.route), leader(route));
        if from != to {
            out.push(Command::Tell(ProducerEvent::LeaderChanged {
                partition: self.settings.partition,
                from: from.map(|(spu, _)| spu),
                to: to.map(|(spu, _)| spu),
                leader_epoch: to.or(from).map_or(LeaderEpoch(0), |(_, epoch)| epoch),
            }));
        }
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
#[path = "window_tests.rs"]
mod tests;
