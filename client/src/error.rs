//! Errors by operation. Kinds are few and say what the caller can do; the typed refusal of the server is
//! inside.

use std::time::Duration;

use plimsoll_proto::ids::Offset;
use plimsoll_proto::v1;

use crate::record::Record;
use crate::refusal::{Outcome, Refusal};

/// No controller could be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings can't work; nothing was dialled.
    #[error("{0}")]
    Settings(String),
    /// None of the controllers answered in time.
    #[error("no controller answered within {} ms: {}", waited.as_millis(), attempts.join("; "))]
    NoController {
        /// How long was waited.
        waited: Duration,
        /// Each controller and why it is of no use.
        attempts: Vec<String>,
    },
}

/// Why a call of [`Admin`](crate::Admin) failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AdminError {
    /// The controllers refused.
    #[error("{0}")]
    Refused(Refusal),
    /// No controller could be reached, or none leads.
    #[error("no leading controller answered: {}", attempts.join("; "))]
    NoController {
        /// Whether the call had an effect.
        outcome: Outcome,
        /// Each controller and why it is of no use.
        attempts: Vec<String>,
    },
    /// The deadline passed.
    #[error("timed out after {} ms ({outcome}){}", waited.as_millis(), because(last.as_ref()))]
    TimedOut {
        /// How long was waited.
        waited: Duration,
        /// Whether the call had an effect.
        outcome: Outcome,
        /// The last thing a controller said.
        last: Option<Refusal>,
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
            Self::TimedOut { last, .. } => last.as_ref(),
            Self::NoController { .. } | Self::Malformed(_) => None,
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

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::NoController { .. } | Self::TimedOut { .. } => true,
            Self::Malformed(_) => false,
        }
    }
}

/// Why a record was not acknowledged. The record is given back where it is still at hand.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}")]
pub struct ProduceError {
    /// What happened.
    pub kind: ProduceErrorKind,
    record: Option<Box<Record>>,
}

/// Why a record was not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProduceErrorKind {
    /// The server refused and a retry can't help, or [`OnFull::Fail`](crate::OnFull::Fail) asked not to.
    #[error("{0}")]
    Refused(Refusal),
    /// The delivery deadline passed first.
    #[error("not acknowledged within {} ms ({outcome}){}", waited.as_millis(), because(last.as_ref()))]
    DeadlineExceeded {
        /// The delivery deadline.
        waited: Duration,
        /// Whether the record may have been written.
        outcome: Outcome,
        /// The last refusal of a server for the batch of this record: why it took so long.
        last: Option<Refusal>,
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
    /// The controllers could not be asked for what the producer needs.
    #[error("{0}")]
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
            ProduceErrorKind::DeadlineExceeded { last, .. } => last.as_ref(),
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

    /// Whether sending the record again may succeed. With [`Outcome::Unknown`] that may duplicate it.
    pub fn is_retryable(&self) -> bool {
        match &self.kind {
            ProduceErrorKind::Refused(refusal) => refusal.is_retryable(),
            ProduceErrorKind::DeadlineExceeded { .. } | ProduceErrorKind::ConnectionLost { .. } => true,
            ProduceErrorKind::Admin(error) => error.is_retryable(),
            ProduceErrorKind::RecordTooLarge { .. }
            | ProduceErrorKind::Invalid(_)
            | ProduceErrorKind::UnknownTopic(_)
            | ProduceErrorKind::UnknownPartition { .. }
            | ProduceErrorKind::Closed => false,
        }
    }
}

/// Why a consumer ended.
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
    #[error("partition {partition}: no answer within {} ms{}", waited.as_millis(), because(last.as_ref()))]
    TimedOut {
        /// The partition.
        partition: u32,
        /// How long was waited.
        waited: Duration,
        /// The last thing a server said.
        last: Option<Refusal>,
    },
}

impl ConsumeError {
    /// What a server said, if one did.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            Self::TimedOut { last, .. } => last.as_ref(),
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

    /// Whether a new consumer may get further.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { refusal, .. } => refusal.is_retryable(),
            Self::TimedOut { .. } => true,
            Self::Trimmed { .. }
            | Self::Corrupt { .. }
            | Self::UnknownTopic(_)
            | Self::UnknownPartition { .. } => false,
        }
    }
}

fn because(last: Option<&Refusal>) -> String {
    last.map(|refusal| format!("; last answer: {refusal}")).unwrap_or_default()
}
