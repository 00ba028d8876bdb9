//! Making a batch, record by record.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{self, Compression};
use super::error::BatchError;
use super::header::{ATTRIBUTES_AT, BatchHeader, CRC_AT, HEADER_BYTES, ProducerSequence, put};
use super::varint;
use crate::ids::Offset;

/// One record to be put into a batch; all parts are borrowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRecord<'a> {
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value, if any.
    pub value: Option<&'a [u8]>,
    /// Headers in order: key in UTF-8, value if any.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
}

impl NewRecord<'_> {
    /// Greatest number of bytes that the record adds to a batch, before compression.
    pub fn bytes_max(&self) -> usize {
        // Length, attributes, timestamp delta, offset delta and header count: 5 + 1 + 10 + 5 + 5.
        26 + part_bytes(self.key)
            + part_bytes(self.value)
            + self.headers.iter().map(|(k, v)| part_bytes(Some(k.as_bytes())) + part_bytes(*v)).sum::<usize>()
    }
}

/// Collects records and encodes them as one batch.
///
/// The producer may be set at any time before [`BatchBuilder::build`], so that records can be collected
/// while the producer id is still being fetched. The base offset is 0 and the leader epoch absent until the
/// leader stamps them.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    compression: Compression,
    producer: Option<ProducerSequence>,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    count: u32,
    /// Room for the header, then the plain records.
    out: BytesMut,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(compression: Compression) -> Self {
        Self::with_capacity(compression, 0)
    }

    /// An empty batch with room for `bytes` of plain records.
    pub fn with_capacity(compression: Compression, bytes: usize) -> Self {
        let mut out = BytesMut::with_capacity(HEADER_BYTES.saturating_add(bytes));
        out.put_bytes(0, HEADER_BYTES);
        Self { compression, producer: None, base_timestamp_ms: -1, max_timestamp_ms: -1, count: 0, out }
    }

    /// Makes the batch idempotent: who sends it and the sequence of its first record.
    pub fn set_producer(&mut self, producer: Option<ProducerSequence>) -> &mut Self {
        self.producer = producer;
        self
    }

    /// Records so far.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether there is no record yet; such a batch can't be built.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size of the batch in bytes if it was built uncompressed now.
    pub fn plain_bytes(&self) -> usize {
        self.out.len()
    }

    /// Appends a record.
    ///
    /// # Errors
    /// [`BatchError::Encode`] when a part is over 2 GiB or the batch holds `i32::MAX` records; nothing is
    /// appended then.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<(), BatchError> {
        let bytes = self.out.len().saturating_add(record.bytes_max());
        if i32::try_from(bytes).is_err() || i32::try_from(self.count + 1).is_err() {
            return Err(BatchError::Encode { why: "the batch is over 2 GiB" });
        }
        if self.count == 0 {
            self.base_timestamp_ms = record.timestamp_ms;
            self.max_timestamp_ms = record.timestamp_ms;
        }
        let timestamp_delta = record
            .timestamp_ms
            .checked_sub(self.base_timestamp_ms)
            .ok_or(BatchError::Encode { why: "timestamps are too far apart" })?;
        self.max_timestamp_ms = self.max_timestamp_ms.max(record.timestamp_ms);
        let offset_delta = i64::from(self.count);
        let header_count = signed(record.headers.len());
        let length = 1
            + varint::len(timestamp_delta)
            + varint::len(offset_delta)
            + sized_len(record.key)
            + sized_len(record.value)
            + varint::len(header_count)
            + record
                .headers
                .iter()
                .map(|(k, v)| sized_len(Some(k.as_bytes())) + sized_len(*v))
                .sum::<usize>();
        self.make_room(varint::len(signed(length)) + length);
        varint::put(&mut self.out, signed(length));
        self.out.put_u8(0);
        varint::put(&mut self.out, timestamp_delta);
        varint::put(&mut self.out, offset_delta);
        put_sized(&mut self.out, record.key);
        put_sized(&mut self.out, record.value);
        varint::put(&mut self.out, header_count);
        for (key, value) in record.headers {
            put_sized(&mut self.out, Some(key.as_bytes()));
            put_sized(&mut self.out, *value);
        }
        self.count += 1;
        Ok(())
    }

    /// Grows by an eighth and no more: with doubling, batches could take twice what their records do, and who bounds
    /// the memory of many batches counts records.
    fn make_room(&mut self, more: usize) {
        let needed = self.out.len().saturating_add(more);
        if needed > self.out.capacity() {
            let eighth_more = self.out.len().saturating_add(self.out.len() / 8 + 512);
            let mut grown = BytesMut::with_capacity(needed.max(eighth_more));
            grown.extend_from_slice(&self.out);
            self.out = grown;
        }
    }

    /// Encodes the batch.
    ///
    /// # Errors
    /// [`BatchError::Encode`] when there is no record or the compressor fails.
    pub fn build(mut self) -> Result<BytesMut, BatchError> {
        let Some(last_offset_delta) = self.count.checked_sub(1) else {
            return Err(BatchError::Encode { why: "the batch has no record" });
        };
        if self.compression != Compression::None {
            let packed = codec::compress(self.compression, &self.out[HEADER_BYTES..])?;
            self.out.truncate(HEADER_BYTES);
            self.out.extend_from_slice(&packed);
        }
        let header = BatchHeader {
            base_offset: Offset::ZERO,
            size_bytes: self.out.len(),
            leader_epoch: None,
            crc: 0,
            compression: self.compression,
            log_append_time: false,
            transactional: false,
            control: false,
            last_offset_delta,
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
            producer: self.producer,
            record_count: self.count,
        };
        let room = self.out.first_chunk_mut().expect("room for the header was made at the start");
        header.write_without_crc(room)?;
        let crc = crc32c::crc32c(&self.out[ATTRIBUTES_AT..]);
        put(&mut self.out, CRC_AT, crc.to_be_bytes());
        Ok(self.out)
    }

    /// As [`BatchBuilder::build`], shared.
    ///
    /// # Errors
    /// As [`BatchBuilder::build`].
    pub fn build_shared(self) -> Result<Bytes, BatchError> {
        self.build().map(BytesMut::freeze)
    }
}

fn part_bytes(part: Option<&[u8]>) -> usize {
    5 + part.map_or(0, <[u8]>::len)
}

fn sized_len(part: Option<&[u8]>) -> usize {
    part.map_or(1, |p| varint::len(signed(p.len())) + p.len())
}

fn put_sized(out: &mut BytesMut, part: Option<&[u8]>) {
    match part {
        None => varint::put(out, -1),
        Some(part) => {
            varint::put(out, signed(part.len()));
            out.extend_from_slice(part);
        }
    }
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).expect("push checked that the batch stays below 2 GiB")
}
