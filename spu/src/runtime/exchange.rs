//! Replication as the peers' room uses it: a leader's answers, a follower's positions.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::ids::{Incarnation, PartitionId, SpuId, VolumeId};
use plimsoll_proto::v1::{self, ErrorDetail, Reason, replica_batches};
use tokio::sync::{Notify, oneshot, watch};

use super::handle::{NodeHandle, STUCK};
use super::refusal;
use super::work::{ReplicateAnswer, ReplicateWork, Work, partition_of};

/// Longest wait for data that a follower may ask for.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Most bytes in one answer, whatever is asked for.
const BYTES_MAX: usize = 16 << 20;
/// Positions in one fetch at most; one with more is refused.
pub const POSITIONS_MAX: usize = 10_000;

/// A leader that replicas on one volume here follow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Following {
    /// The leader.
    pub leader: SpuId,
    /// Where it is reached.
    pub address: String,
    /// The volume here.
    pub volume: VolumeId,
}

impl NodeHandle {
    /// Answers a follower's fetch, waiting up to its `wait_ms_max` for data. Cancel safe.
    pub async fn replicate(&self, request: v1::ReplicateRequest) -> v1::ReplicateResponse {
        self.replicate_until(request, std::future::pending()).await
    }

    /// As [`NodeHandle::replicate`], but answers at once with what there is when `cut_short` is ready.
    pub async fn replicate_until(
        &self,
        request: v1::ReplicateRequest,
        cut_short: impl Future<Output = ()> + Send,
    ) -> v1::ReplicateResponse {
        let (spu, incarnation) = self.identity();
        let mut response = v1::ReplicateResponse {
            fetch_id: request.fetch_id,
            spu_id: spu.0,
            incarnation: incarnation.0,
            ..v1::ReplicateResponse::default()
        };
        if let Err(detail) = self.accepts(&request) {
            response.error = Some(detail);
            return response;
        }
        let wait = Duration::from_millis(u64::from(request.wait_ms_max)).min(WAIT_MAX);
        let deadline = self.clock().now() + wait;
        let (by_volume, refused) = self.split(&request);
        let mut cut_short = std::pin::pin!(cut_short);
        loop {
            let grown = Arc::new(Notify::new());
            let mut answers = self.ask_volumes(&request, &by_volume, &grown).await;
            let ready = !refused.is_empty() || answers.iter().any(|answer| answer.ready);
            if ready || self.clock().now() >= deadline {
                response.partitions = refused;
                response.partitions.extend(answers.drain(..).flat_map(|answer| answer.partitions));
                return response;
            }
            tokio::select! {
                () = grown.notified() => {}
                () = self.clock().sleep_until(deadline) => {}
                () = &mut cut_short => {
                    response.partitions.extend(answers.drain(..).flat_map(|answer| answer.partitions));
                    return response;
                }
            }
        }
    }

    /// Whether the whole request may be answered: right cluster, right incarnation.
    fn accepts(&self, request: &v1::ReplicateRequest) -> Result<(), ErrorDetail> {
        if *self.shared().stopping.borrow() {
            return Err(refusal::shutting_down());
        }
        self.check_cluster(&request.cluster_id)?;
        let known = self.metadata();
        let registered = known.spus.get(&SpuId(request.spu_id)).map(|info| info.incarnation);
        if registered.is_some_and(|registered| request.incarnation < registered) {
            let mut detail = ErrorDetail::not_written(
                Reason::StaleIncarnation,
                format!("SPU {} has started again since", request.spu_id),
            );
            detail.current_incarnation = registered.unwrap_or(0);
            return Err(detail);
        }
        if request.positions.len() > POSITIONS_MAX {
            return Err(ErrorDetail::not_written(Reason::InvalidArgument, "too many positions in one fetch"));
        }
        Ok(())
    }

    /// Whether a request between servers is of this cluster.
    ///
    /// # Errors
    /// WRONG_CLUSTER.
    pub fn check_cluster(&self, cluster_id: &[u8]) -> Result<(), ErrorDetail> {
        if cluster_id == self.shared().cluster_id.0.as_slice() {
            return Ok(());
        }
        Err(ErrorDetail::not_written(Reason::WrongCluster, "the request is of another cluster"))
    }

    /// The cluster that this node belongs to.
    pub fn cluster_id(&self) -> plimsoll_proto::ids::ClusterId {
        self.shared().cluster_id
    }

    fn split(&self, request: &v1::ReplicateRequest) -> (PositionsByVolume, Vec<v1::ReplicaBatches>) {
        let routes = self.shared().routes.borrow().clone();
        let mut by_volume = PositionsByVolume::new();
        let mut refused = Vec::new();
        for position in &request.positions {
            let partition = partition_of(&position.topic_id, position.partition);
            let volume = partition.and_then(|partition| routes.by_partition.get(&partition));
            match (partition, volume) {
                (Some(partition), Some(volume)) => {
                    by_volume.entry(*volume).or_default().push((partition, position.clone()));
                }
                (partition, _) => refused.push(v1::ReplicaBatches {
                    topic_id: position.topic_id.clone(),
                    partition: position.partition,
                    leader_epoch: position.leader_epoch,
                    result: Some(replica_batches::Result::Error(match partition {
                        Some(partition) => refusal::unknown(&partition, true),
                        None => ErrorDetail::not_written(Reason::InvalidArgument, "topic id is not 16 bytes"),
                    })),
                    ..v1::ReplicaBatches::default()
                }),
            }
        }
        (by_volume, refused)
    }

