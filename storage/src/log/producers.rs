//! Idempotence: what is known of each producer that wrote to a log.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use plimsoll_proto::batch::{BatchHeader, ProducerSequence, Sequence};
use plimsoll_proto::ids::{Offset, ProducerEpoch, ProducerId};

use super::AppendError;

/// Batches of a producer that a duplicate is told by.
pub(crate) const BATCHES_KEPT: usize = 5;

/// A batch that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeptBatch {
    pub(crate) base_sequence: Sequence,
    pub(crate) records: u32,
    pub(crate) base_offset: Offset,
}

impl KeptBatch {
    pub(crate) fn next_sequence(&self) -> Sequence {
        self.base_sequence.advance(self.records)
    }

    pub(crate) fn end_offset(&self) -> Offset {
        self.base_offset.checked_add(u64::from(self.records)).unwrap_or(Offset::MAX)
    }
}

/// What is known of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: ProducerEpoch,
    /// Earlier batches of this epoch are in the log but not in `batches`.
    pub(crate) has_older: bool,
    /// Oldest first.
    pub(crate) batches: VecDeque<KeptBatch>,
}

/// The answer to a batch with a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SequenceCheck {
    /// It is the next one.
    Next,
    /// It is in the log already.
    Duplicate(KeptBatch),
}

/// All producers of a log, bounded: beyond the limit the one whose last batch is oldest is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Producers {
    known: BTreeMap<ProducerId, Producer>,
    producers_max: usize,
    /// No producer above this id was ever forgotten. Ids are handed out in ascending blocks, so a producer
    /// above it without state is one that never wrote here.
    forgotten_to: Option<ProducerId>,
}

impl Producers {
    pub(crate) fn new(producers_max: usize) -> Self {
        Self { known: BTreeMap::new(), producers_max: producers_max.max(1), forgotten_to: None }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ProducerId, &Producer)> {
        self.known.iter().map(|(id, producer)| (*id, producer))
    }

    pub(crate) fn forgotten_to(&self) -> Option<ProducerId> {
        self.forgotten_to
    }

    pub(crate) fn insert(&mut self, id: ProducerId, producer: Producer) {
        self.known.insert(id, producer);
        self.bound();
    }

    pub(crate) fn set_forgotten_to(&mut self, to: Option<ProducerId>) {
        self.forgotten_to = self.forgotten_to.max(to);
    }

    /// Nothing but who was forgotten, for a log that is to be read again; with `trimmed`, all that are known here count:
    /// what they wrote may be there no more.
    pub(crate) fn to_be_read(&self, trimmed: bool) -> Self {
        let last = self.known.last_key_value().map(|(id, _)| *id).filter(|_| trimmed);
        Self {
            known: BTreeMap::new(),
            producers_max: self.producers_max,
            forgotten_to: self.forgotten_to.max(last),
        }
    }

    /// Takes over the producers of `other` that are not known here.
    pub(crate) fn adopt_missing(&mut self, other: &Self) {
        for (id, producer) in &other.known {
            self.known.entry(*id).or_insert_with(|| producer.clone());
        }
        self.bound();
    }

    /// Decides on a batch from a producer. Changes nothing.
    pub(crate) fn check(&self, batch: &ProducerSequence, records: u32) -> Result<SequenceCheck, AppendError> {
        let Some(known) = self.known.get(&batch.id) else {
            return match batch.base {
                Sequence::ZERO => Ok(SequenceCheck::Next),
                _ if self.forgotten_to.is_some_and(|to| batch.id <= to) => Err(AppendError::UnknownProducer),
                _ => Err(AppendError::OutOfOrderSequence { expected: Sequence::ZERO }),
            };
        };
        if batch.epoch < known.epoch {
            return Err(AppendError::ProducerFenced);
        }
        let expected = match known.batches.back() {
            Some(last) if batch.epoch == known.epoch => last.next_sequence(),
            _ => Sequence::ZERO,
        };
        if batch.epoch == known.epoch {
            let same = |kept: &&KeptBatch| kept.base_sequence == batch.base && kept.records == records;
            if let Some(kept) = known.batches.iter().find(same) {
                return Ok(SequenceCheck::Duplicate(*kept));
            }
        }
        if batch.base == expected {
            Ok(SequenceCheck::Next)
        } else {
            Err(AppendError::OutOfOrderSequence { expected })
        }
    }

    /// Remembers a batch that is in the log now.
    pub(crate) fn record(&mut self, header: &BatchHeader) {
        let Some(batch) = header.producer else { return };
        let fresh = || Producer { epoch: batch.epoch, has_older: false, batches: VecDeque::new() };
        let known = self.known.entry(batch.id).or_insert_with(fresh);
        if known.epoch != batch.epoch {
            *known = fresh();
        }
        if known.batches.len() == BATCHES_KEPT {
            known.batches.pop_front();
            known.has_older = true;
        }
        known.batches.push_back(KeptBatch {
            base_sequence: batch.base,
            records: header.record_count,
            base_offset: header.base_offset,
        });
        self.bound();
    }

