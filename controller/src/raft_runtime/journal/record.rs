//! One record of a journal file.
//!
//! ```text
//! little endian, at a multiple of 8:
//!  0  magic "PLJR"            u32
//!  4  CRC-32C of bytes 8..end u32
//!  8  generation              u64   of the file; leftovers of older ones never match
//! 16  sequence                u64   counts from 1 within a generation
//! 24  synced_end              u64   everything before it had been synced when this record was written
//! 32  CRC of the record before u32  0 for the first: a leftover behind a cut tail does not continue the chain
//! 36  kind                    u32
//! 40  payload length          u32
//! 44  more                    u32   records of the same call behind this one; all of a call count or none
//! 48  run                     u64   of the process that wrote it; what an earlier one left never continues the chain
//! 56  payload, padded with zeros to a multiple of 8
//! ```

/// Bytes before the payload.
pub(super) const HEAD_BYTES: usize = 56;
const MAGIC: u32 = u32::from_le_bytes(*b"PLJR");
const ALIGN: usize = 8;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Snapshot and the start of the log; the first record of a generation, never a later one.
    Base,
    /// Term, vote and commit.
    HardState,
    /// One entry of the Raft log; replaces those at its index and after.
    Entry,
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Self::Base => 1,
            Self::HardState => 2,
            Self::Entry => 3,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Base),
            2 => Some(Self::HardState),
            3 => Some(Self::Entry),
            _ => None,
        }
    }
}

/// Where the next record goes and what it continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) generation: u64,
    pub(super) run: u64,
    pub(super) sequence: u64,
    pub(super) synced_end: u64,
    pub(super) crc: u32,
}

impl Chain {
    /// Before the first record.
    pub(super) fn new(generation: u64) -> Self {
        Self { generation, run: 0, sequence: 0, synced_end: 0, crc: 0 }
    }

    /// Behind this record.
    pub(super) fn behind(self, record: &Record<'_>) -> Self {
        Self { sequence: record.sequence, crc: record.crc, ..self }
    }
}

/// A record whose checksum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) kind: Kind,
    pub(super) sequence: u64,
    pub(super) synced_end: u64,
    pub(super) previous_crc: u32,
    pub(super) crc: u32,
    pub(super) more: u32,
    pub(super) payload: &'a [u8],
    /// Bytes on disk, padding included.
    pub(super) bytes: usize,
}

/// Bytes that a payload takes on disk.
pub(super) fn framed_bytes(payload: usize) -> usize {
    HEAD_BYTES.saturating_add(payload).next_multiple_of(ALIGN)
}

/// Appends a record to `buffer`, behind which `more` of the same call follow, and moves `chain` on. `None` for a payload
/// beyond 4 GiB.
pub(super) fn encode(
    buffer: &mut Vec<u8>,
    chain: &mut Chain,
    kind: Kind,
    payload: &[u8],
    more: u32,
) -> Option<()> {
    let len = u32::try_from(payload.len()).ok()?;
    let start = buffer.len();
    let sequence = chain.sequence + 1;
    buffer.extend_from_slice(&MAGIC.to_le_bytes());
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&chain.generation.to_le_bytes());
    buffer.extend_from_slice(&sequence.to_le_bytes());
    buffer.extend_from_slice(&chain.synced_end.to_le_bytes());
    buffer.extend_from_slice(&chain.crc.to_le_bytes());
    buffer.extend_from_slice(&kind.number().to_le_bytes());
    buffer.extend_from_slice(&len.to_le_bytes());
    buffer.extend_from_slice(&more.to_le_bytes());
    buffer.extend_from_slice(&chain.run.to_le_bytes());
    buffer.extend_from_slice(payload);
    buffer.resize(start + framed_bytes(payload.len()), 0);
    let crc = crc32c::crc32c(&buffer[start + 8..]);
    buffer[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    chain.sequence = sequence;
    chain.crc = crc;
    Some(())
}

/// Reads the record at `at`; `None` when there is none of this generation with a good checksum.
pub(super) fn decode(bytes: &[u8], at: usize, generation: u64) -> Option<Record<'_>> {
    let rest = bytes.get(at..)?;
    if u32_at(rest, 0)? != MAGIC || u64_at(rest, 8)? != generation {
        return None;
    }
    let len = usize::try_from(u32_at(rest, 40)?).ok()?;
    let framed = framed_bytes(len);
    let whole = rest.get(..framed)?;
    let crc = u32_at(whole, 4)?;
    if crc32c::crc32c(whole.get(8..)?) != crc {
        return None;
    }
    Some(Record {
        kind: Kind::from_number(u32_at(whole, 36)?)?,
        sequence: u64_at(whole, 16)?,
        synced_end: u64_at(whole, 24)?,
        previous_crc: u32_at(whole, 32)?,
        crc,
        more: u32_at(whole, 44)?,
        payload: whole.get(HEAD_BYTES..HEAD_BYTES + len)?,
        bytes: framed,
    })
}

/// Looks beyond a broken place at `from` for a record that was written after that place had been synced: then the
/// place is rot and not a torn tail. Returns where it is.
pub(super) fn find_rot_witness(bytes: &[u8], from: usize, generation: u64) -> Option<usize> {
    let from_u64 = u64::try_from(from).ok()?;
    (from..bytes.len())
        .step_by(ALIGN)
        .filter(|at| bytes.get(*at..*at + 4) == Some(&MAGIC.to_le_bytes()))
        .find(|at| decode(bytes, *at, generation).is_some_and(|record| record.synced_end > from_u64))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Chain {
        Chain::new(7)
    }

    #[test]
    fn a_record_is_read_back_and_no_flipped_bit_is_accepted() {
        let mut buffer = Vec::new();
        encode(&mut buffer, &mut chain(), Kind::Entry, b"hello", 0).expect("small");
        assert_eq!(buffer.len() % 8, 0);
        let record = decode(&buffer, 0, 7).expect("whole");
        assert_eq!((record.payload, record.sequence, record.kind), (&b"hello"[..], 1, Kind::Entry));
        for bit in 0..buffer.len() * 8 {
            let mut flipped = buffer.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped, 0, 7), None, "bit {bit}");
        }
        assert_eq!(decode(&buffer, 0, 8), None, "another generation");
        for cut in 0..buffer.len() {
            assert_eq!(decode(&buffer[..cut], 0, 7), None, "cut at {cut}");
        }
    }

    #[test]
    fn rot_is_told_from_a_torn_tail_by_a_later_record_written_after_a_sync() {
        let (mut torn, mut chained) = (Vec::new(), chain());
        encode(&mut torn, &mut chained, Kind::Entry, b"one", 0).expect("small");
        let second = torn.len();
        encode(&mut torn, &mut chained, Kind::Entry, b"two", 0).expect("small");
        torn[10] ^= 1;
        assert_eq!(find_rot_witness(&torn, 0, 7), None, "same unsynced batch");
        let mut rotten = torn;
        rotten.truncate(second);
        chained.synced_end = second as u64;
        encode(&mut rotten, &mut chained, Kind::Entry, b"two", 0).expect("small");
        assert_eq!(find_rot_witness(&rotten, 0, 7), Some(second));
    }
}
