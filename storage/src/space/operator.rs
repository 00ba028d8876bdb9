//! What an operator may ask of a volume's senses for a while: a lowered mark, and a drill. Both end by themselves.

use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;

use super::marks::Marks;

/// The mark of ReadOnly, lowered: room that is kept in reserve, lent for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Borrowed {
    /// By how much.
    pub bytes: u64,
    /// When it ends, on the caller's clock.
    pub until: Duration,
}

/// The volume behaves as if it had no more than so much free. It deletes nothing because of that, and it ends at
/// once when the volume really is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drill {
    /// What it pretends.
    pub free_bytes: u64,
    /// When it ends, on the caller's clock.
    pub until: Duration,
}

/// Least share of the capacity that the mark of ReadOnly keeps, in percent: below it allocation may fail anyway.
const KEPT_PERCENT: u64 = 1;

/// Most that may be borrowed of these marks.
pub fn borrowable(marks: &Marks) -> u64 {
    let kept = super::marks::percent_of(marks.shape().capacity_bytes, KEPT_PERCENT);
    marks.bytes(DiskLevel::ReadOnly).enter.saturating_sub(kept)
}

/// Free bytes that a drill must pretend to reach a level, and no worse one: the middle between its mark and the
/// next. `None` for levels that no mark leads to.
pub fn drill_bytes(marks: &Marks, level: DiskLevel) -> Option<u64> {
    let enter = |level| marks.bytes(level).enter;
    let (mark, next) = match level {
        DiskLevel::Reclaim => (enter(DiskLevel::Reclaim), enter(DiskLevel::Throttle)),
        DiskLevel::Throttle => (enter(DiskLevel::Throttle), enter(DiskLevel::ReadOnly)),
        DiskLevel::ReadOnly => (enter(DiskLevel::ReadOnly), 0),
        DiskLevel::Normal | DiskLevel::Failed => return None,
    };
    Some(next + (mark - next) / 2)
}

/// What is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Operator {
    pub(super) borrowed: Option<Borrowed>,
    pub(super) drill: Option<Drill>,
}

impl Operator {
    /// Ends what is over; whether something that was borrowed did.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        if self.drill.is_some_and(|drill| drill.until <= now) {
            self.drill = None;
        }
        let over = self.borrowed.is_some_and(|borrowed| borrowed.until <= now);
        if over {
            self.borrowed = None;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::super::marks::{MarkSettings, VolumeShape};
    use super::*;

    fn marks() -> Marks {
        let shape =
            VolumeShape { capacity_bytes: 1000 << 20, total_inodes: 0, active_replicas: 1, reserves: true };
        Marks::new(&MarkSettings::default(), shape).unwrap()
    }

    #[test]
    fn a_drill_reaches_its_level_and_no_worse_one() {
        let mib = |bytes: Option<u64>| bytes.map(|bytes| bytes >> 20);
        assert_eq!(mib(drill_bytes(&marks(), DiskLevel::Reclaim)), Some(125));
        assert_eq!(mib(drill_bytes(&marks(), DiskLevel::Throttle)), Some(75));
        assert_eq!(mib(drill_bytes(&marks(), DiskLevel::ReadOnly)), Some(25));
        assert_eq!(drill_bytes(&marks(), DiskLevel::Normal), None);
        assert_eq!(drill_bytes(&marks(), DiskLevel::Failed), None);
    }

    #[test]
    fn a_share_of_the_mark_is_never_lent() {
        assert_eq!(borrowable(&marks()) >> 20, 40);
        let lowered = marks().lowered(40 << 20);
        assert_eq!(lowered.bytes(DiskLevel::ReadOnly).enter >> 20, 10);
        assert_eq!(lowered.bytes(DiskLevel::ReadOnly).exit >> 20, 60);
        assert_eq!(lowered.bytes(DiskLevel::Throttle), marks().bytes(DiskLevel::Throttle));
        let too_much = marks().lowered(u64::MAX);
        assert_eq!(too_much.bytes(DiskLevel::ReadOnly).enter >> 20, 10);
    }

    #[test]
    fn what_is_over_ends() {
        let until = Duration::from_secs(5);
        let mut operator = Operator {
            borrowed: Some(Borrowed { bytes: 1, until }),
            drill: Some(Drill { free_bytes: 1, until }),
        };
        assert!(!operator.expire(Duration::from_secs(4)));
        assert!(operator.borrowed.is_some() && operator.drill.is_some());
        assert!(operator.expire(until));
        assert_eq!(operator, Operator::default());
        assert!(!operator.expire(until));
    }
}
