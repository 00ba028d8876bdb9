//! Batches on their way from a reader to the caller.

use bytes::Bytes;
use plimsoll_proto::batch::{self, BatchError, Batches, Limits};
use plimsoll_proto::ids::{LeaderEpoch, Offset};
use tokio::sync::OwnedSemaphorePermit;

use crate::error::ConsumeError;
use crate::record::ConsumedRecord;

/// What a consumer's tasks send it.
#[derive(Debug)]
pub(crate) enum Item {
    /// From the reader of a partition. One that was replaced meanwhile has another generation.
    Of { partition: u32, generation: u64, news: News },
    /// The topic has so many partitions now.
    Partitions(u32),
}

/// What a reader sends.
#[derive(Debug)]
pub(crate) enum News {
    /// Where it starts is known.
    Starts(Offset),
    Chunk(Chunk),
    /// The partition has been read to its end.
    End,
    Failed(ConsumeError),
}

/// Records of one partition, in order.
#[derive(Debug)]
pub(crate) struct Chunk {
    records: std::vec::IntoIter<ConsumedRecord>,
    /// Where the partition goes on behind it.
    pub(crate) next: Offset,
    /// Lets readers go on when dropped.
    _permit: OwnedSemaphorePermit,
}

impl Chunk {
    pub(crate) fn new(decoded: Decoded, permit: OwnedSemaphorePermit) -> Self {
        Self { records: decoded.records.into_iter(), next: decoded.next, _permit: permit }
    }
}

impl Iterator for Chunk {
    type Item = ConsumedRecord;

    fn next(&mut self) -> Option<ConsumedRecord> {
        self.records.next()
    }
}

/// Bounds for batches from a server: it may have stored any batch within the limits of its topic.
const LIMITS: Limits = Limits {
    batch_bytes_max: 64 << 20,
    plain_bytes_max: 256 << 20,
    ratio_max: 1024,
    from_client: false,
    check_records: true,
};

/// A run of decoded batches.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) records: Vec<ConsumedRecord>,
    /// Memory that the records take, about.
    pub(crate) bytes: usize,
    /// Where to go on.
    pub(crate) next: Offset,
}

/// Reads the records from `next` up to `end` out of whole batches, which must continue at `next`: the first
/// one may start before it, and none may lie behind a gap.
pub(crate) struct Decoder {
    batches: Batches,
    partition: u32,
    next: Offset,
    end: Option<Offset>,
}

impl Decoder {
    pub(crate) fn new(bytes: &Bytes, partition: u32, next: Offset, end: Option<Offset>) -> Self {
        Self { batches: batch::iter_batches(bytes), partition, next, end }
    }

    /// Decodes batches until they take `bytes_max` or more; `None` when there are no more.
    pub(crate) fn decode(&mut self, bytes_max: usize) -> Result<Option<Decoded>, BatchError> {
        let mut decoded = None;
        for batch in self.batches.by_ref() {
            let (header, batch) = batch?;
            batch::verify(&batch, &LIMITS)?;
            if header.base_offset > self.next {
                return Err(BatchError::Header { field: "base_offset", why: "leaves a gap" });
            }
            let into =
                decoded.get_or_insert_with(|| Decoded { records: Vec::new(), bytes: 0, next: self.next });
            // Control batches take offsets and hold nothing for callers.
            if !header.control && header.end_offset() > self.next {
                let leader_epoch = header.leader_epoch.unwrap_or(LeaderEpoch(0));
                let (from, end) = (self.next, self.end);
                // The records were counted above: growing by steps would take up to twice as much for a moment.
                into.records.reserve_exact(usize::try_from(header.record_count).unwrap_or(0));
                for record in batch::records(&batch, &LIMITS)? {
                    let record = record?;
                    if record.offset < from || end.is_some_and(|end| record.offset >= end) {
                        continue;
                    }
                    let record = consumed(record, self.partition, leader_epoch);
                    into.bytes = into.bytes.saturating_add(memory_of(&record));
                    into.records.push(record);
                }
            }
            self.next = self.next.max(header.end_offset());
            into.next = self.next;
            if into.bytes >= bytes_max {
                break;
            }
        }
        if let Some(decoded) = &mut decoded {
            // Growing has left room that nobody counts.
            decoded.records.shrink_to_fit();
        }
        Ok(decoded)
    }
}

