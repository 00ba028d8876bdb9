//! The one place where errors become gRPC statuses, and back.
//!
//! Every refusal travels as a [`v1::ErrorDetail`]: as it is on streams, one for each request, and as a
//! `google.rpc.Status` with `ErrorInfo{domain: "plimsoll"}`, `RetryInfo` where waiting helps, and the detail
//! itself when a whole call fails. Clients test the domain, never the code alone: a proxy may answer with the
//! same codes.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use prost_types::Any;
use tonic::Code;
use tonic_types::pb;

use crate::disk::{DiskCause, DiskLevel};
use crate::v1::{self, ErrorDetail, Outcome, Reason};

/// Domain of every `ErrorInfo` of Plimsoll.
pub const ERROR_DOMAIN: &str = "plimsoll";

const DETAIL_TYPE_URL: &str = "type.googleapis.com/plimsoll.v1.ErrorDetail";
const ERROR_INFO_TYPE_URL: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const RETRY_INFO_TYPE_URL: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// `google.rpc.ErrorInfo` (googleapis, `google/rpc/error_details.proto`) whose metadata are in order: one refusal is
/// the same bytes wherever it is made.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

impl ErrorDetail {
    /// A refusal that had no effect and never will (`NOT_WRITTEN`).
    pub fn not_written(reason: Reason, message: impl Into<String>) -> Self {
        Self::with_outcome(reason, Outcome::NotWritten, message)
    }

    /// A failure after which the effect is not known (`UNKNOWN`).
    pub fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self::with_outcome(reason, Outcome::Unknown, message)
    }

    fn with_outcome(reason: Reason, outcome: Outcome, message: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            outcome: outcome.into(),
            message: message.into(),
            expected_sequence: -1,
            ..Self::default()
        }
    }

    /// Adds the longest time worth waiting before a retry.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Adds which disk is full.
    #[must_use]
    pub fn on_disk(mut self, disk: v1::DiskDetail) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Adds who leads.
    #[must_use]
    pub fn led_by(mut self, leader: Option<v1::LeaderHint>) -> Self {
        self.leader = leader;
        self
    }

    /// Packs the detail into a gRPC status with `google.rpc` details.
    pub fn to_status(&self) -> tonic::Status {
        let code = code_of(self.reason());
        let mut metadata = BTreeMap::new();
        metadata.insert("outcome".to_owned(), self.outcome().as_str_name().to_owned());
        if let Some(disk) = &self.disk {
            metadata.insert("spu".to_owned(), disk.spu_id.to_string());
            metadata.insert("path".to_owned(), disk.path.clone());
            metadata.insert("free_bytes".to_owned(), disk.free_bytes.to_string());
            metadata.insert("needed_bytes".to_owned(), disk.needed_bytes.to_string());
        }
        let mut details = vec![any(
            ERROR_INFO_TYPE_URL,
            ErrorInfo {
                reason: reason_name(self.reason()).to_owned(),
                domain: ERROR_DOMAIN.to_owned(),
                metadata,
            }
            .encode_to_vec(),
        )];
        if self.retry_after_ms > 0 {
            let wait = Duration::from_millis(self.retry_after_ms);
            let delay = prost_types::Duration {
                seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(wait.subsec_nanos()).unwrap_or(0),
            };
            details
                .push(any(RETRY_INFO_TYPE_URL, pb::RetryInfo { retry_delay: Some(delay) }.encode_to_vec()));
        }
        details.push(any(DETAIL_TYPE_URL, self.encode_to_vec()));
        let status = pb::Status { code: code as i32, message: self.message.clone(), details };
        tonic::Status::with_details(code, self.message.clone(), status.encode_to_vec().into())
    }

    /// Reads the detail out of a status of Plimsoll; `None` for any other status, also one of the same code.
    pub fn from_status(status: &tonic::Status) -> Option<Self> {
        let rpc = pb::Status::decode(status.details()).ok()?;
        let ours =
            rpc.details.iter().filter(|any| any.type_url == ERROR_INFO_TYPE_URL).any(|any| {
                ErrorInfo::decode(any.value.as_slice()).is_ok_and(|info| info.domain == ERROR_DOMAIN)
            });
        let detail = rpc.details.iter().find(|any| any.type_url == DETAIL_TYPE_URL)?;
        if ours { Self::decode(detail.value.as_slice()).ok() } else { None }
    }
}

impl From<ErrorDetail> for tonic::Status {
    fn from(detail: ErrorDetail) -> Self {
        detail.to_status()
    }
}

fn any(type_url: &str, value: Vec<u8>) -> Any {
    Any { type_url: type_url.to_owned(), value }
}

