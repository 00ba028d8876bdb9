//! What to do about an error.

use std::fmt;
use std::time::Duration;

use plimsoll_proto::v1::Reason;

use crate::refusal::Refusal;

/// What helps against an error. Producers and consumers of this crate do it by themselves until their deadline; when
/// an error reaches the application, this says what is left to it.
///
/// ```
/// use std::time::Duration;
/// use plimsoll_client::RetryAdvice;
///
/// fn pause(advice: RetryAdvice) -> Option<Duration> {
///     match advice {
///         RetryAdvice::Never => None,
///         RetryAdvice::ElsewhereNow => Some(Duration::ZERO),
///         RetryAdvice::SameAfter(wait) | RetryAdvice::ElsewhereAfter(wait) => Some(wait),
///     }
/// }
/// assert_eq!(pause(RetryAdvice::Never), None);
/// assert_eq!(pause(RetryAdvice::SameAfter(Duration::from_secs(1))), Some(Duration::from_secs(1)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum RetryAdvice {
    /// The same request will never succeed: correct it, or what it is about.
    Never,
    /// The same request to the same node, this much later.
    SameAfter(Duration),
    /// The same request to another node at once; the refusal names it, or the metadata do.
    ElsewhereNow,
    /// The same request this much later to whoever is in charge then.
    ElsewhereAfter(Duration),
}

impl RetryAdvice {
    /// Whether a retry may help at all.
    pub fn is_retryable(self) -> bool {
        self != Self::Never
    }

    /// What is left to do when a deadline passed: whatever the cause said, time may help.
    pub(crate) fn after_deadline(self) -> Self {
        if self == Self::Never { Self::SameAfter(PAUSE) } else { self }
    }
}

impl fmt::Display for RetryAdvice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("a retry does not help"),
            Self::SameAfter(wait) => write!(f, "retry after {} ms", wait.as_millis()),
            Self::ElsewhereNow => f.write_str("retry elsewhere now"),
            Self::ElsewhereAfter(wait) => write!(f, "retry elsewhere after {} ms", wait.as_millis()),
        }
    }
}

/// How much room a full disk has, how much the request needed, and how much there is in all, in bytes.
///
/// ```
/// use plimsoll_client::{DiskDetail, ErrorDetail, Reason, Refusal, Space};
///
/// let disk = DiskDetail { free_bytes: 5, needed_bytes: 70, capacity_bytes: 1000, ..Default::default() };
/// let refusal = Refusal::new(ErrorDetail::not_written(Reason::DiskFull, "no room").on_disk(disk));
/// let space = Space { free_bytes: 5, needed_bytes: 70, capacity_bytes: 1000 };
/// assert_eq!(refusal.space(), Some(space));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Space {
    /// What may still be taken.
    pub free_bytes: u64,
    /// What the request needed.
    pub needed_bytes: u64,
    /// What there is in all.
    pub capacity_bytes: u64,
}

/// Where a server does not say how long: a change of leader takes about so long to become known.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

impl Refusal {
    /// What helps.
    pub fn retry_advice(&self) -> RetryAdvice {
        let wait = self.retry_after().unwrap_or(PAUSE);
        let elsewhere = match self.leader() {
            Some((spu, _)) if self.disk().is_none_or(|disk| disk.spu_id != spu.0) => {
                RetryAdvice::ElsewhereNow
            }
            _ => RetryAdvice::ElsewhereAfter(wait),
        };
        match self.reason() {
            Reason::DiskFull
            | Reason::VolumeFailed
            | Reason::NotLeader
            | Reason::StaleLeaderEpoch
            | Reason::NoLeader
            | Reason::ShuttingDown
            | Reason::OutOfService
            | Reason::StaleIncarnation => elsewhere,
            Reason::NotControllerLeader if !self.detail().controller_address.is_empty() => {
                RetryAdvice::ElsewhereNow
            }
            Reason::NotControllerLeader | Reason::NoQuorum => RetryAdvice::ElsewhereAfter(wait),
            Reason::Throttled
            | Reason::MemoryPressure
            | Reason::NotEnoughInSync
            | Reason::OffsetNotAvailable
            | Reason::OutOfOrderSequence
            | Reason::OffsetsFull
            | Reason::ControllerDisk
            | Reason::TimedOut
            | Reason::NoPlacement
            | Reason::UnknownPartition
            | Reason::ExpectationFailed => RetryAdvice::SameAfter(wait),
            Reason::Unspecified
            | Reason::OffsetTrimmed
            | Reason::ProducerFenced
            | Reason::UnknownProducer
            | Reason::RecordTooLarge
            | Reason::CorruptBatch
            | Reason::InvalidArgument
            | Reason::InvalidTopic
            | Reason::UnknownTopic
            | Reason::TopicExists
            | Reason::WrongCluster
            | Reason::WrongJoinToken
            | Reason::UnknownMember
            | Reason::NotPartitionOwner
            | Reason::GroupActive
            | Reason::UnknownGroup
            | Reason::UnsupportedProtocol => RetryAdvice::Never,
        }
    }

    /// Whether the same request may succeed later or elsewhere.
    pub fn is_retryable(&self) -> bool {
        self.retry_advice().is_retryable()
    }

    /// The three numbers of a full disk, when that is why.
    pub fn space(&self) -> Option<Space> {
        self.disk().map(|disk| Space {
            free_bytes: disk.free_bytes,
            needed_bytes: disk.needed_bytes,
            capacity_bytes: disk.capacity_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::v1::{DiskDetail, ErrorDetail, LeaderHint};

    use super::*;

    #[test]
    fn advice_follows_the_reason_and_what_the_server_knows() {
        let second = Duration::from_secs(1);
        let detail = |reason| ErrorDetail::not_written(reason, "");
        let leader = |spu_id| Some(LeaderHint { spu_id, address: "n:1".to_owned(), leader_epoch: 3 });
        let full = || detail(Reason::DiskFull).on_disk(DiskDetail { spu_id: 2, ..Default::default() });
        for (detail, advice) in [
            (full().retry_after(second), RetryAdvice::ElsewhereAfter(second)),
            (full().led_by(leader(3)), RetryAdvice::ElsewhereNow),
            // The full node leads itself.
            (full().led_by(leader(2)).retry_after(second), RetryAdvice::ElsewhereAfter(second)),
            (detail(Reason::NotLeader).led_by(leader(1)), RetryAdvice::ElsewhereNow),
            (detail(Reason::NotLeader), RetryAdvice::ElsewhereAfter(PAUSE)),
            (detail(Reason::Throttled).retry_after(second), RetryAdvice::SameAfter(second)),
            (detail(Reason::NotEnoughInSync), RetryAdvice::SameAfter(PAUSE)),
            (detail(Reason::NoQuorum), RetryAdvice::ElsewhereAfter(PAUSE)),
            (detail(Reason::RecordTooLarge), RetryAdvice::Never),
            (detail(Reason::ProducerFenced), RetryAdvice::Never),
        ] {
            assert_eq!(Refusal::new(detail.clone()).retry_advice(), advice, "{detail:?}");
        }
    }
}
