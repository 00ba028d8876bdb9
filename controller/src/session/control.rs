//! What storage nodes ask: registration, heartbeats, in-sync sets, volumes, handing over.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use plimsoll_proto::ids::{PartitionId, SpuId, VolumeId};
use plimsoll_proto::v1::{self, ErrorDetail, Reason, control_server::Control, entry::Change};
use tonic::{Request, Response, Status, Streaming};

use super::heartbeat::HeartbeatStream;
use super::shared::Shared;
use super::{answer, request};
use crate::cluster::{ClusterState, Effect, Mismatch, Outcome, VolumeState};

/// Service `plimsoll.v1.Control`.
#[derive(Clone, Debug)]
pub struct ControlService {
    shared: Shared,
}

impl ControlService {
    /// The service over what the controller shares.
    pub fn new(shared: Shared) -> Self {
        Self { shared }
    }

    async fn register(&self, request: v1::RegisterRequest) -> Result<v1::RegisterResponse, ErrorDetail> {
        let view = self.shared.leading()?;
        request::cluster(&view.state, &request.cluster_id)?;
        request::registration(&request)?;
        self.refuse_unknown(&request)?;
        self.refuse_stranger(&view.state, &request)?;
        refuse_stuck(&view.state, &request, self.shared.settings.liveness.volume_stalled_after)?;
        let change = Change::RegisterSpu(v1::RegisterSpu {
            spu_id: request.spu_id,
            start_nonce: request.start_nonce,
            address: request.address,
            rack: request.rack,
            volumes: request
                .volumes
                .into_iter()
                .map(|volume| v1::VolumeDeclared { volume_id: volume.volume_id, path: volume.path })
                .collect(),
            replicas: request.replicas.into_iter().filter(|replica| replica.cache_lost).collect(),
        });
        match self.shared.change(change).await? {
            (_, Effect::Registered { incarnation, .. }) => Ok(v1::RegisterResponse {
                cluster_id: view.state.cluster_id().map(|id| id.to_bytes()).unwrap_or_default(),
                incarnation: incarnation.0,
                protocol: request::PROTOCOL,
            }),
            (_, Effect::Done | Effect::ProducerIds { .. } | Effect::HandedOver { .. }) => {
                Err(answer::no_quorum("the registration had another effect"))
            }
        }
    }

    /// Whoever is not named, or does not know the cluster's token, is no node of it.
    fn refuse_unknown(&self, request: &v1::RegisterRequest) -> Result<(), ErrorDetail> {
        let (spu, named) = (SpuId(request.spu_id), &self.shared.settings.spus);
        if !named.is_empty() && !named.contains(&spu) {
            return Err(answer::invalid(format!(
                "SPU id {spu} is not among those that may register; name it in spus (--spu) of every controller"
            )));
        }
        let Some(token) = &self.shared.settings.join_token else { return Ok(()) };
        if token.matches(request.join_token.as_bytes()) {
            return Ok(());
        }
        let text = if request.join_token.is_empty() {
            "the cluster asks for a join token; give the node its join_token"
        } else {
            "the node's join_token is not the cluster's"
        };
        Err(ErrorDetail::not_written(Reason::WrongJoinToken, text))
    }

    /// Two machines with the same id would fence each other for ever: the one that was there stays while it
    /// is heard.
    fn refuse_stranger(
        &self,
        state: &ClusterState,
        request: &v1::RegisterRequest,
    ) -> Result<(), ErrorDetail> {
        let spu = SpuId(request.spu_id);
        let now = self.shared.host.clock.now();
        let fresh = self.shared.settings.facts_fresh;
        let (Some(record), Some(heard)) = (state.spu(spu), self.shared.facts.get(spu)) else { return Ok(()) };
        let lives = heard.incarnation == record.incarnation && now.saturating_sub(heard.at) < fresh;
        let declared: BTreeSet<_> =
            request.volumes.iter().filter_map(|v| VolumeId::from_slice(&v.volume_id).ok()).collect();
        let shares_a_volume = record.volumes.keys().any(|id| declared.contains(id));
        if record.state.is_live() && lives && !shares_a_volume {
            let text = format!("SPU id {spu} is in use by a node at {}; choose another --id", record.address);
            return Err(ErrorDetail::not_written(Reason::InvalidArgument, text));
        }
        Ok(())
    }

    async fn change_in_sync(
        &self,
        request: v1::ChangeInSyncRequest,
    ) -> Result<v1::ChangeInSyncResponse, ErrorDetail> {
        let view = self.shared.leading()?;
        request::cluster(&view.state, &request.cluster_id)?;
        let (spu, incarnation) = request::sender(&view.state, request.spu_id, request.incarnation)?;
        let id = PartitionId { topic_id: request::topic_id(&request.topic_id)?, index: request.partition };
        if view.state.partition(id).is_none() {
            let text = format!("there is no partition {id}");
            return Err(ErrorDetail::not_written(Reason::UnknownPartition, text));
        }
        let limit = usize::try_from(crate::cluster::REPLICAS_MAX).unwrap_or(usize::MAX);
        if !(1..=limit).contains(&request.in_sync.len()) {
            return Err(answer::invalid("an in-sync set has 1 to 16 members"));
        }
        let change = v1::SetInSync {
            topic_id: request.topic_id,
            partition: request.partition,
            leader: spu.0,
            leader_incarnation: incarnation.0,
            leader_epoch: request.leader_epoch,
            partition_epoch: request.partition_epoch,
            in_sync: request.in_sync,
            reason: request::reason(&request.reason),
            fence: false,
        };
        let mut applied = false;
        if view.state.with_in_sync(&change).is_ok() {
            let proposed = self.shared.propose(Change::SetInSync(change.clone())).await?;
            applied = matches!(proposed.applied, Outcome::Changed(_));
        }
        let state = self.shared.raft.view().state.clone();
        if let Some(fence) = state.fence(&change).filter(|_| !applied) {
            self.shared.propose(Change::SetInSync(fence)).await?;
        }
        let state = self.shared.raft.view().state.clone();
        let partition_epoch = state.partition(id).map_or(0, |partition| partition.partition_epoch.0);
        Ok(v1::ChangeInSyncResponse { applied, version: state.version().0, partition_epoch })
    }

