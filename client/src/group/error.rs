//! Why something of a group failed.

use std::time::Duration;

use plimsoll_proto::v1;

use crate::error::{AdminError, ConsumeError, LastCause, told};
use crate::refusal::{Outcome, Refusal};
use crate::retry::{PAUSE, RetryAdvice, Space};

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

    /// The three numbers of a full disk, when that is why.
    pub fn space(&self) -> Option<Space> {
        self.refusal().and_then(Refusal::space)
    }

    /// What helps. With [`Outcome::Unknown`] the call may have had its effect already.
    pub fn retry_advice(&self) -> RetryAdvice {
        match self {
            Self::Refused(refusal) => refusal.retry_advice(),
            Self::Lost(_) => RetryAdvice::Never,
            Self::TimedOut { last, .. } => {
                last.as_ref().map_or(RetryAdvice::SameAfter(PAUSE), LastCause::retry_advice)
            }
            Self::Consume { error, .. } => error.retry_advice(),
            Self::Admin(error) => error.retry_advice(),
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.retry_advice().is_retryable()
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::ids::SpuId;
    use plimsoll_proto::v1::{DiskDetail, ErrorDetail, Reason};

    use super::*;

    #[test]
    fn it_tells_the_space_and_what_helps() {
        let disk = DiskDetail { free_bytes: 5, needed_bytes: 70, capacity_bytes: 1000, ..Default::default() };
        let full = Refusal::new(ErrorDetail::not_written(Reason::DiskFull, "no room").on_disk(disk));
        let deadline =
            |last| GroupError::TimedOut { waited: Duration::ZERO, outcome: Outcome::NotWritten, last };
        let elsewhere = RetryAdvice::ElsewhereAfter(PAUSE);
        for (error, space, advice) in [
            (GroupError::Refused(full.clone()), full.space(), elsewhere),
            (GroupError::Lost(full.clone()), full.space(), RetryAdvice::Never),
            (deadline(Some(LastCause::Refused(full.clone()))), full.space(), elsewhere),
            (deadline(Some(LastCause::Unanswered { spu: SpuId(1) })), None, elsewhere),
            (deadline(None), None, RetryAdvice::SameAfter(PAUSE)),
            (GroupError::Admin(AdminError::Refused(full.clone())), full.space(), elsewhere),
            (GroupError::Admin(AdminError::Malformed(String::new())), None, RetryAdvice::Never),
        ] {
            assert_eq!((error.space(), error.retry_advice()), (space, advice), "{error:?}");
            assert_eq!(error.is_retryable(), advice != RetryAdvice::Never);
        }
        assert_eq!(full.space().map(|space| space.needed_bytes), Some(70));
    }
}
