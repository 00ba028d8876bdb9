//! A record that can be replaced on a disk without one free byte.
//!
//! ```text
//!   0              slot_bytes          2 * slot_bytes
//!   |--- slot 0 ---|------ slot 1 -----|           all blocks allocated when the file is made
//!
//!   slot:  magic "PLSL" | version u32 | sequence u64 | length u32 | crc32c u32 | payload ...
//!          little endian; the CRC covers the 20 bytes before it and the payload
//! ```
//!
//! A write overwrites the slot with the older record in place and syncs: no create, no rename, no new block.
//! A write that is torn leaves the other slot, which holds the record before. Where allocation does not
//! reserve (copy on write) a write may be refused; the former record stays.

use crate::fs::{Disk, DiskError, DiskFile, OpenMode};

const MAGIC: [u8; 4] = *b"PLSL";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
/// Slots begin at block boundaries, so that no write touches the block of the other.
const ALIGNMENT: u64 = 4096;

/// Why a record was not replaced; the former one stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// The payload does not fit. Write less.
    #[error("record of {bytes} bytes is over the slot's {limit} bytes")]
    TooLarge {
        /// Of the payload.
        bytes: usize,
        /// What fits.
        limit: u64,
    },
    /// The disk refused or failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// One record in two slots.
pub struct TwoSlotFile {
    file: Box<dyn DiskFile>,
    slot_bytes: u64,
    /// Sequence and slot of the newest record.
    newest: Option<(u64, u64)>,
    /// Whether all blocks were there when the file was opened.
    allocated: bool,
}

impl std::fmt::Debug for TwoSlotFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TwoSlotFile")
            .field("slot_bytes", &self.slot_bytes)
            .field("newest", &self.newest)
            .finish_non_exhaustive()
    }
}

impl TwoSlotFile {
    /// Opens the file, or makes it with slots for payloads of at least `payload_max` bytes; returns the newest
    /// record. An existing file keeps its slot size and needs no byte and no inode. The directory of `path`
    /// must exist; a new file is durable on return.
    ///
    /// # Errors
    /// `OutOfSpace` when a new file can't be made (nothing is left behind); `VolumeFailed`.
    pub fn open(disk: &dyn Disk, path: &str, payload_max: u64) -> Result<(Self, Option<Vec<u8>>), DiskError> {
        let slot_bytes = payload_max.saturating_add(HEADER_BYTES as u64).next_multiple_of(ALIGNMENT);
        match disk.open(path, OpenMode::Write) {
            Ok(file) => Self::open_existing(file, slot_bytes),
            Err(DiskError::NotFound { .. }) => {
                let file = disk.open(path, OpenMode::CreateNew)?;
                let made = initialise(file.as_ref(), slot_bytes).and_then(|()| {
                    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
                    disk.sync_dir(dir)
                });
                if let Err(error) = made {
                    drop(file);
                    let _ = disk.remove_file(path);
                    return Err(error);
                }
                Ok((Self { file, slot_bytes, newest: None, allocated: true }, None))
            }
            Err(error) => Err(error),
        }
    }

    fn open_existing(file: Box<dyn DiskFile>, wanted: u64) -> Result<(Self, Option<Vec<u8>>), DiskError> {
        let len = file.len()?;
        let mut slot_bytes = len / 2;
        let whole = slot_bytes > 0 && slot_bytes.is_multiple_of(ALIGNMENT) && len.is_multiple_of(2);
        let mut found = Vec::new();
        if whole {
            for slot in 0..2 {
                if let Some((sequence, payload)) = read_slot(file.as_ref(), slot * slot_bytes, slot_bytes)? {
                    found.push((sequence, slot, payload));
                }
            }
        }
        let newest = found.into_iter().max_by_key(|(sequence, ..)| *sequence);
        if newest.is_none() && !whole {
            // Making it was interrupted before anything was stored.
            initialise(file.as_ref(), wanted)?;
            slot_bytes = wanted;
        }
        let allocated = file.allocated_bytes()? >= 2 * slot_bytes
            || file.allocate(0, 2 * slot_bytes).is_ok_and(|()| true);
        let position = newest.as_ref().map(|(sequence, slot, _)| (*sequence, *slot));
        let payload = newest.map(|(.., payload)| payload);
        Ok((Self { file, slot_bytes, newest: position, allocated }, payload))
    }