fn consumed(record: batch::Record, partition: u32, leader_epoch: LeaderEpoch) -> ConsumedRecord {
    ConsumedRecord {
        partition,
        offset: record.offset,
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().map(|header| (header.key, header.value)).collect(),
        timestamp_ms: record.timestamp_ms,
        leader_epoch,
    }
}

/// A record with its share of the batch that its parts point into.
fn memory_of(record: &ConsumedRecord) -> usize {
    let part = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
    let header =
        |(key, value): &(Bytes, Option<Bytes>)| size_of::<(Bytes, Option<Bytes>)>() + key.len() + part(value);
    size_of::<ConsumedRecord>()
        + part(&record.key)
        + part(&record.value)
        + record.headers.iter().map(header).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::batch::{BatchBuilder, Compression, NewRecord, stamp};

    use super::*;

    fn offset(offset: u64) -> Offset {
        Offset::new(offset).expect("a small offset")
    }

    fn batch(base: u64, records: u8) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None);
        for value in 0..records {
            let value = [value];
            let record = NewRecord { value: Some(&value), ..Default::default() };
            builder.push(&record).expect("a small record fits");
        }
        let mut bytes = builder.build().expect("a batch with records can be built").to_vec();
        stamp(&mut bytes, offset(base), LeaderEpoch(3)).expect("a whole header");
        bytes
    }

    fn decode(
        bytes: &Bytes,
        partition: u32,
        next: Offset,
        end: Option<Offset>,
    ) -> Result<Decoded, BatchError> {
        let decoded = Decoder::new(bytes, partition, next, end).decode(usize::MAX)?;
        Ok(decoded.expect("at least one batch"))
    }

    #[test]
    fn reading_starts_and_ends_inside_of_batches() {
        let bytes = Bytes::from([batch(10, 5), batch(15, 5)].concat());
        let decoded = decode(&bytes, 1, offset(12), Some(offset(17))).expect("whole batches");
        let offsets: Vec<u64> = decoded.records.iter().map(|record| record.offset.get()).collect();
        assert_eq!(offsets, [12, 13, 14, 15, 16]);
        assert_eq!(decoded.next, offset(20));
        assert_eq!(decoded.records[0].leader_epoch, LeaderEpoch(3));
        assert_eq!(decoded.records[0].value.as_deref(), Some(&[2u8][..]));
    }

    #[test]
    fn an_answer_is_decoded_piece_by_piece() {
        let bytes = Bytes::from([batch(0, 5), batch(5, 5), batch(10, 1)].concat());
        let mut decoder = Decoder::new(&bytes, 0, Offset::ZERO, None);
        let two_and_a_half = 5 * (size_of::<ConsumedRecord>() + 1) + 1;
        let first = decoder.decode(two_and_a_half).expect("whole batches").expect("there are some");
        assert_eq!((first.records.len(), first.next), (10, offset(10)));
        let last = decoder.decode(two_and_a_half).expect("whole batches").expect("there is one");
        assert_eq!((last.records.len(), last.next), (1, offset(11)));
        assert_eq!(decoder.decode(1), Ok(None));
    }

    #[test]
    fn a_batch_that_was_read_already_gives_nothing_and_goes_nowhere_back() {
        let decoded = decode(&Bytes::from(batch(10, 5)), 0, offset(30), None).expect("whole batches");
        assert_eq!(decoded, Decoded { records: Vec::new(), bytes: 0, next: offset(30) });
    }

    #[test]
    fn gaps_cuts_and_flipped_bits_are_errors() {
        assert!(decode(&Bytes::from(batch(10, 5)), 0, offset(9), None).is_err());
        let whole = batch(0, 3);
        assert!(decode(&Bytes::copy_from_slice(&whole[..whole.len() - 1]), 0, Offset::ZERO, None).is_err());
        for at in 16..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            assert!(decode(&Bytes::from(bad), 0, Offset::ZERO, None).is_err(), "byte {at}");
        }
    }
}
