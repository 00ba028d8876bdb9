//! Who waits for the high watermark to reach an offset.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_proto::ids::Offset;

/// Appends that are written but not acknowledged, in the order of their ends.
#[derive(Debug)]
pub struct WaitingAcks<T> {
    by_end: BTreeMap<(Offset, u64), Waiting<T>>,
    by_deadline: BTreeSet<(Duration, Offset, u64)>,
    next_number: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    deadline: Duration,
    token: T,
}

impl<T> Default for WaitingAcks<T> {
    fn default() -> Self {
        Self { by_end: BTreeMap::new(), by_deadline: BTreeSet::new(), next_number: 0 }
    }
}

impl<T> WaitingAcks<T> {
    /// `token` waits until everything below `end` is committed, or until `deadline`.
    pub fn push(&mut self, end: Offset, deadline: Duration, token: T) {
        let number = self.next_number;
        self.next_number += 1;
        self.by_end.insert((end, number), Waiting { deadline, token });
        self.by_deadline.insert((deadline, end, number));
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.by_end.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.by_end.is_empty()
    }

    /// When the first of them runs out of time.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.by_deadline.first().map(|(deadline, _, _)| *deadline)
    }

    /// Takes those that the high watermark has reached, in order.
    pub fn take_reached(&mut self, high_watermark: Offset) -> Vec<T> {
        let mut reached = Vec::new();
        while let Some(entry) = self.by_end.first_entry() {
            let (end, number) = *entry.key();
            if end > high_watermark {
                break;
            }
            let waiting = entry.remove();
            self.by_deadline.remove(&(waiting.deadline, end, number));
            reached.push(waiting.token);
        }
        reached
    }

    /// Takes those whose time is up.
    pub fn take_late(&mut self, now: Duration) -> Vec<T> {
        let mut late = Vec::new();
        while let Some(&(deadline, end, number)) = self.by_deadline.first() {
            if deadline > now {
                break;
            }
            self.by_deadline.pop_first();
            late.extend(self.by_end.remove(&(end, number)).map(|waiting| waiting.token));
        }
        late
    }

    /// Takes all of them: they will not be acknowledged here.
    pub fn take_all(&mut self) -> Vec<T> {
        self.by_deadline.clear();
        std::mem::take(&mut self.by_end).into_values().map(|waiting| waiting.token).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Offset {
        Offset::new(offset).expect("a small offset")
    }

    #[test]
    fn reached_late_and_all() {
        let s = Duration::from_secs;
        let mut waiting = WaitingAcks::default();
        for (end, deadline, token) in [(5, 10, 'a'), (9, 3, 'b'), (9, 20, 'c'), (12, 30, 'd')] {
            waiting.push(at(end), s(deadline), token);
        }
        assert_eq!(waiting.next_deadline(), Some(s(3)));
        assert_eq!(waiting.take_late(s(3)), ['b']);
        assert_eq!(waiting.take_reached(at(8)), ['a']);
        assert_eq!(waiting.take_reached(at(9)), ['c']);
        assert_eq!(waiting.next_deadline(), Some(s(30)));
        assert_eq!(waiting.take_all(), ['d']);
        assert!(waiting.is_empty() && waiting.next_deadline().is_none());
    }
}