    /// Replaces the record; durable on return.
    ///
    /// # Errors
    /// [`SlotError`]; the former record stays. `VolumeFailed` is final for the volume.
    pub fn store(&mut self, payload: &[u8]) -> Result<(), SlotError> {
        let limit = self.payload_max();
        let len = u32::try_from(payload.len()).ok().filter(|len| u64::from(*len) <= limit);
        let Some(len) = len else { return Err(SlotError::TooLarge { bytes: payload.len(), limit }) };
        let (sequence, slot) = match self.newest {
            None => (1, 0),
            Some((sequence, slot)) => (sequence + 1, 1 - slot),
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&sequence.to_le_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), payload);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(payload);
        self.file.write_at(&bytes, slot * self.slot_bytes)?;
        self.file.sync_data()?;
        self.newest = Some((sequence, slot));
        Ok(())
    }

    /// The newest record; `None` before the first.
    ///
    /// # Errors
    /// `VolumeFailed`, `Unknown`.
    pub fn load(&self) -> Result<Option<Vec<u8>>, DiskError> {
        let Some((_, slot)) = self.newest else { return Ok(None) };
        let record = read_slot(self.file.as_ref(), slot * self.slot_bytes, self.slot_bytes)?;
        Ok(record.map(|(_, payload)| payload))
    }

    /// Longest payload in bytes.
    pub fn payload_max(&self) -> u64 {
        self.slot_bytes.saturating_sub(HEADER_BYTES as u64).min(u64::from(u32::MAX))
    }

    /// Bytes of disk it holds.
    pub fn bytes(&self) -> u64 {
        2 * self.slot_bytes
    }

    /// Whether all its blocks are there, so that writes need no room.
    pub fn is_allocated(&self) -> bool {
        self.allocated
    }
}

fn initialise(file: &dyn DiskFile, slot_bytes: u64) -> Result<(), DiskError> {
    let bytes = slot_bytes.saturating_mul(2);
    file.allocate(0, bytes)?;
    file.set_len(bytes)?;
    file.sync_data()
}

