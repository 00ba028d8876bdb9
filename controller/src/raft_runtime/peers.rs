//! One sender task for each peer: a bounded queue into a stream, reconnecting with backoff. Messages may get lost on
//! the way, which Raft allows; what is lost is reported to the lane.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plimsoll_host::config::Secret;
use plimsoll_host::log_budget::{Key, LogBudget};
use plimsoll_host::retry::Backoff;
use plimsoll_host::{ChannelOptions, Host, Task};
use plimsoll_proto::ids::{ClusterId, ControllerId};
use plimsoll_proto::v1;
use plimsoll_proto::v1::raft_peer_client::RaftPeerClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use super::disk_room::DiskRoom;
use super::handle::View;
use super::parts;
use super::wire::MESSAGE_BYTES_MAX;

/// Messages that wait for one peer at most.
pub(super) const QUEUE: usize = 1024;
/// Messages handed to the stream and not yet taken by the connection.
const STREAM_QUEUE: usize = 256;
/// A connection that held this long was a good one: the next failure is retried quickly.
const STEADY: Duration = Duration::from_secs(2);

/// The metadata of a stream that holds the token which controllers share.
pub(super) const TOKEN_KEY: &str = "plimsoll-peer-token-bin";

/// A message on its way out.
pub(super) struct Outgoing {
    pub(super) message: Vec<u8>,
    pub(super) snapshot: bool,
}

/// What the lane learns from a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerEvent {
    /// Messages to it were lost.
    Unreachable(ControllerId),
    /// A snapshot arrived, or was lost.
    Snapshot { to: ControllerId, sent: bool },
}

/// Sends to one peer.
pub(super) struct PeerSender {
    pub(super) host: Host,
    pub(super) own: (ControllerId, String),
    pub(super) peer: (ControllerId, String),
    pub(super) queue: mpsc::Receiver<Outgoing>,
    pub(super) events: mpsc::Sender<PeerEvent>,
    pub(super) view: watch::Receiver<Arc<View>>,
    pub(super) token: Option<Secret>,
    /// The snapshot on its way, on a stream of its own: heartbeats must not wait behind it.
    pub(super) snapshot: Option<Task>,
}

impl PeerSender {
    /// Runs until the lane is gone.
    pub(super) async fn run(mut self) {
        let channel = match self.host.network.channel(&self.peer.1, &ChannelOptions::default()) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::error!(peer = %self.peer.0, address = self.peer.1, %error, "a controller's address can't be used");
                return;
            }
        };
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1), &self.host.random);
        let budget = LogBudget::new();
        while let Some(first) = self.queue.recv().await {
            let began = self.host.clock.now();
            let Some(why) = self.stream(channel.clone(), first).await else { return };
            self.report(PeerEvent::Unreachable(self.peer.0));
            let now = self.host.clock.now();
            if now.saturating_sub(began) >= STEADY {
                backoff.reset();
            }
            let key = Key::new("raft peer", self.peer.0.to_string(), "lost");
            if let Some(suppressed) = budget.report(key, now) {
                let (peer, address) = (self.peer.0, &self.peer.1);
                tracing::warn!(%peer, address, why, suppressed, "a controller can't be reached");
            }
            self.drop_queue_for(backoff.next_pause()).await;
        }
    }

    /// Streams until the connection ends; returns why, or `None` when the lane is gone.
    async fn stream(&mut self, channel: Channel, first: Outgoing) -> Option<String> {
        let (messages, stream) = mpsc::channel(STREAM_QUEUE);
        self.forward(&channel, &messages, first);
        let mut client = RaftPeerClient::new(channel.clone()).max_encoding_message_size(MESSAGE_BYTES_MAX);
        let request = with_token(ReceiverStream::new(stream), self.token.as_ref());
        let mut call = Box::pin(async move { client.deliver(request).await });
        loop {
            tokio::select! {
                ended = &mut call => {
                    return Some(ended.map_or_else(|status| status.message().to_owned(), |_| "it ended the stream".to_owned()));
                }
                next = self.queue.recv() => {
                    self.forward(&channel, &messages, next?);
                }
            }
        }
    }

    fn forward(&mut self, channel: &Channel, messages: &mpsc::Sender<v1::RaftMessage>, outgoing: Outgoing) {
        if outgoing.snapshot {
            self.send_snapshot(channel.clone(), outgoing.message.into());
        } else if messages.try_send(self.message(outgoing.message.into())).is_err() {
            self.report(PeerEvent::Unreachable(self.peer.0));
        }
    }

    fn message(&self, message: Bytes) -> v1::RaftMessage {
        let view = self.view.borrow();
        v1::RaftMessage {
            cluster_id: view.cluster_id.map_or_else(Bytes::new, ClusterId::to_bytes),
            from: self.own.0.0,
            to: self.peer.0.0,
            message,
            from_address: self.own.1.clone(),
            disk_full: view.disk != DiskRoom::Ample,
            part: 0,
            parts: 0,
        }
    }

    /// Sends a snapshot in parts; one that is still on its way gives up its place.
    fn send_snapshot(&mut self, channel: Channel, snapshot: Bytes) {
        let parts = parts::cut(self.message(Bytes::new()), snapshot);
        let request = with_token(futures::stream::iter(parts), self.token.as_ref());
        let mut client = RaftPeerClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (events, to) = (self.events.clone(), self.peer.0);
        let sending = async move {
            let sent = client.deliver(request).await.is_ok();
            // The lane waits for this word before it sends anything else there.
            let _lane_is_gone = events.send(PeerEvent::Snapshot { to, sent }).await.is_err();
        };
        self.snapshot = Some(self.host.tasks.spawn("snapshot", sending));
    }

    /// Waits, losing what comes meanwhile: old messages are of no use.
    async fn drop_queue_for(&mut self, pause: Duration) {
        self.host.clock.sleep(pause).await;
        while let Ok(outgoing) = self.queue.try_recv() {
            if outgoing.snapshot {
                self.report(PeerEvent::Snapshot { to: self.peer.0, sent: false });
            }
        }
    }

    fn report(&self, event: PeerEvent) {
        // A lane too busy to hear of it finds out by itself.
        if self.events.try_send(event).is_err() {
            tracing::trace!(?event, "not reported");
        }
    }
}

/// A request, or a stream of them, with the token that controllers share.
pub(super) fn with_token<S>(asked: S, token: Option<&Secret>) -> tonic::Request<S> {
    let mut request = tonic::Request::new(asked);
    if let Some(token) = token {
        request.metadata_mut().insert_bin(TOKEN_KEY, MetadataValue::from_bytes(token.0.as_bytes()));
    }
    request
}
