//! The service that other storage nodes call.

use std::pin::Pin;
use std::time::Duration;

use plimsoll_host::{ChannelOptions, Host, Probe, Task};
use plimsoll_proto::ids::{PartitionId, TopicId};
use plimsoll_proto::v1::peer_client::PeerClient;
use plimsoll_proto::v1::{self, peer_server::Peer};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::fetchers::keep_fetchers;
use crate::runtime::NodeHandle;

/// How long a probe of another node may take.
const PROBE_MAX: Duration = Duration::from_secs(1);
/// Fetches read ahead on one stream, and answers not yet taken.
const READ_AHEAD: usize = 1;

/// Answers peers; and keeps the fetchers by which this node copies from others, for as long as it lives.
pub struct PeerService {
    host: Host,
    node: NodeHandle,
    _fetchers: Task,
}

impl PeerService {
    /// Starts the fetchers of `node` as well.
    pub fn new(host: Host, node: NodeHandle) -> Self {
        let fetchers = host.tasks.spawn("fetchers", keep_fetchers(host.clone(), node.clone()));
        Self { host, node, _fetchers: fetchers }
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<v1::ReplicateResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for PeerService {
    type ReplicateStream = Responses;

    async fn replicate(
        &self,
        request: Request<Streaming<v1::ReplicateRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let (responses, outbound) = mpsc::channel(READ_AHEAD);
        let serve = serve_follower(self.host.clone(), self.node.clone(), request.into_inner(), responses);
        self.host.tasks.spawn("peer stream", serve).detach();
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound))))
    }

    async fn standing(
        &self,
        request: Request<v1::StandingRequest>,
    ) -> Result<Response<v1::StandingResponse>, Status> {
        let request = request.into_inner();
        self.node.check_cluster(&request.cluster_id)?;
        let topic_id = TopicId::from_slice(&request.topic_id)
            .map_err(|error| v1::ErrorDetail::not_written(v1::Reason::InvalidArgument, error.to_string()))?;
        let partition = PartitionId { topic_id, index: request.partition };
        Ok(Response::new(self.node.standing(&partition).await?))
    }

    async fn ping(&self, request: Request<v1::PingRequest>) -> Result<Response<v1::PingResponse>, Status> {
        let request = request.into_inner();
        // A vantage point of another cluster is none.
        self.node.check_cluster(&request.cluster_id)?;
        let (spu, incarnation) = self.node.identity();
        let mut response =
            v1::PingResponse { spu_id: spu.0, incarnation: incarnation.0, ..v1::PingResponse::default() };
        if !request.probe_address.is_empty() {
            let probed = self.host.network.probe(&request.probe_address, PROBE_MAX).await;
            response.probe_refused = probed == Probe::Refused;
            // An open port is not a node that answers: ask it.
            response.probe_reached =
                probed == Probe::Reached && self.pings(&request.probe_address, request.cluster_id).await;
        }
        Ok(Response::new(response))
    }
}

impl PeerService {
    async fn pings(&self, address: &str, cluster_id: bytes::Bytes) -> bool {
        let Ok(channel) = self.host.network.channel(address, &ChannelOptions::default()) else {
            return false;
        };
        let mut client = PeerClient::new(channel);
        let asked = client.ping(v1::PingRequest { cluster_id, probe_address: String::new() });
        matches!(self.host.clock.timeout(PROBE_MAX, asked).await, Ok(Ok(_)))
    }
}

/// Answers a follower's fetches in order. A fetch that arrives while another waits for data cuts that wait
/// short: the follower has something new to say.
async fn serve_follower(
    host: Host,
    node: NodeHandle,
    mut inbound: Streaming<v1::ReplicateRequest>,
    responses: mpsc::Sender<Result<v1::ReplicateResponse, Status>>,
) {
    let (count, arrived) = watch::channel(0u64);
    let (queue, mut queued) = mpsc::channel(READ_AHEAD);
    let reader = host.tasks.spawn("peer requests", async move {
        while let Ok(Some(request)) = inbound.message().await {
            count.send_modify(|count| *count += 1);
            if queue.send(request).await.is_err() {
                return;
            }
        }
    });
    let mut stopping = node.stopping();
    let mut taken = 0;
    while let Some(request) = queued.recv().await {
        taken += 1;
        let mut arrived = arrived.clone();
        let next_arrived = async move {
            if arrived.wait_for(|count| *count > taken).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let response = tokio::select! {
            response = node.replicate_until(request, next_arrived) => response,
            () = responses.closed() => break,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        if responses.send(Ok(response)).await.is_err() {
            break;
        }
    }
    drop(reader);
}
