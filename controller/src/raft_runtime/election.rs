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

#[cfg(test)]
mod tests {
    use raft::Config;
    use raft::storage::MemStorage;

    use super::*;

    /// The tick in which each of several elections begins.
    fn elections(seed: u64) -> Vec<usize> {
        let config = Config { id: 1, election_tick: 12, heartbeat_tick: 2, ..Config::default() };
        let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
        let quiet = slog::Logger::root(slog::Discard, slog::o!());
        let mut raw = RawNode::new(&config, storage, &quiet).expect("valid");
        let mut timeout = ElectionTimeout::new(Random::seeded(seed), 12);
        let mut terms = vec![(0, raw.raft.term)];
        for tick in 1..500 {
            timeout.set(&mut raw);
            raw.tick();
            if terms.last().is_some_and(|(_, term)| *term != raw.raft.term) {
                terms.push((tick, raw.raft.term));
            }
        }
        terms.into_iter().map(|(tick, _)| tick).collect()
    }

    #[test]
    fn a_seed_fixes_when_elections_begin() {
        let first = elections(1);
        assert!(first.len() > 15, "{first:?}");
        assert!(first.windows(2).all(|pair| (12..24).contains(&(pair[1] - pair[0]))), "{first:?}");
        assert_eq!(first, elections(1));
        assert_ne!(first, elections(2));
    }
}
