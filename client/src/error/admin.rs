//! Why an administrative call failed.

use std::time::Duration;

use plimsoll_proto::v1;

use super::controllers::listed;
use super::{ControllerAttempt, LastCause, told};
use crate::refusal::{Outcome, Refusal};
use crate::retry::{PAUSE, RetryAdvice, Space};

/// Why a call of [`Admin`](crate::Admin) failed.
///
/// ```
/// use plimsoll_client::{AdminError, ErrorDetail, Outcome, Reason, Refusal, RetryAdvice};
///
/// let detail = ErrorDetail::not_written(Reason::TopicExists, "there is a topic flights");
/// let error = AdminError::Refused(Refusal::new(detail));
/// assert_eq!(error.reason(), Some(Reason::TopicExists));
/// assert_eq!(error.outcome(), Outcome::NotWritten);
/// assert_eq!(error.retry_advice(), RetryAdvice::Never);
/// ```
#[derive(Clone, Debug, thiserror::Error)]
pub enum AdminError {
    /// The controllers refused.
    #[error("{0}")]
    Refused(Refusal),
    /// No controller answered.
    #[error("no leading controller answered: {}", listed(attempts))]
    NoController {
        /// Whether the call had an effect.
        outcome: Outcome,
        /// Each controller that was asked, and why it was of no use.
        attempts: Vec<ControllerAttempt>,
    },
    /// The deadline passed; controllers have answered before.
    #[error("timed out after {} ms ({outcome}){}", waited.as_millis(), told(last.as_ref()))]
    TimedOut {
        /// How long was waited.
        waited: Duration,
        /// Whether the call had an effect.
        outcome: Outcome,
        /// What stood in the way last.
        last: Option<LastCause>,
    },
    /// A controller answered something that is not of the protocol.
    #[error("malformed answer: {0}")]
    Malformed(String),
}

impl AdminError {
    /// The reason a server gave, if one did.
    pub fn reason(&self) -> Option<v1::Reason> {
        self.refusal().map(Refusal::reason)
    }

    /// What a server said, if one did.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::TimedOut { last, .. } => last.as_ref().and_then(LastCause::refusal),
            Self::NoController { attempts, .. } => attempts.iter().find_map(|a| a.failure.refusal()),
            Self::Malformed(_) => None,
        }
    }

    /// Whether the call had an effect.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(refusal) => refusal.outcome(),
            Self::NoController { outcome, .. } | Self::TimedOut { outcome, .. } => *outcome,
            Self::Malformed(_) => Outcome::Unknown,
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
            Self::TimedOut { last: Some(last), .. } => last.retry_advice(),
            Self::NoController { .. } | Self::TimedOut { last: None, .. } => RetryAdvice::SameAfter(PAUSE),
            Self::Malformed(_) => RetryAdvice::Never,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.retry_advice().is_retryable()
    }
}
