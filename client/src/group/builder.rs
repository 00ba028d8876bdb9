//! Settings of a member of a group.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_proto::ids::{Offset, PartitionId};
use tracing::Instrument as _;

use super::consumer::GroupConsumer;
use super::error::GroupError;
use super::member::{self, MemberSettings};
use super::revoke::{CommitPolicy, OnRevoke};
use super::{calls, partition_of};
use crate::client::Client;
use crate::consumer::{OnTrimmed, StartAt};

/// Settings of a [`GroupConsumer`]. Made by [`Group::topics`](crate::Group::topics).
///
/// ```no_run
/// use std::time::Duration;
/// use plimsoll_client::{Client, StartAt};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let settings = client.group("billing").topics(["flights", "bookings"]);
/// let consumer = settings.start(StartAt::Latest).auto_commit(Some(Duration::from_secs(1))).build().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing happens before build()"]
pub struct GroupBuilder {
    client: Client,
    group: String,
    topics: Vec<String>,
    start: StartAt,
    on_trimmed: OnTrimmed,
    auto_commit: Option<Duration>,
    on_revoke: Option<OnRevoke>,
    session: Duration,
    idle_max: Duration,
    name: String,
    prefetch_bytes: usize,
}

impl GroupBuilder {
    pub(super) fn new(client: Client, group: String, mut topics: Vec<String>) -> Self {
        topics.sort_unstable();
        topics.dedup();
        Self {
            client,
            group,
            topics,
            start: StartAt::Earliest,
            on_trimmed: OnTrimmed::Earliest,
            auto_commit: Some(Duration::from_secs(5)),
            on_revoke: None,
            session: Duration::from_secs(10),
            idle_max: Duration::from_secs(300),
            name: String::new(),
            prefetch_bytes: 32 << 20,
        }
    }

