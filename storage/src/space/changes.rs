//! The budget of level changes that keeps a volume from flapping.
//!
//! Worsening is always immediate, so improvements pay for it in advance: one is allowed only while it and
//! every worsening that may follow it still fit into [`CHANGES_MAX`] in [`WINDOW`]. Improvements that do not
//! end in a recovery leave [`KEPT_FOR_RECOVERY`] changes untouched, which is what two recoveries from ReadOnly
//! need at most (one change up and up to three down, twice).

use std::collections::VecDeque;
use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;

/// The time over which changes are counted.
pub const WINDOW: Duration = Duration::from_secs(600);
/// Level changes in any [`WINDOW`], whatever the input.
pub const CHANGES_MAX: usize = 20;
/// Of these, kept back for the two recoveries that are immediate.
pub const KEPT_FOR_RECOVERY: usize = 8;
/// Recoveries in any [`WINDOW`] that are not held.
pub const RECOVERIES_FREE: usize = 2;
/// The first hold; each further one is twice as long.
pub const HOLD_FIRST: Duration = Duration::from_secs(10);
/// The longest hold.
pub const HOLD_MAX: Duration = Duration::from_secs(300);

/// Changes and recoveries of the last [`WINDOW`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeBudget {
    changes: VecDeque<Duration>,
    recoveries: VecDeque<Duration>,
    held: u32,
}

impl ChangeBudget {
    fn forget_old(&mut self, now: Duration) {
        for times in [&mut self.changes, &mut self.recoveries] {
            while times.front().is_some_and(|at| at.saturating_add(WINDOW) <= now) {
                times.pop_front();
            }
        }
        if self.recoveries.len() < RECOVERIES_FREE {
            self.held = 0;
        }
    }

    /// Counts a change of level.
    pub fn record_change(&mut self, now: Duration) {
        self.forget_old(now);
        self.changes.push_back(now);
        debug_assert!(self.changes.len() <= CHANGES_MAX, "more changes than the budget allows");
    }

    /// Counts a recovery from ReadOnly, besides its change of level.
    pub fn record_recovery(&mut self, now: Duration) {
        self.forget_old(now);
        if self.recoveries.len() >= RECOVERIES_FREE {
            self.held = self.held.saturating_add(1);
        }
        self.recoveries.push_back(now);
    }

    /// When an improvement to `to` is allowed: `now`, or when enough old changes are forgotten.
    pub fn improvement_at(&mut self, to: DiskLevel, now: Duration) -> Duration {
        self.allowed_at(to, CHANGES_MAX - KEPT_FOR_RECOVERY, now)
    }

    /// When a recovery from ReadOnly that finds room at `now` may happen.
    pub fn recovery_at(&mut self, now: Duration) -> Duration {
        let allowed = self.allowed_at(DiskLevel::Normal, CHANGES_MAX, now);
        if self.recoveries.len() < RECOVERIES_FREE {
            return allowed;
        }
        let hold = HOLD_FIRST.saturating_mul(1 << self.held.min(10)).min(HOLD_MAX);
        allowed.max(now.saturating_add(hold))
    }

    fn allowed_at(&mut self, to: DiskLevel, limit: usize, now: Duration) -> Duration {
        self.forget_old(now);
        let before_max = limit - 1 - worsenings_below(to);
        match self.changes.len().checked_sub(before_max + 1) {
            None => now,
            Some(last_to_forget) => {
                self.changes.get(last_to_forget).map_or(now, |at| at.saturating_add(WINDOW))
            }
        }
    }
}

/// How many times a volume can get worse, starting there.
const fn worsenings_below(level: DiskLevel) -> usize {
    match level {
        DiskLevel::Normal => 4,
        DiskLevel::Reclaim => 3,
        DiskLevel::Throttle => 2,
        DiskLevel::ReadOnly => 1,
        DiskLevel::Failed => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn two_recoveries_are_free_then_holds_double_to_their_maximum() {
        let mut budget = ChangeBudget::default();
        let mut now = s(1000);
        let mut holds = Vec::new();
        for _ in 0..9 {
            let at = budget.recovery_at(now);
            holds.push((at - now).as_secs());
            now = at;
            budget.record_recovery(now);
        }
        assert_eq!(holds, [0, 0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(budget.recovery_at(now + WINDOW), now + WINDOW, "forgotten after a quiet window");
    }

    #[test]
    fn the_window_is_exact() {
        let mut budget = ChangeBudget::default();
        budget.record_recovery(s(0));
        budget.record_recovery(s(100));
        assert_eq!(budget.recovery_at(s(599)), s(609));
        assert_eq!(budget.recovery_at(s(600)), s(600));
    }

    #[test]
    fn improvements_leave_room_for_two_recoveries() {
        let mut budget = ChangeBudget::default();
        for n in 0..7 {
            assert_eq!(budget.improvement_at(DiskLevel::Normal, s(n)), s(n));
            budget.record_change(s(n));
        }
        assert_eq!(budget.improvement_at(DiskLevel::Normal, s(7)), s(7));
        budget.record_change(s(7));
        assert_eq!(budget.improvement_at(DiskLevel::Normal, s(8)), s(600));
        assert_eq!(budget.recovery_at(s(8)), s(8));
    }
}