    fn bound(&mut self) {
        while self.known.len() > self.producers_max {
            let last_offset = |p: &Producer| p.batches.back().map(|b| b.base_offset);
            let oldest = self.known.iter().min_by_key(|(_, p)| last_offset(p)).map(|(id, _)| *id);
            let Some(id) = oldest else { return };
            self.known.remove(&id);
            self.forgotten_to = self.forgotten_to.max(Some(id));
        }
    }

    /// Forgets batches at or beyond the new end. Returns the producers of which nothing is left here: what they
    /// wrote before fell out of the kept batches, so the log must be read again.
    #[must_use]
    pub(crate) fn truncate_tail(&mut self, to: Offset) -> Vec<ProducerId> {
        let mut lost = Vec::new();
        self.known.retain(|id, producer| {
            producer.batches.retain(|b| b.end_offset() <= to);
            if producer.batches.is_empty() {
                lost.push(*id);
            }
            !producer.batches.is_empty()
        });
        lost
    }

    /// Drops what is known: it may be older than what its producers wrote.
    pub(crate) fn distrust(&mut self) {
        *self = self.to_be_read(true);
    }

    /// Producers that were lost and not found again in a log whose head is trimmed may have written there:
    /// nobody can tell any more.
    pub(crate) fn forget(&mut self, lost: &[ProducerId]) {
        let gone = lost.iter().filter(|id| !self.known.contains_key(id)).max().copied();
        self.forgotten_to = self.forgotten_to.max(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(id: i64, epoch: i16, base: i32) -> ProducerSequence {
        ProducerSequence {
            id: ProducerId(id),
            epoch: ProducerEpoch(epoch),
            base: Sequence::from_i32(base).unwrap(),
        }
    }

    fn header(sequence: ProducerSequence, base_offset: u64, records: u32) -> BatchHeader {
        BatchHeader {
            base_offset: Offset::new(base_offset).unwrap(),
            size_bytes: 100,
            leader_epoch: None,
            crc: 0,
            compression: plimsoll_proto::batch::Compression::None,
            log_append_time: false,
            transactional: false,
            control: false,
            last_offset_delta: records - 1,
            base_timestamp_ms: 0,
            max_timestamp_ms: 0,
            producer: Some(sequence),
            record_count: records,
        }
    }

    #[test]
    fn sequences_are_told_apart() {
        let mut producers = Producers::new(10);
        for i in 0..7u32 {
            let base = i32::try_from(i * 2).unwrap();
            producers.record(&header(batch(1, 3, base), u64::from(i * 2), 2));
        }
        let expected = |n| Err(AppendError::OutOfOrderSequence { expected: Sequence::from_i32(n).unwrap() });
        let duplicate = |n: u32| {
            Ok(SequenceCheck::Duplicate(KeptBatch {
                base_sequence: Sequence::ZERO.advance(n),
                records: 2,
                base_offset: Offset::new(u64::from(n)).unwrap(),
            }))
        };
        for (name, given, records, wanted) in [
            ("next", batch(1, 3, 14), 2, Ok(SequenceCheck::Next)),
            ("last again", batch(1, 3, 12), 2, duplicate(12)),
            ("fifth last again", batch(1, 3, 4), 2, duplicate(4)),
            ("sixth last again", batch(1, 3, 2), 2, expected(14)),
            ("same start, other length", batch(1, 3, 12), 1, expected(14)),
            ("gap", batch(1, 3, 16), 2, expected(14)),
            ("old epoch", batch(1, 2, 14), 2, Err(AppendError::ProducerFenced)),
            ("new epoch from 0", batch(1, 4, 0), 2, Ok(SequenceCheck::Next)),
            ("new epoch in the middle", batch(1, 4, 5), 2, expected(0)),
            ("unknown from 0", batch(9, 0, 0), 2, Ok(SequenceCheck::Next)),
            ("unknown in the middle", batch(9, 0, 5), 2, expected(0)),
        ] {
            assert_eq!(producers.check(&given, records), wanted, "{name}");
        }
    }

    #[test]
    fn the_forgotten_are_not_taken_for_new_ones() {
        let mut producers = Producers::new(1);
        producers.record(&header(batch(1, 0, 0), 0, 1));
        producers.record(&header(batch(2, 0, 0), 1, 1));
        assert_eq!(producers.check(&batch(1, 0, 1), 1), Err(AppendError::UnknownProducer));
        assert!(matches!(producers.check(&batch(3, 0, 1), 1), Err(AppendError::OutOfOrderSequence { .. })));
    }

    #[test]
    fn truncation_gives_sequences_back() {
        let mut producers = Producers::new(10);
        for i in 0..3 {
            producers.record(&header(batch(1, 0, i), u64::try_from(i).unwrap(), 1));
        }
        assert!(producers.truncate_tail(Offset::new(2).unwrap()).is_empty());
        assert_eq!(producers.check(&batch(1, 0, 2), 1), Ok(SequenceCheck::Next));
        assert_eq!(producers.truncate_tail(Offset::ZERO), [ProducerId(1)]);
        producers.forget(&[ProducerId(1)]);
        assert_eq!(producers.check(&batch(1, 0, 1), 1), Err(AppendError::UnknownProducer));
    }
}