    /// Where to start in a partition without a committed offset. Default [`StartAt::Earliest`].
    pub fn start(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// What to do when records were trimmed before they were read. Default [`OnTrimmed::Earliest`].
    pub fn on_trimmed(mut self, policy: OnTrimmed) -> Self {
        self.on_trimmed = policy;
        self
    }

    /// Commits by itself at this interval, when partitions are given up, and at the close; `None` leaves all of it to
    /// [`GroupConsumer::commit`]. What counts is what [`GroupConsumer::next`] has delivered before its present call, so
    /// a record that is processed before the next is asked for is never committed too early. Default 5 s.
    pub fn auto_commit(mut self, interval: Option<Duration>) -> Self {
        self.auto_commit = interval;
        self
    }

    /// Is asked before partitions go to another member, and at [`GroupConsumer::close`]: it gets of each the offset
    /// behind the last record that [`GroupConsumer::next`] has delivered, and answers with the offsets up to which the
    /// records are dealt with. These are committed, whatever [`GroupBuilder::auto_commit`] says, and only then does
    /// another member begin to read there. A partition that it leaves out is not committed; an offset beyond what was
    /// delivered counts as that.
    ///
    /// It is asked within `next`, whose caller goes on to get records of the other partitions; until its future ends
    /// nobody reads what goes. It is not asked about partitions that are lost ([`GroupEvent::Lost`]): they belong to
    /// others already.
    ///
    /// Without one, what was delivered is committed, if this member commits by itself.
    ///
    /// ```no_run
    /// use std::collections::BTreeMap;
    /// use std::sync::{Arc, Mutex};
    /// use plimsoll_client::{Client, Offset, PartitionId};
    ///
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// // Filled in by those who deal with the records, perhaps later than `next` delivers them.
    /// let dealt_with: Arc<Mutex<BTreeMap<PartitionId, Offset>>> = Arc::default();
    /// let known = Arc::clone(&dealt_with);
    /// let settings = client.group("billing").topics(["flights"]).auto_commit(None);
    /// let member = settings.on_revoke(move |going| {
    ///     let known = known.lock().expect("nobody panicked").clone();
    ///     async move { known.into_iter().filter(|(partition, _)| going.contains_key(partition)).collect() }
    /// });
    /// # member.build().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`GroupEvent::Lost`]: crate::GroupEvent::Lost
    pub fn on_revoke<F, A>(mut self, listener: F) -> Self
    where
        F: Fn(BTreeMap<PartitionId, Offset>) -> A + Send + Sync + 'static,
        A: Future<Output = BTreeMap<PartitionId, Offset>> + Send + 'static,
    {
        self.on_revoke = Some(OnRevoke::new(listener));
        self
    }

    /// Silence after which the group gives the member's partitions to others. Heartbeats have a thread of their own:
    /// busy processing does not silence them. Default 10 s, from 1 s to 300 s.
    pub fn session_timeout(mut self, limit: Duration) -> Self {
        self.session = limit.clamp(Duration::from_secs(1), Duration::from_secs(300));
        self
    }

    /// A member that takes no record for so long leaves, and joins again with the next call. Default 5 min.
    pub fn idle_max(mut self, limit: Duration) -> Self {
        self.idle_max = limit.max(Duration::from_secs(1));
        self
    }

    /// What people see of this member in `plimsoll group describe`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Bytes read ahead of the caller. Default 32 MiB.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// Looks the topics up, asks the group's coordinator whether it is there, and starts to join. The first group of a
    /// cluster creates the internal topic. Ends within twice the client's call timeout.
    ///
    /// # Errors
    /// [`GroupError::Consume`] for a topic that is not there; [`GroupError::Admin`] when the internal topic can't be
    /// created, such as `NO_PLACEMENT` on a cluster without room; [`GroupError::TimedOut`] when no coordinator answers;
    /// [`GroupError::Refused`] with `UNSUPPORTED_PROTOCOL` by one that is too old for groups.
    pub async fn build(self) -> Result<GroupConsumer, GroupError> {
        let span = tracing::debug_span!("join", group = %self.group);
        self.join().instrument(span).await
    }

    async fn join(self) -> Result<GroupConsumer, GroupError> {
        calls::ensure_topic(&self.client).await?;
        let mut consumers = BTreeMap::new();
        for topic in &self.topics {
            let wrong = |error| GroupError::Consume { topic: topic.clone(), error };
            let consumer = self
                .client
                .consumer(topic.clone())
                .unassigned()
                .start(self.start)
                .on_trimmed(self.on_trimmed)
                .prefetch_bytes(self.prefetch_bytes / self.topics.len().max(1))
                .build()
                .await
                .map_err(wrong)?;
            let unknown = || wrong(crate::error::ConsumeError::UnknownTopic(topic.clone()));
            let topic_id = partition_of(&self.client, topic, 0).ok_or_else(unknown)?.topic_id;
            consumers.insert(topic_id, (topic.as_str().into(), consumer));
        }
        let known: Vec<_> =
            consumers.keys().map(|topic_id| PartitionId { topic_id: *topic_id, index: 0 }).collect();
        calls::fetch(&self.client, &self.group, &known).await?;
        let random: String =
            self.client.shared.host.random.id16().iter().map(|byte| format!("{byte:02x}")).collect();
        let settings = MemberSettings {
            group: self.group.clone(),
            member_id: random,
            topics: self.topics,
            session: self.session,
            idle_max: self.idle_max,
            name: self.name,
        };
        let member_id = settings.member_id.clone();
        let membership = member::start(&self.client, settings);
        Ok(GroupConsumer::new(
            self.client,
            self.group,
            member_id,
            consumers,
            membership,
            self.start,
            CommitPolicy { interval: self.auto_commit, on_revoke: self.on_revoke },
        ))
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_host::Host;
    use plimsoll_proto::group::OFFSETS_TOPIC;

    use super::*;
    use crate::mock::MockCluster;
    use crate::{AdminError, Client, Reason};

    #[tokio::test]
    async fn a_node_without_groups_is_told_and_not_waited_for() {
        let cluster = MockCluster::start(&["t", OFFSETS_TOPIC]).await;
        let built = cluster.client.group("g").topics(["t"]).build().await;
        let error = built.expect_err("the node knows no groups");
        assert!(matches!(error, GroupError::Refused(_)), "{error}");
        assert_eq!(error.reason(), Some(Reason::UnsupportedProtocol));
        assert!(!error.is_retryable());
    }

    #[tokio::test]
    async fn controllers_without_groups_are_told_and_not_waited_for() {
        let cluster = MockCluster::start(&["t"]).await;
        let built = cluster.client.group("g").topics(["t"]).build().await;
        let error = built.expect_err("nobody makes the internal topic");
        assert!(matches!(&error, GroupError::Admin(AdminError::Refused(_))), "{error}");
        assert_eq!(error.reason(), Some(Reason::UnsupportedProtocol));
    }

    #[tokio::test]
    async fn a_coordinator_that_is_not_reached_ends_it_in_time() {
        let cluster = MockCluster::start(&["t", OFFSETS_TOPIC]).await;
        let controllers = cluster.client.shared.controllers.clone();
        let limit = Duration::from_millis(300);
        let client =
            Client::builder().controllers(controllers).call_timeout(limit).build().await.expect("built");
        cluster.lead_nothing();
        let known = client.wait_metadata(Duration::from_secs(60), |image| {
            image.topics.values().all(|topic| topic.partitions.iter().all(|partition| partition.leader == 0))
        });
        assert!(known.await, "the metadata tell");
        let clock = Host::real().clock;
        let built = clock.timeout(Duration::from_secs(60), client.group("g").topics(["t"]).build()).await;
        let error = built.expect("in time").expect_err("nobody coordinates");
        assert!(matches!(error, GroupError::TimedOut { .. }), "{error}");
    }
}
