//! The 61 bytes in front of the records.

use super::codec::Compression;
use super::error::BatchError;
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Length of the header of a record batch.
pub const HEADER_BYTES: usize = 61;

/// Bytes in front of those that the length field counts.
pub(super) const LENGTH_OVERHEAD: usize = 12;
pub(super) const LENGTH_AT: usize = 8;
pub(super) const LEADER_EPOCH_AT: usize = 12;
pub(super) const MAGIC_AT: usize = 16;
pub(super) const CRC_AT: usize = 17;
pub(super) const ATTRIBUTES_AT: usize = 21;
pub(super) const MAGIC: i8 = 2;

const COMPRESSION_MASK: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// Number of a batch's record within what its producer sent: 0 to `i32::MAX`, then 0 again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Sequence(u32);

impl Sequence {
    /// The first sequence of a producer epoch.
    pub const ZERO: Self = Self(0);
    const SPACE: u64 = 1 << 31;

    /// Reads the signed field of the header; `None` when negative.
    pub fn from_i32(value: i32) -> Option<Self> {
        u32::try_from(value).ok().map(Self)
    }

    /// The sequence as the header stores it.
    pub fn to_i32(self) -> i32 {
        i32::try_from(self.0).expect("a Sequence never exceeds i32::MAX")
    }

    /// The sequence `count` records further, wrapping to 0 behind `i32::MAX`
    /// (`DefaultRecordBatch.incrementSequence`).
    #[must_use]
    pub fn advance(self, count: u32) -> Self {
        let next = (u64::from(self.0) + u64::from(count)) % Self::SPACE;
        Self(u32::try_from(next).expect("a remainder of 2^31 fits into u32"))
    }
}

impl std::fmt::Display for Sequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// Who sent a batch and which number its first record has, for idempotence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerSequence {
    /// The producer.
    pub id: ProducerId,
    /// Its generation; a higher one fences a lower one.
    pub epoch: ProducerEpoch,
    /// Sequence of the first record.
    pub base: Sequence,
}

/// The decoded header of a record batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    /// Offset of the first record; whatever the producer wrote before the leader stamped it.
    pub base_offset: Offset,
    /// Size of the whole batch in bytes, header included.
    pub size_bytes: usize,
    /// Epoch of the leader that stamped the batch; `None` before that.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The checksum field.
    pub crc: u32,
    /// How the records are compressed.
    pub compression: Compression,
    /// Whether the timestamps are those of the append. Never accepted from clients.
    pub log_append_time: bool,
    /// Whether the batch belongs to a transaction. Never accepted from clients.
    pub transactional: bool,
    /// Whether the batch holds control records. Never accepted from clients.
    pub control: bool,
    /// Offset of the last record less the base offset.
    pub last_offset_delta: u32,
    /// Timestamp of the first record, milliseconds since 1970; record timestamps are relative to it.
    pub base_timestamp_ms: i64,
    /// Greatest timestamp of the records, milliseconds since 1970.
    pub max_timestamp_ms: i64,
    /// Producer and sequence, when the producer is idempotent.
    pub producer: Option<ProducerSequence>,
    /// Number of records.
    pub record_count: u32,
}

impl BatchHeader {
    /// Reads the header in front of `bytes` and checks every field by itself; the records need not be at
    /// hand and the CRC is not looked at.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] below 61 bytes; `Length`, `Magic` or `Header` for an impossible field.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let fields: &[u8; HEADER_BYTES] =
            bytes.first_chunk().ok_or(BatchError::Truncated { have: bytes.len(), need: HEADER_BYTES })?;
        let magic = i8::from_be_bytes(at(fields, MAGIC_AT));
        if magic != MAGIC {
            return Err(BatchError::Magic { magic });
        }
        let attributes = i16::from_be_bytes(at(fields, ATTRIBUTES_AT));
        let base_offset = Offset::from_i64(i64::from_be_bytes(at(fields, 0)))
            .map_err(|_| BatchError::Header { field: "base_offset", why: "is negative" })?;
        let last_offset_delta = not_negative(i32::from_be_bytes(at(fields, 23)), "last_offset_delta")?;
        if base_offset.checked_add(u64::from(last_offset_delta) + 1).is_none() {
            return Err(BatchError::Header { field: "base_offset", why: "is beyond the last offset" });
        }
        Ok(Self {
            base_offset,
            size_bytes: size_from_length(i32::from_be_bytes(at(fields, LENGTH_AT)))?,
            leader_epoch: u32::try_from(i32::from_be_bytes(at(fields, LEADER_EPOCH_AT)))
                .ok()
                .map(LeaderEpoch),
            crc: u32::from_be_bytes(at(fields, CRC_AT)),
            compression: Compression::from_bits(attributes & COMPRESSION_MASK)?,
            log_append_time: attributes & LOG_APPEND_TIME != 0,
            transactional: attributes & TRANSACTIONAL != 0,
            control: attributes & CONTROL != 0,
            last_offset_delta,
            base_timestamp_ms: i64::from_be_bytes(at(fields, 27)),
            max_timestamp_ms: i64::from_be_bytes(at(fields, 35)),
            producer: producer(
                i64::from_be_bytes(at(fields, 43)),
                i16::from_be_bytes(at(fields, 51)),
                i32::from_be_bytes(at(fields, 53)),
            )?,
            record_count: not_negative(i32::from_be_bytes(at(fields, 57)), "record_count")?,
        })
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> Offset {
        self.base_offset
            .checked_add(u64::from(self.last_offset_delta))
            .expect("parse checked that the batch ends within the offsets")
    }

