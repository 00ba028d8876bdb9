//! A snapshot on its way, in parts: cut by its sender, put together by its receiver.
//!
//! ```text
//!   part 0 | part 1 | ... | part n-1      in order, on a stream of their own; a stream that ends is begun anew
//! ```
//! A receiver holds one unfinished snapshot at most, whoever sends it and on however many streams: a newer one takes
//! the place of the older. It holds no more of it than its journal could take. What the snapshot says of itself is
//! checked by its own checksum, when it is whole.

use bytes::Bytes;
use plimsoll_proto::v1;
use tokio::sync::watch;

/// Bytes of a snapshot in one message.
pub(super) const PART_BYTES: usize = if cfg!(test) { 64 << 10 } else { 4 << 20 };

/// Cuts a message into parts that look like `head` otherwise. Parts share the bytes of `whole`.
pub(super) fn cut(
    head: v1::RaftMessage,
    whole: Bytes,
) -> impl Iterator<Item = v1::RaftMessage> + Send + 'static {
    let parts = u32::try_from(whole.len().div_ceil(PART_BYTES).max(1)).unwrap_or(u32::MAX);
    let mut left = whole;
    (0..parts).map(move |part| {
        let message = left.split_to(left.len().min(PART_BYTES));
        v1::RaftMessage { message, part, parts, ..head.clone() }
    })
}

/// Why parts make no whole: the stream ends, and the sender begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotWhole {
    #[error("its parts are not in order")]
    Order,
    #[error("it is larger than the journal here can take")]
    TooLarge,
    #[error("a newer one is on its way")]
    Superseded,
}

/// Where the snapshots of one receiver are put together. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Bench {
    bytes_max: usize,
    latest: watch::Sender<u64>,
}

impl Bench {
    /// Takes snapshots of at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self { bytes_max, latest: watch::Sender::new(0) }
    }

    /// What one stream brings.
    pub(super) fn stream(&self) -> Parts {
        Parts { bench: self.clone(), begun: None }
    }
}

/// What came of a snapshot on one stream.
#[derive(Debug)]
pub(super) struct Parts {
    bench: Bench,
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    /// Its number at the bench.
    number: u64,
    from: u64,
    parts: u32,
    next: u32,
    bytes: Vec<u8>,
}

impl Parts {
    /// Takes a message; the whole one, once its last part came. After an error the stream is to be ended.
    ///
    /// # Errors
    /// [`NotWhole`]; what came so far is forgotten.
    pub(super) fn add(&mut self, mut message: v1::RaftMessage) -> Result<Option<v1::RaftMessage>, NotWhole> {
        let begun = self.begun.take();
        if message.parts <= 1 {
            return if begun.is_none() { Ok(Some(message)) } else { Err(NotWhole::Order) };
        }
        let mut begun = match begun {
            Some(begun) => begun,
            None => self.begin(&message),
        };
        let follows = message.part == begun.next
            && message.part < message.parts
            && (message.parts, message.from) == (begun.parts, begun.from);
        if !follows {
            return Err(NotWhole::Order);
        }
        if *self.bench.latest.borrow() != begun.number {
            return Err(NotWhole::Superseded);
        }
        if begun.bytes.len().saturating_add(message.message.len()) > self.bench.bytes_max {
            return Err(NotWhole::TooLarge);
        }
        begun.bytes.extend_from_slice(&message.message);
        begun.next += 1;
        if begun.next < begun.parts {
            self.begun = Some(begun);
            return Ok(None);
        }
        message.message = begun.bytes.into();
        Ok(Some(message))
    }

    fn begin(&self, first: &v1::RaftMessage) -> Begun {
        let mut number = 0;
        self.bench.latest.send_modify(|latest| {
            *latest += 1;
            number = *latest;
        });
        Begun { number, from: first.from, parts: first.parts, next: 0, bytes: Vec::new() }
    }

