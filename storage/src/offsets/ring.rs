//! Where batches stand in the file, and how it is told which of them count.
//!
//! ```text
//!   frame, at a multiple of 8:   length u32 | chain u32 | record batch ... | zeros up to a multiple of 8
//!   wrap:                        length u32 = ffff ffff | chain u32              the next frame is at 0
//! ```
//!
//! `chain` is the CRC-32C over the length and the batch, begun with the chain of the frame before. Old frames lie
//! everywhere in the ring; none of them continues the chain, so that the first frame which does not is the end of the
//! log, after a crash as after a cut. Integers are big-endian.

use bytes::Bytes;

/// Bytes in front of a batch.
pub(super) const HEAD_BYTES: u64 = 8;
const WRAP: u32 = u32::MAX;

/// Bytes that a batch takes in the ring.
pub(super) fn framed(batch_bytes: u64) -> u64 {
    HEAD_BYTES + batch_bytes.next_multiple_of(8)
}

/// The chain behind a batch.
pub(super) fn chain_of(before: u32, batch: &[u8]) -> u32 {
    let length = u32::try_from(batch.len()).unwrap_or(WRAP);
    crc32c::crc32c_append(crc32c::crc32c_append(before, &length.to_be_bytes()), batch)
}

fn chain_of_wrap(before: u32) -> u32 {
    crc32c::crc32c_append(before, &WRAP.to_be_bytes())
}

/// A part of the ring: it begins at `head` and ends at `tail`. Equal when empty, never when full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) head: u64,
    pub(super) tail: u64,
    pub(super) empty: bool,
}

/// Where the next frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) position: u64,
    /// A wrap is written at the tail first.
    pub(super) wraps: bool,
}

impl Span {
    /// A place for a frame of `need` bytes in a ring of `size`.
    pub(super) fn place(self, need: u64, size: u64) -> Option<Slot> {
        let at_tail = Slot { position: self.tail, wraps: false };
        let at_start = Slot { position: 0, wraps: true };
        if self.empty {
            return match self.tail + need {
                end if end <= size => Some(at_tail),
                _ => (need <= size).then_some(at_start),
            };
        }
        if self.tail < self.head {
            return (self.tail + need < self.head).then_some(at_tail);
        }
        // A frame that ends at the end of the file makes the tail 0: that must not be the head.
        if self.tail + need < size || (self.tail + need == size && self.head > 0) {
            return Some(at_tail);
        }
        (need < self.head).then_some(at_start)
    }
}

/// The position behind a frame.
pub(super) fn behind(position: u64, framed: u64, size: u64) -> u64 {
    let end = position + framed;
    if end >= size { 0 } else { end }
}

/// The bytes of a frame, and its chain.
pub(super) fn frame(before: u32, batch: &[u8]) -> (Vec<u8>, u32) {
    let length = u32::try_from(batch.len()).expect("a batch is smaller than the ring");
    let chain = chain_of(before, batch);
    let mut out = Vec::with_capacity(batch.len() + 16);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&chain.to_be_bytes());
    out.extend_from_slice(batch);
    out.resize(out.len().next_multiple_of(8), 0);
    (out, chain)
}

/// The bytes of a wrap, and its chain.
pub(super) fn wrap(before: u32) -> ([u8; 8], u32) {
    let chain = chain_of_wrap(before);
    let mut out = [0; 8];
    out[..4].copy_from_slice(&WRAP.to_be_bytes());
    out[4..].copy_from_slice(&chain.to_be_bytes());
    (out, chain)
}

/// A frame that continues the chain.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) position: u64,
    pub(super) chain_before: u32,
    pub(super) batch: Bytes,
}

/// Walks the frames of a whole ring in memory.
pub(super) struct Walk<'a> {
    ring: &'a Bytes,
    position: usize,
    chain: u32,
    walked: usize,
}

impl<'a> Walk<'a> {
    /// From a frame at `position`; `chain` is the chain before it.
    pub(super) fn new(ring: &'a Bytes, position: u64, chain: u32) -> Self {
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        Self { ring, position, chain, walked: 0 }
    }

    /// Where the next frame would stand, and the chain before it.
    pub(super) fn end(&self) -> (u64, u32) {
        (u64::try_from(self.position).expect("usize is at most 64 bits"), self.chain)
    }

    fn word(&self, at: usize) -> Option<u32> {
        self.ring.get(at..at.checked_add(4)?)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }
}

impl Iterator for Walk<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        let (mut position, mut before) = (self.position, self.chain);
        if self.word(position)? == WRAP {
            let chain = chain_of_wrap(before);
            (self.word(position + 4)? == chain).then_some(())?;
            (position, before) = (0, chain);
        }
        let length = usize::try_from(self.word(position)?).ok()?;
        let chain = self.word(position.checked_add(4)?)?;
        let start = position.checked_add(8)?;
        let end = start.checked_add(length)?;
        let padded = end.checked_next_multiple_of(8)?;
        let framed = padded - position;
        if length == 0 || padded > self.ring.len() || self.walked + framed > self.ring.len() {
            return None;
        }
        let batch = self.ring.slice(start..end);
        (chain_of(before, &batch) == chain).then_some(())?;
        self.walked += framed;
        self.position = if padded == self.ring.len() { 0 } else { padded };
        self.chain = chain;
        let position = u64::try_from(position).expect("usize is at most 64 bits");
        Some(Found { position, chain_before: before, batch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keep_head_and_tail_apart() {
        let span = |head, tail, empty| Span { head, tail, empty };
        let at = |position, wraps| Some(Slot { position, wraps });
        for (span, need, expected) in [
            (span(0, 0, true), 64, at(0, false)),
            (span(0, 0, true), 72, None),
            (span(40, 40, true), 24, at(40, false)),
            (span(40, 40, true), 32, at(0, true)),
            (span(0, 40, false), 16, at(40, false)),
            (span(0, 40, false), 24, None),
            (span(8, 40, false), 24, at(40, false)),
            (span(32, 40, false), 32, None),
            (span(32, 48, false), 24, at(0, true)),
            (span(24, 48, false), 24, None),
            (span(40, 16, false), 16, at(16, false)),
            (span(40, 16, false), 24, None),
        ] {
            assert_eq!(span.place(need, 64), expected, "{span:?} {need}");
        }
    }

    #[test]
    fn the_walk_ends_where_the_chain_breaks() {
        let mut ring = vec![0; 256];
        let (first, one) = frame(7, b"first");
        ring[200..200 + first.len()].copy_from_slice(&first);
        let (wrap, two) = wrap(one);
        ring[216..224].copy_from_slice(&wrap);
        let (second, three) = frame(two, &[9; 20]);
        ring[..second.len()].copy_from_slice(&second);
        // A stranger's frame behind.
        let (stale, _) = frame(99, b"stale");
        ring[second.len()..second.len() + stale.len()].copy_from_slice(&stale);
        let whole = Bytes::from(ring.clone());
        let mut walk = Walk::new(&whole, 200, 7);
        let found: Vec<(u64, usize)> = walk.by_ref().map(|f| (f.position, f.batch.len())).collect();
        assert_eq!(found, [(200, 5), (0, 20)]);
        assert_eq!(walk.end(), (32, three));
        for at in [0, 5, 12, 200, 204, 209, 216, 220] {
            let mut bad = ring.clone();
            bad[at] ^= 0x20;
            let bad = Bytes::from(bad);
            assert!(Walk::new(&bad, 200, 7).count() < 2, "{at}");
        }
        for position in [1 << 40, u64::MAX, 255, 256] {
            assert_eq!(Walk::new(&whole, position, 7).count(), 0);
        }
    }
}
