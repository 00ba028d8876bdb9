//! The segment that a log appends to.
//!
//! ```text
//!   0                        size            allocated_end
//!   +------------------------+-----------------+
//!   | whole batches          | blocks, no data |       the file's length is `size`
//!   +------------------------+-----------------+
//! ```
//!
//! Blocks are taken before the first byte is written, so a full disk is met by `allocate`, when nothing is
//! written yet. A write that fails nevertheless is cut back before anything else.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::batch::BatchHeader;
use plimsoll_proto::ids::Offset;

use super::{
    BLOCK_BYTES, FileKind, IndexFile, IndexKind, Seal, SealedSegment, SparseIndex, path_of, whole_blocks,
};
use crate::fs::{Disk, DiskError, DiskFile, OpenMode};
use crate::space::SpareFiles;
use crate::space::spare::SpareKind;

/// Smallest step of preallocation.
const STEP_BYTES_MIN: u64 = 64 * 1024;
/// Largest step of preallocation.
const STEP_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A step used up faster than this doubles, one that lasted ten times longer halves.
const STEP_LASTS: Duration = Duration::from_secs(1);
/// Index entries of a full segment.
const INDEX_ENTRIES: u64 = 1024;

/// A failed append: what the disk said, and whether bytes may remain behind the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WriteFailure {
    pub(crate) error: DiskError,
    /// Bytes of the batch may be in the file behind `size` and could not be cut.
    pub(crate) uncut: bool,
}

/// See the module.
pub(crate) struct ActiveSegment {
    pub(crate) base_offset: Offset,
    pub(crate) end_offset: Offset,
    pub(crate) size: u64,
    pub(crate) max_timestamp_ms: i64,
    /// Cluster time of the first append, for rolling by age.
    pub(crate) first_append_ms: Option<u64>,
    /// Cluster time of the last append, for retention.
    pub(crate) last_append_ms: u64,
    /// First offset that can't be read, if any.
    pub(crate) damaged_from: Option<Offset>,
    pub(crate) index: SparseIndex,
    pub(crate) times: SparseIndex,
    file: Option<Arc<dyn DiskFile>>,
    allocated_end: u64,
    step: u64,
    last_step_at: Duration,
    since_entry: u64,
    /// Bytes behind `size` are in the file and must go before the next write.
    torn: bool,
    /// The index entries are in their files only: loaded again when the log file is opened.
    at_rest: bool,
}

impl ActiveSegment {
    /// The state of an existing, or just made, log file.
    pub(crate) fn new(base_offset: Offset, end_offset: Offset, size: u64, wall_ms: u64) -> Self {
        Self {
            base_offset,
            end_offset,
            size,
            max_timestamp_ms: i64::MIN,
            first_append_ms: (size > 0).then_some(wall_ms),
            last_append_ms: wall_ms,
            damaged_from: None,
            index: SparseIndex::default(),
            times: SparseIndex::default(),
            file: None,
            allocated_end: whole_blocks(size),
            step: STEP_BYTES_MIN,
            last_step_at: Duration::ZERO,
            since_entry: 0,
            torn: false,
            at_rest: false,
        }
    }

    /// Makes the three files. Fails whole: what was made is removed again.
    pub(crate) fn create(
        disk: &dyn Disk,
        dir: &str,
        base_offset: Offset,
        wall_ms: u64,
    ) -> Result<Self, DiskError> {
        let made = Self::create_files(disk, dir, base_offset);
        if made.is_err() {
            // Best effort: a leftover of this very offset is empty and is adopted by the next try.
            let _ = SealedSegment::remove(disk, dir, base_offset);
        }
        let mut segment = Self::new(base_offset, base_offset, 0, wall_ms);
        segment.file = Some(made?);
        Ok(segment)
    }

    /// Makes the three files of spares of the physical reserve; `None` when there are not enough.
    pub(crate) fn from_spares(
        disk: &dyn Disk,
        spares: &mut SpareFiles,
        dir: &str,
        base_offset: Offset,
        wall_ms: u64,
    ) -> Result<Option<Self>, DiskError> {
        if spares.available(SpareKind::Segment) < 1 || spares.available(SpareKind::Index) < 2 {
            return Ok(None);
        }
        let made = Self::take_spares(disk, spares, dir, base_offset);
        match made {
            Ok(Some(file)) => {
                let mut segment = Self::new(base_offset, base_offset, 0, wall_ms);
                segment.allocated_end = SpareKind::Segment.allocated_bytes();
                segment.file = Some(file);
                Ok(Some(segment))
            }
            other => {
                // Best effort, as in `create`.
                let _ = SealedSegment::remove(disk, dir, base_offset);
                other.map(|_| None)
            }
        }
    }

