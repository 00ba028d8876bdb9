//! Which leader epoch wrote which offsets.

use plimsoll_proto::ids::{LeaderEpoch, Offset};

use super::AppendError;

/// Most epochs that are remembered; the oldest go first. Divergence further back is cut more than needed.
const EPOCHS_MAX: usize = 1024;

/// Epochs with the offset each starts at, both ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epochs {
    starts: Vec<(LeaderEpoch, Offset)>,
}

impl Epochs {
    pub(crate) fn from_starts(starts: Vec<(LeaderEpoch, Offset)>) -> Option<Self> {
        let ascending = starts.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1);
        ascending.then_some(Self { starts })
    }

    pub(crate) fn starts(&self) -> &[(LeaderEpoch, Offset)] {
        &self.starts
    }

    pub(crate) fn last(&self) -> Option<LeaderEpoch> {
        self.starts.last().map(|s| s.0)
    }

    /// The epoch of the last record below `end`: one that starts there has not written yet.
    pub(crate) fn last_below(&self, end: Offset) -> Option<LeaderEpoch> {
        self.starts.iter().rev().find(|s| s.1 < end).map(|s| s.0)
    }

    /// Notes that a record of `epoch` lies at `start`. Newer epochs that were to start there or later never wrote:
    /// their leader was replaced by one that goes on with older records.
    pub(crate) fn wrote(&mut self, epoch: LeaderEpoch, start: Offset) {
        while self.starts.last().is_some_and(|last| last.0 > epoch && last.1 >= start) {
            self.starts.pop();
        }
        self.note(epoch, start);
    }

    /// Begins `epoch`, which writes from `start` on, unless it is the last one already; returns whether it did.
    ///
    /// # Errors
    /// `StaleEpoch` when it is older.
    pub(crate) fn begin(&mut self, epoch: LeaderEpoch, start: Offset) -> Result<bool, AppendError> {
        match self.last() {
            Some(current) if epoch < current => Err(AppendError::StaleEpoch { given: epoch, current }),
            current => {
                self.note(epoch, start);
                Ok(current != Some(epoch))
            }
        }
    }

    /// Notes that `epoch` writes from `start` on; one that is not newer than the last changes nothing.
    pub(crate) fn note(&mut self, epoch: LeaderEpoch, start: Offset) {
        if self.last().is_some_and(|last| epoch <= last) {
            return;
        }
        debug_assert!(self.starts.last().is_none_or(|last| last.1 <= start), "epochs start in order");
        self.starts.push((epoch, start));
        if self.starts.len() > EPOCHS_MAX {
            self.starts.remove(0);
        }
    }

    /// The greatest epoch at or below `epoch`, and the offset behind its last record; `None` when `epoch` is
    /// newer than all, or older than all that are remembered.
    pub(crate) fn end(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        if self.last().is_none_or(|last| epoch > last) {
            return None;
        }
        let behind = self.starts.partition_point(|s| s.0 <= epoch);
        let found = self.starts[behind.checked_sub(1)?].0;
        Some((found, self.starts.get(behind).map_or(log_end, |next| next.1)))
    }

    /// Forgets epochs that start at or beyond the new end.
    pub(crate) fn truncate_tail(&mut self, to: Offset) {
        let keep = self.starts.partition_point(|s| s.1 < to);
        self.starts.truncate(keep);
    }

    /// Forgets epochs that start beyond the end; one that starts there has not written yet.
    pub(crate) fn truncate_above(&mut self, end: Offset) {
        let keep = self.starts.partition_point(|s| s.1 <= end);
        self.starts.truncate(keep);
    }

    /// Forgets epochs that ended before the new start; the one in force there begins with it.
    pub(crate) fn trim_head(&mut self, to: Offset) {
        let behind = self.starts.partition_point(|s| s.1 <= to);
        if let Some(in_force) = behind.checked_sub(1) {
            self.starts.drain(..in_force);
            self.starts[0].1 = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn o(n: u64) -> Offset {
        Offset::new(n).unwrap()
    }

    #[test]
    fn an_epoch_that_never_wrote_gives_way_to_older_records() {
        let mut epochs = Epochs::default();
        epochs.note(LeaderEpoch(1), o(0));
        epochs.note(LeaderEpoch(3), o(318));
        assert_eq!(epochs.last_below(o(318)), Some(LeaderEpoch(1)));
        assert_eq!(epochs.last_below(o(319)), Some(LeaderEpoch(3)));
        epochs.wrote(LeaderEpoch(1), o(318));
        assert_eq!(epochs.starts(), [(LeaderEpoch(1), o(0))]);
        epochs.wrote(LeaderEpoch(4), o(324));
        epochs.wrote(LeaderEpoch(4), o(330));
        assert_eq!(epochs.starts(), [(LeaderEpoch(1), o(0)), (LeaderEpoch(4), o(324))]);
    }

    #[test]
    fn ends_are_found() {
        let mut epochs = Epochs::default();
        for (epoch, start) in [(1, 0), (3, 100), (3, 150), (2, 160), (5, 200)] {
            epochs.note(LeaderEpoch(epoch), o(start));
        }
        for (asked, found) in [
            (0, None),
            (1, Some((1, 100))),
            (2, Some((1, 100))),
            (3, Some((3, 200))),
            (4, Some((3, 200))),
            (5, Some((5, 250))),
            (6, None),
        ] {
            let found = found.map(|(e, n)| (LeaderEpoch(e), o(n)));
            assert_eq!(epochs.end(LeaderEpoch(asked), o(250)), found, "{asked}");
        }
        epochs.trim_head(o(120));
        assert_eq!(epochs.starts(), [(LeaderEpoch(3), o(120)), (LeaderEpoch(5), o(200))]);
        epochs.truncate_tail(o(200));
        assert_eq!(epochs.last(), Some(LeaderEpoch(3)));
    }
}
