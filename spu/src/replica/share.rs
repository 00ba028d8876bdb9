//! How the bytes of one answer to a follower are shared among its partitions.
//!
//! Partitions in whose set the follower counts are *live*: producers wait for them. The others *catch up*. Live ones
//! come first and have three quarters of the answer, those that catch up have one; an answer in which no partition is
//! live is theirs alone. Within its share who was served longest ago comes first, so that nobody waits for the backlog
//! of another for ever. Batches are never cut: the first of a share comes whole, however large it is.

/// A partition that has something for the follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Its place among the positions of the fetch.
    pub at: usize,
    /// The follower counts: the high watermark waits for it.
    pub live: bool,
    /// In which answer it last got something; 0 for none.
    pub served: u64,
}

/// Says whom to read for next, and how much.
#[derive(Debug)]
pub struct Share {
    /// In the order of service, the last one first.
    wishes: Vec<Wish>,
    live: Left,
    catching_up: Left,
}

/// What one class may still have.
#[derive(Clone, Copy, Debug)]
struct Left {
    bytes: usize,
    /// Nobody of the class had anything yet.
    first: bool,
}

impl Share {
    /// Shares `bytes_max` among `wishes`. `any_live` says whether the fetch names live partitions at all, also such as
    /// have nothing new.
    pub fn new(bytes_max: usize, any_live: bool, mut wishes: Vec<Wish>) -> Self {
        wishes.sort_by_key(|wish| std::cmp::Reverse((!wish.live, wish.served, wish.at)));
        let catching_up = if any_live { bytes_max / 4 } else { bytes_max };
        let any_catching_up = wishes.iter().any(|wish| !wish.live);
        let live = if any_catching_up { bytes_max - catching_up } else { bytes_max };
        let left = |bytes| Left { bytes, first: true };
        Self { wishes, live: left(live), catching_up: left(catching_up) }
    }

    /// The next partition to read for, and how many bytes at most; 1 stands for one batch.
    pub fn next_wish(&mut self) -> Option<(Wish, usize)> {
        while let Some(wish) = self.wishes.pop() {
            let left = self.left(wish);
            if left.bytes > 0 || left.first {
                return Some((wish, left.bytes.max(1)));
            }
        }
        None
    }

    /// So many bytes were read for it.
    pub fn took(&mut self, wish: Wish, bytes: usize) {
        let left = self.left(wish);
        left.bytes = left.bytes.saturating_sub(bytes);
        left.first &= bytes == 0;
    }

    fn left(&mut self, wish: Wish) -> &mut Left {
        if wish.live { &mut self.live } else { &mut self.catching_up }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: bool = true;
    const BEHIND: bool = false;

    /// Everybody takes all that is offered, in batches of `batch` bytes, up to what it has: (place, bytes) as served.
    fn served(bytes_max: usize, batch: usize, wishes: &[(bool, u64, usize)]) -> Vec<(usize, usize)> {
        let any_live = wishes.iter().any(|(live, ..)| *live);
        let wanted =
            (0..).zip(wishes).map(|(at, (live, served, _))| Wish { at, live: *live, served: *served });
        let mut share = Share::new(bytes_max, any_live, wanted.collect());
        let mut got = Vec::new();
        while let Some((wish, most)) = share.next_wish() {
            let whole = (most / batch).max(1) * batch;
            let bytes = whole.min(wishes[wish.at].2);
            share.took(wish, bytes);
            got.push((wish.at, bytes));
        }
        got
    }

    #[test]
    fn live_ones_come_first_and_backlogs_have_a_quarter() {
        for (what, wishes, expected) in [
            ("a backlog before a live one", vec![(BEHIND, 0, 9000), (LIVE, 0, 10)], vec![(1, 10), (0, 250)]),
            ("only backlogs", vec![(BEHIND, 0, 9000), (BEHIND, 0, 9000)], vec![(0, 1000)]),
            ("only live ones", vec![(LIVE, 0, 700), (LIVE, 0, 9000)], vec![(0, 700), (1, 300)]),
            (
                "both with more than there is",
                vec![(BEHIND, 0, 9000), (LIVE, 0, 9000)],
                vec![(1, 750), (0, 250)],
            ),
            (
                "who waited longest goes first",
                vec![(LIVE, 5, 9000), (BEHIND, 3, 9000), (LIVE, 4, 9000), (BEHIND, 2, 9000)],
                vec![(2, 750), (3, 250)],
            ),
            (
                "a small backlog leaves room for the next",
                vec![(BEHIND, 1, 100), (BEHIND, 2, 9000)],
                vec![(0, 100), (1, 900)],
            ),
        ] {
            assert_eq!(served(1000, 10, &wishes), expected, "{what}");
        }
    }

    #[test]
    fn a_batch_larger_than_its_share_comes_whole() {
        assert_eq!(served(1000, 5000, &[(BEHIND, 0, 5000), (LIVE, 0, 10)]), [(1, 10), (0, 5000)]);
        assert_eq!(served(1000, 5000, &[(LIVE, 0, 5000), (BEHIND, 0, 5000)]), [(0, 5000), (1, 5000)]);
        assert_eq!(served(0, 50, &[(LIVE, 0, 50), (LIVE, 0, 50)]), [(0, 50)]);
    }

    #[test]
    fn an_answer_is_bounded_whatever_the_number_of_partitions() {
        for partitions in [1usize, 1_000, 10_000] {
            for live_each in [1, 2, 3] {
                let wishes: Vec<_> =
                    (0..partitions).map(|at| (at % live_each == 0, u64::from(at % 7 == 0), 9000)).collect();
                let got = served(100_000, 300, &wishes);
                let sum: usize = got.iter().map(|(_, bytes)| bytes).sum();
                assert!(sum <= 100_000 + 2 * 300, "{sum} bytes for {partitions} partitions");
                assert!(got.len() <= 100_000 / 300 + 2, "{} reads for {partitions} partitions", got.len());
            }
        }
    }

    #[test]
    fn everybody_is_served_in_turn() {
        let mut last = [0u64; 6];
        for answer in 1..=30 {
            let wishes: Vec<_> =
                last.iter().enumerate().map(|(at, s)| (at.is_multiple_of(2), *s, 9000)).collect();
            for (at, _) in served(1000, 10, &wishes) {
                last[at] = answer;
            }
        }
        assert!(last.iter().all(|served| *served >= 28), "{last:?}");
    }
}
