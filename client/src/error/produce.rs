//! Why a record was not acknowledged.

use std::time::Duration;

use plimsoll_proto::v1;

use super::{AdminError, LastCause, told};
use crate::record::Record;
use crate::refusal::{Outcome, Refusal};
use crate::retry::{PAUSE, RetryAdvice, Space};

/// Why a record was not acknowledged. The record is given back where it is still at hand.
///
/// ```no_run
/// use plimsoll_client::{Outcome, ProduceError, Producer, Record, RetryAdvice};
///
/// # async fn example(producer: Producer) {
/// async fn deliver(producer: &Producer, record: Record) -> Result<(), ProduceError> {
///     producer.send(record).await?.await.map(drop)
/// }
/// if let Err(error) = deliver(&producer, Record::new("on time")).await {
///     if let Some(space) = error.space() {
///         eprintln!("{} of {} bytes free", space.free_bytes, space.capacity_bytes);
///     }
///     match (error.outcome(), error.retry_advice()) {
///         // It may be there already: sending it again may write it twice.
///         (Outcome::Unknown, _) => eprintln!("{error}"),
///         (Outcome::NotWritten, RetryAdvice::Never) => eprintln!("lost: {error}"),
///         (Outcome::NotWritten, advice) => eprintln!("later ({advice}): {:?}", error.into_record()),
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}")]
pub struct ProduceError {
    /// What happened.
    pub kind: ProduceErrorKind,
    record: Option<Box<Record>>,
}

/// Why a record was not acknowledged.
///
/// ```
/// use std::time::Duration;
/// use plimsoll_client::{LastCause, Outcome, ProduceErrorKind, SpuId};
///
/// let last = LastCause::ConnectionLost { spu: SpuId(2), why: "nothing listens there".to_owned() };
/// let waited = Duration::from_secs(120);
/// let kind = ProduceErrorKind::DeadlineExceeded { waited, outcome: Outcome::NotWritten, last: Some(last) };
/// let text = "not acknowledged within 120000 ms (NOT_WRITTEN); last: no connection to spu 2: nothing listens there";
/// assert_eq!(kind.to_string(), text);
/// ```
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProduceErrorKind {
    /// The server refused and a retry can't help, or [`OnFull::Fail`](crate::OnFull::Fail) asked not to.
    #[error("{0}")]
    Refused(Refusal),
    /// The delivery deadline passed first.
    #[error("not acknowledged within {} ms ({outcome}){}", waited.as_millis(), told(last.as_ref()))]
    DeadlineExceeded {
        /// The delivery deadline.
        waited: Duration,
        /// Whether the record may have been written.
        outcome: Outcome,
        /// What stood in the way last: why it took so long. Absent when the record only waited for others.
        last: Option<LastCause>,
    },
    /// The connection broke with the batch under way, and without idempotence it can't be sent again.
    #[error("the connection to spu {spu} broke while the batch was under way (UNKNOWN): {why}")]
    ConnectionLost {
        /// The storage node.
        spu: u32,
        /// What the transport said.
        why: String,
    },
    /// Larger than a batch may be; never sent.
    #[error(
        "RECORD_TOO_LARGE (NOT_WRITTEN): the record takes {bytes} bytes, a batch of this topic may have {limit}"
    )]
    RecordTooLarge {
        /// Size in bytes when encoded.
        bytes: usize,
        /// The limit of the topic.
        limit: usize,
    },
    /// The record can't be sent as it is; never sent.
    #[error("{0}")]
    Invalid(String),
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
    /// The producer was closed; never sent.
    #[error("the producer is closed")]
    Closed,
    /// The controllers gave no producer id, without which nothing is sent.
    #[error("no producer id, so nothing was sent: {0}")]
    Admin(AdminError),
}

impl ProduceError {
    pub(crate) fn new(kind: ProduceErrorKind) -> Self {
        Self { kind, record: None }
    }

    pub(crate) fn with_record(kind: ProduceErrorKind, record: Record) -> Self {
        Self { kind, record: Some(Box::new(record)) }
    }

    /// The record that was not acknowledged, when it is still at hand.
    pub fn into_record(self) -> Option<Record> {
        self.record.map(|record| *record)
    }

    /// What the server said last, if anything: for a passed deadline, why it took so long.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.kind {
            ProduceErrorKind::Refused(refusal) => Some(refusal),
            ProduceErrorKind::DeadlineExceeded { last, .. } => last.as_ref().and_then(LastCause::refusal),
            ProduceErrorKind::Admin(error) => error.refusal(),
            ProduceErrorKind::ConnectionLost { .. }
            | ProduceErrorKind::RecordTooLarge { .. }
            | ProduceErrorKind::Invalid(_)
            | ProduceErrorKind::UnknownTopic(_)
            | ProduceErrorKind::UnknownPartition { .. }
            | ProduceErrorKind::Closed => None,
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

    /// Which disk is full, when that is why.
    pub fn disk(&self) -> Option<&v1::DiskDetail> {
        self.refusal().and_then(Refusal::disk)
    }

    /// The longest time worth waiting before a retry.
    pub fn retry_after(&self) -> Option<Duration> {
        self.refusal().and_then(Refusal::retry_after)
    }

    /// Whether the record may have been written.
    pub fn outcome(&self) -> Outcome {
        match &self.kind {
            ProduceErrorKind::Refused(refusal) => refusal.outcome(),
            ProduceErrorKind::DeadlineExceeded { outcome, .. } => *outcome,
            ProduceErrorKind::ConnectionLost { .. } => Outcome::Unknown,
            ProduceErrorKind::RecordTooLarge { .. }
            | ProduceErrorKind::Invalid(_)
            | ProduceErrorKind::UnknownTopic(_)
            | ProduceErrorKind::UnknownPartition { .. }
            | ProduceErrorKind::Closed
            | ProduceErrorKind::Admin(_) => Outcome::NotWritten,
        }
    }

    /// What helps. With [`Outcome::Unknown`] sending the record again may write it twice.
    pub fn retry_advice(&self) -> RetryAdvice {
        match &self.kind {
            ProduceErrorKind::Refused(refusal) => refusal.retry_advice(),
            ProduceErrorKind::DeadlineExceeded { last, .. } => {
                last.as_ref().map_or(RetryAdvice::SameAfter(PAUSE), LastCause::retry_advice)
            }
            ProduceErrorKind::ConnectionLost { .. } => RetryAdvice::ElsewhereAfter(PAUSE),
            ProduceErrorKind::Admin(error) => error.retry_advice(),
            ProduceErrorKind::RecordTooLarge { .. }
            | ProduceErrorKind::Invalid(_)
            | ProduceErrorKind::UnknownTopic(_)
            | ProduceErrorKind::UnknownPartition { .. }
            | ProduceErrorKind::Closed => RetryAdvice::Never,
        }
    }

    /// Whether sending the record again may succeed. With [`Outcome::Unknown`] that may duplicate it.
    pub fn is_retryable(&self) -> bool {
        self.retry_advice().is_retryable()
    }
}
