//! A small file that is overwritten for ever and never torn: two slots, taken in turn.
//!
//! ```text
//!   level 0: 2 x 4 KiB    level 1: 2 x 16 KiB      level 2: 2 x 64 KiB   level 3: 2 x 256 KiB
//!   +------+------+-----------+-----------+----------------- ...
//!   | slot | slot |   slot    |   slot    |
//!   +------+------+-----------+-----------+----------------- ...
//!   slot: magic 4, version 2, zero 2, sequence 8, length 4, CRC-32C 4, payload
//! ```
//!
//! The valid slot with the highest sequence counts; a write never touches it. Level 0 is allocated when the
//! file is made, so that such a write needs no space (the emergency path). A payload that outgrows it takes
//! blocks for the next level, once; without room for them the write fails and the old content stays.

use crate::fs::{Disk, DiskError, DiskFile, OpenMode};

const VERSION: u16 = 1;
const HEAD_BYTES: usize = 24;
const LEVELS: [Level; 4] = [
    Level { at: 0, slot_bytes: 4 << 10 },
    Level { at: 8 << 10, slot_bytes: 16 << 10 },
    Level { at: 40 << 10, slot_bytes: 64 << 10 },
    Level { at: 168 << 10, slot_bytes: 256 << 10 },
];

#[derive(Clone, Copy)]
struct Level {
    at: u64,
    slot_bytes: usize,
}

impl Level {
    fn slot_at(self, slot: u64) -> u64 {
        self.at + slot * wide(self.slot_bytes)
    }
}

/// Largest payload that a slot file holds.
pub(crate) const PAYLOAD_BYTES_MAX: usize = (256 << 10) - HEAD_BYTES;

/// See the module. Holds no open file.
#[derive(Clone, Debug)]
pub(crate) struct SlotFile {
    path: String,
    magic: [u8; 4],
    sequence: u64,
    /// Level and slot that count; never written.
    current: Option<(usize, u64)>,
}

impl SlotFile {
    /// Bytes that a new slot file occupies.
    pub(crate) const DISK_BYTES: u64 = 8 << 10;

    /// Makes the file and takes its blocks; one that exists already is used. Not durable before the caller
    /// has synced the directory.
    pub(crate) fn create(disk: &dyn Disk, path: String, magic: [u8; 4]) -> Result<Self, DiskError> {
        let file = match disk.open(&path, OpenMode::CreateNew) {
            Err(DiskError::AlreadyExists { .. }) => disk.open(&path, OpenMode::Write)?,
            other => other?,
        };
        let made = file.allocate(0, Self::DISK_BYTES);
        if made.is_err() && file.is_empty()? {
            drop(file);
            let _ = disk.remove_file(&path);
        }
        made?;
        Ok(Self { path, magic, sequence: 0, current: None })
    }

    /// A file that is not there; the first write makes it.
    pub(crate) fn absent(path: String, magic: [u8; 4]) -> Self {
        Self { path, magic, sequence: 0, current: None }
    }

    /// Opens the file and reads what counts; `None` when no slot is valid.
    ///
    /// # Errors
    /// `NotFound` when there is no file.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: String,
        magic: [u8; 4],
    ) -> Result<(Self, Option<Vec<u8>>), DiskError> {
        let file = disk.open(&path, OpenMode::Read)?;
        let mut this = Self { path, magic, sequence: 0, current: None };
        let mut payload = None;
        for (level, slots) in LEVELS.iter().enumerate() {
            for slot in 0..2 {
                let Some((sequence, bytes)) = this.read_slot(&*file, *slots, slot)? else { continue };
                if this.current.is_none() || sequence > this.sequence {
                    this.sequence = sequence;
                    this.current = Some((level, slot));
                    payload = Some(bytes);
                }
            }
        }
        Ok((this, payload))
    }

    /// Whether no slot was ever written: such a file is new, not damaged.
    pub(crate) fn is_blank(file: &dyn DiskFile) -> Result<bool, DiskError> {
        for slots in LEVELS {
            for slot in 0..2 {
                let mut head = [0u8; HEAD_BYTES];
                file.read_at(&mut head, slots.slot_at(slot))?;
                if head != [0; HEAD_BYTES] {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn read_slot(
        &self,
        file: &dyn DiskFile,
        level: Level,
        slot: u64,
    ) -> Result<Option<(u64, Vec<u8>)>, DiskError> {
        let mut head = [0u8; HEAD_BYTES];
        if file.read_at(&mut head, level.slot_at(slot))? < HEAD_BYTES
            || head[..4] != self.magic
            || head[4..6] != VERSION.to_be_bytes()
        {
            return Ok(None);
        }
        let sequence = u64::from_be_bytes(head[8..16].try_into().expect("eight bytes"));
        let length = u32::from_be_bytes(head[16..20].try_into().expect("four bytes"));
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        if length > level.slot_bytes - HEAD_BYTES {
            return Ok(None);
        }
        let mut payload = vec![0u8; length];
        let have = file.read_at(&mut payload, level.slot_at(slot) + wide(HEAD_BYTES))?;
        let good = have == length && crc(&head, &payload).to_be_bytes() == head[20..24];
        Ok(good.then_some((sequence, payload)))
    }

    /// Replaces the content and syncs it. After an error the old content counts, or the new one.
    ///
    /// # Errors
    /// `OutOfSpace` only for a payload above that of a level 0 slot, or where overwriting needs space (copy on
    /// write); `VolumeFailed{SyncFailed}` is final.
    ///
    /// # Panics
    /// Beyond [`PAYLOAD_BYTES_MAX`].
    pub(crate) fn write(&mut self, disk: &dyn Disk, payload: &[u8]) -> Result<(), DiskError> {
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "the payload fits into the largest slot");
        let (level, slots) = LEVELS
            .iter()
            .enumerate()
            .find(|(_, l)| payload.len() <= l.slot_bytes - HEAD_BYTES)
            .expect("asserted above");
        let slot = match self.current {
            Some((current, slot)) if current == level => 1 - slot,
            _ => 0,
        };
        let mut out = vec![0u8; HEAD_BYTES + payload.len()];
        out[..4].copy_from_slice(&self.magic);
        out[4..6].copy_from_slice(&VERSION.to_be_bytes());
        out[8..16].copy_from_slice(&(self.sequence + 1).to_be_bytes());
        let length = u32::try_from(payload.len()).expect("bounded above");
        out[16..20].copy_from_slice(&length.to_be_bytes());
        out[HEAD_BYTES..].copy_from_slice(payload);
        let head: [u8; HEAD_BYTES] = *out.first_chunk().expect("longer than its head");
        out[20..24].copy_from_slice(&crc(&head, payload).to_be_bytes());
        let file = match disk.open(&self.path, OpenMode::Write) {
            Err(DiskError::NotFound { .. }) => {
                Self::create(disk, self.path.clone(), self.magic)?;
                disk.open(&self.path, OpenMode::Write)?
            }
            other => other?,
        };
        if level > 0 {
            file.allocate(slots.slot_at(0), 2 * wide(slots.slot_bytes))?;
        }
        file.write_at(&out, slots.slot_at(slot))?;
        file.sync_data()?;
        self.sequence += 1;
        self.current = Some((level, slot));
        Ok(())
    }
}

/// CRC of the head up to the CRC, and the payload.
fn crc(head: &[u8; HEAD_BYTES], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[..20]), payload)
}

fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("usize is at most 64 bits")
}
