//! Files with blocks and inodes of their own, for a roll on a disk that has neither.
//!
//! A roll needs new files, and at a full disk a create may fail. A spare was created and allocated while there
//! was room; taking it is one rename. A rename usually works at a full disk, but may need a block for the
//! directory it leads to, so it is not an emergency path: when [`SpareFiles::take`] gives nothing or meets
//! OutOfSpace, the log keeps its active segment past the roll size, which always works.

use crate::fs::{Disk, DiskError, DiskFile, OpenMode};

/// What a spare file can become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpareKind {
    /// A `.log`.
    Segment,
    /// An `.index` or `.timeindex`.
    Index,
}

impl SpareKind {
    const ALL: [Self; 2] = [Self::Segment, Self::Index];

    const fn word(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::Index => "index",
        }
    }

    /// Blocks that a spare of this kind brings along.
    pub const fn allocated_bytes(self) -> u64 {
        match self {
            Self::Segment => 64 * 1024,
            Self::Index => 8 * 1024,
        }
    }

    /// A roll takes one `.log` and two indexes.
    const fn per_set(self) -> u32 {
        match self {
            Self::Segment => 1,
            Self::Index => 2,
        }
    }
}

/// Bytes that one set of spares (for one roll) holds.
pub const SET_BYTES: u64 = SpareKind::Segment.allocated_bytes() + 2 * SpareKind::Index.allocated_bytes();

/// A small pool of spare files in one directory.
#[derive(Debug)]
pub struct SpareFiles {
    dir: String,
    sets: u32,
    /// Names of the spares that are there, by kind.
    segments: Vec<String>,
    indexes: Vec<String>,
    next: u64,
}

impl SpareFiles {
    /// Finds the spares in `dir`, which must exist; makes none. `sets` is how many rolls they shall serve.
    ///
    /// # Errors
    /// `VolumeFailed`, `Exhausted`, `Unknown` of listing the directory.
    pub fn open(disk: &dyn Disk, dir: &str, sets: u32) -> Result<Self, DiskError> {
        let mut pool = Self { dir: dir.to_owned(), sets, segments: Vec::new(), indexes: Vec::new(), next: 0 };
        for entry in disk.list(dir)? {
            for kind in SpareKind::ALL {
                let number =
                    entry.name.strip_prefix("spare-").and_then(|rest| rest.strip_prefix(kind.word()));
                let number = number.and_then(|rest| rest.strip_prefix('-')?.parse::<u64>().ok());
                if let Some(number) = number.filter(|_| !entry.is_dir) {
                    pool.next = pool.next.max(number.saturating_add(1));
                    pool.names_mut(kind).push(entry.name.clone());
                }
            }
        }
        Ok(pool)
    }

    fn names_mut(&mut self, kind: SpareKind) -> &mut Vec<String> {
        match kind {
            SpareKind::Segment => &mut self.segments,
            SpareKind::Index => &mut self.indexes,
        }
    }

    /// Spares of a kind that are there.
    pub fn available(&self, kind: SpareKind) -> usize {
        match kind {
            SpareKind::Segment => self.segments.len(),
            SpareKind::Index => self.indexes.len(),
        }
    }

    /// Bytes the pool holds.
    pub fn bytes(&self) -> u64 {
        let of = |kind: SpareKind| self.available(kind) as u64 * kind.allocated_bytes();
        of(SpareKind::Segment) + of(SpareKind::Index)
    }

