//! Consumer groups as their coordinator tells of them.

/// One line of [`Client::list_groups`](crate::Client::list_groups).
///
/// ```
/// use plimsoll_client::GroupInfo;
///
/// fn is_idle(group: &GroupInfo) -> bool {
///     group.members == 0
/// }
/// assert!(is_idle(&GroupInfo { group: "billing".to_owned(), offsets: 12, ..GroupInfo::default() }));
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::GroupInfo;

/// What [`Group::describe`](crate::Group::describe) gives.
///
/// ```no_run
/// use plimsoll_client::{Client, DescribeGroupResponse};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let group: DescribeGroupResponse = client.group("billing").describe().await?;
/// println!("{} members, coordinated by spu {}", group.members.len(), group.coordinator);
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::DescribeGroupResponse;

/// Part of a [`DescribeGroupResponse`](crate::DescribeGroupResponse).
///
/// ```
/// use plimsoll_client::{GroupMember, TopicPartitions};
///
/// fn partitions(member: &GroupMember) -> usize {
///     member.assigned.iter().map(|of_topic| of_topic.partitions.len()).sum()
/// }
/// let of_topic = |partitions| TopicPartitions { partitions, ..TopicPartitions::default() };
/// let member = GroupMember { assigned: vec![of_topic(vec![0, 3]), of_topic(vec![1])], ..Default::default() };
/// assert_eq!(partitions(&member), 3);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::GroupMember;

/// Part of a [`GroupMember`](crate::GroupMember): partitions of one topic.
///
/// ```
/// use plimsoll_client::{Invalid, PartitionId, TopicId, TopicPartitions};
///
/// fn ids(of_topic: &TopicPartitions) -> Result<Vec<PartitionId>, Invalid> {
///     let topic_id = TopicId::from_slice(&of_topic.topic_id)?;
///     Ok(of_topic.partitions.iter().map(|&index| PartitionId { topic_id, index }).collect())
/// }
/// let of_topic = TopicPartitions { topic_id: vec![7; 16].into(), partitions: vec![0, 3] };
/// assert_eq!(ids(&of_topic)?.len(), 2);
/// # Ok::<(), Invalid>(())
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::TopicPartitions;

/// Part of a [`DescribeGroupResponse`](crate::DescribeGroupResponse).
///
/// ```
/// use plimsoll_client::{CommittedOffset, ListOffsetsResponse};
///
/// fn lag(committed: &CommittedOffset, ends: &ListOffsetsResponse) -> u64 {
///     ends.high_watermark.saturating_sub(committed.offset)
/// }
/// let committed = CommittedOffset { offset: 60, ..CommittedOffset::default() };
/// let ends = ListOffsetsResponse { high_watermark: 100, ..ListOffsetsResponse::default() };
/// assert_eq!(lag(&committed, &ends), 40);
/// ```
#[doc(inline)]
pub use plimsoll_proto::v1::CommittedOffset;
