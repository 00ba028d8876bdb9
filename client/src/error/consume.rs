//! Why a consumer ended.

use std::time::Duration;

use plimsoll_proto::ids::Offset;
use plimsoll_proto::v1;

use super::{LastCause, told};
use crate::refusal::{Outcome, Refusal};
use crate::retry::{PAUSE, RetryAdvice, Space};

/// Why a consumer ended.
///
/// ```
/// use plimsoll_client::{ConsumeError, Offset, RetryAdvice};
///
/// let log_start = Offset::new(500).expect("a small offset");
/// let error = ConsumeError::Trimmed { partition: 3, requested: Offset::ZERO, log_start };
/// assert_eq!(error.to_string(), "partition 3: offset 0 is not there, the log starts at 500");
/// assert_eq!(error.retry_advice(), RetryAdvice::Never);
/// ```
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The server refused and a retry can't help.
    #[error("partition {partition}: {refusal}")]
    Refused {
        /// The partition.
        partition: u32,
        /// What the server said.
        refusal: Refusal,
    },
    /// Records were trimmed before they were read, and [`OnTrimmed::Fail`](crate::OnTrimmed::Fail) asked
    /// to stop.
    #[error("partition {partition}: offset {requested} is not there, the log starts at {log_start}")]
    Trimmed {
        /// The partition.
        partition: u32,
        /// The offset that was to be read.
        requested: Offset,
        /// Where the log starts now.
        log_start: Offset,
    },
    /// A batch came damaged, from every replica that was asked.
    #[error("partition {partition}: damaged batch at offset {offset}: {why}")]
    Corrupt {
        /// The partition.
        partition: u32,
        /// Where the batch was expected.
        offset: Offset,
        /// What is wrong with it.
        why: String,
    },
    /// The topic does not exist, or no longer.
    #[error("there is no topic {0:?}")]
    UnknownTopic(String),
    /// The topic has no such partition.
    #[error("there is no partition {partition}, the topic has {partitions}")]
    UnknownPartition {
        /// As asked for.
        partition: u32,
        /// Partitions are 0 up to this one, exclusive.
        partitions: u32,
    },
    /// The ends of a partition could not be read in time.
    #[error("partition {partition}: no answer within {} ms{}", waited.as_millis(), told(last.as_ref()))]
    TimedOut {
        /// The partition.
        partition: u32,
        /// How long was waited.
        waited: Duration,
        /// What stood in the way last.
        last: Option<LastCause>,
    },
}

impl ConsumeError {
    /// What a server said, if one did.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            Self::TimedOut { last, .. } => last.as_ref().and_then(LastCause::refusal),
            Self::Trimmed { .. }
            | Self::Corrupt { .. }
            | Self::UnknownTopic(_)
            | Self::UnknownPartition { .. } => None,
        }
    }

    /// The reason a server gave, if one did.
    pub fn reason(&self) -> Option<v1::Reason> {
        self.refusal().map(Refusal::reason)
    }

    /// The three numbers of a full disk, when that is why.
    pub fn space(&self) -> Option<Space> {
        self.refusal().and_then(Refusal::space)
    }

    /// Reading changes nothing: always [`Outcome::NotWritten`].
    pub fn outcome(&self) -> Outcome {
        Outcome::NotWritten
    }

    /// What helps: a new consumer that starts where this one was.
    pub fn retry_advice(&self) -> RetryAdvice {
        match self {
            Self::Refused { refusal, .. } => refusal.retry_advice(),
            Self::TimedOut { last, .. } => {
                last.as_ref().map_or(RetryAdvice::SameAfter(PAUSE), LastCause::retry_advice)
            }
            Self::Trimmed { .. }
            | Self::Corrupt { .. }
            | Self::UnknownTopic(_)
            | Self::UnknownPartition { .. } => RetryAdvice::Never,
        }
    }

    /// Whether a new consumer may get further.
    pub fn is_retryable(&self) -> bool {
        self.retry_advice().is_retryable()
    }
}
