//! Why something of a group failed.

use std::time::Duration;

use plimsoll_proto::v1;

use crate::error::{AdminError, ConsumeError, LastCause, told};
use crate::refusal::{Outcome, Refusal};

/// Why a call about a consumer group failed, or a member of one ended.
///
/// ```
/// use std::time::Duration;
/// use plimsoll_client::{GroupError, Outcome};
///
/// let error = GroupError::TimedOut { waited: Duration::from_secs(30), outcome: Outcome::Unknown, last: None };
/// assert_eq!(error.to_string(), "the group's coordinator did not answer within 30000 ms (UNKNOWN)");
/// assert!(error.is_retryable());
/// ```
#[derive(Clone, Debug, thiserror::Error)]
pub enum GroupError {
    /// The coordinator refused and a retry can't help: `OFFSETS_FULL` when there is no room for another key,
    /// `GROUP_ACTIVE` when the group has members, `UNKNOWN_GROUP`, `INVALID_ARGUMENT`.
    #[error("{0}")]
    Refused(Refusal),
    /// The partition was given to another member meanwhile: its offset was not committed, and its records since the
    /// last commit are read again there.
    #[error("partitions of the commit belong to another member by now: {0}")]
    Lost(Refusal),
    /// No coordinator answered in time.
    #[error(
        "the group's coordinator did not answer within {} ms ({outcome}){}",
        waited.as_millis(),
        told(last.as_ref())
    )]
    TimedOut {
        /// How long was waited.
        waited: Duration,
        /// Whether it may have had an effect.
        outcome: Outcome,
        /// What stood in the way last.
        last: Option<LastCause>,
    },
    /// A topic could not be read.
    #[error("topic {topic}: {error}")]
    Consume {
        /// Which.
        topic: String,
        /// Why.
        error: ConsumeError,
    },
    /// The internal topic could not be created.
    #[error("{0}")]
    Admin(AdminError),
}

impl GroupError {
    /// What a server said, if one did.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) | Self::Lost(refusal) => Some(refusal),
            Self::TimedOut { last, .. } => last.as_ref().and_then(LastCause::refusal),
            Self::Consume { error, .. } => error.refusal(),
            Self::Admin(error) => error.refusal(),
        }
    }

    /// The reason a server gave, if one did.
    pub fn reason(&self) -> Option<v1::Reason> {
        self.refusal().map(Refusal::reason)
    }

    /// Whether it had an effect.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(refusal) | Self::Lost(refusal) => refusal.outcome(),
            Self::TimedOut { outcome, .. } => *outcome,
            Self::Consume { .. } => Outcome::NotWritten,
            Self::Admin(error) => error.outcome(),
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.retry_advice().is_retryable(),
            Self::Lost(_) => false,
            Self::TimedOut { .. } => true,
            Self::Consume { error, .. } => error.retry_advice().is_retryable(),
            Self::Admin(error) => error.retry_advice().is_retryable(),
        }
    }
}
