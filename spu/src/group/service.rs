//! The gRPC service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::{Host, Task};
use plimsoll_proto::ids::{Offset, PartitionId, TopicId};
use plimsoll_proto::v1::group_server::Group;
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use plimsoll_storage::offsets::{Change, GroupOffsets, OffsetValue};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

use super::lane::{self, Job};
use super::{floors, request};
use crate::runtime::{LedOffsets, NodeHandle, OFFSETS_DELETED_AT_ONCE};

/// How long a read of offsets may take.
const READ_MAX: Duration = Duration::from_secs(10);

/// Serves `plimsoll.v1.Group`; coordinates the groups of what this node leads for as long as it lives.
#[derive(Clone)]
pub struct GroupService {
    host: Host,
    node: NodeHandle,
    lane: mpsc::Sender<Job>,
    _floors: Arc<Task>,
}

impl GroupService {
    /// Starts the lane of the coordinators. Offsets of groups without members and commits are kept for
    /// `offsets_retention`.
    pub fn new(host: Host, node: NodeHandle, offsets_retention: Duration) -> Self {
        let lane = lane::start(&host, &node, offsets_retention);
        let floors = host.tasks.spawn("group floors", floors::keep(host.clone(), node.clone()));
        Self { host, node, lane, _floors: Arc::new(floors) }
    }

    async fn ask<T>(&self, job: Job, answer: oneshot::Receiver<T>) -> Result<T, ErrorDetail> {
        let gone = || {
            ErrorDetail::not_written(Reason::ShuttingDown, "the node is shutting down")
                .retry_after(Duration::from_millis(200))
        };
        self.lane.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    async fn commit(&self, asked: v1::CommitOffsetsRequest) -> Result<(), ErrorDetail> {
        request::name(&asked.group)?;
        let commits = request::commits(&asked.offsets)?;
        let (reply, answer) = oneshot::channel();
        let job = Job::MayCommit {
            group: asked.group.clone(),
            member_id: asked.member_id,
            sequence: asked.sequence,
            partitions: commits.keys().copied().collect(),
            reply,
        };
        let (led, since) = self.ask(job, answer).await??;
        let committed_ms = self.host.clock.wall_ms();
        let change = |(partition, commit): (&PartitionId, &request::Commit)| Change::Offset {
            group: asked.group.clone(),
            partition: *partition,
            value: Some(OffsetValue {
                offset: commit.offset,
                leader_epoch: commit.leader_epoch,
                owner_epoch: since.get(partition).copied().unwrap_or(0),
                committed_ms,
            }),
        };
        let changes = commits.iter().map(change).collect();
        self.node.store_offsets(led, changes, request::timeout(asked.timeout_ms)).await
    }

    /// What is kept of one group.
    async fn kept(&self, group: &str) -> Result<(LedOffsets, Option<GroupOffsets>), ErrorDetail> {
        request::name(group)?;
        let (reply, answer) = oneshot::channel();
        let led = self.ask(Job::Led { group: group.to_owned(), reply }, answer).await??;
        let mut kept = self.node.read_offsets(led, Some(group.to_owned()), READ_MAX).await?;
        Ok((led, kept.remove(group)))
    }

    async fn fetch(&self, asked: v1::FetchOffsetsRequest) -> Result<v1::FetchOffsetsResponse, ErrorDetail> {
        let wanted = request::partitions(&asked.partitions)?;
        let (_, kept) = self.kept(&asked.group).await?;
        let all = kept.map(|kept| kept.offsets).unwrap_or_default();
        let offsets = all.iter().filter(|(partition, _)| wanted.is_empty() || wanted.contains(*partition));
        Ok(v1::FetchOffsetsResponse { offsets: offsets.map(on_wire).collect() })
    }

    /// The groups of every partition coordinated here, with their members.
    async fn all(&self) -> Result<Vec<Coordinated>, ErrorDetail> {
        let (reply, answer) = oneshot::channel();
        let members = self.ask(Job::Members { reply }, answer).await?;
        let mut all = Vec::new();
        for (led, members) in members {
            let kept = self.node.read_offsets(led, None, READ_MAX).await?;
            all.push(Coordinated { index: led.partition.index, members, kept });
        }
        Ok(all)
    }

    async fn list(&self) -> Result<v1::ListGroupsResponse, ErrorDetail> {
        let mut response = v1::ListGroupsResponse::default();
        for Coordinated { index, members, kept } in self.all().await? {
            response.partitions.push(index);
            let names: BTreeSet<&String> = members.keys().chain(kept.keys()).collect();
            for name in names {
                let kept = kept.get(name);
                let offsets = kept.map_or(0, |kept| kept.offsets.len());
                let members = members.get(name).copied().unwrap_or(0);
                if offsets == 0 && members == 0 {
                    continue;
                }
                let committed = kept.and_then(|kept| kept.offsets.values().map(|v| v.committed_ms).max());
                response.groups.push(v1::GroupInfo {
                    group: name.clone(),
                    members: u32::try_from(members).unwrap_or(u32::MAX),
                    offsets: u32::try_from(offsets).unwrap_or(u32::MAX),
                    committed_ms: committed.unwrap_or(0),
                });
            }
        }
        Ok(response)
    }

    async fn describe(&self, group: String) -> Result<v1::DescribeGroupResponse, ErrorDetail> {
        let (_, kept) = self.kept(&group).await?;
        let (reply, answer) = oneshot::channel();
        let (_, described) = self.ask(Job::Describe { group: group.clone(), reply }, answer).await??;
        let offsets = kept.map(|kept| kept.offsets).unwrap_or_default();
        if described.is_none() && offsets.is_empty() {
            return Err(unknown(&group));
        }
        let (group_epoch, members) = described.unwrap_or_default();
        Ok(v1::DescribeGroupResponse {
            group,
            group_epoch,
            members,
            offsets: offsets.iter().map(on_wire).collect(),
            coordinator: self.node.identity().0.0,
        })
    }

    async fn delete(&self, group: String) -> Result<(), ErrorDetail> {
        let (led, kept) = self.kept(&group).await?;
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Idle { group: group.clone(), reply }, answer).await??;
        let kept = kept.ok_or_else(|| unknown(&group))?;
        let offset = |partition: &PartitionId| Change::Offset {
            group: group.clone(),
            partition: *partition,
            value: None,
        };
        let changes: Vec<Change> = kept
            .offsets
            .keys()
            .map(offset)
            .chain([Change::Group { group: group.clone(), value: None }])
            .collect();
        for part in changes.chunks(OFFSETS_DELETED_AT_ONCE) {
            self.node.store_offsets(led, part.to_vec(), request::timeout(0)).await?;
        }
        Ok(())
    }

