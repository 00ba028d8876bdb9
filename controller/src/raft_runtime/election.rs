//! Election timeouts from our own source of randomness.
//!
//! `raft` draws them from the thread's generator, which no seed fixes. It draws whenever its role, term or leader
//! changes and uses the number only in a tick; so before each tick the number is set to one of ours, drawn anew
//! after each such change.

use plimsoll_host::Random;
use raft::{RawNode, StateRole, Storage};

/// See the module.
pub(super) struct ElectionTimeout {
    random: Random,
    ticks: usize,
    drawn: Option<(usize, (u64, StateRole, u64))>,
}

impl ElectionTimeout {
    pub(super) fn new(random: Random, election_tick: usize) -> Self {
        Self { random, ticks: election_tick, drawn: None }
    }

    /// To be called right before each tick.
    pub(super) fn set<S: Storage>(&mut self, raw: &mut RawNode<S>) {
        let situation = (raw.raft.term, raw.raft.state, raw.raft.leader_id);
        let timeout = match self.drawn {
            Some((timeout, drawn_in)) if drawn_in == situation => timeout,
            _ => self.draw(),
        };
        self.drawn = Some((timeout, situation));
        raw.raft.set_randomized_election_timeout(timeout);
    }

    /// From `[ticks, 2 * ticks)`.
    fn draw(&self) -> usize {
        let spread = u64::try_from(self.ticks).unwrap_or(1);
        self.ticks + usize::try_from(self.random.below(spread)).unwrap_or(0)
    }
}
