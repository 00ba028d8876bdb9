//! Consumer groups: members share the partitions of topics, and remember how far they have read.
//!
//! What it does not do: exactly-once processing. What was read but not committed when a member dies is read again by
//! another one.

mod builder;
mod calls;
mod consumer;
mod error;
mod member;
mod revoke;
mod step;

use std::collections::BTreeMap;

use plimsoll_proto::group::OFFSETS_TOPIC;
use plimsoll_proto::ids::{Offset, PartitionId, SpuId, TopicId};
use plimsoll_proto::v1;

pub use self::builder::GroupBuilder;
pub use self::consumer::{GroupConsumer, GroupEvent, GroupRecord};
pub use self::error::GroupError;
use crate::client::Client;
use crate::error::LastCause;

/// One consumer group, by name. Made by [`Client::group`].
///
/// ```no_run
/// use plimsoll_client::Client;
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mut consumer = client.group("billing").topics(["flights"]).build().await?;
/// while let Some(record) = consumer.next().await {
///     let record = record?;
///     println!("{}/{}: {:?}", record.topic, record.record.partition, record.record.value);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Group {
    client: Client,
    name: String,
}

impl Group {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// Settings of a member that reads these topics.
    pub fn topics<I>(&self, topics: I) -> GroupBuilder
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let topics = topics.into_iter().map(Into::into).collect();
        GroupBuilder::new(self.client.clone(), self.name.clone(), topics)
    }

    /// Members, and what is committed.
    ///
    /// # Errors
    /// [`GroupError`]; `UNKNOWN_GROUP` when there is none.
    pub async fn describe(&self) -> Result<v1::DescribeGroupResponse, GroupError> {
        calls::call(&self.client, &self.name, |mut groups| {
            let request = v1::DescribeGroupRequest { group: self.name.clone() };
            async move { groups.describe_group(request).await }
        })
        .await
    }

    /// What is committed, by partition. Nothing older than what was acknowledged before the call.
    ///
    /// # Errors
    /// [`GroupError`].
    pub async fn committed(&self) -> Result<BTreeMap<PartitionId, Offset>, GroupError> {
        let committed = calls::fetch(&self.client, &self.name, &[]).await?;
        let known = |(partition, offset)| Some((partition, Offset::new(offset).ok()?));
        Ok(committed.into_iter().filter_map(known).collect())
    }

    /// Sets offsets of a group without members. They are on every in-sync copy's disk when this returns.
    ///
    /// # Errors
    /// `GROUP_ACTIVE` while the group has members: they would undo it. Stop them first.
    pub async fn reset(&self, offsets: BTreeMap<PartitionId, Offset>) -> Result<(), GroupError> {
        let offsets = offsets.into_iter().map(|(partition, offset)| (partition, (offset.get(), 0))).collect();
        calls::commit(self.client.clone(), self.name.clone(), calls::Committer::default(), offsets).await
    }

    /// Forgets a group without members, and its offsets.
    ///
    /// # Errors
    /// `GROUP_ACTIVE`, `UNKNOWN_GROUP`.
    pub async fn delete(&self) -> Result<(), GroupError> {
        calls::call(&self.client, &self.name, |mut groups| {
            let request = v1::DeleteGroupRequest { group: self.name.clone() };
            async move { groups.delete_group(request).await }
        })
        .await
        .map(|_| ())
    }
}

impl Client {
    /// A consumer group: to become a member, or to look at it.
    pub fn group(&self, name: impl Into<String>) -> Group {
        Group::new(self.clone(), name.into())
    }

