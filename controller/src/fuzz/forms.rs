//! From an input to files: what takes a lucky guess otherwise is put where it belongs.
//!
//! The formats are written down here a second time, from their descriptions in `journal::header`, `journal::record` and
//! `identity`: the corpus, which the product wrote, would not be read if they differed.

use super::directory::BODY;

const SLOTS: [usize; 2] = [0, 4096];
pub(super) const SLOT_BYTES: usize = 64;
pub(super) const RECORD_HEAD_BYTES: usize = 56;
/// Before the body of a snapshot: its magic and version.
pub(super) const SNAPSHOT_HEAD: &[u8] = b"PLSN\x01";

/// Up to `count` bytes of what is left.
fn take<'a>(input: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(count.min(input.len()));
    *input = rest;
    taken
}

/// Two slots of 64 bytes where a file has them, with or without a good checksum.
pub(super) fn slots(input: &mut &[u8], sums: bool) -> Vec<u8> {
    let mut bytes = vec![0; BODY];
    for at in SLOTS {
        let slot = take(input, SLOT_BYTES);
        bytes[at..at + slot.len()].copy_from_slice(slot);
        if sums {
            let crc = crc32c::crc32c(&bytes[at + 16..at + SLOT_BYTES]);
            bytes[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
        }
    }
    bytes
}

/// A head that does not say how much is behind it.
pub(super) fn without_synced_end(head: &[u8]) -> Vec<u8> {
    let mut slots = SLOTS.map(|at| head[at..at + SLOT_BYTES].to_vec());
    for slot in &mut slots {
        slot[56..64].fill(0);
    }
    self::slots(&mut slots.concat().as_slice(), true)
}

/// Whether a slot of `controller.id` with a good checksum says that the directory is being made.
pub(super) fn is_being_made(file: &[u8]) -> bool {
    SLOTS.into_iter().filter_map(|at| file.get(at..at + SLOT_BYTES)).any(|slot| {
        slot[12..16] == crc32c::crc32c(&slot[16..]).to_le_bytes() && slot[24..28] == 1u32.to_le_bytes()
    })
}

/// Both files of a journal, each as { slot, slot, length u16, records }.
pub(super) fn files(mut input: &[u8], sums: bool) -> [Vec<u8>; 2] {
    [(); 2].map(|()| {
        let mut file = slots(&mut input, sums);
        let length = take(&mut input, 2).try_into().map_or(0, u16::from_be_bytes);
        file.extend_from_slice(take(&mut input, length.into()));
        file
    })
}

/// Any number of { kind u8, more u8, length u16, payload } as records of generation 1. In `kind`, 128 says that everything
/// before had been synced; `more` is of records behind it that belong to the same call, 255 the most that there can be.
pub(super) fn records(mut input: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut sequence, mut synced_end, mut crc) = (0u64, 0u64, 0u32);
    while let Some((&[kind, more, high, low], rest)) = input.split_first_chunk() {
        input = rest;
        let payload = take(&mut input, u16::from_be_bytes([high, low]).into());
        let start = bytes.len();
        sequence += 1;
        if kind & 128 != 0 {
            synced_end = (BODY + start) as u64;
        }
        bytes.extend_from_slice(b"PLJR\0\0\0\0");
        for number in [1, sequence, synced_end] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let more = if more == u8::MAX { u32::MAX } else { more.into() };
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        for number in [crc, (kind & 127).into(), length, more, 0, 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        crc = crc32c::crc32c(&bytes[start + 8..]);
        bytes[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}

/// The body of a snapshot of the cluster's state behind its head.
pub(super) fn snapshot(body: &[u8]) -> Vec<u8> {
    [SNAPSHOT_HEAD, &crc32c::crc32c(body).to_be_bytes(), body].concat()
}
