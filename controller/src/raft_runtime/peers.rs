//! One sender task for each peer: a bounded queue into a stream, reconnecting with backoff. Messages may get lost on
//! the way, which Raft allows; what is lost is reported to the lane.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::log_budget::{Key, LogBudget};
use plimsoll_host::retry::Backoff;
use plimsoll_host::{ChannelOptions, Host};
use plimsoll_proto::ids::{ClusterId, ControllerId};
use plimsoll_proto::v1;
use plimsoll_proto::v1::raft_peer_client::RaftPeerClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::handle::View;
use super::wire::MESSAGE_BYTES_MAX;

/// Messages that wait for one peer at most.
pub(super) const QUEUE: usize = 1024;
/// Messages handed to the stream and not yet taken by the connection.
const STREAM_QUEUE: usize = 256;
/// A connection that held this long was a good one: the next failure is retried quickly.
const STEADY: Duration = Duration::from_secs(2);

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
    /// A snapshot went into the stream, or was lost.
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
        self.forward(&messages, first);
        let mut client = RaftPeerClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut call = Box::pin(async move { client.deliver(ReceiverStream::new(stream)).await });
        loop {
            tokio::select! {
                ended = &mut call => {
                    return Some(ended.map_or_else(|status| status.message().to_owned(), |_| "it ended the stream".to_owned()));
                }
                next = self.queue.recv() => {
                    self.forward(&messages, next?);
                }
            }
        }
    }

    fn forward(&self, messages: &mpsc::Sender<v1::RaftMessage>, outgoing: Outgoing) {
        let cluster_id = self.view.borrow().cluster_id;
        let message = v1::RaftMessage {
            cluster_id: cluster_id.map_or_else(bytes::Bytes::new, ClusterId::to_bytes),
            from: self.own.0.0,
            to: self.peer.0.0,
            message: outgoing.message.into(),
            from_address: self.own.1.clone(),
        };
        let sent = messages.try_send(message).is_ok();
        if outgoing.snapshot {
            self.report(PeerEvent::Snapshot { to: self.peer.0, sent });
        } else if !sent {
            self.report(PeerEvent::Unreachable(self.peer.0));
        }
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
