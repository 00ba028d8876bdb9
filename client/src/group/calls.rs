//! Calls to the coordinator of a group, wherever it is.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use plimsoll_host::retry::Backoff;
use plimsoll_proto::group::{OFFSETS_TOPIC, coordinator_partition};
use plimsoll_proto::ids::{PartitionId, SpuId, TopicId};
use plimsoll_proto::v1::group_client::GroupClient;
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use tonic::transport::Channel;
use tonic::{Response, Status};
use tracing::Instrument as _;

use super::error::GroupError;
use crate::client::Client;
use crate::connections::Connections;
use crate::error::{AdminError, LastCause};
use crate::refusal::{Outcome, Refusal};

/// One attempt, beyond what the request itself waits for.
pub(super) const ATTEMPT_MAX: Duration = Duration::from_secs(3);
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Offsets in one request: all of a request are committed or none.
const COMMITTED_AT_ONCE: usize = 64;

/// Where the coordinator of a group is now.
pub(super) fn coordinator(client: &Client, group: &str) -> Option<(SpuId, String)> {
    let image = client.metadata();
    let topic = image.topic_by_name(OFFSETS_TOPIC)?;
    let partitions = u32::try_from(topic.partitions.len()).ok()?;
    let index = coordinator_partition(group, partitions);
    let leader = SpuId(topic.partitions.iter().find(|info| info.index == index)?.leader);
    Some((leader, image.address(leader)?.to_owned()))
}

/// Makes sure that the internal topic is there: whoever uses the first group of a cluster creates it.
pub(super) async fn ensure_topic(client: &Client) -> Result<(), GroupError> {
    if client.metadata().topic_by_name(OFFSETS_TOPIC).is_some() {
        return Ok(());
    }
    match client.admin().create_topic(OFFSETS_TOPIC, v1::TopicConfig::default()).await {
        Ok(_) => Ok(()),
        Err(AdminError::Refused(refusal)) if refusal.reason() == Reason::TopicExists => Ok(()),
        Err(error) => Err(GroupError::Admin(error)),
    }
}

/// Whether another attempt, perhaps elsewhere, makes sense.
pub(super) fn passes(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NotLeader
            | Reason::NoLeader
            | Reason::StaleLeaderEpoch
            | Reason::NotEnoughInSync
            | Reason::ShuttingDown
            | Reason::MemoryPressure
            | Reason::TimedOut
            | Reason::VolumeFailed
            | Reason::UnknownTopic
            | Reason::UnknownPartition
            | Reason::StaleIncarnation
    )
}

/// A new coordinator does not know this member yet and waits for it: its next heartbeat tells what it holds.
fn is_expected(refusal: &Refusal) -> bool {
    refusal.reason() == Reason::UnknownMember && refusal.retry_after().is_some()
}

/// Calls the coordinator until it answers for good, at most for the client's call timeout. Every call is safe to
/// repeat.
pub(super) async fn call<T, F, A>(client: &Client, group: &str, ask: F) -> Result<T, GroupError>
where
    F: Fn(GroupClient<Channel>) -> A,
    A: Future<Output = Result<Response<T>, Status>>,
{
    let shared = &client.shared;
    let (clock, waited) = (&shared.host.clock, shared.call_timeout);
    let deadline = clock.now().saturating_add(waited);
    ensure_topic(client).await?;
    let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX, &shared.host.random);
    let (mut last, mut outcome) = (None, Outcome::NotWritten);
    let mut hint = None;
    loop {
        let coordinator = hint.take().or_else(|| coordinator(client, group));
        let connection = coordinator.and_then(|(spu, at)| Some((spu, shared.connections.group(&at).ok()?)));
        if let Some((spu, groups)) = connection {
            let limit = deadline.saturating_sub(clock.now()).min(ATTEMPT_MAX + shared.call_timeout / 4);
            match clock.timeout(limit, ask(groups)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => match refusal_of(&status) {
                    Some(refusal) if passes(refusal.reason()) || is_expected(&refusal) => {
                        if refusal.outcome() == Outcome::Unknown {
                            outcome = Outcome::Unknown;
                        }
                        hint = refusal.leader().map(|(spu, address)| (spu, address.to_owned()));
                        last = Some(LastCause::Refused(refusal));
                    }
                    Some(refusal) => return Err(refused(refusal)),
                    None => {
                        outcome = Outcome::Unknown;
                        last = Some(LastCause::of_status(spu, &status));
                    }
                },
                Err(_) => {
                    outcome = Outcome::Unknown;
                    // An attempt that the deadline cut short says less than the one before it.
                    last = last.filter(|_| limit < ATTEMPT_MAX).or(Some(LastCause::Unanswered { spu }));
                }
            }
        } else {
            last = Some(LastCause::NoLeader);
        }
        if clock.now() >= deadline {
            return Err(GroupError::TimedOut { waited, outcome, last });
        }
        pause(client, backoff.next_pause()).await;
    }
}