    fn take_spares(
        disk: &dyn Disk,
        spares: &mut SpareFiles,
        dir: &str,
        base_offset: Offset,
    ) -> Result<Option<Arc<dyn DiskFile>>, DiskError> {
        for (kind, index) in [(FileKind::Index, IndexKind::Offsets), (FileKind::TimeIndex, IndexKind::Times)]
        {
            let taken = spares.take(disk, SpareKind::Index, &path_of(dir, base_offset, kind))?;
            let Some(file) = taken else { return Ok(None) };
            IndexFile::new(file, index, base_offset).empty()?;
        }
        let taken = spares.take(disk, SpareKind::Segment, &path_of(dir, base_offset, FileKind::Log))?;
        Ok(taken.map(Arc::from))
    }

    fn create_files(disk: &dyn Disk, dir: &str, base_offset: Offset) -> Result<Arc<dyn DiskFile>, DiskError> {
        for (kind, index) in [(FileKind::Index, IndexKind::Offsets), (FileKind::TimeIndex, IndexKind::Times)]
        {
            let file = create_or_empty(disk, &path_of(dir, base_offset, kind))?;
            IndexFile::new(file, index, base_offset).format()?;
        }
        create_or_empty(disk, &path_of(dir, base_offset, FileKind::Log)).map(Arc::from)
    }

    /// The log file, opened if need be. Needs no space.
    pub(crate) fn file(&mut self, disk: &dyn Disk, dir: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let file: Arc<dyn DiskFile> =
            Arc::from(disk.open(&path_of(dir, self.base_offset, FileKind::Log), OpenMode::Write)?);
        if self.at_rest {
            // Hints: without them the segment is walked.
            let load = |kind, index| load_index(disk, dir, self.base_offset, kind, index).unwrap_or_default();
            let times = load(FileKind::TimeIndex, IndexKind::Times);
            self.set_indexes(load(FileKind::Index, IndexKind::Offsets), times);
        }
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Closes the file. Only when all its bytes are synced, or were never meant to be. Index entries that their files
    /// hold are forgotten: many closed logs must not take much memory.
    pub(crate) fn close(&mut self) {
        self.file = None;
        self.forget_indexes();
    }

    fn forget_indexes(&mut self) {
        if self.file.is_none() && self.index.is_persisted() && self.times.is_persisted() {
            self.index = SparseIndex::default();
            self.times = SparseIndex::default();
            self.at_rest = true;
        }
    }

    /// Bytes allocated but not written.
    pub(crate) fn preallocated(&self) -> u64 {
        self.allocated_end.saturating_sub(whole_blocks(self.size))
    }

    /// Bytes that the log file occupies.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.allocated_end.max(whole_blocks(self.size))
    }

    /// Takes blocks for `bytes` more; beyond them at most `extra_max` ahead, as the rate of appends suggests.
    ///
    /// # Errors
    /// `OutOfSpace` and others of `allocate`: nothing is written, and blocks got in part are given back.
    pub(crate) fn reserve(&mut self, file: &dyn DiskFile, bytes: u64, room: &Room) -> Result<(), DiskError> {
        let need = whole_blocks(self.size + bytes);
        if need <= self.allocated_end {
            return Ok(());
        }
        self.adapt_step(room.now);
        let roll_at = whole_blocks(room.segment_bytes).max(need);
        let ahead = self.step.min(room.extra_max).min(roll_at - need) / BLOCK_BYTES * BLOCK_BYTES;
        let from = self.allocated_end;
        let mut result = file.allocate(from, need + ahead - from);
        let mut end = need + ahead;
        if ahead > 0 && matches!(result, Err(DiskError::OutOfSpace { .. })) {
            result = file.allocate(from, need - from);
            end = need;
        }
        match result {
            Ok(()) => {
                self.allocated_end = end;
                Ok(())
            }
            Err(error) => {
                if matches!(error, DiskError::OutOfSpace { .. }) {
                    // A failed fallocate may have taken some blocks.
                    self.give_back(file)?;
                }
                Err(error)
            }
        }
    }

