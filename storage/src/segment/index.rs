//! Sparse indexes, in memory and in their files.
//!
//! ```text
//!   0     4   6   8        16   20            28  32                                  96
//!   +-----+---+---+--------+----+-------------+---+-----------------------------------+--------+--------+--
//!   |magic|ver| 0 | base   | 0  |      0      |CRC| seal: zeros until sealed          | entry  | entry  |
//!   |     |   |   | offset |    |             |   |                                   | 8 + 8  | 8 + 8  |
//!   +-----+---+---+--------+----+-------------+---+-----------------------------------+--------+--------+--
//!   seal: magic 4, entries 4, end offset 8, log bytes 8, max timestamp 8, last append 8, entries CRC 4, CRC 4
//! ```
//!
//! All integers are big-endian. Everything up to the entries lies in the first block, which is allocated when
//! the file is made, so that sealing needs no space.

use plimsoll_proto::ids::Offset;

use super::BLOCK_BYTES;
use crate::fs::{DiskError, DiskFile};

const VERSION: u16 = 1;
const HEADER_BYTES: usize = 32;
const SEAL_BYTES: usize = 48;
const ENTRIES_AT: u64 = 96;
const ENTRY_BYTES: usize = 16;
const SEAL_MAGIC: [u8; 4] = *b"SEAL";
/// Most entries that are ever read from a file.
const ENTRIES_MAX: u64 = 1 << 20;

/// Which index a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IndexKind {
    Offsets,
    Times,
}

impl IndexKind {
    fn magic(self) -> [u8; 4] {
        match self {
            Self::Offsets => *b"PLOX",
            Self::Times => *b"PLTX",
        }
    }
}

/// What is known of a segment once nothing is appended to it any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seal {
    pub(crate) end_offset: Offset,
    pub(crate) size_bytes: u64,
    pub(crate) max_timestamp_ms: i64,
    pub(crate) last_append_ms: u64,
}

/// Entries in ascending order of both numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct SparseIndex {
    entries: Vec<(u64, u64)>,
    /// How many of them the file holds.
    persisted: usize,
}

impl SparseIndex {
    /// Appends an entry unless it would break the order.
    pub(crate) fn push(&mut self, key: u64, value: u64) {
        if self.entries.last().is_none_or(|&(k, v)| k < key && v < value) {
            self.entries.push((key, value));
        }
    }

    /// Value of the greatest key at or below `key`.
    pub(crate) fn floor(&self, key: u64) -> Option<(u64, u64)> {
        let behind = self.entries.partition_point(|&(k, _)| k <= key);
        behind.checked_sub(1).map(|at| self.entries[at])
    }

    /// The greatest key.
    pub(crate) fn last_key(&self) -> Option<u64> {
        self.entries.last().map(|&(key, _)| key)
    }

    /// Whether its file holds all entries.
    pub(crate) fn is_persisted(&self) -> bool {
        self.persisted == self.entries.len()
    }

    /// Drops entries whose value is at or beyond `value`.
    pub(crate) fn cut_values(&mut self, value: u64) {
        let keep = self.entries.partition_point(|&(_, v)| v < value);
        self.entries.truncate(keep);
        self.persisted = self.persisted.min(keep);
    }

    fn crc(&self) -> u32 {
        self.entries.iter().fold(0, |crc, entry| crc32c::crc32c_append(crc, &encode_entry(*entry)))
    }
}

/// See [`IndexFile::contents`].
pub(crate) struct IndexContents {
    /// No whole header was ever written, or a power loss took it.
    pub(crate) is_blank: bool,
    pub(crate) header_fits: bool,
    /// In the order of the file.
    pub(crate) entries: Vec<(u64, u64)>,
    /// A valid seal, how many entries it covers, and whether they are what it covers.
    pub(crate) seal: Option<(Seal, usize, bool)>,
}

/// One index file, opened for one piece of work.
pub(crate) struct IndexFile {
    file: Box<dyn DiskFile>,
    kind: IndexKind,
    base_offset: Offset,
}

impl IndexFile {
    pub(crate) fn new(file: Box<dyn DiskFile>, kind: IndexKind, base_offset: Offset) -> Self {
        Self { file, kind, base_offset }
    }

    /// Takes the first block and writes the header.
    pub(crate) fn format(&self) -> Result<(), DiskError> {
        self.file.allocate(0, BLOCK_BYTES)?;
        self.write_header()
    }

