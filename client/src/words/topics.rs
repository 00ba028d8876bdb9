//! Topics: how they are kept, where their copies are, and where those go.

/// What [`Admin::create_topic`](crate::Admin::create_topic) takes.
///
/// ```
/// use plimsoll_client::{FlushPolicy, TopicConfig};
///
/// // A week, and on disk before anything is acknowledged. The rest takes the controllers' defaults.
/// let config = TopicConfig {
///     partitions: 12,
///     replicas: 3,
///     min_in_sync: 2,
///     retention_ms: 7 * 24 * 3_600_000,
///     flush: FlushPolicy::Ack.into(),
///     ..TopicConfig::default()
/// };
/// assert_eq!(config.flush(), FlushPolicy::Ack);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::TopicConfig;

/// What [`Admin::alter_topic`](crate::Admin::alter_topic) takes.
///
/// ```no_run
/// use plimsoll_client::{AlterTopicRequest, Client};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let request = AlterTopicRequest {
///     name: "flights".to_owned(),
///     retention_bytes: Some(1 << 30),
///     ..AlterTopicRequest::default()
/// };
/// let config = client.admin().alter_topic(request).await?;
/// assert_eq!(config.retention_bytes, 1 << 30);
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::AlterTopicRequest;

/// When a topic's records are flushed to disk; a setting of [`TopicConfig`](crate::TopicConfig).
///
/// ```
/// use plimsoll_client::{FlushPolicy, TopicConfig};
///
/// let every_second =
///     TopicConfig { flush: FlushPolicy::Interval.into(), flush_interval_ms: 1000, ..TopicConfig::default() };
/// assert_eq!(every_second.flush(), FlushPolicy::Interval);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::FlushPolicy;

/// A setting of [`TopicConfig`](crate::TopicConfig).
///
/// ```
/// use plimsoll_client::{OnPressure, TopicConfig};
///
/// let never_trimmed = TopicConfig { on_pressure: OnPressure::Refuse.into(), ..TopicConfig::default() };
/// assert_eq!(never_trimmed.on_pressure(), OnPressure::Refuse);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::OnPressure;

/// A topic with its partitions, as [`Admin::describe_topic`](crate::Admin::describe_topic) and
/// [`Client::metadata`](crate::Client::metadata) have it.
///
/// ```
/// use plimsoll_client::{PartitionInfo, TopicInfo};
///
/// fn without_leader(topic: &TopicInfo) -> Vec<u32> {
///     let led_by_nobody = topic.partitions.iter().filter(|partition| partition.leader == 0);
///     led_by_nobody.map(|partition| partition.index).collect()
/// }
/// let led = PartitionInfo { index: 0, leader: 2, ..PartitionInfo::default() };
/// let not_led = PartitionInfo { index: 1, leader: 0, ..PartitionInfo::default() };
/// let topic = TopicInfo { partitions: vec![led, not_led], ..TopicInfo::default() };
/// assert_eq!(without_leader(&topic), [1]);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::TopicInfo;

/// One partition of a [`TopicInfo`](crate::TopicInfo).
///
/// ```
/// use plimsoll_client::{PartitionInfo, ReplicaAssignment};
///
/// fn is_under_replicated(partition: &PartitionInfo) -> bool {
///     partition.in_sync.len() < partition.replicas.len()
/// }
/// let at = |spu_id| ReplicaAssignment { spu_id, ..ReplicaAssignment::default() };
/// let partition =
///     PartitionInfo { replicas: vec![at(1), at(2)], in_sync: vec![1], ..PartitionInfo::default() };
/// assert!(is_under_replicated(&partition));
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::PartitionInfo;

/// Which volume of which node has a copy of a partition.
///
/// ```
/// use plimsoll_client::{PartitionInfo, ReplicaAssignment, SpuId};
///
/// fn nodes(partition: &PartitionInfo) -> Vec<SpuId> {
///     partition.replicas.iter().map(|replica| SpuId(replica.spu_id)).collect()
/// }
/// let replica = ReplicaAssignment { spu_id: 4, volume_id: vec![7; 16].into() };
/// assert_eq!(nodes(&PartitionInfo { replicas: vec![replica], ..Default::default() }), [SpuId(4)]);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::ReplicaAssignment;

/// Part of a [`PartitionInfo`](crate::PartitionInfo).
///
/// ```
/// use plimsoll_client::{MoveCause, PartitionInfo, Reassignment};
///
/// fn moves_for(partition: &PartitionInfo) -> Option<MoveCause> {
///     partition.reassignment.as_ref().map(Reassignment::cause)
/// }
/// assert_eq!(moves_for(&PartitionInfo::default()), None);
/// let drained = Reassignment { cause: MoveCause::Drain.into(), ..Reassignment::default() };
/// let partition = PartitionInfo { reassignment: Some(drained), ..PartitionInfo::default() };
/// assert_eq!(moves_for(&partition), Some(MoveCause::Drain));
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::Reassignment;

/// Part of a [`PartitionMove`](crate::PartitionMove) and of a [`Reassignment`](crate::Reassignment).
///
/// ```
/// use plimsoll_client::{MoveCause, PartitionMove};
///
/// let relief = PartitionMove { cause: MoveCause::Relief.into(), ..PartitionMove::default() };
/// assert_eq!(relief.cause(), MoveCause::Relief);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::MoveCause;

/// What [`Admin::reassign`](crate::Admin::reassign) and [`Admin::relieve`](crate::Admin::relieve) tell.
///
/// ```no_run
/// use plimsoll_client::{Client, PartitionMove, SpuId};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let to = vec![SpuId(1), SpuId(2), SpuId(4)];
/// let planned: Option<PartitionMove> = client.admin().reassign("flights", 0, to, true).await?;
/// if let Some(planned) = planned {
///     println!("{} copies go, {} come", planned.from.len(), planned.to.len());
/// }
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::PartitionMove;

/// What [`Admin::elect_leader`](crate::Admin::elect_leader) tells.
///
/// ```no_run
/// use plimsoll_client::{Client, ElectLeaderResponse};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let dry_run = true;
/// let plan: ElectLeaderResponse = client.admin().elect_leader("flights", 0, None, true, dry_run).await?;
/// if plan.unclean {
///     println!("with spu {} in the lead committed records may be lost", plan.leader);
/// }
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::ElectLeaderResponse;

/// Part of an [`ElectLeaderResponse`](crate::ElectLeaderResponse).
///
/// ```
/// use plimsoll_client::ElectionCandidate;
///
/// fn offsets_at_risk(candidate: &ElectionCandidate) -> u64 {
///     candidate.at_risk_to.saturating_sub(candidate.at_risk_from)
/// }
/// let lags = ElectionCandidate { at_risk_from: 90, at_risk_to: 100, ..ElectionCandidate::default() };
/// assert_eq!(offsets_at_risk(&lags), 10);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::ElectionCandidate;

/// The ends of a partition, as [`Node::offsets`](crate::Node::offsets) and
/// [`Client::partition_ends`](crate::Client::partition_ends) tell them.
///
/// ```
/// use plimsoll_client::ListOffsetsResponse;
///
/// fn records_to_read(ends: &ListOffsetsResponse) -> u64 {
///     ends.high_watermark.saturating_sub(ends.log_start)
/// }
/// let ends = ListOffsetsResponse { log_start: 40, high_watermark: 100, ..ListOffsetsResponse::default() };
/// assert_eq!(records_to_read(&ends), 60);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::ListOffsetsResponse;
