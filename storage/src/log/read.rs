//! Reading: by offset and by timestamp, always whole batches.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use plimsoll_proto::batch::{self, BatchHeader, Limits};
use plimsoll_proto::ids::{LeaderEpoch, Offset};

use super::{Env, PartitionLog, ReadError};
use crate::fs::{DiskError, DiskFile};
use crate::segment::{
    Expect, FileKind, Found, IndexFile, IndexKind, SegmentReader, SparseIndex, WalkEnd, path_of, walk_headers,
};

/// A read takes at least this much from the disk, so that a header is never cut.
const BUFFER_BYTES_MIN: usize = 4 * 1024;
const HINTS: usize = 4;

/// Where the last reads ended: followers and tailing consumers go on there, without a lookup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    ends: [Option<Expect>; HINTS],
    next: usize,
}

impl Hints {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn take(&mut self, offset: Offset) -> Option<Expect> {
        self.ends.iter_mut().find(|end| end.is_some_and(|e| e.offset == offset))?.take()
    }

    fn put(&mut self, end: Expect) {
        self.ends[self.next] = Some(end);
        self.next = (self.next + 1) % HINTS;
    }
}

enum Source {
    Active(Arc<dyn DiskFile>),
    Sealed(Arc<SegmentReader>),
}

impl Source {
    fn file(&self) -> &dyn DiskFile {
        match self {
            Self::Active(file) => &**file,
            Self::Sealed(reader) => &*reader.file,
        }
    }
}

/// One segment, opened for reading.
struct Target {
    source: Source,
    base_offset: Offset,
    end_offset: Offset,
    size: u64,
    damaged_from: Option<Offset>,
    /// Position in `sealed`; `None` for the active one.
    at: Option<usize>,
}

impl PartitionLog {
    /// Whole batches from the one that holds `from` on, none that ends beyond `limit`; at most `max_bytes`,
    /// or one batch if that is larger. Empty when `from` is at or beyond `limit`.
    pub(crate) fn read(
        &mut self,
        env: &mut Env<'_>,
        from: Offset,
        limit: Offset,
        max_bytes: usize,
    ) -> Result<Bytes, ReadError> {
        if from < self.log_start {
            return Err(ReadError::OffsetTrimmed { requested: from, log_start: self.log_start });
        }
        if from > self.log_end() {
            return Err(ReadError::OffsetNotAvailable { requested: from, log_end: self.log_end() });
        }
        let limit = limit.min(self.log_end());
        if from >= limit {
            return Ok(Bytes::new());
        }
        let target = self.target(env, from)?;
        let (bytes, end) = match self.hints.take(from) {
            Some(hint) if hint.position < target.size => {
                self.read_at(env, &target, hint, from, limit, max_bytes)?
            }
            _ => {
                let start = self.locate(&target, from)?;
                self.read_at(env, &target, start, from, limit, max_bytes)?
            }
        };
        if target.at.is_none() || end.offset < target.end_offset {
            self.hints.put(end);
        }
        Ok(bytes)
    }

    /// Where the batch that holds `at` begins; where the damage begins if it can't be read.
    pub(crate) fn batch_start(&mut self, env: &mut Env<'_>, at: Offset) -> Result<Offset, DiskError> {
        let target = self.target(env, at)?;
        match self.locate(&target, at) {
            Ok(found) => Ok(found.offset),
            Err(ReadError::Damaged { from, .. }) => Ok(from.min(at)),
            Err(ReadError::Disk(error)) => Err(error),
            Err(
                ReadError::OffsetTrimmed { .. } | ReadError::OffsetNotAvailable { .. } | ReadError::NotFound,
            ) => Ok(at),
        }
    }

