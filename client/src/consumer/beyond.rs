//! How long an offset has been beyond the end of its partition. Pure.
//!
//! A leader refuses an offset with OFFSET_NOT_AVAILABLE for two reasons. A new one does not know for a moment what is
//! committed: that passes, however long it takes. Or its log ends before the offset, which an election that lost
//! records leaves behind: what a moment does not mend is not there to come.

use std::time::Duration;

/// An offset that stays beyond the end for so long is not there to come.
const LASTS: Duration = Duration::from_secs(10);

/// Since when the offset has been beyond the end without a break.
#[derive(Debug, Default)]
pub(crate) struct BeyondEnd(Option<Duration>);

impl BeyondEnd {
    /// Takes a refusal and whether it put the end of the log before the offset; whether that has lasted.
    pub(crate) fn refused(&mut self, beyond: bool, now: Duration) -> bool {
        if !beyond {
            self.0 = None;
            return false;
        }
        now.saturating_sub(*self.0.get_or_insert(now)) >= LASTS
    }

    /// The offset is there, or another one is wanted.
    pub(crate) fn over(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_that_stays_before_the_offset_is_one() {
        let s = Duration::from_secs;
        let mut beyond = BeyondEnd::default();
        // A leader that can't confirm what is committed may take any time for it.
        for second in 0..1000 {
            assert!(!beyond.refused(false, s(second)));
        }
        // That time does not count for what comes then.
        assert!(!beyond.refused(true, s(1000)));
        assert!(!beyond.refused(true, s(1009)));
        assert!(!beyond.refused(false, s(1009)));
        assert!(!beyond.refused(true, s(1010)));
        assert!(!beyond.refused(true, s(1019)));
        assert!(beyond.refused(true, s(1020)));
        beyond.over();
        assert!(!beyond.refused(true, s(1021)));
    }
}
