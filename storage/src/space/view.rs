//! What the rest of the node sees of a volume's level.

use std::time::Duration;

use plimsoll_proto::disk::{DiskCause, DiskLevel};

use super::level::{Facts, LevelCause};

/// What a producer is told to wait at most while the volume is ReadOnly without a hold.
const READ_ONLY_RETRY: Duration = Duration::from_secs(5);

/// A copy of what is known of a volume's level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelView {
    /// The level.
    pub level: DiskLevel,
    /// Why; `None` at Normal.
    pub cause: Option<LevelCause>,
    /// Since when.
    pub since: Duration,
    /// The last accepted sample.
    pub facts: Facts,
    /// Whether that sample is still trusted.
    pub known: bool,
    /// Size of the volume.
    pub capacity_bytes: u64,
    /// End of a hold against flapping.
    pub hold_until: Option<Duration>,
    /// How far between the exit of Throttle (0) and the mark of ReadOnly (1000).
    pub pressure_permille: u64,
    /// Free bytes at which a ReadOnly volume may recover.
    pub recovery_bytes: u64,
}

impl LevelView {
    /// The cause as an error carries it; `Bytes` where the level has another kind of reason.
    pub fn disk_cause(&self) -> DiskCause {
        match self.cause {
            Some(LevelCause::Disk(cause)) => cause,
            Some(LevelCause::FillingFast | LevelCause::Unknown | LevelCause::Failure(_)) | None => {
                self.facts.scarce
            }
        }
    }

    /// How long a refused producer should wait at most.
    pub fn retry_after(&self, now: Duration) -> Duration {
        match self.hold_until {
            Some(until) => until.saturating_sub(now).max(Duration::from_millis(1)),
            None => READ_ONLY_RETRY,
        }
    }
}
