//! Questions and orders to one storage node, for those who run clusters.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use plimsoll_proto::ids::{PartitionId, SpuId};
use plimsoll_proto::v1::volumes_client::VolumesClient;
use plimsoll_proto::v1::{self, ErrorDetail};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::client::Client;
use crate::metadata::why;
use crate::refusal::Refusal;

/// One storage node, asked directly: no controller takes part, so it answers also when none can be reached.
/// Made by [`Client::node`].
///
/// ```no_run
/// use plimsoll_client::{Client, PartitionId, SpuId};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let topic_id = client.topic_id("flights").ok_or("no such topic")?;
/// let ends = client.node(SpuId(2)).offsets(PartitionId { topic_id, index: 0 }).await?;
/// println!("spu 2 has the records from {} to {}", ends.log_start, ends.log_end);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Node {
    client: Client,
    spu: SpuId,
}

/// Why a storage node did not answer as asked.
///
/// ```
/// use plimsoll_client::{NodeError, SpuId};
///
/// assert_eq!(NodeError::Unknown(SpuId(9)).to_string(), "there is no spu 9");
/// ```
#[derive(Clone, Debug, thiserror::Error)]
pub enum NodeError {
    /// It is not in the metadata; see which there are.
    #[error("there is no spu {0}")]
    Unknown(SpuId),
    /// It could not be reached, or did not answer in time. What was ordered may have been done.
    #[error("spu {spu} at {address}: {why}")]
    Unreachable {
        /// Which.
        spu: SpuId,
        /// Where.
        address: String,
        /// What the transport said.
        why: String,
    },
    /// It refused.
    #[error("spu {spu}: {refusal}")]
    Refused {
        /// Which.
        spu: SpuId,
        /// What it said.
        refusal: Refusal,
    },
}

impl Node {
    pub(crate) fn new(client: Client, spu: SpuId) -> Self {
        Self { client, spu }
    }

    /// What reclaim would delete on a volume until `target_free_bytes` are free; 0 asks for what retention alone
    /// allows. Deletes nothing.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn plan_reclaim(
        &self,
        volume_id: Bytes,
        target_free_bytes: u64,
    ) -> Result<v1::PlanReclaimResponse, NodeError> {
        let request = v1::PlanReclaimRequest { volume_id, target_free_bytes };
        self.ask(async |mut volumes| volumes.plan_reclaim(request.clone()).await).await
    }

    /// As [`Node::plan_reclaim`], and it is deleted within a moment. There is no way back.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn reclaim(
        &self,
        volume_id: Bytes,
        target_free_bytes: u64,
    ) -> Result<v1::PlanReclaimResponse, NodeError> {
        let request = v1::PlanReclaimRequest { volume_id, target_free_bytes };
        self.ask(async |mut volumes| volumes.reclaim(request.clone()).await).await
    }

    /// Lowers the mark of read-only of a volume for a while; it comes back by itself.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with the most that can be borrowed as its limit.
    pub async fn borrow(&self, request: v1::BorrowRequest) -> Result<v1::BorrowResponse, NodeError> {
        self.ask(async |mut volumes| volumes.borrow(request.clone()).await).await
    }

    /// Makes a volume behave as if it were short of space, for a while.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a level that space does not lead to, or when the volume is short really.
    pub async fn drill(&self, request: v1::DrillRequest) -> Result<v1::DrillResponse, NodeError> {
        self.ask(async |mut volumes| volumes.drill(request.clone()).await).await
    }

    /// The ends of a partition as this node knows them, leader or not.
    ///
    /// # Errors
    /// `UNKNOWN_PARTITION` when it has no replica.
    pub async fn offsets(&self, partition: PartitionId) -> Result<v1::ListOffsetsResponse, NodeError> {
        let address = self.address()?;
        let request = v1::ListOffsetsRequest {
            topic_id: partition.topic_id.to_bytes(),
            partition: partition.index,
            any_replica: true,
            timestamp_ms: None,
        };
        let connections = &self.client.shared.connections;
        let mut spu = connections.spu(&address).map_err(|error| self.lost(&address, error.to_string()))?;
        self.answer(&address, spu.list_offsets(request)).await
    }

    fn address(&self) -> Result<String, NodeError> {
        self.client.spu_address(self.spu).ok_or(NodeError::Unknown(self.spu))
    }

    fn lost(&self, address: &str, why: String) -> NodeError {
        NodeError::Unreachable { spu: self.spu, address: address.to_owned(), why }
    }

    async fn ask<T>(
        &self,
        ask: impl AsyncFnOnce(VolumesClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, NodeError> {
        let address = self.address()?;
        let connections = &self.client.shared.connections;
        let volumes =
            connections.volumes(&address).map_err(|error| self.lost(&address, error.to_string()))?;
        self.answer(&address, ask(volumes)).await
    }

    async fn answer<T>(
        &self,
        address: &str,
        asked: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, NodeError> {
        let limit = self.client.shared.call_timeout.min(ANSWER_MAX);
        match self.client.shared.host.clock.timeout(limit, asked).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => match ErrorDetail::from_status(&status) {
                Some(detail) => Err(NodeError::Refused { spu: self.spu, refusal: Refusal::new(detail) }),
                None => Err(self.lost(address, why(&status))),
            },
            Err(_) => Err(self.lost(address, format!("no answer within {} ms", limit.as_millis()))),
        }
    }
}

/// A node that lives answers in milliseconds.
const ANSWER_MAX: Duration = Duration::from_secs(5);
