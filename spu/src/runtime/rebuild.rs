//! A failed volume comes back by itself: once the cluster has committed that it failed, and its device takes writes
//! again. What its replicas are then is what a start of the node would make of them, and the node registers anew, so
//! that they are led in new epochs and trusted only when they have caught up.

use std::time::Duration;

use plimsoll_proto::ids::{Incarnation, PartitionId};
use plimsoll_proto::v1;
use plimsoll_storage::volume::{OpenReport, RebuildError};

use super::job::ControlRequest;
use super::worker::Worker;

/// Between two tries of a device that fails still: each is a small synced write.
const TRY_PAUSE: Duration = Duration::from_secs(2);
/// Before the first try after a failure: twice as long as the last time when the volume had come back only to fail again,
/// since each time it comes back costs new leader epochs. Also after a directory that did not open.
const HOLD_MIN: Duration = Duration::from_secs(2);
const HOLD_MAX: Duration = Duration::from_secs(300);
/// A volume that worked this long begins with the shortest hold again.
const WELL_AFTER: Duration = Duration::from_secs(600);
/// How often an unanswered wish to be registered anew is repeated.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// When a failed volume is tried, and what it waits for when it is back. Pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rebuilding {
    /// Before the first try of this failure, or of the last one.
    hold: Option<Duration>,
    due_at: Option<Duration>,
    rebuilt_at: Option<Duration>,
    /// The registration that the volume failed under: nothing here leads or follows by it any more.
    spent: Option<Incarnation>,
    asked_at: Option<Duration>,
}

impl Rebuilding {
    /// Whether to try now; the first call for a failure begins its hold.
    fn is_due(&mut self, now: Duration) -> bool {
        let Some(due_at) = self.due_at else {
            if self.rebuilt_at.is_some_and(|at| now.saturating_sub(at) >= WELL_AFTER) {
                self.hold = None;
            }
            self.hold_longer(now);
            return false;
        };
        let due = now >= due_at;
        if due {
            self.due_at = Some(now + TRY_PAUSE);
        }
        due
    }

    fn hold_longer(&mut self, now: Duration) {
        let hold = self.hold.map_or(HOLD_MIN, |hold| (hold * 2).min(HOLD_MAX));
        self.hold = Some(hold);
        self.due_at = Some(now + hold);
    }

    fn rebuilt(&mut self, under: Incarnation, now: Duration) {
        self.due_at = None;
        self.rebuilt_at = Some(now);
        self.spent = Some(under);
        self.asked_at = None;
    }

    /// Whether the node runs under the registration still that the volume failed under.
    pub(super) fn awaits_registration(&self, current: Option<Incarnation>) -> bool {
        self.spent.is_some() && self.spent == current
    }

    /// Whether to ask for a registration now.
    fn asks(&mut self, current: Option<Incarnation>, now: Duration) -> bool {
        let due = self.asked_at.is_none_or(|at| now.saturating_sub(at) >= ASK_AGAIN);
        let asks = self.awaits_registration(current) && due;
        if asks {
            self.asked_at = Some(now);
        }
        asks
    }
}

impl Worker {
    /// Tries to bring a failed volume back, and asks for the registration that it then needs.
    pub(super) fn rebuild_failed(&mut self, now: Duration) {
        let Some(incarnation) = self.shared.incarnation() else { return };
        // Before the cluster has committed it, somebody may count on these replicas.
        let committed = self.shared.image().volume_state(self.shared.spu, self.place.volume);
        if self.failed && committed == v1::VolumeState::Failed && self.rebuilding.is_due(now) {
            let why = self.place.failed(&self.volume.facts());
            let wall_ms = self.cluster_ms();
            match self.volume.rebuild(now, wall_ms) {
                Ok(found) => self.begin_again(&found, &why, incarnation, now),
                Err(error) => {
                    // Opening reads the whole directory.
                    if matches!(error, RebuildError::Open(_)) {
                        self.rebuilding.hold_longer(now);
                    }
                    self.report(self.place.path.clone(), "stays failed", &error.to_string());
                }
            }
        }
        if self.rebuilding.asks(Some(incarnation), now) {
            // A full queue is asked again.
            drop(self.control.try_send(ControlRequest::RegisterAgain(incarnation)));
        }
    }

    /// As after a start: replicas without a role, none of which is known to hold what it acknowledged.
    fn begin_again(
        &mut self,
        found: &OpenReport,
        why: &v1::ErrorDetail,
        incarnation: Incarnation,
        now: Duration,
    ) {
        let former: Vec<PartitionId> = self.replicas.keys().copied().collect();
        for partition in former {
            self.step_down(&partition, why);
        }
        self.replicas.clear();
        self.dirty.clear();
        let partitions = self.volume.partitions();
        self.adopt(&partitions);
        self.cache_lost = partitions.into_iter().filter(|_| found.loss_untold).collect();
        self.failed = false;
        self.check_failed();
        self.rebuilding.rebuilt(incarnation, now);
        tracing::info!(
            volume = %self.place.path, replicas = self.replicas.len(), torn_tails = found.cut.len(),
            damaged = found.damaged.len(), "failed volume rebuilt from what is durable"
        );
        // The registration tells what the replicas are now.
        (self.shown_at, self.reported_at) = (None, None);
        self.publish(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn a_device_is_tried_steadily_and_one_that_fails_again_is_held_for_longer() {
        let mut rebuilding = Rebuilding::default();
        let tries = |rebuilding: &mut Rebuilding, from: u64| -> Vec<u64> {
            (from..).filter(|at| rebuilding.is_due(s(*at))).take(3).collect()
        };
        assert_eq!(tries(&mut rebuilding, 0), [2, 4, 6]);
        let holds = [4, 8, 16, 32, 64, 128, 256, 300, 300];
        for (failed_at, hold) in (0u64..).map(|n| 100 + 400 * n).zip(holds) {
            rebuilding.rebuilt(Incarnation(1), s(failed_at - 1));
            let at = failed_at + hold;
            assert_eq!(tries(&mut rebuilding, failed_at), [at, at + 2, at + 4], "it failed again soon");
        }
        rebuilding.hold_longer(s(5000));
        assert_eq!(tries(&mut rebuilding, 5000), [5300, 5302, 5304], "its directory did not open");
        rebuilding.rebuilt(Incarnation(2), s(10_000));
        assert_eq!(tries(&mut rebuilding, 10_600), [10_602, 10_604, 10_606], "it had worked for long");
    }

    #[test]
    fn a_registration_is_asked_for_until_there_is_another_one() {
        let mut rebuilding = Rebuilding::default();
        let old = Some(Incarnation(7));
        assert!(!rebuilding.asks(old, s(1)));
        rebuilding.rebuilt(Incarnation(7), s(2));
        assert!(rebuilding.awaits_registration(old));
        assert!(rebuilding.asks(old, s(2)));
        assert!(!rebuilding.asks(old, s(3)));
        assert!(rebuilding.asks(old, s(4)));
        let new = Some(Incarnation(9));
        assert!(!rebuilding.awaits_registration(new) && !rebuilding.asks(new, s(9)));
        assert!(!Rebuilding::default().awaits_registration(None));
    }
}
