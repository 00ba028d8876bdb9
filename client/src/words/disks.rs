//! Disks: how full they are, and what operators do about it.

/// How close a volume is to being full: part of [`VolumeHealth`](crate::VolumeHealth),
/// [`VolumeFacts`](crate::VolumeFacts) and [`DiskDetail`](crate::DiskDetail).
///
/// ```
/// use plimsoll_client::{DiskLevel, VolumeFacts};
///
/// let facts = VolumeFacts { level: DiskLevel::ReadOnly.into(), ..VolumeFacts::default() };
/// assert_eq!(facts.level(), DiskLevel::ReadOnly);
/// assert!(!facts.level().known().is_some_and(|level| level.accepts_produce()));
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::DiskLevel;

/// Which resource of a volume ran out; where [`DiskLevel`](crate::DiskLevel) is, there is this.
///
/// ```
/// use plimsoll_client::{DiskCause, DiskDetail};
///
/// let disk = DiskDetail { cause: DiskCause::Inodes.into(), free_bytes: 9 << 30, ..DiskDetail::default() };
/// assert_eq!(disk.cause(), DiskCause::Inodes); // bytes would have been enough
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::DiskCause;

/// What [`ProduceError::disk`](crate::ProduceError::disk) and [`Refusal::disk`](crate::Refusal::disk) tell.
///
/// ```
/// use plimsoll_client::{DiskDetail, ProduceError};
///
/// fn missing_bytes(error: &ProduceError) -> Option<u64> {
///     error.disk().map(|disk: &DiskDetail| disk.needed_bytes.saturating_sub(disk.free_bytes))
/// }
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::DiskDetail;

/// A volume as its node reports it twice a second: part of [`SpuStatus`](crate::SpuStatus).
///
/// ```
/// use plimsoll_client::VolumeFacts;
///
/// /// What must become free before it takes records again.
/// fn bytes_to_free(volume: &VolumeFacts) -> u64 {
///     volume.read_only_exit_bytes.saturating_sub(volume.free_bytes)
/// }
/// let volume = VolumeFacts { free_bytes: 10, read_only_exit_bytes: 25, ..VolumeFacts::default() };
/// assert_eq!(bytes_to_free(&volume), 15);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::VolumeFacts;

/// A volume as the metadata have it: part of [`SpuInfo`](crate::SpuInfo).
///
/// ```
/// use plimsoll_client::{MetadataImage, SpuId, VolumeInfo};
///
/// fn volumes(image: &MetadataImage, spu: SpuId) -> &[VolumeInfo] {
///     image.spus.get(&spu).map_or(&[], |info| &info.volumes)
/// }
/// assert!(volumes(&MetadataImage::empty(), SpuId(1)).is_empty());
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::VolumeInfo;

/// Whether the cluster writes to a volume: part of [`VolumeHealth`](crate::VolumeHealth) and
/// [`VolumeInfo`](crate::VolumeInfo).
///
/// ```
/// use plimsoll_client::{VolumeInfo, VolumeState};
///
/// let full = VolumeInfo { state: VolumeState::WriteOffline.into(), ..VolumeInfo::default() };
/// assert_ne!(full.state(), VolumeState::Failed); // full is not failed
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::VolumeState;

/// What [`Node::plan_reclaim`](crate::Node::plan_reclaim) and [`Node::reclaim`](crate::Node::reclaim) tell.
///
/// ```
/// use plimsoll_client::PlanReclaimResponse;
///
/// fn is_enough(plan: &PlanReclaimResponse) -> bool {
///     plan.missing_bytes == 0
/// }
/// assert!(!is_enough(&PlanReclaimResponse { bytes: 1 << 20, missing_bytes: 5 << 20, ..Default::default() }));
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::PlanReclaimResponse;

/// Part of a [`PlanReclaimResponse`](crate::PlanReclaimResponse).
///
/// ```
/// use plimsoll_client::{PlanReclaimResponse, ReclaimOfLog};
///
/// fn offsets_to_go(plan: &PlanReclaimResponse) -> u64 {
///     plan.logs.iter().map(|log: &ReclaimOfLog| log.log_start_after - log.log_start_before).sum()
/// }
/// let log = ReclaimOfLog { log_start_before: 100, log_start_after: 350, ..ReclaimOfLog::default() };
/// assert_eq!(offsets_to_go(&PlanReclaimResponse { logs: vec![log], ..Default::default() }), 250);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::ReclaimOfLog;

/// Part of a [`ReclaimOfLog`](crate::ReclaimOfLog).
///
/// ```
/// use plimsoll_client::{ReclaimOfLog, ReclaimReason};
///
/// fn is_unexpired(log: &ReclaimOfLog) -> bool {
///     log.reason() == ReclaimReason::Pressure
/// }
/// assert!(!is_unexpired(&ReclaimOfLog { reason: ReclaimReason::Age.into(), ..Default::default() }));
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::ReclaimReason;

/// What [`Node::borrow`](crate::Node::borrow) takes.
///
/// ```no_run
/// use plimsoll_client::{BorrowRequest, Client, SpuId};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let image = client.metadata();
/// let volume = image.spus.get(&SpuId(3)).and_then(|spu| spu.volumes.first()).ok_or("no such node")?;
/// let request = BorrowRequest {
///     volume_id: volume.volume_id.clone(),
///     bytes: 1 << 30,
///     ttl_ms: 3_600_000, // an hour
///     dry_run: false,
/// };
/// let borrowed = client.node(SpuId(3)).borrow(request).await?;
/// println!("read-only below {} bytes of free space", borrowed.read_only_enter_bytes);
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::BorrowRequest;

/// What [`Node::borrow`](crate::Node::borrow) tells.
///
/// ```
/// use plimsoll_client::BorrowResponse;
///
/// fn is_lowered(answer: &BorrowResponse) -> bool {
///     answer.read_only_enter_bytes < answer.read_only_enter_bytes_configured
/// }
/// assert!(!is_lowered(&BorrowResponse::default()));
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::BorrowResponse;

/// What [`Node::drill`](crate::Node::drill) takes.
///
/// ```no_run
/// use plimsoll_client::{Client, DiskLevel, DrillRequest, SpuId};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let image = client.metadata();
/// let volume = image.spus.get(&SpuId(3)).and_then(|spu| spu.volumes.first()).ok_or("no such node")?;
/// let request = DrillRequest {
///     volume_id: volume.volume_id.clone(),
///     level: DiskLevel::ReadOnly.into(),
///     ttl_ms: 60_000,
///     dry_run: false,
/// };
/// let drill = client.node(SpuId(3)).drill(request).await?;
/// println!("pretends to have {} bytes free for {} ms", drill.pretended_free_bytes, drill.ttl_ms);
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::DrillRequest;

/// What [`Node::drill`](crate::Node::drill) tells.
///
/// ```
/// use plimsoll_client::DrillResponse;
///
/// fn is_pretended(answer: &DrillResponse) -> bool {
///     answer.ttl_ms > 0
/// }
/// assert!(!is_pretended(&DrillResponse::default()));
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::DrillResponse;