    /// Offset behind the last record.
    pub fn end_offset(&self) -> Offset {
        self.base_offset
            .checked_add(u64::from(self.last_offset_delta) + 1)
            .expect("parse checked that the batch ends within the offsets")
    }

    /// Writes the header with a CRC of 0 in front of records; the caller fills the CRC in.
    pub(super) fn write_without_crc(&self, out: &mut [u8; HEADER_BYTES]) -> Result<(), BatchError> {
        let too_large = |_| BatchError::Encode { why: "the batch is over 2 GiB" };
        let length = i32::try_from(self.size_bytes - LENGTH_OVERHEAD).map_err(too_large)?;
        let delta = i32::try_from(self.last_offset_delta).map_err(too_large)?;
        let count = i32::try_from(self.record_count).map_err(too_large)?;
        let leader_epoch = self.leader_epoch.and_then(|e| i32::try_from(e.0).ok()).unwrap_or(-1);
        let (id, epoch, base) = self.producer.map_or((-1, -1, -1), |p| (p.id.0, p.epoch.0, p.base.to_i32()));
        let mut attributes = self.compression.bits();
        for (set, bit) in [
            (self.log_append_time, LOG_APPEND_TIME),
            (self.transactional, TRANSACTIONAL),
            (self.control, CONTROL),
        ] {
            attributes |= if set { bit } else { 0 };
        }
        put(out, 0, self.base_offset.to_i64().to_be_bytes());
        put(out, LENGTH_AT, length.to_be_bytes());
        put(out, LEADER_EPOCH_AT, leader_epoch.to_be_bytes());
        put(out, MAGIC_AT, MAGIC.to_be_bytes());
        put(out, CRC_AT, 0u32.to_be_bytes());
        put(out, ATTRIBUTES_AT, attributes.to_be_bytes());
        put(out, 23, delta.to_be_bytes());
        put(out, 27, self.base_timestamp_ms.to_be_bytes());
        put(out, 35, self.max_timestamp_ms.to_be_bytes());
        put(out, 43, id.to_be_bytes());
        put(out, 51, epoch.to_be_bytes());
        put(out, 53, base.to_be_bytes());
        put(out, 57, count.to_be_bytes());
        Ok(())
    }
}

/// Size of the whole batch that a length field stands for.
pub(super) fn size_from_length(length: i32) -> Result<usize, BatchError> {
    let size = usize::try_from(length).ok().and_then(|l| l.checked_add(LENGTH_OVERHEAD));
    size.filter(|&size| size >= HEADER_BYTES).ok_or(BatchError::Length { length })
}

pub(super) fn put<const N: usize>(out: &mut [u8], at: usize, value: [u8; N]) {
    out[at..at + N].copy_from_slice(&value);
}

fn at<const N: usize>(fields: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *fields[at..].first_chunk().expect("every field lies within the header")
}

fn not_negative(value: i32, field: &'static str) -> Result<u32, BatchError> {
    u32::try_from(value).map_err(|_| BatchError::Header { field, why: "is negative" })
}

fn producer(id: i64, epoch: i16, base: i32) -> Result<Option<ProducerSequence>, BatchError> {
    if id == -1 {
        return Ok(None);
    }
    if id < 0 {
        return Err(BatchError::Header { field: "producer_id", why: "is negative" });
    }
    if epoch < 0 {
        return Err(BatchError::Header { field: "producer_epoch", why: "is negative" });
    }
    let base =
        Sequence::from_i32(base).ok_or(BatchError::Header { field: "base_sequence", why: "is negative" })?;
    Ok(Some(ProducerSequence { id: ProducerId(id), epoch: ProducerEpoch(epoch), base }))
}
