//! The receiving end of what controllers say to and ask of each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_host::Host;
use plimsoll_host::config::Secret;
use plimsoll_proto::ids::{ClusterId, ControllerId};
use plimsoll_proto::v1::raft_peer_server::{RaftPeer, RaftPeerServer};
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use raft::eraftpb::Message;
use tokio::sync::{mpsc, watch};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::handle::View;
use super::parts::{Bench, NotWhole};
use super::peers::TOKEN_KEY;
use super::vantage::Vantage;
use super::wire::{self, MESSAGE_BYTES_MAX};

/// Messages of all peers that wait for the lane at most; beyond it they are lost, which Raft allows.
pub(super) const INBOX: usize = 4096;

/// The service to add to the controller's server, see [`PeerService::into_server`].
#[derive(Clone)]
pub struct PeerService {
    pub(super) own: ControllerId,
    /// As configured; counts until the lane has published who there is.
    pub(super) peers: Arc<BTreeMap<ControllerId, String>>,
    pub(super) token: Option<Secret>,
    pub(super) bench: Bench,
    pub(super) inbox: mpsc::Sender<Incoming>,
    pub(super) view: watch::Receiver<Arc<View>>,
}

/// A message of a peer, and what it said about itself.
pub(super) struct Incoming {
    pub(super) message: Message,
    pub(super) disk_full: bool,
}

impl PeerService {
    /// Where this controller stands, for looks at storage nodes on its own account.
    pub fn vantage(&self, host: &Host) -> Vantage {
        Vantage::new(host.clone(), self.own, self.token.clone())
    }

    /// As tonic serves it, with its limits set. From `vantage` it looks at storage nodes for other controllers.
    pub fn into_server(self, vantage: Vantage) -> RaftPeerServer<impl RaftPeer> {
        RaftPeerServer::new(Door { peers: self, vantage }).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn take(&self, message: v1::RaftMessage) -> Result<(), Box<ErrorDetail>> {
        let is_peer = |id| self.is_peer(id);
        let decoded = wire::decode(&message.message, message.from, self.own, is_peer)
            .map_err(|why| Box::new(refused(message.from, why)))?;
        match self.inbox.try_send(Incoming { message: decoded, disk_full: message.disk_full }) {
            Ok(()) => Ok(()),
            // Its sender is to know, and sends it again; of other messages the library itself does.
            Err(mpsc::error::TrySendError::Full(_)) if message.parts > 0 => {
                Err(Box::new(ErrorDetail::not_written(
                    Reason::MemoryPressure,
                    "too many messages wait for this controller",
                )))
            }
            Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Box::new(shutting_down())),
        }
    }

    fn is_peer(&self, id: ControllerId) -> bool {
        let view = self.view.borrow();
        let published = !view.peers.is_empty();
        if published { view.peers.iter().any(|peer| peer.id == id) } else { self.peers.contains_key(&id) }
    }

    /// Whether anything of it is kept or done: before a snapshot is whole, its parts are.
    fn check_sender(&self, cluster_id: &[u8], from: u64) -> Result<(), Box<ErrorDetail>> {
        self.check_cluster(cluster_id)?;
        if from == self.own.0 || !self.is_peer(ControllerId(from)) {
            return Err(Box::new(refused(from, wire::Refused::WrongPeer)));
        }
        Ok(())
    }

    /// Whether the stream comes from somebody who knows the token that the controllers share.
    fn check_token(&self, metadata: &MetadataMap) -> Result<(), Box<ErrorDetail>> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = metadata.get_bin(TOKEN_KEY).and_then(|value| value.to_bytes().ok());
        if given.is_some_and(|given| token.matches(&given)) {
            return Ok(());
        }
        let text = "the peer_token is not this controller's; give all controllers the same one";
        Err(Box::new(ErrorDetail::not_written(Reason::WrongJoinToken, text)))
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

fn refused(from: u64, why: impl std::fmt::Display) -> ErrorDetail {
    let text = format!("a message of controller {from} was refused: {why}");
    ErrorDetail::not_written(Reason::InvalidArgument, text)
}

fn shutting_down() -> ErrorDetail {
    ErrorDetail::not_written(Reason::ShuttingDown, "the controller is shutting down")
}

/// What other controllers reach.
struct Door {
    peers: PeerService,
    vantage: Vantage,
}

#[tonic::async_trait]
impl RaftPeer for Door {
    async fn probe(&self, request: Request<v1::ProbeRequest>) -> Result<Response<v1::ProbeResponse>, Status> {
        self.peers.check_token(request.metadata()).map_err(|detail| detail.to_status())?;
        let request = request.into_inner();
        let checked = self.peers.check_sender(&request.cluster_id, request.from);
        checked.map_err(|detail| detail.to_status())?;
        let view = Arc::clone(&self.peers.view.borrow());
        let sight = self.vantage.look_for(&view, &request).await.map_err(|detail| detail.to_status())?;
        Ok(Response::new(v1::ProbeResponse { sight: sight.into() }))
    }

    async fn deliver(
        &self,
        request: Request<Streaming<v1::RaftMessage>>,
    ) -> Result<Response<v1::RaftSummary>, Status> {
        let peers = &self.peers;
        peers.check_token(request.metadata()).map_err(|detail| detail.to_status())?;
        let mut messages = request.into_inner();
        let mut parts = peers.bench.stream();
        let mut received = 0;
        loop {
            let message = tokio::select! {
                message = messages.message() => message?,
                // A server that shuts down gracefully must not wait for its peers to end their streams.
                () = peers.inbox.closed() => return Err(shutting_down().to_status()),
                () = parts.superseded() => return Err(refused(0, NotWhole::Superseded).to_status()),
            };
            let Some(message) = message else { break };
            peers.check_sender(&message.cluster_id, message.from).map_err(|detail| detail.to_status())?;
            let from = message.from;
            let whole = parts.add(message).map_err(|why| refused(from, why).to_status())?;
            let Some(message) = whole else { continue };
            peers.take(message).map_err(|detail| detail.to_status())?;
            received += 1;
        }
        Ok(Response::new(v1::RaftSummary { received }))
    }
}
