//! What a batch must be before it is appended, and the stamp that the leader puts on it.

use super::error::BatchError;
use super::header::{ATTRIBUTES_AT, BatchHeader, HEADER_BYTES, LEADER_EPOCH_AT, put};
use super::record;
use crate::ids::{LeaderEpoch, Offset};

/// Bounds for batches from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Greatest size of a whole batch in bytes. Default 1 MiB.
    pub batch_bytes_max: usize,
    /// Greatest size of the records when decompressed, in bytes. Default 64 MiB.
    pub plain_bytes_max: usize,
    /// Greatest ratio of decompressed to compressed size, beyond a first MiB that is always allowed.
    /// Default 1,024.
    pub ratio_max: usize,
    /// Whether the batch comes from a client: refuses LogAppendTime, transactional and control bits, and an
    /// empty batch.
    pub from_client: bool,
    /// Whether every record is looked at, which decompresses. Otherwise the header and the CRC are.
    pub check_records: bool,
}

impl Limits {
    /// Decompressed bytes that are allowed whatever the ratio.
    const FREE_PLAIN_BYTES: usize = 1 << 20;

    /// For batches of producers.
    pub const CLIENT: Self = Self {
        batch_bytes_max: 1 << 20,
        plain_bytes_max: 64 << 20,
        ratio_max: 1024,
        from_client: true,
        check_records: true,
    };

    /// For batches that a leader has verified before: from its log, or from a peer. Header and CRC are
    /// checked, records are not.
    pub const REPLICA: Self = Self {
        batch_bytes_max: 1 << 30,
        plain_bytes_max: 64 << 20,
        ratio_max: 1024,
        from_client: false,
        check_records: false,
    };

    pub(super) fn plain_bytes_max(&self, packed_bytes: usize) -> usize {
        let by_ratio = packed_bytes.saturating_mul(self.ratio_max).max(Self::FREE_PLAIN_BYTES);
        by_ratio.min(self.plain_bytes_max)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::CLIENT
    }
}

/// Checks that `bytes` are exactly one whole batch: size, magic, CRC, record count and, if asked, every
/// record.
///
/// # Errors
/// The first thing that is wrong. Nothing is changed; sending the same bytes again fails again.
pub fn verify(bytes: &[u8], limits: &Limits) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    if header.size_bytes > limits.batch_bytes_max {
        let wide = |n| u64::try_from(n).unwrap_or(u64::MAX);
        return Err(BatchError::TooLarge {
            bytes: wide(header.size_bytes),
            limit: wide(limits.batch_bytes_max),
        });
    }
    if bytes.len() < header.size_bytes {
        return Err(BatchError::Truncated { have: bytes.len(), need: header.size_bytes });
    }
    if bytes.len() > header.size_bytes {
        return Err(BatchError::TrailingBytes { extra: bytes.len() - header.size_bytes });
    }
    let found = crc32c::crc32c(&bytes[ATTRIBUTES_AT..]);
    if found != header.crc {
        return Err(BatchError::Checksum { expected: header.crc, found });
    }
    check_fields(&header, limits)?;
    if limits.check_records {
        record::check(&header, &bytes[HEADER_BYTES..], limits)?;
    }
    Ok(header)
}

fn check_fields(header: &BatchHeader, limits: &Limits) -> Result<(), BatchError> {
    let wrong = |field, why| Err(BatchError::Header { field, why });
    if header.record_count == 0 {
        return wrong("record_count", "is 0");
    }
    if header.record_count - 1 != header.last_offset_delta {
        return wrong("last_offset_delta", "does not match the record count");
    }
    if limits.from_client {
        if header.log_append_time {
            return wrong("attributes", "ask for LogAppendTime, which is not supported");
        }
        if header.transactional {
            return wrong("attributes", "name a transaction, which is not supported");
        }
        if header.control {
            return wrong("attributes", "name a control batch, which clients may not send");
        }
    }
    Ok(())
}

/// Puts the leader's stamp on a batch in place: base offset and leader epoch, which the CRC does not cover.
///
/// # Errors
/// [`BatchError::Truncated`] when there is no whole header, `Header` when the epoch is beyond `i32::MAX`;
/// nothing is changed then.
pub fn stamp(batch: &mut [u8], base_offset: Offset, epoch: LeaderEpoch) -> Result<(), BatchError> {
    if batch.len() < HEADER_BYTES {
        return Err(BatchError::Truncated { have: batch.len(), need: HEADER_BYTES });
    }
    let epoch = i32::try_from(epoch.0)
        .map_err(|_| BatchError::Header { field: "leader_epoch", why: "is beyond i32::MAX" })?;
    put(batch, 0, base_offset.to_i64().to_be_bytes());
    put(batch, LEADER_EPOCH_AT, epoch.to_be_bytes());
    Ok(())
}