    /// Makes the file empty, for this base offset. Needs no space.
    pub(crate) fn empty(&self) -> Result<(), DiskError> {
        self.file.set_len(ENTRIES_AT)?;
        self.write_header()
    }

    fn write_header(&self) -> Result<(), DiskError> {
        let mut block = [0u8; HEADER_BYTES + SEAL_BYTES + 16];
        block[..HEADER_BYTES].copy_from_slice(&self.header());
        self.file.write_at(&block, 0)
    }

    fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0u8; HEADER_BYTES];
        header[..4].copy_from_slice(&self.kind.magic());
        header[4..6].copy_from_slice(&VERSION.to_be_bytes());
        header[8..16].copy_from_slice(&self.base_offset.get().to_be_bytes());
        let crc = crc32c::crc32c(&header[..28]);
        header[28..32].copy_from_slice(&crc.to_be_bytes());
        header
    }

    /// Whether a header that does not fit is the beginning of one, and zeros; or one of another base offset, from
    /// before the file was renamed.
    fn header_torn(&self, bytes: &[u8]) -> bool {
        if bytes[..4] == self.kind.magic() && bytes[28..32] == crc32c::crc32c(&bytes[..28]).to_be_bytes() {
            return true;
        }
        let rest = bytes.iter().zip(self.header()).skip_while(|(found, expected)| *found == expected);
        rest.clone().count() > 0 && rest.into_iter().all(|(found, _)| *found == 0)
    }

    /// Writes the entries that the file does not hold yet, block by block allocated before.
    pub(crate) fn persist(&self, index: &mut SparseIndex) -> Result<(), DiskError> {
        let new = &index.entries[index.persisted..];
        if new.is_empty() {
            return Ok(());
        }
        let bytes: Vec<u8> = new.iter().flat_map(|entry| encode_entry(*entry)).collect();
        let at = ENTRIES_AT + entry_bytes(index.persisted);
        let end = at + u64::try_from(bytes.len()).expect("entries are few");
        if end > BLOCK_BYTES {
            self.file.allocate(at, end - at)?;
        }
        self.file.write_at(&bytes, at)?;
        index.persisted = index.entries.len();
        Ok(())
    }

    /// Marks the segment as sealed. Overwrites bytes of the first block only.
    pub(crate) fn seal(&self, index: &SparseIndex, seal: &Seal) -> Result<(), DiskError> {
        let mut out = [0u8; SEAL_BYTES];
        let count = u32::try_from(index.persisted).unwrap_or(0);
        out[..4].copy_from_slice(&SEAL_MAGIC);
        out[4..8].copy_from_slice(&count.to_be_bytes());
        out[8..16].copy_from_slice(&seal.end_offset.get().to_be_bytes());
        out[16..24].copy_from_slice(&seal.size_bytes.to_be_bytes());
        out[24..32].copy_from_slice(&seal.max_timestamp_ms.to_be_bytes());
        out[32..40].copy_from_slice(&seal.last_append_ms.to_be_bytes());
        out[40..44].copy_from_slice(&index.crc().to_be_bytes());
        let crc = crc32c::crc32c(&out[..44]);
        out[44..48].copy_from_slice(&crc.to_be_bytes());
        self.file.write_at(&out, u64::try_from(HEADER_BYTES).expect("small"))
    }

    /// Takes the seal off again, before the segment becomes the active one after a truncation.
    pub(crate) fn unseal(&self) -> Result<(), DiskError> {
        self.file.write_at(&[0; SEAL_BYTES], u64::try_from(HEADER_BYTES).expect("small"))
    }

    /// The seal, when there is a valid one.
    pub(crate) fn read_seal(&self) -> Result<Option<Seal>, DiskError> {
        let mut bytes = [0u8; HEADER_BYTES + SEAL_BYTES];
        if self.file.read_at(&mut bytes, 0)? < bytes.len() || !self.header_fits(&bytes) {
            return Ok(None);
        }
        let seal = &bytes[HEADER_BYTES..];
        if seal[..4] != SEAL_MAGIC || crc32c::crc32c(&seal[..44]).to_be_bytes() != seal[44..48] {
            return Ok(None);
        }
        let number = |at: usize| u64::from_be_bytes(seal[at..at + 8].try_into().expect("eight bytes"));
        let Ok(end_offset) = Offset::new(number(8)) else { return Ok(None) };
        Ok(Some(Seal {
            end_offset,
            size_bytes: number(16),
            max_timestamp_ms: number(24).cast_signed(),
            last_append_ms: number(32),
        }))
    }

    /// All entries that keep the order; a file that is not ours, cut off or damaged gives fewer or none.
    pub(crate) fn load(&self) -> Result<SparseIndex, DiskError> {
        let mut head = [0u8; HEADER_BYTES + SEAL_BYTES];
        let mut index = SparseIndex::default();
        if self.file.read_at(&mut head, 0)? < head.len() || !self.header_fits(&head) {
            return Ok(index);
        }
        let bytes = self.file.len()?.saturating_sub(ENTRIES_AT);
        let count = (bytes / entry_bytes(1)).min(ENTRIES_MAX);
        let mut buffer = vec![0u8; usize::try_from(count).expect("bounded above") * ENTRY_BYTES];
        let have = self.file.read_at(&mut buffer, ENTRIES_AT)?;
        for entry in buffer[..have].chunks_exact(ENTRY_BYTES) {
            let before = index.entries.len();
            let (key, value) = entry.split_at(8);
            index.push(
                u64::from_be_bytes(key.try_into().expect("eight bytes")),
                u64::from_be_bytes(value.try_into().expect("eight bytes")),
            );
            if index.entries.len() == before {
                break;
            }
        }
        index.persisted = index.entries.len();
        Ok(index)
    }

    /// The file as it is, for people; believes nothing.
    pub(crate) fn contents(&self) -> Result<IndexContents, DiskError> {
        let mut head = [0u8; HEADER_BYTES + SEAL_BYTES];
        let have = self.file.read_at(&mut head, 0)?;
        let len = self.file.len()?;
        let mut found = IndexContents {
            is_blank: have < head.len() || !self.header_fits(&head) && self.header_torn(&head),
            header_fits: have == head.len() && self.header_fits(&head),
            entries: Vec::new(),
            seal: None,
        };
        if !found.header_fits {
            return Ok(found);
        }
        let count = (len.saturating_sub(ENTRIES_AT) / entry_bytes(1)).min(ENTRIES_MAX);
        let mut buffer = vec![0u8; usize::try_from(count).expect("bounded above") * ENTRY_BYTES];
        let have = self.file.read_at(&mut buffer, ENTRIES_AT)?;
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
        found.entries =
            buffer[..have].chunks_exact(ENTRY_BYTES).map(|e| (number(&e[..8]), number(&e[8..]))).collect();
        if let Some(seal) = self.read_seal()? {
            let sealed = &head[HEADER_BYTES..];
            let count = u32::from_be_bytes(sealed[4..8].try_into().expect("four bytes"));
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let crc = found
                .entries
                .iter()
                .take(count)
                .fold(0, |crc, entry| crc32c::crc32c_append(crc, &encode_entry(*entry)));
            let whole = count <= found.entries.len() && crc.to_be_bytes() == sealed[40..44];
            found.seal = Some((seal, count, whole));
        }
        Ok(found)
    }

    fn header_fits(&self, bytes: &[u8]) -> bool {
        bytes[..4] == self.kind.magic()
            && bytes[4..6] == VERSION.to_be_bytes()
            && bytes[8..16] == self.base_offset.get().to_be_bytes()
            && bytes[28..32] == crc32c::crc32c(&bytes[..28]).to_be_bytes()
    }
}

fn entry_bytes(count: usize) -> u64 {
    u64::try_from(count * ENTRY_BYTES).expect("entries are few")
}

fn encode_entry((key, value): (u64, u64)) -> [u8; ENTRY_BYTES] {
    let mut out = [0u8; ENTRY_BYTES];
    out[..8].copy_from_slice(&key.to_be_bytes());
    out[8..].copy_from_slice(&value.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_finds_the_entry_at_or_below() {
        let mut index = SparseIndex::default();
        for (key, value) in [(10, 1), (20, 2), (30, 3)] {
            index.push(key, value);
        }
        index.push(30, 9);
        index.push(40, 3);
        for (key, found) in [(9, None), (10, Some((10, 1))), (29, Some((20, 2))), (99, Some((30, 3)))] {
            assert_eq!(index.floor(key), found, "{key}");
        }
        index.cut_values(2);
        assert_eq!(index.floor(99), Some((10, 1)));
    }
}
