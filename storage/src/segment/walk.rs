//! Walking over the batches of a segment file, with all that the CRC does not cover checked.

use std::ops::ControlFlow;

use plimsoll_proto::batch::{self, BatchHeader, HEADER_BYTES, Limits};
use plimsoll_proto::ids::{LeaderEpoch, Offset};

use crate::fs::{DiskError, DiskFile};

/// Bytes that a walk over headers reads at a time: little where batches are large, and more where many headers lie
/// close to each other.
const CHUNK_BYTES_MIN: usize = 512;
const CHUNK_BYTES: usize = 16 * 1024;
/// A size in a header beyond this is damage; no batch that was ever accepted is larger.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// Where to walk, and what the next batch must continue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expect {
    /// Position in the file.
    pub(crate) position: u64,
    /// Offset that the batch there must start at.
    pub(crate) offset: Offset,
    /// No batch may have an earlier leader epoch.
    pub(crate) epoch: LeaderEpoch,
}

/// A batch on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
    pub(crate) epoch: LeaderEpoch,
}

impl Found {
    pub(crate) fn end_position(&self) -> u64 {
        self.position + u64::try_from(self.header.size_bytes).expect("bounded by check")
    }

    fn next(&self) -> Expect {
        Expect { position: self.end_position(), offset: self.header.end_offset(), epoch: self.epoch }
    }
}

/// How a walk ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WalkEnd {
    /// At the end, or where the visitor broke off; all batches were good.
    Good(Expect),
    /// At bytes that are no good batch continuing the log.
    Bad(Expect),
}

/// Checks a header against what it must continue and the room there is.
pub(crate) fn check(bytes: &[u8], expect: &Expect, end_position: u64) -> Option<Found> {
    let header = BatchHeader::parse(bytes).ok()?;
    let epoch = header.leader_epoch?;
    let good = header.base_offset == expect.offset
        && header.record_count == header.last_offset_delta.checked_add(1)?
        && epoch >= expect.epoch
        && header.size_bytes <= BATCH_BYTES_MAX;
    let found = Found { position: expect.position, header, epoch };
    (good && found.end_position() <= end_position).then_some(found)
}

/// Visits the batches from `start` on by their headers only, up to `end_position`.
pub(crate) fn walk_headers(
    file: &dyn DiskFile,
    start: Expect,
    end_position: u64,
    mut visit: impl FnMut(&Found) -> ControlFlow<()>,
) -> Result<WalkEnd, DiskError> {
    let mut chunk = vec![0u8; CHUNK_BYTES_MIN];
    let mut chunk_at = start.position;
    let mut have = 0usize;
    let mut expect = start;
    while expect.position < end_position {
        let within = usize::try_from(expect.position - chunk_at).unwrap_or(usize::MAX);
        if within.saturating_add(HEADER_BYTES) > have {
            if have > 0 && within < chunk.len() * 2 {
                chunk.resize((chunk.len() * 4).min(CHUNK_BYTES), 0);
            }
            chunk_at = expect.position;
            have = file.read_at(&mut chunk, chunk_at)?;
        }
        let within = usize::try_from(expect.position - chunk_at).expect("the chunk starts at or before");
        let Some(found) = check(&chunk[within.min(have)..have], &expect, end_position) else {
            return Ok(WalkEnd::Bad(expect));
        };
        if visit(&found).is_break() {
            return Ok(WalkEnd::Good(expect));
        }
        expect = found.next();
    }
    Ok(WalkEnd::Good(expect))
}

/// Visits the batches from `start` on, reading them whole and checking their CRC.
pub(crate) fn verify_from(
    file: &dyn DiskFile,
    start: Expect,
    end_position: u64,
    mut visit: impl FnMut(&Found),
) -> Result<WalkEnd, DiskError> {
    let mut buffer = vec![0u8; 256 * 1024];
    let mut expect = start;
    while expect.position < end_position {
        let mut have = file.read_at(&mut buffer, expect.position)?;
        let mut within = 0usize;
        // All whole batches of the buffer.
        loop {
            if expect.position >= end_position {
                break;
            }
            if have - within < HEADER_BYTES && within > 0 {
                break;
            }
            let Some(found) = check(&buffer[within..have], &expect, end_position) else {
                return Ok(WalkEnd::Bad(expect));
            };
            let size = found.header.size_bytes;
            if within + size > have {
                if within > 0 {
                    break;
                }
                // Larger than the buffer: `check` made sure that the file has that many bytes.
                buffer.resize(size.max(buffer.len()), 0);
                have = file.read_at(&mut buffer, expect.position)?;
                if have < size {
                    return Ok(WalkEnd::Bad(expect));
                }
            }
            if batch::verify(&buffer[within..within + size], &Limits::REPLICA).is_err() {
                return Ok(WalkEnd::Bad(expect));
            }
            visit(&found);
            within += size;
            expect = found.next();
        }
    }
    Ok(WalkEnd::Good(expect))
}
