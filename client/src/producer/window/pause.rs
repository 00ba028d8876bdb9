//! When to send again.

use std::time::Duration;

use plimsoll_proto::v1::Reason;

use super::Window;
use super::parts::{Cause, Command, EntryState, Phase, Route};

/// Spread of the producers that news of a disk wake all at once.
pub(super) const DISK_NEWS_JITTER: Duration = Duration::from_millis(500);
/// Spread of those that news of a leader wake.
pub(super) const LEADER_NEWS_JITTER: Duration = Duration::from_millis(50);
/// What a producer waits for room when no news come; servers say the same in `retry_after` of DISK_FULL.
pub(crate) const NO_ROOM_PAUSE: Duration = Duration::from_secs(5);
/// Tries with short pauses before that one, while the metadata have not heard of the full disk.
const NO_ROOM_QUICK_TRIES: u32 = 4;
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(50);
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(1);

impl Window {
    pub(super) fn forget_answers(&mut self, maybe_written: bool) {
        for entry in self.queue.iter_mut().filter(|entry| entry.state != EntryState::Ready) {
            entry.state = EntryState::Ready;
            entry.maybe_written |= maybe_written;
        }
    }

    pub(super) fn backoff_pause(&mut self) -> Duration {
        self.backoff.next_pause()
    }

    /// Lets one batch find out whether a leader takes any: the cause of a failure may concern the leader that follows, which
    /// would refuse a whole window at once. Whose turn it is does not matter here.
    pub(super) fn try_alone(&mut self) {
        if !self.probing {
            self.probing = true;
            self.called = true;
        }
    }

    /// How long to wait for room. The metadata tell when there is some, so there is little reason to ask; as long as
    /// they have not told of its lack either, a leader elsewhere may be about to be named.
    pub(super) fn no_room_pause(&mut self, reason: Reason) -> Duration {
        self.no_room = self.no_room.saturating_add(1);
        let told = match &self.route {
            Route::Leader(target) => match reason {
                Reason::DiskFull => !target.writable,
                _ => !target.enough,
            },
            Route::NoLeader | Route::Gone => false,
        };
        if told || self.no_room > NO_ROOM_QUICK_TRIES { NO_ROOM_PAUSE } else { self.backoff_pause() }
    }

    /// Answer to [`Command::AskTurn`]: whether it is this producer's turn.
    pub(crate) fn turn(&mut self, granted: bool, now: Duration, out: &mut Vec<Command>) {
        if matches!(self.phase, Phase::Asking) {
            self.phase = if granted {
                Phase::Sending
            } else {
                Phase::Waiting { until: now.saturating_add(NO_ROOM_PAUSE), cause: Cause::Disk }
            };
        }
        self.pump(now, out);
    }

    /// Another producer's batch got through.
    pub(crate) fn opened(&mut self, now: Duration, out: &mut Vec<Command>) {
        if self.probing {
            self.wake(Cause::Disk, now);
        }
        self.pump(now, out);
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
            self.called = true;
            self.no_room = 0;
        }
        // Nothing is left here that could try it.
        self.probing &= !self.queue.is_empty();
        if news == Cause::Leader {
            // What was refused for lack of room meets the new leader with one batch: its disk may be full as well.
            self.called = true;
            self.backoff.reset();
        }
    }
}