    /// Makes what is missing. Call while there is room; durable on return.
    ///
    /// # Errors
    /// `OutOfSpace`: what could be made is there, the rest another time. `VolumeFailed`.
    pub fn refill(&mut self, disk: &dyn Disk) -> Result<(), DiskError> {
        let mut made = false;
        let mut outcome = Ok(());
        'kinds: for kind in SpareKind::ALL {
            let wanted = usize::try_from(self.sets * kind.per_set()).unwrap_or(usize::MAX);
            while self.available(kind) < wanted {
                if let Err(error) = self.make(disk, kind) {
                    outcome = Err(error);
                    break 'kinds;
                }
                made = true;
            }
        }
        if made {
            disk.sync_dir(&self.dir)?;
        }
        outcome
    }

    fn make(&mut self, disk: &dyn Disk, kind: SpareKind) -> Result<(), DiskError> {
        let name = format!("spare-{}-{}", kind.word(), self.next);
        let path = format!("{}/{name}", self.dir);
        self.next += 1;
        let file = disk.open(&path, OpenMode::CreateNew)?;
        if let Err(error) = file.allocate(0, kind.allocated_bytes()).and_then(|()| file.sync_data()) {
            drop(file);
            let _ = disk.remove_file(&path);
            return Err(error);
        }
        self.names_mut(kind).push(name);
        Ok(())
    }

    /// Turns a spare into `target` and opens it for writing: an empty file with allocated blocks. Durable only
    /// after a sync of the target's directory. `None` when the pool is empty.
    ///
    /// # Errors
    /// `AlreadyExists` when the target is there; `OutOfSpace` when the rename needs a block: the spare stays,
    /// keep the active segment. `VolumeFailed`.
    pub fn take(
        &mut self,
        disk: &dyn Disk,
        kind: SpareKind,
        target: &str,
    ) -> Result<Option<Box<dyn DiskFile>>, DiskError> {
        match disk.open(target, OpenMode::Read) {
            Ok(_) => return Err(DiskError::AlreadyExists { operation: "take a spare" }),
            Err(DiskError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        while let Some(name) = self.names_mut(kind).last().cloned() {
            let path = format!("{}/{name}", self.dir);
            // Opened first: when handles run out the spare is still one.
            let file = match disk.open(&path, OpenMode::Write) {
                Ok(file) => file,
                Err(DiskError::NotFound { .. }) => {
                    self.names_mut(kind).pop();
                    continue;
                }
                Err(error) => return Err(error),
            };
            disk.rename(&path, target)?;
            self.names_mut(kind).pop();
            return Ok(Some(file));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::{MemoryDisk, MemoryDiskSettings};

    fn pool(disk: &MemoryDisk) -> SpareFiles {
        disk.create_dir("reserve").unwrap();
        SpareFiles::open(disk, "reserve", 2).unwrap()
    }

    #[test]
    fn a_roll_works_without_a_free_byte_or_inode() {
        let disk = MemoryDisk::new(MemoryDiskSettings::plain(1 << 20));
        let mut spares = pool(&disk);
        spares.refill(&disk).unwrap();
        assert_eq!(spares.bytes(), 2 * SET_BYTES);
        disk.set_greedy(true);
        let mut spares = pool(&disk);
        for n in 0..2 {
            let file = spares.take(&disk, SpareKind::Segment, &format!("{n}.log")).unwrap().unwrap();
            assert!(file.is_empty().unwrap());
            file.write_at(&[1; 64 * 1024], 0).unwrap();
        }
        assert!(spares.take(&disk, SpareKind::Segment, "2.log").unwrap().is_none());
        let taken = spares.take(&disk, SpareKind::Index, "1.log");
        assert!(matches!(taken, Err(DiskError::AlreadyExists { .. })));
        assert!(matches!(spares.refill(&disk), Err(DiskError::OutOfSpace { .. })));
        assert_eq!(spares.available(SpareKind::Index), 4);
        disk.set_greedy(false);
        disk.release();
        spares.refill(&disk).unwrap();
        assert_eq!(spares.bytes(), 2 * SET_BYTES);
    }

    #[test]
    fn a_rename_that_needs_a_block_leaves_the_spare() {
        let disk = MemoryDisk::new(MemoryDiskSettings::plain(1 << 20));
        let mut spares = pool(&disk);
        spares.refill(&disk).unwrap();
        disk.take_all_bytes();
        disk.resize(|s| s.entries_need_block = true);
        let taken = spares.take(&disk, SpareKind::Segment, "0.log");
        assert!(matches!(taken, Err(DiskError::OutOfSpace { .. })));
        assert_eq!(spares.available(SpareKind::Segment), 2);
        disk.release();
        assert!(spares.take(&disk, SpareKind::Segment, "0.log").unwrap().is_some());
    }
}
