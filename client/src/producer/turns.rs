//! Whose turn it is to try a partition that refuses for lack of space: of all producers of a client one tries, the
//! others wait for what comes of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use plimsoll_proto::ids::PartitionId;
use tokio::sync::watch;

/// Turns by partition, shared by all producers of a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns {
    partitions: Arc<Mutex<BTreeMap<PartitionId, Weak<Turn>>>>,
}

impl Turns {
    /// The turn of one partition. It is forgotten with the last producer that holds it.
    pub(crate) fn of(&self, partition: PartitionId) -> Arc<Turn> {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = partitions.get(&partition).and_then(Weak::upgrade) {
            return turn;
        }
        partitions.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(Turn { held: Mutex::default(), opened: watch::Sender::new(0) });
        partitions.insert(partition, Arc::downgrade(&turn));
        turn
    }
}

/// The turn of one partition.
#[derive(Debug)]
pub(crate) struct Turn {
    held: Mutex<Held>,
    opened: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Held {
    last_worker: u64,
    /// Who tries, and until when nobody else does.
    by: Option<(u64, Duration)>,
}

impl Turn {
    /// A number for a worker that may ask.
    pub(crate) fn enter(&self) -> u64 {
        let mut held = self.held();
        held.last_worker += 1;
        held.last_worker
    }

    /// Takes the turn until `until`, unless another has it; whether this worker has it now.
    pub(crate) fn take(&self, worker: u64, now: Duration, until: Duration) -> bool {
        let mut held = self.held();
        let free = held.by.is_none_or(|(holder, end)| holder == worker || end <= now);
        if free {
            held.by = Some((worker, until));
        }
        free
    }

    /// Gives it up, if this worker has it.
    pub(crate) fn leave(&self, worker: u64) {
        let mut held = self.held();
        if held.by.is_some_and(|(holder, _)| holder == worker) {
            held.by = None;
        }
    }

    /// The partition takes batches again: everybody may try.
    pub(crate) fn open(&self) {
        self.held().by = None;
        self.opened.send_modify(|times| *times += 1);
    }

    /// Changes whenever somebody's try went well.
    pub(crate) fn opened(&self) -> watch::Receiver<u64> {
        self.opened.subscribe()
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::ids::TopicId;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_has_it_until_its_end_or_until_it_leaves() {
        let turns = Turns::default();
        let id = PartitionId { topic_id: TopicId([1; 16]), index: 0 };
        let turn = turns.of(id);
        assert!(Arc::ptr_eq(&turn, &turns.of(id)));
        let (one, other) = (turn.enter(), turn.enter());
        assert!(turn.take(one, at(0), at(6)));
        assert!(turn.take(one, at(5), at(11)), "it goes on");
        assert!(!turn.take(other, at(10), at(16)));
        assert!(turn.take(other, at(11), at(17)), "one is silent");
        turn.leave(one);
        assert!(!turn.take(one, at(12), at(18)), "it was not its to leave");
        turn.leave(other);
        assert!(turn.take(one, at(12), at(18)));
        let opened = turn.opened();
        turn.open();
        assert!(opened.has_changed().expect("the turn is there"));
        assert!(turn.take(other, at(12), at(18)));
    }

    #[test]
    fn partitions_nobody_writes_to_are_forgotten() {
        let turns = Turns::default();
        let id = |index| PartitionId { topic_id: TopicId([1; 16]), index };
        drop(turns.of(id(0)));
        let _kept = turns.of(id(1));
        let partitions = turns.partitions.lock().expect("no one panicked");
        assert_eq!(partitions.keys().collect::<Vec<_>>(), [&id(1)]);
    }
}
