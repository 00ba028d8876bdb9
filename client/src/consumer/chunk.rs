//! Batches on their way from a reader to the caller.

use bytes::Bytes;
use plimsoll_proto::batch::{self, BatchError, Limits};
use plimsoll_proto::ids::{LeaderEpoch, Offset};
use tokio::sync::OwnedSemaphorePermit;

use crate::error::ConsumeError;
use crate::record::ConsumedRecord;

/// What a reader sends.
#[derive(Debug)]
pub(crate) enum Item {
    Chunk(Chunk),
    /// The partition has been read to its end.
    End,
    Failed(ConsumeError),
}

/// Records of one partition, in order.
#[derive(Debug)]
pub(crate) struct Chunk {
    records: std::vec::IntoIter<ConsumedRecord>,
    /// Lets the reader go on when dropped.
    _permit: OwnedSemaphorePermit,
}

impl Chunk {
    pub(crate) fn new(records: Vec<ConsumedRecord>, permit: OwnedSemaphorePermit) -> Self {
        Self { records: records.into_iter(), _permit: permit }
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

/// Decoded answer of a fetch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) records: Vec<ConsumedRecord>,
    /// Where to go on.
    pub(crate) next: Offset,
}

/// Reads the records from `next` up to `end` out of whole batches, which must continue at `next`: the first
/// one may start before it, and none may lie behind a gap.
pub(crate) fn decode(
    bytes: &Bytes,
    partition: u32,
    mut next: Offset,
    end: Option<Offset>,
) -> Result<Decoded, BatchError> {
    let mut records = Vec::new();
    for batch in batch::iter_batches(bytes) {
        let (header, batch) = batch?;
        batch::verify(&batch, &LIMITS)?;
        if header.base_offset > next {
            return Err(BatchError::Header { field: "base_offset", why: "leaves a gap" });
        }
        let leader_epoch = header.leader_epoch.unwrap_or(LeaderEpoch(0));
        // Control batches take offsets and hold nothing for callers.
        if !header.control && header.end_offset() > next {
            for record in batch::records(&batch, &LIMITS)? {
                let record = record?;
                if record.offset < next || end.is_some_and(|end| record.offset >= end) {
                    continue;
                }
                records.push(ConsumedRecord {
                    partition,
                    offset: record.offset,
                    key: record.key,
                    value: record.value,
                    headers: record.headers.into_iter().map(|header| (header.key, header.value)).collect(),
                    timestamp_ms: record.timestamp_ms,
                    leader_epoch,
                });
            }
        }
        next = next.max(header.end_offset());
    }
    Ok(Decoded { records, next })
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
    fn a_batch_that_was_read_already_gives_nothing_and_goes_nowhere_back() {
        let decoded = decode(&Bytes::from(batch(10, 5)), 0, offset(30), None).expect("whole batches");
        assert_eq!(decoded, Decoded { records: Vec::new(), next: offset(30) });
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