    async fn change_volume(
        &self,
        request: v1::ChangeVolumeRequest,
    ) -> Result<v1::ChangeVolumeResponse, ErrorDetail> {
        let view = self.shared.leading()?;
        request::cluster(&view.state, &request.cluster_id)?;
        let (spu, incarnation) = request::sender(&view.state, request.spu_id, request.incarnation)?;
        let volume = request::volume_id(&request.volume_id)?;
        let current = |state: &ClusterState| state.volume(spu, volume).map(|volume| volume.state.to_wire());
        let now =
            current(&view.state).ok_or_else(|| answer::invalid("the node registered no such volume"))?;
        let reason = request::reason(&request.reason);
        let wanted = VolumeState::from_wire(request.wanted(), &reason)
            .ok_or_else(|| answer::invalid("wanted is not a state of a volume"))?;
        if now == wanted.to_wire() || now != request.expected() {
            let version = view.state.version().0;
            return Ok(v1::ChangeVolumeResponse { applied: false, current: now.into(), version });
        }
        let proposed = self
            .shared
            .propose(Change::SetVolumeState(v1::SetVolumeState {
                spu_id: spu.0,
                volume_id: volume.to_bytes(),
                incarnation: incarnation.0,
                expected: request.expected,
                wanted: request.wanted,
                reason,
            }))
            .await?;
        if proposed.applied == Outcome::NoOp(Mismatch::StaleIncarnation) {
            return Err(answer::stale_incarnation(self.shared.raft.view().state.incarnation(spu)));
        }
        let applied = matches!(proposed.applied, Outcome::Changed(_));
        let after = current(&self.shared.raft.view().state).unwrap_or(now);
        Ok(v1::ChangeVolumeResponse { applied, current: after.into(), version: proposed.index })
    }

    async fn hand_over(&self, request: v1::HandOverRequest) -> Result<v1::HandOverResponse, ErrorDetail> {
        let view = self.shared.leading()?;
        request::cluster(&view.state, &request.cluster_id)?;
        let (spu, incarnation) = request::sender(&view.state, request.spu_id, request.incarnation)?;
        let change = v1::HandOverLeaders { spu_id: spu.0, incarnation: incarnation.0 };
        match self.shared.change(Change::HandOver(change)).await? {
            (_, Effect::HandedOver { moved, kept }) => Ok(v1::HandOverResponse { moved, kept }),
            (_, Effect::Done | Effect::Registered { .. } | Effect::ProducerIds { .. }) => {
                Err(answer::no_quorum("handing over had another effect"))
            }
        }
    }
}

/// A node that went offline because all its disks are stuck stays so until one of them moves.
fn refuse_stuck(
    state: &ClusterState,
    request: &v1::RegisterRequest,
    limit: Duration,
) -> Result<(), ErrorDetail> {
    let offline = state.spu(SpuId(request.spu_id)).is_some_and(|spu| !spu.state.is_live());
    let stuck = request::data_paths(&request.volumes).iter().all(|(_, age)| *age >= limit);
    if offline && stuck {
        let detail = ErrorDetail::not_written(Reason::VolumeFailed, "no volume of the node moves");
        return Err(detail.retry_after(Duration::from_secs(1)));
    }
    Ok(())
}

#[tonic::async_trait]
impl Control for ControlService {
    type HeartbeatStream = Pin<Box<dyn Stream<Item = Result<v1::HeartbeatResponse, Status>> + Send>>;

    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        Ok(Response::new(Self::register(self, request.into_inner()).await?))
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<v1::HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let stream = HeartbeatStream::new(self.shared.clone(), request.into_inner());
        let answers = futures::stream::unfold(stream, |mut stream| async {
            let answer = stream.next().await?;
            Some((answer, stream))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn change_in_sync(
        &self,
        request: Request<v1::ChangeInSyncRequest>,
    ) -> Result<Response<v1::ChangeInSyncResponse>, Status> {
        Ok(Response::new(Self::change_in_sync(self, request.into_inner()).await?))
    }

    async fn change_volume(
        &self,
        request: Request<v1::ChangeVolumeRequest>,
    ) -> Result<Response<v1::ChangeVolumeResponse>, Status> {
        Ok(Response::new(Self::change_volume(self, request.into_inner()).await?))
    }

    async fn hand_over(
        &self,
        request: Request<v1::HandOverRequest>,
    ) -> Result<Response<v1::HandOverResponse>, Status> {
        Ok(Response::new(Self::hand_over(self, request.into_inner()).await?))
    }
}
