//! What stood in the way when a deadline passed.

use plimsoll_proto::ids::SpuId;
use plimsoll_proto::v1::ErrorDetail;

use super::ControllerAttempt;
use crate::metadata::why;
use crate::refusal::Refusal;
use crate::retry::{PAUSE, RetryAdvice};

/// What stood in the way of a record, or of a call, when its deadline passed.
///
/// ```
/// use plimsoll_client::{ErrorDetail, LastCause, Reason, Refusal};
///
/// let full = Refusal::new(ErrorDetail::not_written(Reason::DiskFull, "no room"));
/// assert_eq!(LastCause::Refused(full.clone()).refusal(), Some(&full));
/// assert_eq!(LastCause::NoLeader.to_string(), "the partition has no leader");
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LastCause {
    /// A server refused.
    #[error("last answer: {0}")]
    Refused(Refusal),
    /// The metadata name no leader of the partition.
    #[error("the partition has no leader")]
    NoLeader,
    /// There was no connection to the leader.
    #[error("no connection to spu {spu}: {why}")]
    ConnectionLost {
        /// The storage node.
        spu: SpuId,
        /// What the transport said.
        why: String,
    },
    /// The leader has not answered.
    #[error("spu {spu} has not answered")]
    Unanswered {
        /// The storage node.
        spu: SpuId,
    },
    /// There was no answer of the controller that was asked last.
    #[error("controller {0}")]
    Controller(ControllerAttempt),
    /// No controller gave a producer id.
    #[error("no controller gives a producer id")]
    NoProducerId,
}

impl LastCause {
    /// What a server said, if one did.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Controller(attempt) => attempt.failure.refusal(),
            Self::NoLeader | Self::ConnectionLost { .. } | Self::Unanswered { .. } | Self::NoProducerId => {
                None
            }
        }
    }

    /// What became of a call to this node that failed.
    pub(crate) fn of_status(spu: SpuId, status: &tonic::Status) -> Self {
        match ErrorDetail::from_status(status) {
            Some(detail) => Self::Refused(Refusal::new(detail)),
            None => Self::ConnectionLost { spu, why: why(status) },
        }
    }

    pub(crate) fn retry_advice(&self) -> RetryAdvice {
        match self {
            Self::Refused(refusal) => refusal.retry_advice().after_deadline(),
            Self::NoLeader | Self::ConnectionLost { .. } | Self::Unanswered { .. } | Self::Controller(_) => {
                RetryAdvice::ElsewhereAfter(PAUSE)
            }
            Self::NoProducerId => RetryAdvice::SameAfter(PAUSE),
        }
    }
}

impl From<Refusal> for LastCause {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// As the end of a sentence.
pub(crate) fn told(last: Option<&LastCause>) -> String {
    match last {
        None => String::new(),
        Some(refused @ LastCause::Refused(_)) => format!("; {refused}"),
        Some(other) => format!("; last: {other}"),
    }
}
