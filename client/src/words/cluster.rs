//! The cluster: its metadata, its servers, what happened to them.

/// What [`Client::metadata`](crate::Client::metadata) gives; clients keep it up to date by themselves.
///
/// ```
/// use plimsoll_client::{MetadataImage, SpuId};
///
/// fn is_led(image: &MetadataImage, topic: &str) -> bool {
///     let topic = image.topic_by_name(topic);
///     topic.is_some_and(|topic| topic.partitions.iter().all(|partition| partition.leader != 0))
/// }
/// let nothing = MetadataImage::empty();
/// assert!(!is_led(&nothing, "flights"));
/// assert_eq!(nothing.address(SpuId(1)), None);
/// ```
#[doc(inline)]
pub use plimsoll_proto::image::MetadataImage;

/// What [`Admin::cluster_status`](crate::Admin::cluster_status) tells.
///
/// ```
/// use plimsoll_client::ClusterStatusResponse;
///
/// fn is_well(status: &ClusterStatusResponse) -> bool {
///     status.leader != 0 && status.partitions_without_leader == 0 && status.partitions_below_min_in_sync == 0
/// }
/// let status = ClusterStatusResponse { leader: 1, partitions: 12, ..ClusterStatusResponse::default() };
/// assert!(is_well(&status));
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::ClusterStatusResponse;

/// One controller in a [`ClusterStatusResponse`](crate::ClusterStatusResponse).
///
/// ```
/// use plimsoll_client::{ClusterStatusResponse, ControllerStatus};
///
/// fn has_majority(status: &ClusterStatusResponse) -> bool {
///     let reachable = |controller: &&ControllerStatus| controller.reachable;
///     2 * status.controllers.iter().filter(reachable).count() > status.controllers.len()
/// }
/// let controller = |reachable| ControllerStatus { reachable, ..ControllerStatus::default() };
/// let controllers = vec![controller(true), controller(true), controller(false)];
/// assert!(has_majority(&ClusterStatusResponse { controllers, ..Default::default() }));
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::ControllerStatus;

/// One storage node in a [`ClusterStatusResponse`](crate::ClusterStatusResponse).
///
/// ```
/// use plimsoll_client::{SpuStatus, VolumeFacts};
///
/// fn free_bytes(spu: &SpuStatus) -> u64 {
///     spu.volumes.iter().map(|volume| volume.free_bytes).sum()
/// }
/// let volume = |free_bytes| VolumeFacts { free_bytes, ..VolumeFacts::default() };
/// let spu = SpuStatus { volumes: vec![volume(3 << 30), volume(1 << 30)], ..SpuStatus::default() };
/// assert_eq!(free_bytes(&spu), 4 << 30);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::SpuStatus;

/// A storage node as the metadata have it: [`MetadataImage::spus`](crate::MetadataImage::spus).
///
/// ```
/// use plimsoll_client::{MetadataImage, SpuInfo, SpuState};
///
/// fn online(image: &MetadataImage) -> Vec<&SpuInfo> {
///     image.spus.values().filter(|spu| spu.state() == SpuState::Online).collect()
/// }
/// assert!(online(&MetadataImage::empty()).is_empty());
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::SpuInfo;

/// What controllers take a storage node for; part of [`SpuInfo`](crate::SpuInfo).
///
/// ```
/// use plimsoll_client::{SpuInfo, SpuState};
///
/// let silent = SpuInfo { state: SpuState::Suspect.into(), ..SpuInfo::default() };
/// assert_eq!(silent.state(), SpuState::Suspect);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::SpuState;

/// What [`Admin::set_spu_duty`](crate::Admin::set_spu_duty) takes and gives.
///
/// ```no_run
/// use plimsoll_client::{Client, SpuDuty, SpuId};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let before = client.admin().set_spu_duty(SpuId(3), SpuDuty::Draining, false).await?;
/// assert_eq!(before, SpuDuty::Serving);
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::SpuDuty;

/// What [`Admin::list_events`](crate::Admin::list_events) gives.
///
/// ```no_run
/// use plimsoll_client::{Client, ClusterEvent};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let events: Vec<ClusterEvent> = client.admin().list_events(0, 100).await?;
/// for event in &events {
///     println!("{} spu {}: {} -> {} ({})", event.kind, event.spu_id, event.from, event.to, event.reason);
/// }
/// let go_on_after = events.last().map_or(0, |event| event.index);
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::ClusterEvent;

/// What [`Admin::metrics`](crate::Admin::metrics) gives.
///
/// ```no_run
/// use plimsoll_client::{Client, MetricsResponse};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let metrics: MetricsResponse = client.admin().metrics().await?;
/// println!("{} alerts, {} partitions without a leader", metrics.alerts.len(), metrics.partitions_without_leader);
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::MetricsResponse;

/// Part of a [`MetricsResponse`](crate::MetricsResponse).
///
/// ```
/// use plimsoll_client::{EventCount, MetricsResponse};
///
/// fn elections(metrics: &MetricsResponse) -> u64 {
///     let of_kind = |count: &&EventCount| count.kind == "leader_changed";
///     metrics.events.iter().find(of_kind).map_or(0, |count| count.total)
/// }
/// let count = EventCount { kind: "leader_changed".to_owned(), total: 7 };
/// assert_eq!(elections(&MetricsResponse { events: vec![count], ..Default::default() }), 7);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::EventCount;

/// Part of a [`MetricsResponse`](crate::MetricsResponse).
///
/// ```
/// use plimsoll_client::Alert;
///
/// fn line(alert: &Alert) -> String {
///     format!("{} {}: {}", alert.code, alert.subject, alert.reason)
/// }
/// let subject = "spu 3 /data".to_owned();
/// let alert = Alert { code: "VOLUME_FAILED".into(), subject, reason: "EIO".into(), ..Alert::default() };
/// assert_eq!(line(&alert), "VOLUME_FAILED spu 3 /data: EIO");
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::Alert;
