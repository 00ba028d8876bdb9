//! The head of a journal file: two slots that say which generation the file holds.
//!
//! ```text
//! slot 0 at byte 0, slot 1 at byte 4096, records from byte 8192. A slot, little endian:
//!  0  magic "PLJOURNL"        8 bytes
//!  8  format version          u32
//! 12  CRC-32C of bytes 16..64 u32
//! 16  slot sequence           u64   the higher of two good slots counts
//! 24  generation              u64
//! 32  use                     u32   0 never, 1 current, 2 superseded
//! 36  zero                    u32
//! 40  size of the file        u64
//! 48  controller id           u64
//! 56  synced end              u64   everything of the generation before it is on the disk; 0 when nothing is known
//! ```
//!
//! Every change of generation or use is written to one slot, synced, and then to the other and synced: a crash leaves
//! the old or the new, and afterwards no single slot that rots brings an older one back. A new synced end alone goes to
//! one slot: the other one has the end before it, and only rot in a slot and in a record could hide one.
//!
//! A switch to another file writes `current` there and then `superseded` here. A crash in between leaves two current
//! files, the higher generation counts.

use super::record::{u32_at, u64_at};

/// First byte of the records.
pub(super) const BODY: u64 = 8192;
/// Bytes of a slot that mean something.
pub(super) const SLOT_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"PLJOURNL";
const VERSION: u32 = 2;

/// What the file is for at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Never,
    Current,
    Superseded,
}

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) sequence: u64,
    pub(super) generation: u64,
    pub(super) usage: Use,
    pub(super) file_bytes: u64,
    pub(super) controller: u64,
    /// Where records that are known to be on the disk end. Whoever reads the file must find all of them.
    pub(super) synced_end: u64,
}

impl Slot {
    /// The same, to be written over the other slot.
    pub(super) fn next(self) -> Self {
        Self { sequence: self.sequence + 1, ..self }
    }

    /// Where the slot of this sequence is written.
    pub(super) fn offset(self) -> u64 {
        (self.sequence % 2) * 4096
    }

    pub(super) fn encode(self) -> [u8; SLOT_BYTES] {
        let usage: u32 = match self.usage {
            Use::Never => 0,
            Use::Current => 1,
            Use::Superseded => 2,
        };
        let mut bytes = [0u8; SLOT_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.generation.to_le_bytes());
        bytes[32..36].copy_from_slice(&usage.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.file_bytes.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.controller.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.synced_end.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SLOT_BYTES)?;
        let good = bytes.get(..8)? == MAGIC
            && u32_at(bytes, 8)? == VERSION
            && crc32c::crc32c(bytes.get(16..)?) == u32_at(bytes, 12)?;
        // Nothing counts that far, and after each comes another one.
        if !good || u64_at(bytes, 16)?.max(u64_at(bytes, 24)?) > u64::MAX / 2 {
            return None;
        }
        let usage = match u32_at(bytes, 32)? {
            0 => Use::Never,
            1 => Use::Current,
            2 => Use::Superseded,
            _ => return None,
        };
        Some(Self {
            sequence: u64_at(bytes, 16)?,
            generation: u64_at(bytes, 24)?,
            usage,
            file_bytes: u64_at(bytes, 40)?,
            controller: u64_at(bytes, 48)?,
            synced_end: u64_at(bytes, 56)?,
        })
    }

    /// The slot that counts of a file's two; `None` when neither is good.
    pub(super) fn newest(head: &[u8]) -> Option<Self> {
        let slots = [head.get(..SLOT_BYTES), head.get(4096..4096 + SLOT_BYTES)];
        slots.into_iter().flatten().filter_map(Self::decode).max_by_key(|slot| slot.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_good_slot_counts() {
        let slot = |sequence, usage| Slot {
            sequence,
            generation: 3,
            usage,
            file_bytes: 1 << 20,
            controller: 1,
            synced_end: 9000 + sequence,
        };
        let (older, newer) = (slot(4, Use::Current), slot(5, Use::Superseded));
        let mut head = vec![0u8; 8192];
        assert_eq!(Slot::newest(&head), None);
        for slot in [older, newer] {
            let at = usize::try_from(slot.offset()).expect("small");
            head[at..at + SLOT_BYTES].copy_from_slice(&slot.encode());
        }
        assert_eq!(Slot::newest(&head), Some(newer));
        head[4096 + 20] ^= 1;
        assert_eq!(Slot::newest(&head), Some(older));
        head[24] ^= 1;
        assert_eq!(Slot::newest(&head), None);
        assert_eq!(Slot::newest(&[]), None);
    }
}
