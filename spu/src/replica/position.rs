//! Whether a follower's log continues the leader's, by epochs.

use plimsoll_proto::ids::{LeaderEpoch, Offset};

/// An epoch of a log and the offset behind its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The greatest epoch in the log that is not beyond the one asked for.
    pub epoch: LeaderEpoch,
    /// Where it ends.
    pub end: Offset,
}

/// How a follower's position stands to the leader's log.
///
/// ```text
///   leader    [ epoch 3       | epoch 5           )
///   follower  [ epoch 3           )                 diverging: epoch 3 ends at the bar
///   follower  [ epoch 3 )                           continues
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Everything that the follower has, the leader has too.
    Continues,
    /// The follower has records that the leader has not: cut back to this end, at most.
    Diverging(EpochEnd),
    /// The follower ends before the leader's log starts: start again there.
    Trimmed,
}

impl Position {
    /// Compares a follower's `log_end`, whose last record is of `last_epoch` (`None` for an empty log), with
    /// the leader's log `[log_start, own_end)`. `lookup` gives the leader's [`EpochEnd`] for an epoch, `None`
    /// when its log has no epoch as old.
    pub fn of(
        log_end: Offset,
        last_epoch: Option<LeaderEpoch>,
        (log_start, own_end): (Offset, Offset),
        lookup: impl Fn(LeaderEpoch) -> Option<EpochEnd>,
    ) -> Self {
        if log_end < log_start {
            return Self::Trimmed;
        }
        let Some(last_epoch) = last_epoch else {
            // An empty log contradicts nothing, but can't go on where the leader has not been.
            return if log_end <= own_end {
                Self::Continues
            } else {
                Self::Diverging(EpochEnd { epoch: LeaderEpoch(0), end: own_end })
            };
        };
        match lookup(last_epoch) {
            Some(found) if found.epoch == last_epoch && found.end >= log_end => Self::Continues,
            Some(found) => Self::Diverging(found),
            // The leader's log starts with a later epoch, whose records a trim has removed up to its start.
            None if log_end == log_start => Self::Continues,
            None => Self::Diverging(EpochEnd { epoch: LeaderEpoch(0), end: log_start }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Offset {
        Offset::new(offset).expect("a small offset")
    }

    /// A leader with epoch 3 in [10, 20) and epoch 5 in [20, 30).
    fn lookup(epoch: LeaderEpoch) -> Option<EpochEnd> {
        match epoch.0 {
            0..=2 => None,
            3 | 4 => Some(EpochEnd { epoch: LeaderEpoch(3), end: at(20) }),
            _ => Some(EpochEnd { epoch: LeaderEpoch(5), end: at(30) }),
        }
    }

    #[test]
    fn positions() {
        let diverging =
            |epoch, end| Position::Diverging(EpochEnd { epoch: LeaderEpoch(epoch), end: at(end) });
        for (log_end, last_epoch, expected) in [
            (15, Some(3), Position::Continues),
            (20, Some(3), Position::Continues),
            (22, Some(3), diverging(3, 20)),
            (22, Some(4), diverging(3, 20)),
            (30, Some(5), Position::Continues),
            (31, Some(5), diverging(5, 30)),
            (25, Some(7), diverging(5, 30)),
            (9, Some(3), Position::Trimmed),
            (10, Some(2), Position::Continues),
            (12, Some(2), diverging(0, 10)),
            (10, None, Position::Continues),
            (30, None, Position::Continues),
            (31, None, diverging(0, 30)),
        ] {
            let found = Position::of(at(log_end), last_epoch.map(LeaderEpoch), (at(10), at(30)), lookup);
            assert_eq!(found, expected, "{log_end} {last_epoch:?}");
        }
    }
}
