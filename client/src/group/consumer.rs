//! A member of a group as a stream of records.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _};
use plimsoll_proto::ids::{Offset, PartitionId, TopicId};
use tokio::sync::broadcast;

use super::calls::{self, Committer, Offsets};
use super::error::GroupError;
use super::member::{Membership, Owned};
use super::revoke::CommitPolicy;
use super::step::{self, Step, StepDone};
use crate::client::Client;
use crate::consumer::{Consumer, StartAt};
use crate::record::ConsumedRecord;

const EVENTS_MAX: usize = 1024;
/// How long a close waits for the coordinator.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// A record and the topic that it was read from.
///
/// ```
/// use plimsoll_client::GroupRecord;
///
/// fn place(record: &GroupRecord) -> String {
///     format!("{}/{}/{}", record.topic, record.record.partition, record.record.offset)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct GroupRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The record.
    pub record: ConsumedRecord,
}

/// Something that happened to a member.
///
/// ```no_run
/// use plimsoll_client::{GroupConsumer, GroupEvent};
///
/// # async fn example(member: &GroupConsumer) {
/// let mut events = member.events();
/// while let Ok(event) = events.recv().await {
///     if let GroupEvent::Revoked(partitions) = event {
///         println!("gave up {partitions:?}");
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub enum GroupEvent {
    /// It reads these now, from their committed offsets or by the start policy.
    Assigned(BTreeSet<PartitionId>),
    /// It gave these up; what it had delivered was committed first, if it commits by itself or
    /// [`on_revoke`](super::GroupBuilder::on_revoke) said so.
    Revoked(BTreeSet<PartitionId>),
    /// These belong to others already: what was not committed is read again there.
    Lost(BTreeSet<PartitionId>),
    /// A commit by itself failed. The next one includes it, except for partitions that were given up: who has them now
    /// reads again from the commit before.
    CommitFailed(GroupError),
}

/// A member of a group: a [`Stream`] of the records of the partitions that it was given.
///
/// Partitions come and go with the other members. One that is given up is committed first, with
/// [`auto_commit`](super::GroupBuilder::auto_commit) as far as it was delivered, with
/// [`on_revoke`](super::GroupBuilder::on_revoke) as far as that says; [`GroupConsumer::events`] tells afterwards.
///
/// [`GroupConsumer::next`] is cancel safe: no record is lost when its future is dropped, and what was under way with
/// the coordinator goes on with the next call. Dropping the consumer leaves the group without a last commit;
/// [`GroupConsumer::close`] makes one.
///
/// ```no_run
/// use plimsoll_client::Client;
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mut member = client.group("billing").topics(["flights"]).auto_commit(None).build().await?;
/// while let Some(record) = member.next().await {
///     println!("{:?}", record?.record.value);
///     member.commit().await?; // what was delivered so far is dealt with
/// }
/// # Ok(())
/// # }
/// ```
pub struct GroupConsumer {
    client: Client,
    group: String,
    member_id: String,
    consumers: BTreeMap<TopicId, (Arc<str>, Consumer)>,
    membership: Membership,
    start: StartAt,
    commit_policy: CommitPolicy,
    owned: BTreeSet<PartitionId>,
    /// Loss of membership that is known.
    lost: u64,
    /// Leader epoch of the last record delivered of each partition.
    epochs: BTreeMap<PartitionId, u32>,
    /// What is committed, as far as this member knows.
    committed: BTreeMap<PartitionId, u64>,
    step: Option<Step>,
    /// Commits so far; each has the next number.
    commits: u64,
    committing: Option<(Offsets, BoxFuture<'static, Result<(), GroupError>>)>,
    commit_due: Option<BoxFuture<'static, ()>>,
    /// Which topic is asked first next time.
    turn: usize,
    events: broadcast::Sender<GroupEvent>,
    failed: bool,
}

impl std::fmt::Debug for GroupConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupConsumer")
            .field("group", &self.group)
            .field("member_id", &self.member_id)
            .field("owned", &self.owned)
            .finish_non_exhaustive()
    }
}

