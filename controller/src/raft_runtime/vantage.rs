//! Whether a storage node answers: as seen from here, and as another controller sees it from where it stands.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plimsoll_host::config::Secret;
use plimsoll_host::{ChannelOptions, Host, Probe};
use plimsoll_proto::ids::{ClusterId, ControllerId, Incarnation, SpuId};
use plimsoll_proto::v1::peer_client::PeerClient;
use plimsoll_proto::v1::raft_peer_client::RaftPeerClient;
use plimsoll_proto::v1::{self, ErrorDetail, ProbeSight, Reason};
use tokio::sync::Semaphore;

use super::handle::View;
use super::peers::with_token;
use crate::liveness::Sight;

/// How long a look for another controller may take.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// Looks for other controllers at the same time; beyond it they are refused, and count as not asked for.
const LOOKS_MAX: usize = 64;

/// Where this controller stands in the network. Clones share the limit of looks for others.
#[derive(Clone, Debug)]
pub struct Vantage {
    host: Host,
    own: ControllerId,
    token: Option<Secret>,
    looks: Arc<Semaphore>,
}

/// One run of a storage node of a cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) cluster_id: Option<ClusterId>,
    pub(crate) spu: SpuId,
    pub(crate) incarnation: Incarnation,
}

impl Vantage {
    /// `token` is what controllers show each other.
    pub(super) fn new(host: Host, own: ControllerId, token: Option<Secret>) -> Self {
        Self { host, own, token, looks: Arc::new(Semaphore::new(LOOKS_MAX)) }
    }

    /// What is seen from here of a node at `address`, on a new connection. Cancel safe.
    pub(crate) async fn look(&self, run: Run, address: &str, limit: Duration) -> Sight {
        let asked = self.ping(run.cluster_id, address, "", limit);
        let (answer, port) = futures::future::join(asked, self.host.network.probe(address, limit)).await;
        match (answer, port) {
            (Some(answer), _) if answer.spu_id == run.spu.0 => Sight::Answered,
            (_, Probe::Refused) => Sight::Refused,
            (_, Probe::Reached | Probe::Silent) => Sight::Silent,
        }
    }

    /// Asks the node at `address` whether it lives or, with a `probe_address`, what it sees there. `None` without an
    /// answer in time. Cancel safe.
    pub(crate) async fn ping(
        &self,
        cluster_id: Option<ClusterId>,
        address: &str,
        probe_address: &str,
        limit: Duration,
    ) -> Option<v1::PingResponse> {
        let channel = self.host.network.channel(address, &ChannelOptions::default()).ok()?;
        let request =
            v1::PingRequest { cluster_id: bytes(cluster_id), probe_address: probe_address.to_owned() };
        let mut client = PeerClient::new(channel);
        let answer = self.host.clock.timeout(limit, client.ping(request)).await;
        answer.ok()?.ok().map(tonic::Response::into_inner)
    }

    /// What the controller at `address` sees of that run. `None` when it can't be asked: it was not reached in time, does
    /// not know this run, or is of a version that does not look for others. Cancel safe.
    pub(crate) async fn ask(&self, run: Run, address: &str, limit: Duration) -> Option<Sight> {
        let channel = self.host.network.channel(address, &ChannelOptions::default()).ok()?;
        let request = v1::ProbeRequest {
            cluster_id: bytes(run.cluster_id),
            from: self.own.0,
            spu_id: run.spu.0,
            incarnation: run.incarnation.0,
        };
        let mut client = RaftPeerClient::new(channel);
        let asked = client.probe(with_token(request, self.token.as_ref()));
        let answer = self.host.clock.timeout(limit, asked).await.ok()?.ok()?;
        match answer.into_inner().sight() {
            ProbeSight::Answered => Some(Sight::Answered),
            ProbeSight::Refused => Some(Sight::Refused),
            ProbeSight::Silent => Some(Sight::Silent),
            ProbeSight::Unspecified => None,
        }
    }

    /// Looks for another controller, whose right to ask was checked. Only what is registered in `view` is dialled.
    ///
    /// # Errors
    /// `STALE_INCARNATION` when that run is not the registered one here, `MEMORY_PRESSURE` beyond the limit of looks. The
    /// asker counts both as not asked.
    pub(super) async fn look_for(
        &self,
        view: &View,
        request: &v1::ProbeRequest,
    ) -> Result<ProbeSight, ErrorDetail> {
        let (spu, incarnation) = (SpuId(request.spu_id), Incarnation(request.incarnation));
        let Some(record) = view.state.spu(spu).filter(|record| record.incarnation == incarnation) else {
            let text = format!("run {incarnation} of SPU {spu} is not the one that this controller knows");
            return Err(ErrorDetail::not_written(Reason::StaleIncarnation, text));
        };
        let Ok(_place) = self.looks.try_acquire() else {
            let text = format!("this controller looks at {LOOKS_MAX} SPUs for others already");
            return Err(ErrorDetail::not_written(Reason::MemoryPressure, text));
        };
        let run = Run { cluster_id: view.state.cluster_id(), spu, incarnation };
        Ok(match self.look(run, &record.address, LOOK_MAX).await {
            Sight::Answered => ProbeSight::Answered,
            Sight::Refused => ProbeSight::Refused,
            Sight::Silent => ProbeSight::Silent,
        })
    }
}

fn bytes(cluster_id: Option<ClusterId>) -> Bytes {
    cluster_id.map_or_else(Bytes::new, ClusterId::to_bytes)
}