/// Sequence and payload of a slot; `None` when it holds no whole record.
fn read_slot(file: &dyn DiskFile, at: u64, slot_bytes: u64) -> Result<Option<(u64, Vec<u8>)>, DiskError> {
    let mut header = [0; HEADER_BYTES];
    if file.read_at(&mut header, at)? < HEADER_BYTES {
        return Ok(None);
    }
    let (covered, crc) = header.split_at(HEADER_BYTES - 4);
    let word = |bytes: &[u8], from: usize| {
        let bytes = bytes.get(from..from + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    };
    if !covered.starts_with(&MAGIC) || word(covered, 4) != VERSION {
        return Ok(None);
    }
    let sequence = u64::from(word(covered, 8)) | (u64::from(word(covered, 12)) << 32);
    let len = word(covered, 16);
    if u64::from(len) > slot_bytes.saturating_sub(HEADER_BYTES as u64) || sequence == u64::MAX {
        return Ok(None);
    }
    let Ok(len) = usize::try_from(len) else { return Ok(None) };
    let mut payload = vec![0; len];
    if file.read_at(&mut payload, at + HEADER_BYTES as u64)? < len {
        return Ok(None);
    }
    let expected = crc32c::crc32c_append(crc32c::crc32c(covered), &payload);
    Ok((word(crc, 0) == expected).then_some((sequence, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::faulty::{Fault, FaultKind, FaultyDisk, Then};
    use crate::fs::memory::{MemoryDisk, MemoryDiskSettings, PowerLoss};

    fn disk() -> MemoryDisk {
        MemoryDisk::new(MemoryDiskSettings::plain(1 << 20))
    }

    fn open(disk: &dyn Disk) -> (TwoSlotFile, Option<Vec<u8>>) {
        TwoSlotFile::open(disk, "slots", 10_000).unwrap()
    }

    #[test]
    fn it_opens_stores_and_loads_without_a_free_byte_or_inode() {
        let disk = disk();
        drop(open(&disk));
        disk.set_greedy(true);
        for n in 0..5_u8 {
            let (mut slots, found) = open(&disk);
            assert_eq!(found, n.checked_sub(1).map(|n| vec![n; 9000]));
            assert!(slots.is_allocated());
            slots.store(&[n; 9000]).unwrap();
            assert_eq!(slots.load().unwrap(), Some(vec![n; 9000]));
        }
    }

    #[test]
    fn a_torn_write_leaves_the_record_before() {
        let mut kept = 0;
        for seed in 0..100 {
            let memory = disk();
            let (disk, faults) = FaultyDisk::new(std::sync::Arc::new(memory.clone()));
            let (mut slots, _) = open(&disk);
            slots.store(&[1; 5000]).unwrap();
            slots.store(&[2; 5000]).unwrap();
            faults.arm(Fault { kind: FaultKind::SyncIo, call: 2, then: Then::StaysSo });
            assert!(slots.store(&[3; 5000]).is_err());
            drop(slots);
            memory.power_loss(PowerLoss::Tears { seed });
            let found = open(&memory).1.unwrap();
            assert!(found == [2; 5000] || found == [3; 5000], "seed {seed}");
            kept += u32::from(found == [2; 5000]);
        }
        assert!(kept > 50);
    }

    #[test]
    fn making_it_may_be_cut_off_at_any_call_and_works_later() {
        let mut cases = 0;
        for kind in [FaultKind::NoSpace, FaultKind::SyncIo, FaultKind::Dead] {
            for call in 1..=6 {
                for seed in 0..8 {
                    let memory = disk();
                    let (disk, faults) = FaultyDisk::new(std::sync::Arc::new(memory.clone()));
                    faults.arm(Fault { kind, call, then: Then::StaysSo });
                    let _ = TwoSlotFile::open(&disk, "slots", 10_000);
                    memory.power_loss(PowerLoss::Tears { seed });
                    let (mut slots, found) = open(&memory);
                    assert_eq!(found, None);
                    slots.store(b"works").unwrap();
                    assert_eq!(open(&memory).1.as_deref(), Some(&b"works"[..]));
                    cases += 1;
                }
            }
        }
        assert_eq!(cases, 144);
    }

    #[test]
    fn a_full_disk_refuses_to_make_it_and_keeps_nothing() {
        let disk = disk();
        disk.take_all_bytes();
        assert!(matches!(TwoSlotFile::open(&disk, "slots", 10), Err(DiskError::OutOfSpace { .. })));
        assert_eq!(disk.list("").unwrap(), []);
    }

    #[test]
    fn too_large_and_rotten_records_are_refused() {
        let disk = disk();
        let (mut slots, _) = open(&disk);
        let limit = slots.payload_max();
        let fits = vec![7; usize::try_from(limit).unwrap()];
        slots.store(&fits).unwrap();
        assert!(matches!(slots.store(&[&fits[..], &[7]].concat()), Err(SlotError::TooLarge { .. })));
        drop(slots);
        for at in [0, 4, 8, 16, 20, 24, 5000] {
            let file = disk.open("slots", OpenMode::Write).unwrap();
            let mut byte = [0];
            file.read_at(&mut byte, at).unwrap();
            file.write_at(&[byte[0] ^ 0x40], at).unwrap();
            assert_eq!(open(&disk).1, None, "byte {at}");
            file.write_at(&byte, at).unwrap();
            assert_eq!(open(&disk).1.as_ref(), Some(&fits));
        }
    }
}