    fn adapt_step(&mut self, now: Duration) {
        let lasted = now.saturating_sub(self.last_step_at);
        if lasted < STEP_LASTS {
            self.step = (self.step * 2).min(STEP_BYTES_MAX);
        } else if lasted > STEP_LASTS * 10 {
            self.step = (self.step / 2).max(STEP_BYTES_MIN);
        }
        self.last_step_at = now;
    }

    /// Frees the blocks behind the data. Needs no space.
    pub(crate) fn give_back(&mut self, file: &dyn DiskFile) -> Result<(), DiskError> {
        file.set_len(self.size)?;
        self.allocated_end = whole_blocks(self.size);
        self.torn = false;
        Ok(())
    }

    /// Writes `bytes` at the end, into blocks that [`ActiveSegment::reserve`] took.
    pub(crate) fn write(&mut self, file: &dyn DiskFile, bytes: &[u8]) -> Result<(), WriteFailure> {
        assert!(self.size + wide(bytes.len()) <= self.allocated_end, "written bytes are allocated first");
        if self.torn {
            self.give_back(file).map_err(|error| WriteFailure { error, uncut: false })?;
        }
        let Err(error) = file.write_at(bytes, self.size) else { return Ok(()) };
        self.torn = true;
        let uncut = self.give_back(file).is_err() && !matches!(error, DiskError::OutOfSpace { .. });
        Err(WriteFailure { error, uncut })
    }

    /// Goes on with an open file whose bytes behind `size` are not of this segment.
    pub(crate) fn adopt(&mut self, file: Arc<dyn DiskFile>) {
        self.file = Some(file);
        self.torn = true;
    }

    pub(crate) fn set_indexes(&mut self, mut index: SparseIndex, mut times: SparseIndex) {
        index.cut_values(self.size);
        times.cut_values(self.end_offset.get());
        self.index = index;
        self.times = times;
        self.at_rest = false;
    }

    /// Cuts the segment to end at `position`, where the batch of `offset` began.
    pub(crate) fn cut(
        &mut self,
        file: &dyn DiskFile,
        position: u64,
        offset: Offset,
    ) -> Result<(), DiskError> {
        file.set_len(position)?;
        self.torn = false;
        self.size = position;
        self.allocated_end = whole_blocks(position);
        self.end_offset = offset;
        self.index.cut_values(position);
        self.times.cut_values(offset.get());
        if position == 0 {
            self.first_append_ms = None;
            self.max_timestamp_ms = i64::MIN;
        }
        Ok(())
    }

    /// Whether a former failure left bytes behind the end.
    pub(crate) fn is_torn(&self) -> bool {
        self.torn
    }

    /// Counts a batch that was written at `size`.
    pub(crate) fn advance(&mut self, header: &BatchHeader, segment_bytes: u64, wall_ms: u64) {
        let bytes = wide(header.size_bytes);
        let interval = (segment_bytes / INDEX_ENTRIES).max(BLOCK_BYTES);
        self.max_timestamp_ms = self.max_timestamp_ms.max(header.max_timestamp_ms);
        if self.since_entry >= interval {
            self.index.push(header.base_offset.get(), self.size);
            if let Ok(timestamp) = u64::try_from(self.max_timestamp_ms) {
                self.times.push(timestamp, header.base_offset.get());
            }
            self.since_entry = 0;
        }
        self.since_entry += bytes;
        self.size += bytes;
        self.end_offset = header.end_offset();
        self.first_append_ms.get_or_insert(wall_ms);
        self.last_append_ms = self.last_append_ms.max(wall_ms);
    }

    /// Writes index entries that only memory holds. Entries are hints: without room they wait.
    pub(crate) fn persist_index(&mut self, disk: &dyn Disk, dir: &str) -> Result<(), DiskError> {
        let base = self.base_offset;
        for (kind, index, entries) in [
            (FileKind::Index, IndexKind::Offsets, &mut self.index),
            (FileKind::TimeIndex, IndexKind::Times, &mut self.times),
        ] {
            if entries.is_persisted() {
                continue;
            }
            if let Some(file) = open_index(disk, dir, base, kind, index)? {
                ignore_full(file.persist(entries))?;
            }
        }
        self.forget_indexes();
        Ok(())
    }

