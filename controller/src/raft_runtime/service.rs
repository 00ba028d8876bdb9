//! The receiving end of the controllers' messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_host::config::Secret;
use plimsoll_proto::ids::{ClusterId, ControllerId};
use plimsoll_proto::v1::raft_peer_server::{RaftPeer, RaftPeerServer};
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use raft::eraftpb::Message;
use tokio::sync::{mpsc, watch};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::handle::View;
use super::peers::TOKEN_KEY;
use super::wire::{self, MESSAGE_BYTES_MAX};

/// Messages of all peers that wait for the lane at most; beyond it they are lost, which Raft allows.
pub(super) const INBOX: usize = 4096;
/// Largest snapshot that is taken: more than a journal file may hold.
const SNAPSHOT_BYTES_MAX: usize = 1 << 30;

/// The service to add to the controller's server, see [`PeerService::into_server`].
#[derive(Clone)]
pub struct PeerService {
    pub(super) own: ControllerId,
    /// As configured; counts until the lane has published who there is.
    pub(super) peers: Arc<BTreeMap<ControllerId, String>>,
    pub(super) token: Option<Secret>,
    pub(super) inbox: mpsc::Sender<Incoming>,
    pub(super) view: watch::Receiver<Arc<View>>,
}

/// A message of a peer, and what it said about itself.
pub(super) struct Incoming {
    pub(super) message: Message,
    pub(super) disk_full: bool,
}

impl PeerService {
    /// As tonic serves it, with its limits set.
    pub fn into_server(self) -> RaftPeerServer<Self> {
        RaftPeerServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn take(&self, message: v1::RaftMessage) -> Result<(), Box<ErrorDetail>> {
        self.check_cluster(&message.cluster_id)?;
        let is_peer = |id| {
            let view = self.view.borrow();
            let published = !view.peers.is_empty();
            if published { view.peers.iter().any(|peer| peer.id == id) } else { self.peers.contains_key(&id) }
        };
        let decoded = wire::decode(&message.message, message.from, self.own, is_peer).map_err(|why| {
            let text = format!("a message of controller {} was refused: {why}", message.from);
            Box::new(ErrorDetail::not_written(Reason::InvalidArgument, text))
        })?;
        match self.inbox.try_send(Incoming { message: decoded, disk_full: message.disk_full }) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Box::new(shutting_down())),
        }
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

/// Puts the parts of a snapshot together.
#[derive(Default)]
struct Parts {
    next: u32,
    bytes: Vec<u8>,
}

impl Parts {
    /// The whole message, once its last part came. Parts come in order, on one stream.
    fn add(&mut self, mut message: v1::RaftMessage) -> Result<Option<v1::RaftMessage>, &'static str> {
        if message.parts <= 1 {
            return Ok(Some(message));
        }
        if message.part != self.next || message.part >= message.parts {
            return Err("its parts are not in order");
        }
        if self.bytes.len().saturating_add(message.message.len()) > SNAPSHOT_BYTES_MAX {
            return Err("it is larger than a journal can be");
        }
        self.bytes.extend_from_slice(&message.message);
        self.next += 1;
        if self.next < message.parts {
            return Ok(None);
        }
        message.message = std::mem::take(self).bytes.into();
        Ok(Some(message))
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
        self.check_token(request.metadata()).map_err(|detail| detail.to_status())?;
        let mut messages = request.into_inner();
        let mut parts = Parts::default();
        let mut received = 0;
        loop {
            let message = tokio::select! {
                message = messages.message() => message?,
                // A server that shuts down gracefully must not wait for its peers to end their streams.
                () = self.inbox.closed() => return Err(shutting_down().to_status()),
            };
            let Some(message) = message else { break };
            let whole = parts.add(message).map_err(|why| {
                ErrorDetail::not_written(Reason::InvalidArgument, format!("a snapshot was refused: {why}"))
                    .to_status()
            })?;
            let Some(message) = whole else { continue };
            self.take(message).map_err(|detail| detail.to_status())?;
            received += 1;
        }
        Ok(Response::new(v1::RaftSummary { received }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(part: u32, parts: u32, bytes: &'static [u8]) -> v1::RaftMessage {
        v1::RaftMessage { part, parts, message: bytes.into(), ..Default::default() }
    }

    #[test]
    fn parts_make_a_whole_and_only_in_order() {
        let mut parts = Parts::default();
        assert_eq!(parts.add(part(0, 0, b"whole")), Ok(Some(part(0, 0, b"whole"))));
        assert_eq!(parts.add(part(0, 3, b"a")), Ok(None));
        assert_eq!(parts.add(part(1, 3, b"b")), Ok(None));
        assert_eq!(parts.add(part(2, 3, b"c")), Ok(Some(part(2, 3, b"abc"))));
        for wrong in [part(1, 3, b"b"), part(3, 3, b"d"), part(7, 2, b"")] {
            assert!(Parts::default().add(wrong).is_err());
        }
        let mut again = Parts::default();
        assert_eq!(again.add(part(0, 3, b"a")), Ok(None));
        assert!(again.add(part(0, 3, b"a")).is_err());
    }
}
