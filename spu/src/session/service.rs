//! The gRPC service.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use plimsoll_host::Host;
use plimsoll_proto::v1;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::budget::{Budget, BudgetLimits};
use super::{fetch, produce, request};
use crate::runtime::NodeHandle;

/// Bounds of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// Produce on its way through the node.
    pub node_budget: BudgetLimits,
    /// Produce on its way through one stream.
    pub stream_budget: BudgetLimits,
    /// Bytes of batches in one message of a fetch stream, at most. Default 1 MiB.
    pub fetch_bytes_max: usize,
    /// Pause after which a fetch stream without new records sends an empty message. Default 1 s.
    pub fetch_heartbeat: Duration,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            node_budget: BudgetLimits::NODE,
            stream_budget: BudgetLimits::STREAM,
            fetch_bytes_max: 1 << 20,
            fetch_heartbeat: Duration::from_secs(1),
        }
    }
}

/// Serves `plimsoll.v1.Spu`.
#[derive(Clone)]
pub struct SpuService {
    host: Host,
    node: NodeHandle,
    settings: SessionSettings,
    budget: Budget,
    stopping: watch::Receiver<bool>,
}

impl SpuService {
    /// A service on `node`. When `stopping` becomes true, every stream answers what is due and ends.
    pub fn new(
        host: Host,
        node: NodeHandle,
        settings: SessionSettings,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self { host, node, budget: Budget::new(settings.node_budget), settings, stopping }
    }
}

#[tonic::async_trait]
impl v1::spu_server::Spu for SpuService {
    type ProduceStream = produce::Answers;

    async fn produce(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        Ok(Response::new(produce::open(
            &self.host,
            self.node.clone(),
            self.budget.clone(),
            self.settings.stream_budget,
            self.stopping.clone(),
            request.into_inner(),
        )))
    }

    type FetchStream = Pin<Box<dyn Stream<Item = Result<v1::FetchResponse, Status>> + Send>>;

    async fn fetch(
        &self,
        request: Request<Streaming<v1::FetchRequest>>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        Ok(Response::new(Box::pin(fetch::open(
            self.host.clone(),
            self.node.clone(),
            self.settings.fetch_bytes_max,
            self.settings.fetch_heartbeat,
            self.stopping.clone(),
            request.into_inner(),
        ))))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let job = request::list_offsets(request.get_ref())?;
        Ok(Response::new(self.node.list_offsets(job).await?))
    }
}