    /// Gives unused blocks back, completes the indexes and marks them as sealed. The log stays readable and
    /// the segment can be appended to again whatever this returns.
    pub(crate) fn seal(&mut self, disk: &dyn Disk, dir: &str) -> Result<SealedSegment, DiskError> {
        let file = self.file(disk, dir)?;
        self.give_back(&*file)?;
        self.persist_index(disk, dir)?;
        let seal = Seal {
            end_offset: self.end_offset,
            size_bytes: self.size,
            max_timestamp_ms: self.max_timestamp_ms,
            last_append_ms: self.last_append_ms,
        };
        for (kind, index, entries) in [
            (FileKind::Index, IndexKind::Offsets, &self.index),
            (FileKind::TimeIndex, IndexKind::Times, &self.times),
        ] {
            if let Some(file) = open_index(disk, dir, self.base_offset, kind, index)? {
                ignore_full(file.seal(entries, &seal))?;
            }
        }
        Ok(SealedSegment {
            base_offset: self.base_offset,
            end_offset: self.end_offset,
            size_bytes: self.size,
            max_timestamp_ms: self.max_timestamp_ms,
            last_append_ms: self.last_append_ms,
            damaged_from: self.damaged_from,
        })
    }
}

/// What an append may take ahead of its need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) now: Duration,
    /// Bytes that may be preallocated beyond the need; 0 when space is short.
    pub(crate) extra_max: u64,
    /// Effective segment size.
    pub(crate) segment_bytes: u64,
}

/// Opens an index file for writing; `None` when there is none, which costs only time.
pub(crate) fn open_index(
    disk: &dyn Disk,
    dir: &str,
    base_offset: Offset,
    kind: FileKind,
    index: IndexKind,
) -> Result<Option<IndexFile>, DiskError> {
    match disk.open(&path_of(dir, base_offset, kind), OpenMode::Write) {
        Ok(file) => Ok(Some(IndexFile::new(file, index, base_offset))),
        Err(DiskError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The entries of an index file; none when there is no file.
pub(crate) fn load_index(
    disk: &dyn Disk,
    dir: &str,
    base_offset: Offset,
    kind: FileKind,
    index: IndexKind,
) -> Result<SparseIndex, DiskError> {
    match disk.open(&path_of(dir, base_offset, kind), OpenMode::Read) {
        Ok(file) => IndexFile::new(file, index, base_offset).load(),
        Err(DiskError::NotFound { .. }) => Ok(SparseIndex::default()),
        Err(error) => Err(error),
    }
}

fn ignore_full(result: Result<(), DiskError>) -> Result<(), DiskError> {
    match result {
        Err(DiskError::OutOfSpace { .. }) => Ok(()),
        other => other,
    }
}

fn create_or_empty(disk: &dyn Disk, path: &str) -> Result<Box<dyn DiskFile>, DiskError> {
    match disk.open(path, OpenMode::CreateNew) {
        Err(DiskError::AlreadyExists { .. }) => {
            let file = disk.open(path, OpenMode::Write)?;
            file.set_len(0)?;
            Ok(file)
        }
        other => other,
    }
}

fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("usize is at most 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::faulty::{Fault, FaultKind, FaultyDisk, Then};
    use crate::fs::memory::{MemoryDisk, MemoryDiskSettings};

    #[test]
    fn a_failed_write_is_cut_at_once_or_before_the_next_one() {
        for cut_fails in [false, true] {
            let memory = MemoryDisk::new(MemoryDiskSettings::plain(1 << 20));
            let (disk, faults) = FaultyDisk::new(Arc::new(memory));
            let mut segment = ActiveSegment::create(&disk, "", Offset::ZERO, 0).unwrap();
            let file = segment.file(&disk, "").unwrap();
            let room = Room { now: Duration::ZERO, extra_max: 0, segment_bytes: 1 << 20 };
            segment.reserve(&*file, 5000, &room).unwrap();
            faults.arm(Fault { kind: FaultKind::ShortWrite, call: 1, then: Then::Works });
            if cut_fails {
                // An errno that a cut may meet, from the write on.
                faults.arm(Fault { kind: FaultKind::Unclassified, call: 2, then: Then::Works });
                file.write_at(&[7; 2500], 0).unwrap();
                segment.torn = true;
                assert!(segment.write(&*file, &[1; 5000]).is_err());
            } else {
                assert!(segment.write(&*file, &[1; 5000]).is_err());
                assert_eq!(file.len().unwrap(), 0);
            }
            faults.disarm();
            segment.reserve(&*file, 100, &room).unwrap();
            segment.write(&*file, &[2; 100]).unwrap();
            assert_eq!(file.len().unwrap(), 100);
        }
    }
}