    /// All groups, by name. Empty before the first was used.
    ///
    /// # Errors
    /// [`GroupError::TimedOut`] when a coordinator does not answer: the list would not be whole. What one refuses for
    /// good.
    pub async fn list_groups(&self) -> Result<Vec<v1::GroupInfo>, GroupError> {
        let clock = &self.shared.host.clock;
        let deadline = clock.now().saturating_add(self.shared.call_timeout);
        loop {
            let image = self.metadata();
            let Some(topic) = image.topic_by_name(OFFSETS_TOPIC) else { return Ok(Vec::new()) };
            let mut groups = BTreeMap::new();
            let mut last = Some(LastCause::NoLeader);
            let mut missing: Vec<u32> = topic.partitions.iter().map(|info| info.index).collect();
            let mut leaders: Vec<u32> = topic.partitions.iter().map(|info| info.leader).collect();
            leaders.sort_unstable();
            leaders.dedup();
            for leader in leaders {
                let connection = image.address(SpuId(leader)).map(|a| self.shared.connections.group(a));
                let Some(Ok(mut connection)) = connection else { continue };
                let asked = connection.list_groups(v1::ListGroupsRequest {});
                match clock.timeout(calls::ATTEMPT_MAX, asked).await {
                    Ok(Ok(answer)) => {
                        let answer = answer.into_inner();
                        missing.retain(|index| !answer.partitions.contains(index));
                        groups.extend(answer.groups.into_iter().map(|info| (info.group.clone(), info)));
                    }
                    Ok(Err(status)) => match calls::refusal_of(&status) {
                        Some(refusal) if !calls::passes(refusal.reason()) => {
                            return Err(GroupError::Refused(refusal));
                        }
                        Some(refusal) => last = Some(LastCause::Refused(refusal)),
                        None => last = Some(LastCause::of_status(SpuId(leader), &status)),
                    },
                    Err(_) => last = Some(LastCause::Unanswered { spu: SpuId(leader) }),
                }
            }
            if missing.is_empty() {
                return Ok(groups.into_values().collect());
            }
            if clock.now() >= deadline {
                let (waited, outcome) = (self.shared.call_timeout, crate::refusal::Outcome::NotWritten);
                return Err(GroupError::TimedOut { waited, outcome, last });
            }
            calls::pause(self, std::time::Duration::from_millis(100)).await;
        }
    }

    /// The ends of a partition, and the first offset at or after a time, in milliseconds since 1970.
    ///
    /// # Errors
    /// What the leader said last; also while there is none.
    pub async fn partition_ends(
        &self,
        partition: PartitionId,
        timestamp_ms: Option<i64>,
    ) -> Result<v1::ListOffsetsResponse, GroupError> {
        let clock = &self.shared.host.clock;
        let (waited, outcome) = (self.shared.call_timeout, crate::refusal::Outcome::NotWritten);
        let deadline = clock.now().saturating_add(waited);
        loop {
            let mut last = LastCause::NoLeader;
            let image = self.metadata();
            let leader = image.partition(&partition).map_or(0, |info| info.leader);
            if let Some(Ok(mut spu)) = image.address(SpuId(leader)).map(|a| self.shared.connections.spu(a)) {
                let request = v1::ListOffsetsRequest {
                    topic_id: partition.topic_id.to_bytes(),
                    partition: partition.index,
                    any_replica: false,
                    timestamp_ms,
                };
                match clock.timeout(calls::ATTEMPT_MAX, spu.list_offsets(request)).await {
                    Ok(Ok(answer)) => return Ok(answer.into_inner()),
                    Ok(Err(status)) => last = LastCause::of_status(SpuId(leader), &status),
                    Err(_) => last = LastCause::Unanswered { spu: SpuId(leader) },
                }
            }
            if clock.now() >= deadline {
                let last = Some(last);
                return Err(GroupError::TimedOut { waited, outcome, last });
            }
            calls::pause(self, std::time::Duration::from_millis(100)).await;
        }
    }
}

/// The partition of a topic that is known.
pub(crate) fn partition_of(client: &Client, topic: &str, index: u32) -> Option<PartitionId> {
    let image = client.metadata();
    let topic_id = TopicId::from_slice(&image.topic_by_name(topic)?.topic_id).ok()?;
    Some(PartitionId { topic_id, index })
}