    /// Resolves when what came so far is of no use any more: another stream began a newer snapshot. Never without an
    /// unfinished one. Cancel safe.
    pub(super) async fn superseded(&self) {
        let Some(begun) = &self.begun else { return std::future::pending().await };
        let number = begun.number;
        let mut latest = self.bench.latest.subscribe();
        // The bench lives as long as this.
        drop(latest.wait_for(|latest| *latest != number).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(part: u32, parts: u32, bytes: &'static [u8]) -> v1::RaftMessage {
        v1::RaftMessage { part, parts, message: bytes.into(), from: 2, ..Default::default() }
    }

    #[test]
    fn what_is_cut_is_put_together_again() {
        for bytes in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 5 * PART_BYTES + 7] {
            let whole: Bytes = (0u8..=250).cycle().take(bytes).collect();
            let mut parts = Bench::new(1 << 20).stream();
            let cut: Vec<_> = cut(v1::RaftMessage { from: 2, ..Default::default() }, whole.clone()).collect();
            assert_eq!(cut.len(), bytes.div_ceil(PART_BYTES).max(1));
            let (last, before) = cut.split_last().unwrap();
            for part in before {
                assert_eq!(part.message.len(), PART_BYTES);
                assert_eq!(parts.add(part.clone()), Ok(None));
            }
            assert_eq!(parts.add(last.clone()).unwrap().unwrap().message, whole);
        }
    }

    #[test]
    fn parts_make_a_whole_only_in_order_and_of_one_snapshot() {
        let bench = Bench::new(100);
        let mut parts = bench.stream();
        assert_eq!(parts.add(part(0, 0, b"whole")), Ok(Some(part(0, 0, b"whole"))));
        assert_eq!(parts.add(part(0, 3, b"a")), Ok(None));
        assert_eq!(parts.add(part(1, 3, b"b")), Ok(None));
        assert_eq!(parts.add(part(2, 3, b"c")), Ok(Some(part(2, 3, b"abc"))));
        for wrong in [part(1, 3, b"b"), part(3, 3, b"d"), part(7, 2, b"")] {
            assert_eq!(bench.stream().add(wrong), Err(NotWhole::Order));
        }
        let other = v1::RaftMessage { from: 3, ..part(1, 3, b"b") };
        for wrong in [part(0, 3, b"a"), part(2, 3, b"c"), part(1, 4, b"b"), part(0, 1, b"whole"), other] {
            let mut begun = bench.stream();
            assert_eq!(begun.add(part(0, 3, b"a")), Ok(None));
            assert_eq!(begun.add(wrong.clone()), Err(NotWhole::Order), "{wrong:?}");
        }
    }

    #[test]
    fn one_unfinished_snapshot_of_bounded_size_is_held() {
        let bench = Bench::new(7);
        let mut old = bench.stream();
        assert_eq!(old.add(part(0, 3, b"1234")), Ok(None));
        assert_eq!(old.add(part(1, 3, b"5678")), Err(NotWhole::TooLarge));
        assert!(old.begun.is_none(), "nothing of it is kept");

        assert_eq!(old.add(part(0, 2, b"1234")), Ok(None));
        let mut new = bench.stream();
        assert_eq!(new.add(part(0, 2, b"abc")), Ok(None));
        assert_eq!(old.add(part(1, 2, b"5")), Err(NotWhole::Superseded));
        assert_eq!(new.add(part(1, 2, b"d")), Ok(Some(part(1, 2, b"abcd"))));
    }

    #[tokio::test]
    async fn who_waits_for_more_of_an_old_one_is_told() {
        let bench = Bench::new(7);
        let (mut old, mut new) = (bench.stream(), bench.stream());
        assert_eq!(old.add(part(0, 2, b"1234")), Ok(None));
        tokio::select! {
            biased;
            () = old.superseded() => panic!("nothing newer began"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(new.add(part(0, 2, b"abc")), Ok(None));
        old.superseded().await;
    }
}
