//! Copies from one leader what replicas on one volume here follow.

use std::collections::VecDeque;
use std::time::Duration;

use plimsoll_host::log_budget::{Key, LogBudget};
use plimsoll_host::retry::Backoff;
use plimsoll_host::{ChannelOptions, Host};
use plimsoll_proto::status::reason_name;
use plimsoll_proto::v1;
use plimsoll_proto::v1::peer_client::PeerClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::runtime::{Following, NodeHandle, POSITIONS_MAX};

/// How long a leader may hold a fetch that finds nothing.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Bytes wanted in one answer; a batch that is larger comes whole.
const BYTES_MAX: u32 = 4 << 20;
/// Largest answer taken: the wish above, and one batch beyond it.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// An answer that takes longer than the wait and this is none: the stream is opened again.
const ANSWER_GRACE: Duration = Duration::from_secs(3);
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// An interruption that ends before this is no news: a leader was moved or started again.
const LASTING: Duration = Duration::from_secs(3);
/// How long until positions are looked at again when none could be asked for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Fetcher {
    host: Host,
    node: NodeHandle,
    following: Following,
    log_budget: LogBudget,
    next_fetch: u64,
    /// Where the next fetch begins, of more positions than fit in one.
    next_position: usize,
    /// When the first of the failures since the last answer came.
    interrupted_at: Option<Duration>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Status(#[from] tonic::Status),
    #[error("the leader closed the stream")]
    Closed,
    #[error("no answer in time")]
    Silent,
    #[error("{}: {}", reason_name(.0.reason()), .0.message)]
    Refused(Box<v1::ErrorDetail>),
    #[error("{0}")]
    Address(#[from] plimsoll_proto::invalid::Invalid),
}

/// One open stream.
struct Stream {
    requests: mpsc::Sender<v1::ReplicateRequest>,
    answers: Streaming<v1::ReplicateResponse>,
    /// Positions of the fetches sent and not answered; at most two.
    under_way: VecDeque<Vec<v1::ReplicaPosition>>,
}

impl Fetcher {
    pub(super) fn new(host: Host, node: NodeHandle, following: Following, log_budget: LogBudget) -> Self {
        Self { host, node, following, log_budget, next_fetch: 1, next_position: 0, interrupted_at: None }
    }

    /// Fetches for ever.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX, &self.host.random);
        loop {
            let Err(ended) = self.stream(&mut backoff).await;
            let now = self.host.clock.now();
            let since = *self.interrupted_at.get_or_insert(now);
            if now.saturating_sub(since) >= LASTING
                && let Some(suppressed) = self.log_budget.report(self.key(), now)
            {
                tracing::info!(
                    leader = %self.following.leader, address = self.following.address, suppressed,
                    "replication is interrupted, retrying: {ended}"
                );
            }
            self.host.clock.sleep(backoff.next_pause()).await;
        }
    }

    fn key(&self) -> Key {
        Key::new("fetcher", format!("spu {}", self.following.leader), "fetch")
    }

    fn works(&mut self) {
        if self.interrupted_at.take().is_some()
            && let Some(total) = self.log_budget.recovered(&self.key())
        {
            tracing::info!(leader = %self.following.leader, total, "replication goes on");
        }
    }

    async fn stream(&mut self, backoff: &mut Backoff) -> Result<std::convert::Infallible, Ended> {
        let mut changes = self.node.following_changes();
        let mut stream: Option<Stream> = None;
        loop {
            changes.mark_unchanged();
            let positions = self.node.positions(&self.following).await;
            let positions = positions.map_err(|detail| Ended::Refused(Box::new(detail)))?;
            if positions.is_empty() {
                // Nothing may be asked for now, or nothing is followed: the stream stays open meanwhile.
                self.pause(&mut changes).await;
                continue;
            }
            let only_paused = positions.iter().all(|position| position.paused);
            let open = match &mut stream {
                Some(open) => open,
                closed => closed.insert(self.open().await?),
            };
            self.send(open, positions).await?;
            self.take_answers(open, &mut changes).await?;
            backoff.reset();
            self.works();
            if only_paused {
                self.pause(&mut changes).await;
            }
        }
    }

    async fn pause(&self, changes: &mut watch::Receiver<u64>) {
        tokio::select! {
            () = self.host.clock.sleep(LOOK_AGAIN) => {}
            Ok(()) = changes.changed() => {}
        }
    }

    async fn open(&self) -> Result<Stream, Ended> {
        let channel = self.host.network.channel(&self.following.address, &ChannelOptions::default())?;
        let mut client = PeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (requests, outbound) = mpsc::channel(2);
        let opening = client.replicate(ReceiverStream::new(outbound));
        let answers = self.host.clock.timeout(ANSWER_GRACE, opening).await.map_err(|_| Ended::Silent)??;
        Ok(Stream { requests, answers: answers.into_inner(), under_way: VecDeque::new() })
    }

    async fn send(
        &mut self,
        stream: &mut Stream,
        mut positions: Vec<v1::ReplicaPosition>,
    ) -> Result<(), Ended> {
        let (spu, incarnation) = self.node.identity();
        let fetches = u32::try_from(positions.len().div_ceil(POSITIONS_MAX)).unwrap_or(u32::MAX).max(1);
        self.next_position = take_turn(&mut positions, self.next_position, POSITIONS_MAX);
        stream.under_way.push_back(positions.clone());
        let request = v1::ReplicateRequest {
            cluster_id: self.node.cluster_id().to_bytes(),
            fetch_id: self.next_fetch,
            spu_id: spu.0,
            incarnation: incarnation.0,
            // However many fetches it takes, all are asked for within one wait.
            wait_ms_max: u32::try_from((WAIT_MAX / fetches).as_millis()).unwrap_or(u32::MAX),
            bytes_max: BYTES_MAX,
            positions,
        };
        self.next_fetch += 1;
        stream.requests.send(request).await.map_err(|_| Ended::Closed)
    }

    /// Takes the answers to all fetches under way. When who follows whom changes meanwhile, a second fetch cuts
    /// the wait of the first short.
    async fn take_answers(
        &mut self,
        stream: &mut Stream,
        changes: &mut watch::Receiver<u64>,
    ) -> Result<(), Ended> {
        while !stream.under_way.is_empty() {
            let answer = tokio::select! {
                answer = self.host.clock.timeout(WAIT_MAX + ANSWER_GRACE, stream.answers.message()) => {
                    answer.map_err(|_| Ended::Silent)??.ok_or(Ended::Closed)?
                }
                Ok(()) = changes.changed(), if stream.under_way.len() == 1 => {
                    let positions = self.node.positions(&self.following).await.unwrap_or_default();
                    self.send(stream, positions).await?;
                    continue;
                }
            };
            let asked = stream.under_way.pop_front().unwrap_or_default();
            if let Some(detail) = answer.error {
                return Err(Ended::Refused(Box::new(detail)));
            }
            self.node.replicated(&self.following, asked, answer.partitions).await;
        }
        Ok(())
    }
}

