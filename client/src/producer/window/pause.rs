//! When to send again.

use std::time::Duration;

use super::Window;
use super::parts::{Cause, EntryState, Phase};

/// Spread of the producers that news of a disk wake all at once.
pub(super) const DISK_NEWS_JITTER: Duration = Duration::from_millis(500);
/// Spread of those that news of a leader wake.
pub(super) const LEADER_NEWS_JITTER: Duration = Duration::from_millis(50);
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(50);
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(1);

impl Window {
    pub(super) fn forget_answers(&mut self) {
        for entry in self.queue.iter_mut().filter(|entry| entry.state != EntryState::Ready) {
            entry.state = EntryState::Ready;
            entry.maybe_written = true;
        }
    }

    pub(super) fn backoff_pause(&mut self) -> Duration {
        self.backoff.next_pause()
    }

    /// Stops sending until everything under way is answered and `pause` has passed. A pause never shortens
    /// one that is on.
    pub(super) fn pause(&mut self, pause: Duration, cause: Cause, now: Duration) {
        let until = now.saturating_add(pause);
        self.phase = match self.phase {
            Phase::Draining { until: other, cause: c } | Phase::Waiting { until: other, cause: c }
                if other >= until =>
            {
                Phase::Draining { until: other, cause: c }
            }
            Phase::Stopped(_) => return,
            _ => Phase::Draining { until, cause },
        };
    }

    /// News cut the pause short, with a spread so that not all producers come at once.
    pub(super) fn wake(&mut self, news: Cause, now: Duration) {
        let spread = |cause: Cause| match (news, cause) {
            (_, Cause::Disk) | (Cause::Disk, _) => DISK_NEWS_JITTER,
            (Cause::Leader, Cause::Leader) => LEADER_NEWS_JITTER,
        };
        if let Phase::Draining { until, cause } | Phase::Waiting { until, cause } = &mut self.phase {
            *until = (*until).min(now.saturating_add(self.random.jitter(spread(*cause))));
        }
        if news == Cause::Leader {
            self.probing = false;
            self.backoff.reset();
        }
    }
}
