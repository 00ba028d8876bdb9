//! Judges what a reader of `flights` gets: every flight once, in order, byte for byte.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_client::ConsumedRecord;

use crate::flights::{self, Flight};

/// What one reader has read so far.
#[derive(Debug)]
pub(super) struct Audit {
    flights: Arc<Vec<Flight>>,
    seen: Vec<bool>,
    ends: BTreeMap<u32, End>,
    /// Distinct flights.
    pub(super) read: usize,
    /// Flights that came again.
    pub(super) duplicates: u64,
    /// Flights that came after a later one of their partition, or offsets that went back.
    pub(super) reordered: u64,
    /// Records that nobody was told were written: refused ones, and ones whose bytes differ.
    pub(super) phantoms: u64,
    /// The first thing that was wrong, for people.
    pub(super) first_wrong: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    number: usize,
    offset: u64,
}

impl Audit {
    pub(super) fn new(flights: Arc<Vec<Flight>>) -> Self {
        let seen = vec![false; flights.len()];
        Self {
            flights,
            seen,
            ends: BTreeMap::new(),
            read: 0,
            duplicates: 0,
            reordered: 0,
            phantoms: 0,
            first_wrong: None,
        }
    }

    /// Takes in the next record of its partition.
    pub(super) fn take(&mut self, record: &ConsumedRecord) {
        let value = record.value.as_deref().unwrap_or_default();
        let number = flights::number(value);
        let Some((number, flight)) = number.and_then(|n| self.flights.get(n).map(|flight| (n, flight)))
        else {
            self.phantoms += 1;
            return self.wrong(record, "is no flight");
        };
        if flight.value != value || record.key.as_ref() != Some(&flight.key) {
            self.phantoms += 1;
            return self.wrong(record, "differs from what was produced");
        }
        if self.seen[number] {
            self.duplicates += 1;
            return self.wrong(record, "came again");
        }
        self.seen[number] = true;
        self.read += 1;
        let end = End { number, offset: record.offset.get() };
        let before = self.ends.insert(record.partition, end);
        if before.is_some_and(|before| before.number > number || before.offset >= end.offset) {
            self.reordered += 1;
            self.wrong(record, "came out of order");
        }
    }

    fn wrong(&mut self, record: &ConsumedRecord, what: &str) {
        if self.first_wrong.is_none() {
            let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
            let value: String = value.chars().take(120).collect();
            self.first_wrong =
                Some(format!("partition {} offset {} {what}: {value}", record.partition, record.offset));
        }
    }

    /// Whether this flight was read.
    pub(super) fn has(&self, number: usize) -> bool {
        self.seen.get(number).copied().unwrap_or(false)
    }

    /// Offset behind the last record of each partition.
    pub(super) fn next_offset(&self, partition: u32) -> u64 {
        self.ends.get(&partition).map_or(0, |end| end.offset + 1)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use plimsoll_client::{LeaderEpoch, Offset};

    use super::*;

    fn three() -> Arc<Vec<Flight>> {
        let flight = |n: usize| Flight {
            key: Bytes::from_static(b"N1"),
            value: Bytes::from(format!("{{\"n\":{n},\"x\":1}}")),
        };
        Arc::new((0..3).map(flight).collect())
    }

    fn record(offset: u64, value: &str) -> ConsumedRecord {
        ConsumedRecord {
            partition: 0,
            offset: Offset::new(offset).expect("small"),
            key: Some(Bytes::from_static(b"N1")),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: Vec::new(),
            timestamp_ms: 0,
            leader_epoch: LeaderEpoch(1),
        }
    }

    #[test]
    fn each_kind_of_wrong_is_counted_as_what_it_is() {
        let n = |n: usize| format!("{{\"n\":{n},\"x\":1}}");
        // Values in order of offset, then read, duplicates, reordered, phantoms.
        for (values, expected) in [
            (vec![n(0), n(1), n(2)], (3, 0, 0, 0)),
            (vec![n(0), n(2)], (2, 0, 0, 0)),
            (vec![n(0), n(0), n(1)], (2, 1, 0, 0)),
            (vec![n(1), n(0), n(2)], (3, 0, 1, 0)),
            (vec![n(0), "{\"phantom\":true}".to_owned()], (1, 0, 0, 1)),
            (vec!["{\"n\":0,\"x\":2}".to_owned()], (0, 0, 0, 1)),
            (vec!["{\"n\":9,\"x\":1}".to_owned()], (0, 0, 0, 1)),
        ] {
            let mut audit = Audit::new(three());
            for (offset, value) in (0u64..).zip(&values) {
                audit.take(&record(offset, value));
            }
            let found = (audit.read, audit.duplicates, audit.reordered, audit.phantoms);
            assert_eq!(found, expected, "{values:?}");
            assert_eq!(audit.first_wrong.is_some(), expected != (values.len(), 0, 0, 0));
        }
    }

    #[test]
    fn an_offset_that_goes_back_is_out_of_order() {
        let mut audit = Audit::new(three());
        audit.take(&record(5, "{\"n\":0,\"x\":1}"));
        audit.take(&record(5, "{\"n\":1,\"x\":1}"));
        assert_eq!((audit.read, audit.reordered), (2, 1));
    }
}
