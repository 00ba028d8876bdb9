//! What a consumer lets a node send: bytes of batches, given in advance and again when they were dealt with. Pure.
//!
//! Batches come whole. One that is larger than what is left waits until the consumer has given back all that it got: it
//! is then sent at the price of what is missing. So no more than the credit, or than one batch, is ever under way, and
//! what a batch took beyond the credit is owed: giving it back does not make the credit grow.

/// The credit of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Credit {
    /// Below zero, what is owed.
    left: i64,
    /// Sent and not given back.
    under_way: u64,
    /// Size of the next batch, once it is known not to fit.
    waiting: u64,
}

impl Credit {
    pub(super) fn new(bytes: u64) -> Self {
        Self { left: signed(bytes), under_way: 0, waiting: 0 }
    }

    /// Bytes to read at most, one larger batch aside; `None` when nothing may be sent.
    pub(super) fn to_read(self) -> Option<u64> {
        let left = u64::try_from(self.left).ok().filter(|left| *left > 0)?;
        (self.waiting <= left || self.under_way == 0).then_some(left)
    }

    /// Whether batches of so many bytes may be sent. If not, they are waited for.
    pub(super) fn admits(&mut self, bytes: u64) -> bool {
        let fits = signed(bytes) <= self.left || self.under_way == 0;
        self.waiting = if fits { 0 } else { bytes };
        fits
    }

    /// They were sent.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(signed(bytes));
        self.under_way = self.under_way.saturating_add(bytes);
    }

    /// The consumer gives more, or gives back.
    pub(super) fn granted(&mut self, bytes: u64) {
        self.left = self.left.saturating_add(signed(bytes));
        self.under_way = self.under_way.saturating_sub(bytes);
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_does_not_fit_waits_until_nothing_is_under_way() {
        let mut credit = Credit::new(10);
        assert_eq!(credit.to_read(), Some(10));
        assert!(credit.admits(7));
        credit.sent(7);
        assert_eq!(credit.to_read(), Some(3));
        assert!(!credit.admits(5));
        assert_eq!(credit.to_read(), None, "its size is known: it is not read again before it may be sent");
        credit.granted(3);
        assert_eq!(credit.to_read(), Some(6));
        assert!(credit.admits(5));
        credit.sent(5);
        credit.granted(9);
        assert_eq!(credit.to_read(), Some(10), "what was given at first, and no more");
        assert!(!{
            credit.sent(1);
            credit.admits(25)
        });
        credit.granted(1);
        assert!(credit.admits(25), "alone it comes whole");
        credit.sent(25);
        assert_eq!(credit.to_read(), None);
        credit.granted(25);
        assert_eq!(credit.to_read(), Some(10));
    }

    #[test]
    fn what_is_under_way_is_bounded_however_batches_and_credit_alternate() {
        let (window, largest) = (1000, 700);
        let mut credit = Credit::new(window);
        let mut under_way = std::collections::VecDeque::new();
        let mut seed = 1u64;
        for _ in 0..100_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let batch = 1 + (seed >> 33) % largest;
            if (seed >> 20).is_multiple_of(2) && credit.to_read().is_some() && credit.admits(batch) {
                credit.sent(batch);
                under_way.push_back(batch);
            } else if let Some(dealt_with) = under_way.pop_front() {
                credit.granted(dealt_with);
            }
            let sum: u64 = under_way.iter().sum();
            assert!(sum <= window.max(largest), "{sum}");
        }
        under_way.into_iter().for_each(|batch| credit.granted(batch));
        assert_eq!(credit.to_read(), Some(window));
    }

    #[test]
    fn nonsense_from_outside_overflows_nothing() {
        let mut credit = Credit::new(u64::MAX);
        credit.granted(u64::MAX);
        credit.sent(u64::MAX);
        credit.granted(u64::MAX);
        assert!(credit.to_read().is_some());
        assert_eq!(Credit::new(0).to_read(), None);
    }
}
