//! A failed volume comes back by itself: once the cluster has committed that it failed, and its device takes writes
//! again. What its replicas are then is what a start of the node would make of them, and the node registers anew, so
//! that they are led in new epochs and trusted only when they have caught up.

use std::time::Duration;

use plimsoll_proto::ids::{Incarnation, PartitionId};
use plimsoll_proto::v1;
use plimsoll_storage::volume::OpenReport;

use super::job::ControlRequest;
use super::worker::Worker;

/// Pause before the first try; each next one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// A volume that held this long starts with the first pause again.
const WELL_AFTER: Duration = Duration::from_secs(600);
/// How often an unanswered wish to be registered anew is repeated.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// When a failed volume is tried, and what it waits for when it is back. Pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rebuilding {
    pause: Option<Duration>,
    due_at: Option<Duration>,
    rebuilt_at: Option<Duration>,
    /// The registration that the volume failed under: nothing here leads or follows by it any more.
    spent: Option<Incarnation>,
    asked_at: Option<Duration>,
}

impl Rebuilding {
    /// Whether to try now; the first call for a failure begins its pause.
    fn is_due(&mut self, now: Duration) -> bool {
        let Some(due_at) = self.due_at else {
            if self.rebuilt_at.is_some_and(|at| now.saturating_sub(at) >= WELL_AFTER) {
                self.pause = None;
            }
            self.wait(now);
            return false;
        };
        if now < due_at {
            return false;
        }
        self.wait(now);
        true
    }

    fn wait(&mut self, now: Duration) {
        let pause = self.pause.map_or(PAUSE_FIRST, |pause| (pause * 2).min(PAUSE_MAX));
        self.pause = Some(pause);
        self.due_at = Some(now + pause);
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
                Err(error) => self.report(self.place.path.clone(), "stays failed", &error.to_string()),
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
    fn tries_come_at_doubling_pauses_until_the_volume_held() {
        let mut rebuilding = Rebuilding::default();
        let tries: Vec<u64> = (0..700).filter(|at| rebuilding.is_due(s(*at))).collect();
        assert_eq!(tries, [2, 6, 14, 30, 62, 126, 254, 510]);
        rebuilding.rebuilt(Incarnation(1), s(700));
        let soon: Vec<u64> = (710..1400).filter(|at| rebuilding.is_due(s(*at))).collect();
        assert_eq!(soon, [1010, 1310], "it failed again soon");
        rebuilding.rebuilt(Incarnation(2), s(1400));
        let late: Vec<u64> = (2000..2010).filter(|at| rebuilding.is_due(s(*at))).collect();
        assert_eq!(late, [2002, 2006], "it had held");
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
