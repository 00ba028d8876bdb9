//! From the bytes of segments to their batches.

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use plimsoll_proto::batch::{self, BatchError, BatchHeader, HEADER_BYTES, Limits, Records};
use plimsoll_proto::ids::Offset;

use super::{LogFiles, area};
use crate::fs::{Disk, DiskError, DiskFile, OpenMode};
use crate::segment::{FileKind, IndexFile, IndexKind, path_of};

const CHUNK_BYTES: usize = 256 * 1024;

/// Everything is looked at: header, checksum, every record.
pub(super) const ALL: Limits = Limits { check_records: true, ..Limits::REPLICA };

/// What a walk comes by, in the order of the files.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A segment begins.
    Segment(&'a SeenSegment),
    /// A batch, sound or not.
    Batch(&'a SeenBatch),
    /// Bytes that are no batch; the rest of the segment can't be told apart.
    Bad(&'a BadBytes),
}

/// A segment's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenSegment {
    /// First offset, by the name of the file.
    pub base_offset: Offset,
    /// The `.log` file, from the directory that was opened.
    pub file: String,
    /// Length of the `.log` file.
    pub size_bytes: u64,
    /// Bytes that it occupies.
    pub allocated_bytes: u64,
    /// Offset behind the last record, by the seal; `None` while it is appended to.
    pub sealed_end: Option<Offset>,
}

/// A batch of a segment.
#[derive(Clone, Debug)]
pub struct SeenBatch {
    /// Where it begins in its file.
    pub position: u64,
    /// Its header.
    pub header: BatchHeader,
    /// All of it.
    pub bytes: Bytes,
    /// Whether checksum, counts and records fit.
    pub sound: Result<(), BatchError>,
}

impl SeenBatch {
    /// Its records, also when the checksum does not fit.
    ///
    /// # Errors
    /// Why they can't be read.
    pub fn records(&self) -> Result<Records, BatchError> {
        batch::records(&self.bytes, &ALL)
    }
}

/// Where a segment stops being one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBytes {
    /// Where they begin in the file.
    pub position: u64,
    /// How many there are, to the end of the file.
    pub bytes: u64,
    /// Why they are no batch.
    pub error: BatchError,
}

impl LogFiles {
    /// Visits all segments and batches. Reads no more at a time than one batch, or 256 KiB; of an area all of it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn walk(
        &self,
        disk: &dyn Disk,
        mut visit: impl FnMut(Seen<'_>) -> ControlFlow<()>,
    ) -> Result<(), DiskError> {
        if self.is_area {
            return area::walk(self, disk, visit);
        }
        for &base_offset in &self.base_offsets {
            let path = path_of(&self.dir, base_offset, FileKind::Log);
            let file = disk.open(&path, OpenMode::Read)?;
            let segment = SeenSegment {
                base_offset,
                size_bytes: file.len()?,
                allocated_bytes: file.allocated_bytes()?,
                sealed_end: sealed_end(disk, &self.dir, base_offset)?,
                file: path,
            };
            if visit(Seen::Segment(&segment)).is_break()
                || walk_segment(&*file, segment.size_bytes, &mut visit)?.is_break()
            {
                break;
            }
        }
        Ok(())
    }
}

fn sealed_end(disk: &dyn Disk, dir: &str, base: Offset) -> Result<Option<Offset>, DiskError> {
    match disk.open(&path_of(dir, base, FileKind::Index), OpenMode::Read) {
        Ok(file) => {
            let seal = IndexFile::new(file, IndexKind::Offsets, base).read_seal()?;
            Ok(seal.map(|seal| seal.end_offset))
        }
        Err(DiskError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes of a file, some of them at a time.
struct Window<'a> {
    file: &'a dyn DiskFile,
    size: u64,
    at: u64,
    bytes: Bytes,
}

impl Window<'_> {
    /// At least `need` bytes from `position` on, if the file has them.
    fn get(&mut self, position: u64, need: usize) -> Result<Bytes, DiskError> {
        let within = usize::try_from(position.saturating_sub(self.at)).unwrap_or(usize::MAX);
        if within.saturating_add(need) > self.bytes.len() {
            let left = usize::try_from(self.size.saturating_sub(position)).unwrap_or(usize::MAX);
            let mut chunk = BytesMut::zeroed(need.max(CHUNK_BYTES).min(left));
            let have = self.file.read_at(&mut chunk, position)?;
            chunk.truncate(have);
            self.at = position;
            self.bytes = chunk.freeze();
            return Ok(self.bytes.clone());
        }
        Ok(self.bytes.slice(within..))
    }
}

fn walk_segment(
    file: &dyn DiskFile,
    size: u64,
    visit: &mut impl FnMut(Seen<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, DiskError> {
    let mut window = Window { file, size, at: 0, bytes: Bytes::new() };
    let mut position = 0u64;
    while position < size {
        let bytes = window.get(position, HEADER_BYTES)?;
        let whole = BatchHeader::parse(&bytes).and_then(|header| {
            let left = size - position;
            let fits = u64::try_from(header.size_bytes).is_ok_and(|need| need <= left);
            match header.size_bytes {
                need if !fits => {
                    let have = usize::try_from(left).unwrap_or(usize::MAX);
                    Err(BatchError::Truncated { have, need })
                }
                need if need > ALL.batch_bytes_max => {
                    let wide = |n| u64::try_from(n).unwrap_or(u64::MAX);
                    Err(BatchError::TooLarge { bytes: wide(need), limit: wide(ALL.batch_bytes_max) })
                }
                _ => Ok(header),
            }
        });
        let taken = match whole {
            Ok(header) => {
                let mut bytes = window.get(position, header.size_bytes)?;
                bytes.truncate(header.size_bytes);
                let sound = batch::verify(&bytes, &ALL).map(drop);
                let found = SeenBatch { position, header, bytes, sound };
                (visit(Seen::Batch(&found)), header.size_bytes)
            }
            Err(error) => {
                return Ok(visit(Seen::Bad(&BadBytes { position, bytes: size - position, error })));
            }
        };
        if taken.0.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        position += u64::try_from(taken.1).expect("it fits the file");
    }
    Ok(ControlFlow::Continue(()))
}