impl GroupConsumer {
    pub(super) fn new(
        client: Client,
        group: String,
        member_id: String,
        consumers: BTreeMap<TopicId, (Arc<str>, Consumer)>,
        membership: Membership,
        start: StartAt,
        commit_policy: CommitPolicy,
    ) -> Self {
        Self {
            client,
            group,
            member_id,
            consumers,
            membership,
            start,
            commit_policy,
            owned: BTreeSet::new(),
            lost: 0,
            epochs: BTreeMap::new(),
            committed: BTreeMap::new(),
            step: None,
            commits: 0,
            committing: None,
            commit_due: None,
            turn: 0,
            events: broadcast::Sender::new(EVENTS_MAX),
            failed: false,
        }
    }

    /// The next record of any partition that this member has. Cancel safe. After an error the stream ends.
    pub async fn next(&mut self) -> Option<Result<GroupRecord, GroupError>> {
        std::future::poll_fn(|context| self.poll_record(context)).await
    }

    /// What happens from now on. A listener that lags by more than 1024 events misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<GroupEvent> {
        self.events.subscribe()
    }

    /// The partitions that this member reads now.
    pub fn assigned(&self) -> &BTreeSet<PartitionId> {
        &self.owned
    }

    /// Who this member is to its group.
    pub fn member_id(&self) -> &str {
        &self.member_id
    }

    /// Commits what was delivered of every partition that this member reads. When it returns, every in-sync copy has
    /// it on its disk. All offsets of a partition count, whichever was committed last.
    ///
    /// Cancel safety: a dropped call may still take effect.
    ///
    /// # Errors
    /// [`GroupError::Lost`] when a partition belongs to another member by now; `OFFSETS_FULL` when there is no room for
    /// another key; [`GroupError::TimedOut`] after the client's call timeout.
    pub async fn commit(&mut self) -> Result<(), GroupError> {
        let offsets = self.positions(&self.owned);
        self.commit_these(offsets).await
    }

    /// Commits up to and including one record.
    ///
    /// # Errors
    /// As [`GroupConsumer::commit`].
    pub async fn commit_record(&mut self, record: &GroupRecord) -> Result<(), GroupError> {
        let topic = self.consumers.iter().find(|(_, (name, _))| *name == record.topic);
        let Some((topic_id, _)) = topic else { return Ok(()) };
        let partition = PartitionId { topic_id: *topic_id, index: record.record.partition };
        let next = record.record.offset.get().saturating_add(1);
        self.commit_these([(partition, (next, record.record.leader_epoch.0))].into()).await
    }

    async fn commit_these(&mut self, offsets: Offsets) -> Result<(), GroupError> {
        if offsets.is_empty() {
            return Ok(());
        }
        // In order: an older commit must not come after this one.
        if let Some((_, under_way)) = self.committing.as_mut() {
            let _superseded = under_way.await;
            self.committing = None;
        }
        let (client, group, by) = (self.client.clone(), self.group.clone(), self.next_commit());
        calls::commit(client, group, by, offsets.clone()).await?;
        self.note_committed(&offsets);
        Ok(())
    }

    fn next_commit(&mut self) -> Committer {
        self.commits += 1;
        Committer { member_id: self.member_id.clone(), sequence: self.commits }
    }

    /// Records between what was delivered and the end of each partition that this member reads.
    ///
    /// # Errors
    /// [`GroupError::TimedOut`] when a leader does not answer.
    pub async fn lag(&self) -> Result<BTreeMap<PartitionId, u64>, GroupError> {
        let mut lag = BTreeMap::new();
        for partition in &self.owned {
            let ends = self.client.partition_ends(*partition, None).await?;
            let at = self.position(partition).map_or(ends.log_start, Offset::get);
            lag.insert(*partition, ends.high_watermark.saturating_sub(at));
        }
        Ok(lag)
    }

    /// Commits as when partitions are given up, and leaves the group: others have its partitions at once.
    ///
    /// # Errors
    /// What became of the commit; it has left in any case.
    pub async fn close(mut self) -> Result<(), GroupError> {
        let offsets = self.dealt_with(&self.owned).await;
        let committed = self.commit_these(offsets).await;
        self.membership.owned.send_modify(|owned| owned.leaves = true);
        let left = self.membership.lane.finished();
        // Without an answer the session ends by itself.
        let _late = self.client.shared.host.clock.timeout(LEAVE_MAX, left).await;
        committed
    }

    fn position(&self, partition: &PartitionId) -> Option<Offset> {
        self.consumers.get(&partition.topic_id)?.1.position(partition.index)
    }

    /// Where each of these partitions stands, where that is known.
    fn delivered(&self, partitions: &BTreeSet<PartitionId>) -> Offsets {
        let position = |partition: &PartitionId| {
            let epoch = self.epochs.get(partition).copied().unwrap_or(0);
            Some((*partition, (self.position(partition)?.get(), epoch)))
        };
        partitions.iter().filter_map(position).collect()
    }

    /// As [`Self::delivered`], of those that are not committed yet.
    fn positions(&self, partitions: &BTreeSet<PartitionId>) -> Offsets {
        let mut positions = self.delivered(partitions);
        positions.retain(|partition, (offset, _)| self.committed.get(partition) != Some(offset));
        positions
    }

    /// What to commit of partitions that go.
    fn dealt_with(&self, partitions: &BTreeSet<PartitionId>) -> BoxFuture<'static, Offsets> {
        match &self.commit_policy {
            CommitPolicy { on_revoke: Some(listener), .. } => listener.ask(self.delivered(partitions)),
            CommitPolicy { interval: Some(_), .. } => ready(self.positions(partitions)).boxed(),
            CommitPolicy { interval: None, .. } => ready(Offsets::new()).boxed(),
        }
    }

    fn note_committed(&mut self, offsets: &Offsets) {
        self.committed.extend(offsets.iter().map(|(partition, (offset, _))| (*partition, *offset)));
    }

    fn tell(&self, event: GroupEvent) {
        // An error means that nobody listens.
        drop(self.events.send(event));
    }

    fn poll_record(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<GroupRecord, GroupError>>> {
        if self.failed {
            return Poll::Ready(None);
        }
        let now = self.client.shared.host.clock.now();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.membership.polled_ms.store(now_ms, Ordering::Relaxed);
        loop {
            if let Some(step) = &mut self.step {
                if let Poll::Ready(done) = step.poll_unpin(context) {
                    self.step = None;
                    if let Err(error) = self.take_step(done) {
                        self.failed = true;
                        return Poll::Ready(Some(Err(error)));
                    }
                    continue;
                }
            } else if let Some(refusal) = self.follow() {
                self.failed = true;
                return Poll::Ready(Some(Err(refusal)));
            } else if self.step.is_some() {
                continue;
            }
            self.poll_commit(context);
            if let Some(item) = self.poll_consumers(context) {
                return Poll::Ready(Some(item));
            }
            // What was told since is looked at once more before sleeping.
            match self.membership.news.poll_recv(context) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Looks at what the coordinator says; a change becomes a step.
    fn follow(&mut self) -> Option<GroupError> {
        let told = self.membership.told.borrow_and_update().clone();
        if told.lost != self.lost {
            self.lost = told.lost;
            let lost = std::mem::take(&mut self.owned);
            for partition in &lost {
                self.stop(partition);
            }
            self.show_owned();
            if !lost.is_empty() {
                self.tell(GroupEvent::Lost(lost));
            }
        }
        if let Some(refusal) = told.refused {
            return Some(GroupError::Refused(refusal));
        }
        if !told.joined {
            return None;
        }
        let gone: BTreeSet<PartitionId> = self.owned.difference(&told.assigned).copied().collect();
        if !gone.is_empty() {
            let offsets = self.dealt_with(&gone);
            for partition in &gone {
                self.stop(partition);
                self.owned.remove(partition);
            }
            // The others are told only when the offsets are committed.
            let (client, group, by) = (self.client.clone(), self.group.clone(), self.next_commit());
            let before = self.committing.take().map(|(_, under_way)| under_way);
            self.step = Some(step::give_up(client, group, by, gone, offsets, before));
            return None;
        }
        let new: Vec<PartitionId> = told.assigned.difference(&self.owned).copied().collect();
        if !new.is_empty() {
            self.step = Some(step::find(self.client.clone(), self.group.clone(), new));
        }
        None
    }

    fn take_step(&mut self, done: StepDone) -> Result<(), GroupError> {
        match done {
            StepDone::GaveUp { partitions, committed } => {
                if let Err(error) = committed {
                    self.tell(GroupEvent::CommitFailed(error));
                }
                self.show_owned();
                self.tell(GroupEvent::Revoked(partitions));
                Ok(())
            }
            StepDone::Found { partitions, offsets } => {
                let offsets = match offsets {
                    Ok(offsets) => offsets,
                    // It is asked again: nothing was started.
                    Err(GroupError::TimedOut { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                };
                let still = self.membership.told.borrow().clone();
                let mut started = BTreeSet::new();
                for partition in partitions {
                    if still.lost == self.lost && still.assigned.contains(&partition) {
                        self.start_reading(partition, offsets.get(&partition).copied())?;
                        started.insert(partition);
                    }
                }
                self.owned.extend(started.iter().copied());
                self.show_owned();
                if !started.is_empty() {
                    self.tell(GroupEvent::Assigned(started));
                }
                Ok(())
            }
        }
    }

    fn start_reading(&mut self, partition: PartitionId, committed: Option<u64>) -> Result<(), GroupError> {
        let Some((topic, consumer)) = self.consumers.get_mut(&partition.topic_id) else { return Ok(()) };
        let start = match committed.and_then(|offset| Offset::new(offset).ok()) {
            Some(offset) => StartAt::Offset(offset),
            None => self.start,
        };
        let topic = topic.to_string();
        consumer.assign(partition.index, start).map_err(|error| GroupError::Consume { topic, error })?;
        match committed {
            Some(offset) => self.committed.insert(partition, offset),
            None => self.committed.remove(&partition),
        };
        Ok(())
    }

    fn stop(&mut self, partition: &PartitionId) {
        if let Some((_, consumer)) = self.consumers.get_mut(&partition.topic_id) {
            consumer.revoke(partition.index);
        }
        self.epochs.remove(partition);
        self.committed.remove(partition);
    }

    /// Lets the lane say what this member reads.
    fn show_owned(&self) {
        let owned = Owned { partitions: self.owned.clone(), lost: self.lost, leaves: false };
        self.membership.owned.send_replace(owned);
    }

    /// Commits by itself when it is time.
    fn poll_commit(&mut self, context: &mut Context<'_>) {
        if let Some((offsets, under_way)) = &mut self.committing
            && let Poll::Ready(result) = under_way.poll_unpin(context)
        {
            let offsets = std::mem::take(offsets);
            self.committing = None;
            match result {
                Ok(()) => self.note_committed(&offsets),
                Err(error) => self.tell(GroupEvent::CommitFailed(error)),
            }
        }
        let Some(interval) = self.commit_policy.interval else { return };
        let clock = self.client.shared.host.clock.clone();
        let due = self.commit_due.get_or_insert_with(|| Box::pin(async move { clock.sleep(interval).await }));
        // A timer that has struck is not asked again: it waits for what is under way, whose end comes here again.
        if self.committing.is_some() || self.step.is_some() || due.poll_unpin(context).is_pending() {
            return;
        }
        self.commit_due = None;
        let offsets = self.positions(&self.owned);
        if !offsets.is_empty() {
            let (client, group, by) = (self.client.clone(), self.group.clone(), self.next_commit());
            let commit = calls::commit(client, group, by, offsets.clone());
            self.committing = Some((offsets, Box::pin(commit)));
        }
        // Both must wake this task.
        self.poll_commit(context);
    }

    /// A record of the topic whose turn it is, or of any other.
    fn poll_consumers(&mut self, context: &mut Context<'_>) -> Option<Result<GroupRecord, GroupError>> {
        let count = self.consumers.len();
        for at in 0..count {
            let nth = (self.turn + at) % count;
            let Some((topic_id, (topic, consumer))) = self.consumers.iter_mut().nth(nth) else { continue };
            match consumer.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(record))) => {
                    self.turn = nth + 1;
                    let partition = PartitionId { topic_id: *topic_id, index: record.partition };
                    self.epochs.insert(partition, record.leader_epoch.0);
                    return Some(Ok(GroupRecord { topic: Arc::clone(topic), record }));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.failed = true;
                    return Some(Err(GroupError::Consume { topic: topic.to_string(), error }));
                }
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        None
    }
}

impl Stream for GroupConsumer {
    type Item = Result<GroupRecord, GroupError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_record(context)
    }
}
