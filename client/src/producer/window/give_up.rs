//! Giving batches up without harm to those behind them.

use std::collections::VecDeque;
use std::time::Duration;

use plimsoll_proto::batch::Sequence;

use super::Window;
use super::parts::{BatchNo, Cause, Command, Entry, EntryState, Identity, Phase, Route};
use crate::error::{LastCause, ProduceErrorKind};
use crate::producer::event::ProducerEvent;
use crate::refusal::Outcome;

impl Window {
    /// Everything under way is answered: the moment to take another producer id if one is needed.
    pub(super) fn drained(&mut self, out: &mut Vec<Command>) {
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
                last: self.last_cause(&entry),
            };
            self.give_up(entry.batch, entry.records, kind, out);
        }
    }

    /// What stood in the way of a batch last.
    pub(super) fn last_cause(&self, entry: &Entry) -> Option<LastCause> {
        let now = || match (&self.route, entry.state, &self.connected_to) {
            (Route::NoLeader, ..) => Some(LastCause::NoLeader),
            (_, EntryState::Sent { .. }, Some((spu, _))) => Some(LastCause::Unanswered { spu: *spu }),
            _ if self.identity == Identity::Asked => Some(LastCause::NoProducerId),
            _ => None,
        };
        entry.last.clone().or_else(|| self.last.clone()).or_else(now)
    }

    /// Something stands in the way of everything that is not through.
    pub(super) fn stands_in_the_way(&mut self, cause: &LastCause) {
        self.queue.iter_mut().for_each(|entry| entry.last = Some(cause.clone()));
        self.last = Some(cause.clone());
    }

    /// Gives one batch up and mends the sequences behind it.
    pub(super) fn fail(&mut self, at: usize, kind: ProduceErrorKind, now: Duration, out: &mut Vec<Command>) {
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

    pub(super) fn give_up(
        &self,
        batch: BatchNo,
        records: u32,
        kind: ProduceErrorKind,
        out: &mut Vec<Command>,
    ) {
        out.push(Command::Tell(ProducerEvent::Failed {
            partition: self.settings.partition,
            records,
            why: kind.to_string(),
        }));
        out.push(Command::Failed { batch, kind });
    }

    /// Fails everything, now and later.
    pub(super) fn stop(&mut self, kind: ProduceErrorKind, out: &mut Vec<Command>) {
        for entry in std::mem::take(&mut self.queue) {
            let doubtful = entry.maybe_written || entry.state != EntryState::Ready;
            let kind = if doubtful {
                ProduceErrorKind::DeadlineExceeded {
                    waited: self.settings.deadline,
                    outcome: Outcome::Unknown,
                    last: self.last_cause(&entry),
                }
            } else {
                kind.clone()
            };
            self.give_up(entry.batch, entry.records, kind, out);
        }
        self.phase = Phase::Stopped(kind);
    }
}