/// Leaves of `positions` those of one fetch: `most` at the utmost, from place `from` on, round and round. Returns where
/// the next fetch begins.
fn take_turn(positions: &mut Vec<v1::ReplicaPosition>, from: usize, most: usize) -> usize {
    let all = positions.len();
    if all <= most {
        return 0;
    }
    let from = from % all;
    positions.rotate_left(from);
    positions.truncate(most);
    (from + most) % all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(all: u32, from: usize, most: usize) -> (Vec<u32>, usize) {
        let position = |partition| v1::ReplicaPosition { partition, ..v1::ReplicaPosition::default() };
        let mut positions = (0..all).map(position).collect();
        let next = take_turn(&mut positions, from, most);
        (positions.iter().map(|position| position.partition).collect(), next)
    }

    #[test]
    fn more_positions_than_fit_in_a_fetch_take_turns() {
        assert_eq!(turn(0, 7, 4), (vec![], 0));
        assert_eq!(turn(4, 3, 4), (vec![0, 1, 2, 3], 0));
        assert_eq!(turn(9, 0, 4), (vec![0, 1, 2, 3], 4));
        assert_eq!(turn(9, 4, 4), (vec![4, 5, 6, 7], 8));
        assert_eq!(turn(9, 8, 4), (vec![8, 0, 1, 2], 3));
        // Some are gone meanwhile.
        assert_eq!(turn(5, 8, 4), (vec![3, 4, 0, 1], 2));
    }
}
