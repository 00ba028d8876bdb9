//! The receiving end of the controllers' messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_proto::ids::{ClusterId, ControllerId};
use plimsoll_proto::v1::raft_peer_server::{RaftPeer, RaftPeerServer};
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use raft::eraftpb::Message;
use tokio::sync::{mpsc, watch};
use tonic::{Request, Response, Status, Streaming};

use super::handle::View;
use super::wire::{self, MESSAGE_BYTES_MAX};

/// Messages of all peers that wait for the lane at most; beyond it they are lost, which Raft allows.
pub(super) const INBOX: usize = 4096;

/// The service to add to the controller's server, see [`PeerService::into_server`].
#[derive(Clone)]
pub struct PeerService {
    pub(super) own: ControllerId,
    pub(super) peers: Arc<BTreeMap<ControllerId, String>>,
    pub(super) inbox: mpsc::Sender<Message>,
    pub(super) view: watch::Receiver<Arc<View>>,
}

impl PeerService {
    /// As tonic serves it, with its limits set.
    pub fn into_server(self) -> RaftPeerServer<Self> {
        RaftPeerServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn take(&self, message: v1::RaftMessage) -> Result<(), Box<ErrorDetail>> {
        self.check_cluster(&message.cluster_id)?;
        let decoded = wire::decode(&message.message, message.from, self.own, &self.peers).map_err(|why| {
            let text = format!("a message of controller {} was refused: {why}", message.from);
            Box::new(ErrorDetail::not_written(Reason::InvalidArgument, text))
        })?;
        match self.inbox.try_send(decoded) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Box::new(shutting_down())),
        }
    }

    /// Until both sides know their cluster, the list of peers is what they have in common.
    fn check_cluster(&self, theirs: &[u8]) -> Result<(), Box<ErrorDetail>> {
        let Some(ours) = self.view.borrow().cluster_id else { return Ok(()) };
        if theirs.is_empty() || ClusterId::from_slice(theirs) == Ok(ours) {
            return Ok(());
        }
        let text = format!("this controller belongs to cluster {ours}");
        Err(Box::new(ErrorDetail::not_written(Reason::WrongCluster, text)))
    }
}

fn shutting_down() -> ErrorDetail {
    ErrorDetail::not_written(Reason::ShuttingDown, "the controller is shutting down")
}

#[tonic::async_trait]
impl RaftPeer for PeerService {
    async fn deliver(
        &self,
        request: Request<Streaming<v1::RaftMessage>>,
    ) -> Result<Response<v1::RaftSummary>, Status> {
        let mut messages = request.into_inner();
        let mut received = 0;
        loop {
            let message = tokio::select! {
                message = messages.message() => message?,
                // A server that shuts down gracefully must not wait for its peers to end their streams.
                () = self.inbox.closed() => return Err(shutting_down().to_status()),
            };
            let Some(message) = message else { break };
            self.take(message).map_err(|detail| detail.to_status())?;
            received += 1;
        }
        Ok(Response::new(v1::RaftSummary { received }))
    }
}