/// Waits a little, or until the metadata change.
pub(super) async fn pause(client: &Client, pause: Duration) {
    let mut images = client.watch_metadata();
    images.mark_unchanged();
    // Either way it is time to try again.
    drop(client.shared.host.clock.timeout(pause, images.changed()).await);
}

/// What a status says, if anything; also of a node that is too old for groups.
pub(super) fn refusal_of(status: &Status) -> Option<Refusal> {
    let typed = ErrorDetail::from_status(status);
    let old = || {
        let why = "the node that coordinates the group is older and knows no groups; upgrade it";
        (status.code() == tonic::Code::Unimplemented)
            .then(|| ErrorDetail::not_written(Reason::UnsupportedProtocol, why))
    };
    typed.or_else(old).map(Refusal::new)
}

fn refused(refusal: Refusal) -> GroupError {
    match refusal.reason() {
        Reason::UnknownMember | Reason::NotPartitionOwner => GroupError::Lost(refusal),
        _ => GroupError::Refused(refusal),
    }
}

/// Offsets by partition, with the leader epoch of the record before.
pub(super) type Offsets = BTreeMap<PartitionId, (u64, u32)>;

/// Who commits: a member with the number of its commit, or nobody with 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Committer {
    pub(super) member_id: String,
    pub(super) sequence: u64,
}

/// Commits offsets; durable on every in-sync copy when this returns.
pub(super) async fn commit(
    client: Client,
    group: String,
    by: Committer,
    offsets: Offsets,
) -> Result<(), GroupError> {
    let span = tracing::debug_span!("commit", group = %group, partitions = offsets.len());
    send_commits(client, group, by, offsets).instrument(span).await
}

async fn send_commits(
    client: Client,
    group: String,
    by: Committer,
    offsets: Offsets,
) -> Result<(), GroupError> {
    let all: Vec<v1::CommittedOffset> = offsets
        .into_iter()
        .map(|(partition, (offset, leader_epoch))| v1::CommittedOffset {
            topic_id: partition.topic_id.to_bytes(),
            partition: partition.index,
            offset,
            leader_epoch,
            committed_ms: 0,
        })
        .collect();
    for part in all.chunks(COMMITTED_AT_ONCE) {
        let request = v1::CommitOffsetsRequest {
            group: group.clone(),
            member_id: by.member_id.clone(),
            offsets: part.to_vec(),
            timeout_ms: 0,
            sequence: by.sequence,
        };
        call(&client, &group, |mut groups| {
            let request = request.clone();
            async move { groups.commit_offsets(request).await }
        })
        .await?;
    }
    Ok(())
}

/// What is committed of these partitions, or of all.
pub(super) async fn fetch(
    client: &Client,
    group: &str,
    partitions: &[PartitionId],
) -> Result<BTreeMap<PartitionId, u64>, GroupError> {
    let mut topics: BTreeMap<TopicId, Vec<u32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(partition.topic_id).or_default().push(partition.index);
    }
    let topic =
        |(id, partitions): (TopicId, Vec<u32>)| v1::TopicPartitions { topic_id: id.to_bytes(), partitions };
    let request = v1::FetchOffsetsRequest {
        group: group.to_owned(),
        partitions: topics.into_iter().map(topic).collect(),
    };
    let answer = call(client, group, |mut groups| {
        let request = request.clone();
        async move { groups.fetch_offsets(request).await }
    })
    .await?;
    let committed = |offset: &v1::CommittedOffset| {
        let topic_id = TopicId::from_slice(&offset.topic_id).ok()?;
        Some((PartitionId { topic_id, index: offset.partition }, offset.offset))
    };
    Ok(answer.offsets.iter().filter_map(committed).collect())
}

/// A connection of its own, for a lane.
pub(super) fn connections(client: &Client) -> Connections {
    Connections::new(client.shared.host.network.clone())
}