    async fn floors(&self, asked: v1::GroupFloorsRequest) -> Result<v1::GroupFloorsResponse, ErrorDetail> {
        self.node.check_cluster(&asked.cluster_id)?;
        let since = self.host.clock.wall_ms().saturating_sub(asked.active_within_ms);
        let topics: BTreeSet<TopicId> =
            asked.topic_ids.iter().filter_map(|id| TopicId::from_slice(id).ok()).collect();
        let mut lowest: BTreeMap<PartitionId, Offset> = BTreeMap::new();
        let mut response = v1::GroupFloorsResponse::default();
        for Coordinated { index, members, kept } in self.all().await? {
            response.partitions.push(index);
            for (name, kept) in &kept {
                let newest = kept.offsets.values().map(|value| value.committed_ms).max().unwrap_or(0);
                let active = newest >= since || members.get(name).is_some_and(|members| *members > 0);
                for (partition, value) in kept.offsets.iter().filter(|_| active) {
                    if topics.contains(&partition.topic_id) {
                        let floor = lowest.entry(*partition).or_insert(value.offset);
                        *floor = value.offset.min(*floor);
                    }
                }
            }
        }
        let floor = |(partition, offset): (PartitionId, Offset)| v1::GroupFloor {
            topic_id: partition.topic_id.to_bytes(),
            partition: partition.index,
            offset: offset.get(),
        };
        response.floors = lowest.into_iter().map(floor).collect();
        Ok(response)
    }
}

/// The groups of one partition.
struct Coordinated {
    index: u32,
    members: BTreeMap<String, usize>,
    kept: BTreeMap<String, GroupOffsets>,
}

fn unknown(group: &str) -> ErrorDetail {
    ErrorDetail::not_written(Reason::UnknownGroup, format!("there is no group {group}"))
}

fn on_wire((partition, value): (&PartitionId, &OffsetValue)) -> v1::CommittedOffset {
    v1::CommittedOffset {
        topic_id: partition.topic_id.to_bytes(),
        partition: partition.index,
        offset: value.offset.get(),
        leader_epoch: value.leader_epoch.0,
        committed_ms: value.committed_ms,
    }
}

#[tonic::async_trait]
impl Group for GroupService {
    async fn group_heartbeat(
        &self,
        request: Request<v1::GroupHeartbeatRequest>,
    ) -> Result<Response<v1::GroupHeartbeatResponse>, Status> {
        let received_at = self.host.clock.now();
        let (group, beat) = request::heartbeat(request.into_inner())?;
        let (reply, answer) = oneshot::channel();
        let told = self.ask(Job::Heartbeat { group, beat, received_at, reply }, answer).await??;
        Ok(Response::new(v1::GroupHeartbeatResponse {
            member_epoch: told.member_epoch,
            assigned: request::by_topic(&told.assigned),
            incomplete: told.incomplete,
            unknown_topics: told.unknown_topics,
        }))
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        self.commit(request.into_inner()).await?;
        Ok(Response::new(v1::CommitOffsetsResponse {}))
    }

    async fn fetch_offsets(
        &self,
        request: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        Ok(Response::new(self.fetch(request.into_inner()).await?))
    }

    async fn list_groups(
        &self,
        _request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        Ok(Response::new(self.list().await?))
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        Ok(Response::new(self.describe(request.into_inner().group).await?))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        self.delete(request.into_inner().group).await?;
        Ok(Response::new(v1::DeleteGroupResponse {}))
    }

    async fn group_floors(
        &self,
        request: Request<v1::GroupFloorsRequest>,
    ) -> Result<Response<v1::GroupFloorsResponse>, Status> {
        Ok(Response::new(self.floors(request.into_inner()).await?))
    }
}
