//! The one place that reads clocks and sleeps.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Monotonic and wall time of one process. Clones agree with each other.
///
/// It runs on tokio's clock, which a simulation pauses and moves by itself.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    wall: Wall,
}

#[derive(Clone, Copy, Debug)]
enum Wall {
    System,
    /// Milliseconds since 1970 at `start`; moves with the monotonic clock.
    Simulated(u64),
}

/// A deadline passed before the future was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed")]
pub struct Elapsed;

impl Clock {
    /// The operating system's clocks.
    pub fn real() -> Self {
        Self { start: instant(), wall: Wall::System }
    }

    /// A clock whose wall time starts at `wall_ms` and moves with the runtime's (paused) time.
    pub fn simulated(wall_ms: u64) -> Self {
        Self { start: instant(), wall: Wall::Simulated(wall_ms) }
    }

    /// Time since the clock was made; never goes back.
    pub fn now(&self) -> Duration {
        instant().saturating_duration_since(self.start)
    }

    /// Wall time in milliseconds since 1970; may jump. For people and record timestamps only.
    pub fn wall_ms(&self) -> u64 {
        match self.wall {
            Wall::System => system_ms(),
            Wall::Simulated(start_ms) => {
                start_ms.saturating_add(u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX))
            }
        }
    }

    /// Waits. Cancel safe.
    pub async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }

    /// Waits until [`Clock::now`] reaches `when`. Cancel safe.
    pub async fn sleep_until(&self, when: Duration) {
        match self.start.checked_add(when) {
            Some(instant) => tokio::time::sleep_until(instant).await,
            None => std::future::pending().await,
        }
    }

    /// Runs `future` for at most `limit`.
    ///
    /// # Errors
    /// [`Elapsed`]; the future is dropped.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(limit, future).await.map_err(|_| Elapsed)
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the seam")]
fn instant() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this is the seam")]
fn system_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
