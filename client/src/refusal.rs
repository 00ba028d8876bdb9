//! What a server says when it refuses.

use std::fmt;
use std::time::Duration;

use plimsoll_proto::ids::SpuId;
use plimsoll_proto::status::reason_name;
use plimsoll_proto::v1;

/// Whether a request had an effect.
///
/// ```
/// use plimsoll_client::Outcome;
///
/// assert_eq!(Outcome::NotWritten.to_string(), "NOT_WRITTEN");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It had none, and never will.
    NotWritten,
    /// It may have had; only an idempotent repetition is safe.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotWritten => "NOT_WRITTEN",
            Self::Unknown => "UNKNOWN",
        })
    }
}

/// A typed refusal of a storage node or a controller.
///
/// ```
/// use plimsoll_client::{ErrorDetail, Outcome, Reason, Refusal};
///
/// let refusal = Refusal::new(ErrorDetail::not_written(Reason::RecordTooLarge, "1 MiB is the limit"));
/// assert_eq!(refusal.reason(), Reason::RecordTooLarge);
/// assert_eq!(refusal.outcome(), Outcome::NotWritten);
/// assert!(!refusal.retry_advice().is_retryable());
/// assert_eq!(refusal.to_string(), "RECORD_TOO_LARGE (NOT_WRITTEN): 1 MiB is the limit");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    detail: Box<v1::ErrorDetail>,
}

impl Refusal {
    /// Wraps the detail as it came over the wire.
    pub fn new(detail: v1::ErrorDetail) -> Self {
        Self { detail: Box::new(detail) }
    }

    /// What went wrong.
    pub fn reason(&self) -> v1::Reason {
        self.detail.reason()
    }

    /// The reason as in the error contract, such as `DISK_FULL`.
    pub fn reason_name(&self) -> &'static str {
        reason_name(self.detail.reason())
    }

    /// Whether the request had an effect. A peer that does not say is taken as [`Outcome::Unknown`].
    pub fn outcome(&self) -> Outcome {
        match self.detail.outcome() {
            v1::Outcome::NotWritten => Outcome::NotWritten,
            v1::Outcome::Unknown | v1::Outcome::Unspecified => Outcome::Unknown,
        }
    }

    /// Which disk of which node is full and by how much, when that is why.
    pub fn disk(&self) -> Option<&v1::DiskDetail> {
        self.detail.disk.as_ref()
    }

    /// The longest time worth waiting before a retry; `None` when waiting does not help.
    pub fn retry_after(&self) -> Option<Duration> {
        (self.detail.retry_after_ms > 0).then(|| Duration::from_millis(self.detail.retry_after_ms))
    }

    /// Who leads, when the answer said.
    pub fn leader(&self) -> Option<(SpuId, &str)> {
        let hint = self.detail.leader.as_ref().filter(|hint| hint.spu_id != 0)?;
        Some((SpuId(hint.spu_id), hint.address.as_str()))
    }

    /// The whole detail.
    pub fn detail(&self) -> &v1::ErrorDetail {
        &self.detail
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason_name(), self.outcome())?;
        match self.disk() {
            // The message of a full disk says it all.
            Some(disk) if self.detail.message.is_empty() => write!(
                f,
                ": spu {} {}: {} of {} bytes free, {} needed",
                disk.spu_id, disk.path, disk.free_bytes, disk.capacity_bytes, disk.needed_bytes
            )?,
            Some(disk) => write!(f, ": {}; {} bytes needed", self.detail.message, disk.needed_bytes)?,
            None if self.detail.message.is_empty() => {}
            None => write!(f, ": {}", self.detail.message)?,
        }
        if let Some(wait) = self.retry_after() {
            write!(f, "; retry within {} ms", wait.as_millis())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_in_one_line() {
        let disk = v1::DiskDetail { spu_id: 3, path: "/d".into(), needed_bytes: 9, ..Default::default() };
        let detail =
            v1::ErrorDetail::not_written(v1::Reason::DiskFull, "volume /d of SPU 3 is full").on_disk(disk);
        let refusal = Refusal::new(detail.retry_after(Duration::from_secs(5)));
        assert_eq!(
            refusal.to_string(),
            "DISK_FULL (NOT_WRITTEN): volume /d of SPU 3 is full; 9 bytes needed; retry within 5000 ms"
        );
        assert!(refusal.is_retryable());
    }

    #[test]
    fn a_server_that_does_not_say_may_have_written() {
        assert_eq!(Refusal::new(v1::ErrorDetail::default()).outcome(), Outcome::Unknown);
    }
}
