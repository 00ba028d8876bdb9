//! What servers say when they refuse.

/// What a [`Refusal`](crate::Refusal) holds: [`Refusal::detail`](crate::Refusal::detail). Whether there was an effect is
/// better asked of [`Refusal::outcome`](crate::Refusal::outcome), which also knows what silence means.
///
/// ```
/// use plimsoll_client::{DiskDetail, ErrorDetail, Reason};
/// use std::time::Duration;
///
/// let disk = DiskDetail { spu_id: 3, free_bytes: 5, needed_bytes: 9, ..DiskDetail::default() };
/// let detail = ErrorDetail::not_written(Reason::DiskFull, "/data is full").on_disk(disk);
/// let detail = detail.retry_after(Duration::from_secs(5));
/// assert_eq!(detail.reason(), Reason::DiskFull);
/// assert_eq!(detail.retry_after_ms, 5000);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::ErrorDetail;

/// Part of an [`ErrorDetail`](crate::ErrorDetail); [`Refusal::leader`](crate::Refusal::leader) reads it.
///
/// ```
/// use plimsoll_client::{ErrorDetail, LeaderHint, Reason, Refusal, SpuId};
///
/// let hint = LeaderHint { spu_id: 2, address: "10.0.0.12:7011".to_owned(), leader_epoch: 4 };
/// let detail = ErrorDetail::not_written(Reason::NotLeader, "another node leads").led_by(Some(hint));
/// assert_eq!(Refusal::new(detail).leader(), Some((SpuId(2), "10.0.0.12:7011")));
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::LeaderHint;

/// Part of an [`ErrorDetail`](crate::ErrorDetail) with [`Reason::NotEnoughInSync`](crate::Reason::NotEnoughInSync).
///
/// ```
/// use plimsoll_client::{ErrorDetail, OutOfSync};
///
/// fn missing(detail: &ErrorDetail) -> Vec<String> {
///     let tell = |copy: &OutOfSync| format!("spu {}: {}", copy.spu_id, copy.why);
///     detail.out_of_sync.iter().map(tell).collect()
/// }
/// let lags = OutOfSync { spu_id: 2, why: "lags".to_owned() };
/// let detail = ErrorDetail { out_of_sync: vec![lags], ..ErrorDetail::default() };
/// assert_eq!(missing(&detail), ["spu 2: lags"]);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::OutOfSync;

/// What errors are told apart by; [`RetryAdvice`](crate::RetryAdvice) says what to do about each.
///
/// ```
/// use plimsoll_client::{AdminError, Reason};
///
/// fn is_there_already(error: &AdminError) -> bool {
///     error.reason() == Some(Reason::TopicExists)
/// }
/// assert!(!is_there_already(&AdminError::Malformed(String::new())));
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::Reason;