    /// Asks every volume concerned; one that is stuck is left out, so that it holds nobody up.
    async fn ask_volumes(
        &self,
        request: &v1::ReplicateRequest,
        by_volume: &PositionsByVolume,
        grown: &Arc<Notify>,
    ) -> Vec<ReplicateAnswer> {
        let volumes = by_volume.len().max(1);
        let bytes_max = usize::try_from(request.bytes_max).unwrap_or(usize::MAX).min(BYTES_MAX) / volumes;
        let asked = by_volume.iter().filter_map(|(volume, positions)| {
            let door = self.doors().get(volume)?;
            if door.pulse.age(self.clock().now()) >= STUCK {
                return None;
            }
            let (reply, answer) = oneshot::channel();
            let work = Work::Replicate(ReplicateWork {
                spu: SpuId(request.spu_id),
                incarnation: Incarnation(request.incarnation),
                positions: positions.clone(),
                bytes_max,
                grown: grown.clone(),
                reply,
            });
            Some(self.ask(door, work, answer, Duration::ZERO))
        });
        futures::future::join_all(asked).await.into_iter().filter_map(Result::ok).collect()
    }

    /// Whom the replicas here follow, by volume; nobody before the node is registered.
    pub fn following(&self) -> Vec<Following> {
        if self.shared().incarnation().is_none() {
            // Leaders answer only the run that is registered.
            return Vec::new();
        }
        let routes = self.shared().routes.borrow().clone();
        let me = self.shared().spu;
        let mut following = std::collections::BTreeSet::new();
        for (partition, volume) in &routes.by_partition {
            let leader = routes.image.partition(partition).map_or(0, |info| info.leader);
            if let Some(address) = routes.image.address(SpuId(leader)).filter(|_| leader != me.0) {
                let address = address.to_owned();
                following.insert(Following { leader: SpuId(leader), address, volume: *volume });
            }
        }
        following.into_iter().collect()
    }

    /// Changes whenever a worker has looked at new metadata: who follows whom may be another.
    pub fn following_changes(&self) -> watch::Receiver<u64> {
        self.shared().following.subscribe()
    }

    /// Positions for the next fetch from a leader.
    ///
    /// # Errors
    /// VOLUME_FAILED when the volume is stuck, SHUTTING_DOWN.
    pub async fn positions(&self, following: &Following) -> Result<Vec<v1::ReplicaPosition>, ErrorDetail> {
        let Some(door) = self.doors().get(&following.volume) else { return Ok(Vec::new()) };
        let (reply, answer) = oneshot::channel();
        self.ask(door, Work::Positions { leader: following.leader, reply }, answer, Duration::ZERO).await
    }

    /// Where the replica of a partition stands here, whatever its role.
    ///
    /// # Errors
    /// VOLUME_FAILED when the volume is stuck, SHUTTING_DOWN.
    pub async fn standing(&self, partition: &PartitionId) -> Result<v1::StandingResponse, ErrorDetail> {
        let (spu, incarnation) = self.identity();
        let volume = self.shared().routes.borrow().by_partition.get(partition).copied();
        let held = match volume.and_then(|volume| self.doors().get(&volume)) {
            Some(door) => {
                let (reply, answer) = oneshot::channel();
                let work = Work::Standing { partition: *partition, reply };
                self.ask(door, work, answer, Duration::ZERO).await?
            }
            None => None,
        };
        let standing = held.unwrap_or_default();
        Ok(v1::StandingResponse { spu_id: spu.0, incarnation: incarnation.0, ..standing })
    }

    /// The controllers accepted a registration that named the replicas without their page cache: from here on it
    /// is they who remember. A queue that is full leaves it to the next registration.
    pub fn loss_told(&self) {
        for door in self.doors().values() {
            if door.work.try_send(Work::LossTold).is_err() {
                tracing::debug!(volume = %door.place.path, "the loss of a page cache stays to be told");
            }
        }
    }

    /// Hands a leader's answers to the positions that were `asked` to the replicas of a volume; returns when
    /// they are in their logs, however long that takes.
    pub async fn replicated(
        &self,
        following: &Following,
        asked: Vec<v1::ReplicaPosition>,
        answers: Vec<v1::ReplicaBatches>,
    ) {
        let Some(door) = self.doors().get(&following.volume) else { return };
        let (reply, done) = oneshot::channel();
        let work = Work::Replicated { leader: following.leader, asked, answers, reply };
        if door.work.send(work).await.is_ok() {
            // An error means that the worker has ended.
            drop(done.await);
        }
    }

    /// Whether the node is being stopped.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.shared().stopping.subscribe()
    }
}

type PositionsByVolume = BTreeMap<VolumeId, Vec<(PartitionId, v1::ReplicaPosition)>>;