/// The reason as `ErrorInfo` and people see it, such as `DISK_FULL`.
pub fn reason_name(reason: Reason) -> &'static str {
    reason.as_str_name().trim_start_matches("REASON_")
}

/// The gRPC code that each reason travels under.
pub fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::Unspecified => Code::Unknown,
        Reason::DiskFull
        | Reason::Throttled
        | Reason::ControllerDisk
        | Reason::MemoryPressure
        | Reason::OffsetsFull => Code::ResourceExhausted,
        Reason::VolumeFailed
        | Reason::NoLeader
        | Reason::NotEnoughInSync
        | Reason::OffsetNotAvailable
        | Reason::NoQuorum
        | Reason::NotControllerLeader
        | Reason::NoPlacement
        | Reason::ShuttingDown => Code::Unavailable,
        Reason::NotLeader
        | Reason::StaleLeaderEpoch
        | Reason::OutOfOrderSequence
        | Reason::ProducerFenced
        | Reason::UnknownProducer
        | Reason::StaleIncarnation
        | Reason::WrongCluster
        | Reason::UnsupportedProtocol
        | Reason::OutOfService
        | Reason::UnknownMember
        | Reason::NotPartitionOwner
        | Reason::GroupActive
        | Reason::ExpectationFailed => Code::FailedPrecondition,
        Reason::WrongJoinToken => Code::PermissionDenied,
        Reason::OffsetTrimmed => Code::OutOfRange,
        Reason::RecordTooLarge | Reason::CorruptBatch | Reason::InvalidArgument | Reason::InvalidTopic => {
            Code::InvalidArgument
        }
        Reason::UnknownTopic | Reason::UnknownPartition | Reason::UnknownGroup => Code::NotFound,
        Reason::TopicExists => Code::AlreadyExists,
        Reason::TimedOut => Code::DeadlineExceeded,
    }
}

impl From<DiskLevel> for v1::DiskLevel {
    fn from(level: DiskLevel) -> Self {
        match level {
            DiskLevel::Normal => Self::Normal,
            DiskLevel::Reclaim => Self::Reclaim,
            DiskLevel::Throttle => Self::Throttle,
            DiskLevel::ReadOnly => Self::ReadOnly,
            DiskLevel::Failed => Self::Failed,
        }
    }
}

impl v1::DiskLevel {
    /// The domain's level; `None` when the sender did not say.
    pub fn known(self) -> Option<DiskLevel> {
        match self {
            Self::Unspecified => None,
            Self::Normal => Some(DiskLevel::Normal),
            Self::Reclaim => Some(DiskLevel::Reclaim),
            Self::Throttle => Some(DiskLevel::Throttle),
            Self::ReadOnly => Some(DiskLevel::ReadOnly),
            Self::Failed => Some(DiskLevel::Failed),
        }
    }
}

impl From<DiskCause> for v1::DiskCause {
    fn from(cause: DiskCause) -> Self {
        match cause {
            DiskCause::Bytes => Self::Bytes,
            DiskCause::Inodes => Self::Inodes,
            DiskCause::Quota => Self::Quota,
            DiskCause::Limit => Self::Limit,
            DiskCause::Hold => Self::Hold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_survives_the_status() {
        let detail = ErrorDetail::not_written(Reason::DiskFull, "no room")
            .retry_after(Duration::from_millis(1500))
            .on_disk(v1::DiskDetail { spu_id: 2, free_bytes: 5, needed_bytes: 9, ..Default::default() });
        let status = tonic::Status::from(detail.clone());
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(ErrorDetail::from_status(&status), Some(detail));
    }

    #[test]
    fn everybody_can_read_what_is_wrong_and_it_is_always_the_same_bytes() {
        let disk = v1::DiskDetail { spu_id: 2, free_bytes: 5, needed_bytes: 9, ..Default::default() };
        let detail = ErrorDetail::not_written(Reason::DiskFull, "no room").on_disk(disk);
        let status = detail.to_status();
        for _ in 0..8 {
            assert_eq!(detail.to_status().details(), status.details());
        }
        let rpc = pb::Status::decode(status.details()).unwrap();
        let told = pb::ErrorInfo::decode(rpc.details[0].value.as_slice()).unwrap();
        assert_eq!((told.reason.as_str(), told.domain.as_str()), ("DISK_FULL", ERROR_DOMAIN));
        assert_eq!((told.metadata["needed_bytes"].as_str(), told.metadata.len()), ("9", 5));
    }

    #[test]
    fn a_status_of_somebody_else_is_not_ours() {
        assert_eq!(ErrorDetail::from_status(&tonic::Status::resource_exhausted("proxy")), None);
        let garbage = tonic::Status::with_details(Code::Unavailable, "x", vec![0xff; 40].into());
        assert_eq!(ErrorDetail::from_status(&garbage), None);
    }
}
