//! Buffers of reads, used again when whoever got the bytes has let go of them.
//!
//! A fresh megabyte costs as much as a read of it from the page cache: it is either mapped and faulted in page by
//! page, or zeroed. A used one costs nothing.

use bytes::{Bytes, BytesMut};

/// Reads below this take a buffer of their own, which the allocator has at hand.
const KEPT_MIN: usize = 64 * 1024;
/// Sizes of buffers that are kept; larger reads take one of their own.
const SIZES: [usize; 2] = [256 * 1024, 1024 * 1024];
/// Buffers kept, of the last reads: at most 8 MiB.
const KEPT: usize = 8;
/// Bytes that fill less than this part of their buffer are copied, so that little does not hold much.
const FILLED_PART: usize = 4;

/// See the module. Bounded; holds on to nothing else.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffers {
    /// Whole buffers, shared with those who got a part of them.
    kept: Vec<Bytes>,
    /// The one that gives way to the next new one.
    next: usize,
}

impl ReadBuffers {
    /// A buffer of at least `bytes`; what is in it means nothing.
    pub(crate) fn take(&mut self, bytes: usize) -> BytesMut {
        let Some(size) = size_for(bytes) else { return BytesMut::zeroed(bytes) };
        let free = self.kept.iter().position(|kept| kept.len() == size && kept.is_unique());
        let found = free.map(|at| self.kept.swap_remove(at).try_into_mut());
        match found {
            Some(Ok(buffer)) => buffer,
            Some(Err(_)) | None => BytesMut::zeroed(size),
        }
    }

    /// The first `bytes` of a buffer that was taken, as they go out.
    pub(crate) fn give(&mut self, mut buffer: BytesMut, bytes: usize) -> Bytes {
        if !SIZES.contains(&buffer.len()) {
            buffer.truncate(bytes);
            return buffer.freeze();
        }
        let whole = buffer.freeze();
        let out = if bytes < whole.len() / FILLED_PART {
            Bytes::copy_from_slice(&whole[..bytes])
        } else {
            whole.slice(..bytes)
        };
        self.keep(whole);
        out
    }

    fn keep(&mut self, whole: Bytes) {
        if self.kept.len() < KEPT {
            return self.kept.push(whole);
        }
        self.next = (self.next + 1) % KEPT;
        self.kept[self.next] = whole;
    }
}

fn size_for(bytes: usize) -> Option<usize> {
    SIZES.into_iter().find(|size| bytes >= KEPT_MIN && bytes <= *size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_buffer_is_used_again_only_when_nobody_has_it() {
        let mut buffers = ReadBuffers::default();
        let mut read = |fill: u8| {
            let mut buffer = buffers.take(MIB);
            buffer.fill(fill);
            buffers.give(buffer, MIB - 1)
        };
        let first = read(1);
        let place = first.as_ptr();
        let second = read(2);
        assert_ne!(second.as_ptr(), place);
        assert!(first.len() == MIB - 1 && first.iter().all(|byte| *byte == 1), "nobody wrote into it");
        drop(first);
        let third = read(3);
        assert_eq!(third.as_ptr(), place);
        assert!(second.iter().all(|byte| *byte == 2));
    }

    #[test]
    fn few_buffers_are_kept_and_little_does_not_hold_much() {
        let mut buffers = ReadBuffers::default();
        let held: Vec<Bytes> = (0..3 * KEPT)
            .map(|_| {
                let buffer = buffers.take(MIB);
                buffers.give(buffer, MIB)
            })
            .collect();
        assert_eq!((held.len(), buffers.kept.len()), (3 * KEPT, KEPT));
        drop(held);
        let buffer = buffers.take(MIB);
        let little = buffers.give(buffer, 1000);
        assert_eq!(little.len(), 1000);
        assert!(buffers.kept.iter().all(Bytes::is_unique), "it is a copy");
    }

    #[test]
    fn sizes_are_told_at_their_edges() {
        for (bytes, size) in [
            (KEPT_MIN - 1, None),
            (KEPT_MIN, Some(SIZES[0])),
            (SIZES[0], Some(SIZES[0])),
            (SIZES[0] + 1, Some(SIZES[1])),
            (SIZES[1], Some(SIZES[1])),
            (SIZES[1] + 1, None),
        ] {
            assert_eq!(size_for(bytes), size, "{bytes}");
            let buffer = ReadBuffers::default().take(bytes);
            assert_eq!(buffer.len(), size.unwrap_or(bytes));
        }
    }
}
