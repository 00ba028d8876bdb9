//! Which groups are dead: without members, and without a commit for so long that nobody comes back for them. Pure.

use std::time::Duration;

use plimsoll_storage::offsets::GroupOffsets;

/// A clock that runs ahead of the time that passed by more than this was set.
const JUMP: Duration = Duration::from_secs(300);
/// Groups are looked at so many times within the time that they are kept.
const LOOKS: u32 = 10;
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Tells when to look, and what is too old then.
#[derive(Debug)]
pub(super) struct Expiry {
    keep: Duration,
    next: Duration,
    /// The last look: when, and what cluster time it was.
    looked: Option<(Duration, u64)>,
    /// By how much cluster time was set forward since the first look. It makes no group older.
    jumped_ms: u64,
}

impl Expiry {
    /// Offsets of dead groups are kept for `keep`; the first look is due a while after `now`.
    pub(super) fn new(keep: Duration, now: Duration) -> Self {
        Self { keep, next: now.saturating_add(pause(keep)), looked: None, jumped_ms: 0 }
    }

    /// What is older is dead, in milliseconds since 1970; `None` when it is not time for a look.
    pub(super) fn look(&mut self, now: Duration, cluster_ms: u64) -> Option<u64> {
        if now < self.next {
            return None;
        }
        self.next = now.saturating_add(pause(self.keep));
        if let Some((at, ms)) = self.looked.replace((now, cluster_ms)) {
            let ahead = cluster_ms.saturating_sub(ms).saturating_sub(millis(now.saturating_sub(at)));
            if ahead > millis(JUMP) {
                self.jumped_ms = self.jumped_ms.saturating_add(ahead);
            }
        }
        Some(cluster_ms.saturating_sub(self.jumped_ms).saturating_sub(millis(self.keep)))
    }
}

fn pause(keep: Duration) -> Duration {
    (keep / LOOKS).min(PAUSE_MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Whether nothing has happened to a group since `before_ms`, as far as it was written down.
pub(super) fn is_dead(kept: &GroupOffsets, before_ms: u64) -> bool {
    let committed = kept.offsets.values().map(|value| value.committed_ms);
    let changed = kept.group.map(|group| group.changed_ms);
    let newest = committed.chain(changed).max().unwrap_or(0);
    !kept.group.is_some_and(|group| group.has_members) && newest < before_ms
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId, TopicId};
    use plimsoll_storage::offsets::{GroupValue, OffsetValue};

    use super::*;

    const DAY_MS: u64 = 24 * 3600 * 1000;

    fn days(days: u64) -> Duration {
        Duration::from_secs(days * 24 * 3600)
    }

    fn group(committed: &[u64], changed: Option<(u64, bool)>) -> GroupOffsets {
        let offset = |(index, committed_ms): (u32, &u64)| {
            let partition = PartitionId { topic_id: TopicId([1; 16]), index };
            let (offset, leader_epoch) = (Offset::ZERO, LeaderEpoch(0));
            (partition, OffsetValue { offset, leader_epoch, owner_epoch: 0, committed_ms: *committed_ms })
        };
        let group =
            changed.map(|(changed_ms, has_members)| GroupValue { has_members, changed_ms, session_ms: 0 });
        GroupOffsets { group, offsets: (0..).zip(committed).map(offset).collect() }
    }

    #[test]
    fn a_group_is_dead_when_all_of_it_is_old_and_it_has_no_members() {
        for (kept, dead) in [
            (group(&[10, 20], None), true),
            (group(&[10, 100], None), false),
            (group(&[10], Some((20, false))), true),
            (group(&[10], Some((100, false))), false),
            (group(&[10], Some((20, true))), false),
            (group(&[], Some((20, false))), true),
        ] {
            assert_eq!(is_dead(&kept, 100), dead, "{kept:?}");
        }
    }

    #[test]
    fn time_that_was_only_set_makes_nothing_old() {
        let start_ms = 20_000 * DAY_MS;
        let mut expiry = Expiry::new(days(7), Duration::ZERO);
        assert_eq!(expiry.look(Duration::ZERO, start_ms), None, "not yet");
        let hour = Duration::from_secs(3600);
        assert_eq!(expiry.look(hour, start_ms), Some(start_ms - 7 * DAY_MS));
        assert_eq!(expiry.look(hour, start_ms), None);
        // An hour passes, and the clock is set 30 days ahead.
        let hour_ms = 3_600_000;
        let jumped = start_ms + 30 * DAY_MS + hour_ms;
        assert_eq!(expiry.look(2 * hour, jumped), Some(start_ms + hour_ms - 7 * DAY_MS));
        assert_eq!(expiry.look(3 * hour, jumped + hour_ms), Some(start_ms + 2 * hour_ms - 7 * DAY_MS));
        // And back: what is old stays as old at most.
        let back = start_ms + 3 * hour_ms;
        assert!(expiry.look(4 * hour, back).is_some_and(|before| before <= back - 7 * DAY_MS));
    }

    #[test]
    fn short_times_are_looked_at_often_and_long_ones_every_hour() {
        assert_eq!(pause(Duration::from_secs(10)), Duration::from_secs(1));
        assert_eq!(pause(days(7)), Duration::from_secs(3600));
    }
}
