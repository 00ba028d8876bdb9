//! Records inside a batch.

use bytes::Bytes;

use super::codec::{self, Compression};
use super::error::BatchError;
use super::header::{BatchHeader, HEADER_BYTES};
use super::varint;
use super::verify::Limits;
use crate::ids::Offset;

/// One record, as read from a batch. Cloning copies no payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Position in the partition.
    pub offset: Offset,
    /// Milliseconds since 1970, as the producer set them.
    pub timestamp_ms: i64,
    /// The key, if any.
    pub key: Option<Bytes>,
    /// The value, if any.
    pub value: Option<Bytes>,
    /// Headers in order; keys may repeat.
    pub headers: Vec<RecordHeader>,
}

/// One header of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// UTF-8 by convention.
    pub key: Bytes,
    /// The value, if any.
    pub value: Option<Bytes>,
}

/// The smallest record: length, attributes, two deltas, key and value lengths, header count.
const RECORD_BYTES_MIN: usize = 7;

/// Iterates over the records of one whole batch, decompressing it first if needed.
///
/// Checks the header, the size and the records, but not the CRC: [`super::verify`] does.
///
/// # Errors
/// Any [`BatchError`] of header or decompression; the iterator then yields one per bad record and ends.
pub fn records(batch: &Bytes, limits: &Limits) -> Result<Records, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if batch.len() < header.size_bytes {
        return Err(BatchError::Truncated { have: batch.len(), need: header.size_bytes });
    }
    let body = batch.slice(HEADER_BYTES..header.size_bytes);
    let plain = match header.compression {
        Compression::None => body,
        packed => Bytes::from(codec::decompress(packed, &body, limits.plain_bytes_max(body.len()))?),
    };
    Ok(Records { header, plain, next: 0, at: 0 })
}

/// See [`records`].
#[derive(Clone, Debug)]
pub struct Records {
    header: BatchHeader,
    plain: Bytes,
    next: u32,
    at: usize,
}

impl Records {
    /// The header of the batch.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    fn read(&mut self) -> Result<Record, BatchError> {
        let mut rest = &self.plain[self.at..];
        let span = walk(&mut rest, self.next)?;
        self.at = self.plain.len() - rest.len();
        let bad = |why| BatchError::Record { index: self.next, why };
        let offset = self
            .header
            .base_offset
            .checked_add(u64::from(span.offset_delta))
            .ok_or(bad("offset is beyond the last"))?;
        let mut headers = Vec::new();
        let mut fields = span.headers;
        for _ in 0..span.header_count {
            let key = sized(&mut fields).flatten().ok_or(bad("header key is cut off"))?;
            let value = sized(&mut fields).ok_or(bad("header value is cut off"))?;
            headers.push(RecordHeader { key: self.share(key), value: value.map(|v| self.share(v)) });
        }
        Ok(Record {
            offset,
            timestamp_ms: self.header.base_timestamp_ms.saturating_add(span.timestamp_delta),
            key: span.key.map(|k| self.share(k)),
            value: span.value.map(|v| self.share(v)),
            headers,
        })
    }

    fn share(&self, part: &[u8]) -> Bytes {
        self.plain.slice_ref(part)
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.header.record_count {
            return None;
        }
        let result = self.read();
        self.next = if result.is_ok() { self.next + 1 } else { self.header.record_count };
        Some(result)
    }
}

/// Checks all records of a batch against its header, without copying uncompressed ones.
pub(super) fn check(header: &BatchHeader, body: &[u8], limits: &Limits) -> Result<(), BatchError> {
    let plain;
    let mut rest = match header.compression {
        Compression::None => body,
        packed => {
            plain = codec::decompress(packed, body, limits.plain_bytes_max(body.len()))?;
            &plain[..]
        }
    };
    let count = usize::try_from(header.record_count).unwrap_or(usize::MAX);
    if rest.len() / RECORD_BYTES_MIN < count {
        return Err(BatchError::Header { field: "record_count", why: "is more than fits into the batch" });
    }
    for index in 0..header.record_count {
        let span = walk(&mut rest, index)?;
        if span.offset_delta != index {
            return Err(BatchError::Record { index, why: "offset delta does not count up from 0" });
        }
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(BatchError::Record { index: header.record_count, why: "bytes follow the last record" })
    }
}

struct Span<'a> {
    timestamp_delta: i64,
    offset_delta: u32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: &'a [u8],
    header_count: u32,
}

/// Takes one record from the front of `bytes`. Every length is checked against what is there.
fn walk<'a>(bytes: &mut &'a [u8], index: u32) -> Result<Span<'a>, BatchError> {
    let bad = |why| BatchError::Record { index, why };
    let length = varint::take(bytes).ok_or(bad("length is cut off"))?;
    let length = usize::try_from(length).map_err(|_| bad("length is negative"))?;
    let (mut fields, rest) = bytes.split_at_checked(length).ok_or(bad("is cut off"))?;
    let (_attributes, behind) = fields.split_first().ok_or(bad("is empty"))?;
    fields = behind;
    let timestamp_delta = varint::take(&mut fields).ok_or(bad("timestamp is cut off"))?;
    let offset_delta = varint::take(&mut fields)
        .and_then(|delta| u32::try_from(delta).ok())
        .ok_or(bad("offset delta is cut off or negative"))?;
    let key = sized(&mut fields).ok_or(bad("key is cut off"))?;
    let value = sized(&mut fields).ok_or(bad("value is cut off"))?;
    let header_count = varint::take(&mut fields)
        .and_then(|count| u32::try_from(count).ok())
        .ok_or(bad("header count is cut off or negative"))?;
    let headers = fields;
    for _ in 0..header_count {
        sized(&mut fields).flatten().ok_or(bad("header key is cut off"))?;
        sized(&mut fields).ok_or(bad("header value is cut off"))?;
    }
    if !fields.is_empty() {
        return Err(bad("is longer than its fields"));
    }
    *bytes = rest;
    Ok(Span { timestamp_delta, offset_delta, key, value, headers, header_count })
}

/// A length and that many bytes; the inner `None` stands for a length of -1, the outer one for bad bytes.
#[expect(clippy::option_option, reason = "absent value and broken encoding are two things")]
fn sized<'a>(fields: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint::take(fields)?;
    if length == -1 {
        return Some(None);
    }
    let (part, rest) = fields.split_at_checked(usize::try_from(length).ok()?)?;
    *fields = rest;
    Some(Some(part))
}
