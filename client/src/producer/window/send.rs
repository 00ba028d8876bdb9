//! Sending in order, and moving to another leader.

use std::time::Duration;

use plimsoll_proto::batch::ProducerSequence;
use plimsoll_proto::ids::LeaderEpoch;

use super::Window;
use super::parts::{Cause, Command, EntryState, Identity, Phase, Route, Target};
use crate::producer::event::ProducerEvent;
use crate::refusal::Refusal;

impl Window {
    /// Sends what may be sent.
    pub(super) fn pump(&mut self, now: Duration, out: &mut Vec<Command>) {
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
            let ask = self.probing && !self.called && !self.queue.is_empty();
            self.phase = if ask { Phase::Asking } else { Phase::Sending };
            if ask {
                out.push(Command::AskTurn);
            }
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

    pub(super) fn send(&mut self, at: usize, target: &Target, now: Duration, out: &mut Vec<Command>) {
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

    /// Goes on at the leader that a refusal names, if that is news. Whether it was.
    pub(super) fn follow_hint(&mut self, refusal: &Refusal, now: Duration, out: &mut Vec<Command>) -> bool {
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
        let target = Target {
            spu,
            address: address.to_owned(),
            leader_epoch: epoch,
            writable: true,
            copies: 0,
            enough: true,
        };
        self.pause(Duration::ZERO, Cause::Leader, now);
        self.route(Route::Leader(target), now, out);
        true
    }

    /// What was sent to a former leader is sent again to the new one; with idempotence at once, without it
    /// only after its answers.
    pub(super) fn leave_old_leader(&mut self, now: Duration) {
        let Route::Leader(target) = &self.route else { return };
        let moved = self
            .connected_to
            .as_ref()
            .is_some_and(|(spu, address)| (*spu, address) != (target.spu, &target.address));
        if !moved || self.in_flight() == 0 {
            return;
        }
        if self.settings.idempotent {
            self.forget_answers(true);
            self.connection += 1;
        }
        self.try_alone();
        self.pause(Duration::ZERO, Cause::Leader, now);
    }

    pub(super) fn tell_leader(&self, route: &Route, out: &mut Vec<Command>) {
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
}