    /// First offset at or behind the log start whose timestamp is at least `timestamp_ms`.
    pub(crate) fn offset_at(
        &mut self,
        env: &mut Env<'_>,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>, ReadError> {
        let candidates: Vec<Offset> = self
            .sealed
            .iter()
            .map(|s| (s.base_offset, s.max_timestamp_ms))
            .chain([(self.active.base_offset, self.active.max_timestamp_ms)])
            .filter(|(_, max)| *max >= timestamp_ms)
            .map(|(base, _)| base)
            .collect();
        for base in candidates {
            let target = self.target(env, base)?;
            if let Some(offset) = self.offset_in(env, &target, timestamp_ms)? {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }

    fn offset_in(
        &mut self,
        env: &mut Env<'_>,
        target: &Target,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>, ReadError> {
        let floor = |times: &SparseIndex| {
            u64::try_from(timestamp_ms.saturating_sub(1))
                .ok()
                .and_then(|t| times.floor(t))
                .map(|(_, offset)| offset)
        };
        let from = match target.at {
            None => floor(&self.active.times),
            Some(_) => env
                .disk
                .open(&path_of(&self.dir, target.base_offset, FileKind::TimeIndex), crate::fs::OpenMode::Read)
                .and_then(|file| IndexFile::new(file, IndexKind::Times, target.base_offset).load())
                .ok()
                .and_then(|times| floor(&times)),
        };
        let from = from.and_then(|o| Offset::new(o).ok()).unwrap_or(target.base_offset);
        let from = from.clamp(target.base_offset, target.end_offset);
        let start = self.locate(target, from)?;
        let log_start = self.log_start;
        let mut hit = None;
        let end = walk_headers(target.source.file(), start, target.size, |found| {
            if found.header.max_timestamp_ms >= timestamp_ms && found.header.end_offset() > log_start {
                hit = Some(*found);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        match (hit, end) {
            (Some(found), _) => self.record_at(target, &found, timestamp_ms).map(Some),
            (None, WalkEnd::Bad(at)) => Err(self.damage(target.at, at.offset, target.end_offset)),
            (None, WalkEnd::Good(_)) => Ok(None),
        }
    }

    /// The record of a batch that first reaches the timestamp; the batch's first one if it can't be told.
    fn record_at(&self, target: &Target, found: &Found, timestamp_ms: i64) -> Result<Offset, ReadError> {
        let mut bytes = BytesMut::zeroed(found.header.size_bytes);
        let have = target.source.file().read_at(&mut bytes, found.position)?;
        bytes.truncate(have);
        let bytes = bytes.freeze();
        let first = batch::records(&bytes, &Limits::REPLICA)
            .ok()
            .and_then(|mut records| records.find_map(|r| r.ok().filter(|r| r.timestamp_ms >= timestamp_ms)));
        Ok(first.map_or(found.header.base_offset, |r| r.offset).max(self.log_start))
    }

    fn target(&mut self, env: &mut Env<'_>, from: Offset) -> Result<Target, DiskError> {
        if from >= self.active.base_offset {
            return Ok(Target {
                source: Source::Active(self.active.file(env.disk, &self.dir)?),
                base_offset: self.active.base_offset,
                end_offset: self.active.end_offset,
                size: self.active.size,
                damaged_from: self.active.damaged_from,
                at: None,
            });
        }
        let at = self.sealed.partition_point(|s| s.end_offset <= from);
        let segment = self.sealed[at];
        Ok(Target {
            source: Source::Sealed(env.handles.get(env.disk, self.id, &self.dir, segment.base_offset)?),
            base_offset: segment.base_offset,
            end_offset: segment.end_offset,
            size: segment.size_bytes,
            damaged_from: segment.damaged_from,
            at: Some(at),
        })
    }

    /// Position of the batch that holds `from`, by the index and a walk from there.
    fn locate(&mut self, target: &Target, from: Offset) -> Result<Expect, ReadError> {
        if target.damaged_from.is_some_and(|damaged| from >= damaged) {
            return Err(ReadError::Damaged {
                from: target.damaged_from.unwrap_or(from),
                to: target.end_offset,
            });
        }
        let index = match &target.source {
            Source::Active(_) => &self.active.index,
            Source::Sealed(reader) => &reader.index,
        };
        let begin = Expect { position: 0, offset: target.base_offset, epoch: LeaderEpoch(0) };
        let start = index.floor(from.get()).filter(|&(_, position)| position < target.size).map_or(
            begin,
            |(o, position)| Expect {
                position,
                offset: Offset::new(o).unwrap_or(target.base_offset),
                epoch: LeaderEpoch(0),
            },
        );
        let walk = |start: Expect| {
            walk_headers(target.source.file(), start, target.size, |found| {
                if found.header.end_offset() > from {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
        };
        let mut end = walk(start)?;
        if matches!(end, WalkEnd::Bad(_)) && (start.offset, start.position) != (begin.offset, 0) {
            // The index may lie; the log decides.
            end = walk(begin)?;
        }
        match end {
            WalkEnd::Good(at) if at.position < target.size || from == target.end_offset => Ok(at),
            WalkEnd::Good(at) | WalkEnd::Bad(at) => Err(self.damage(target.at, at.offset, target.end_offset)),
        }
    }

    fn read_at(
        &mut self,
        env: &mut Env<'_>,
        target: &Target,
        start: Expect,
        from: Offset,
        limit: Offset,
        max_bytes: usize,
    ) -> Result<(Bytes, Expect), ReadError> {
        let left = usize::try_from(target.size - start.position).unwrap_or(usize::MAX);
        let want = max_bytes.max(BUFFER_BYTES_MIN).min(left);
        let mut buffer = env.buffers.take(want);
        let mut have = target.source.file().read_at(&mut buffer[..want], start.position)?;
        let mut end = start;
        let mut cut = 0usize;
        while end.offset < limit {
            let Ok(header) = BatchHeader::parse(&buffer[cut..have]) else { break };
            let next = cut.saturating_add(header.size_bytes);
            if header.base_offset != end.offset || header.end_offset() > limit || next > left {
                break;
            }
            if cut > 0 && next > max_bytes.min(have) {
                break;
            }
            if next > have {
                // A single batch larger than asked for is read whole.
                buffer = env.buffers.take(next);
                have = target.source.file().read_at(&mut buffer[..next], start.position)?;
                if have < next {
                    break;
                }
            }
            cut = next;
            end = Expect {
                position: end.position + u64::try_from(header.size_bytes).expect("fits the file"),
                offset: header.end_offset(),
                epoch: header.leader_epoch.unwrap_or_default(),
            };
        }
        if cut == 0 && !limited(&buffer[..have], start, limit, target.end_offset) {
            return Err(self.damage(target.at, start.offset.max(from), target.end_offset));
        }
        Ok((env.buffers.give(buffer, cut), end))
    }

    /// Quarantines the rest of a segment.
    fn damage(&mut self, at: Option<usize>, from: Offset, to: Offset) -> ReadError {
        let damaged_from = match at {
            None => {
                self.must_roll = true;
                &mut self.active.damaged_from
            }
            Some(at) => {
                self.sums.damaged = true;
                &mut self.sealed[at].damaged_from
            }
        };
        let from = damaged_from.map_or(from, |known| known.min(from));
        *damaged_from = Some(from);
        ReadError::Damaged { from, to }
    }
}

/// Whether nothing was read because the first batch ends beyond the limit, rather than for damage. A batch that
/// ends beyond its segment is damage.
fn limited(buffer: &[u8], start: Expect, limit: Offset, segment_end: Offset) -> bool {
    BatchHeader::parse(buffer).is_ok_and(|header| {
        let end = header.end_offset();
        header.base_offset == start.offset && end > limit && end <= segment_end
    })
}
