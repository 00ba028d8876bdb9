//! A produce stream: requests in order, answers as they come.
//!
//! ```text
//!  inbound --> reader --(check, budget)--> node.produce, in order --> Waiting --> Answers --> outbound
//! ```
//! The reader is one task; the answers are polled by the transport itself. When the client goes, the answers
//! are dropped, and with them the reader; what the node had taken by then is appended all the same.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::StreamExt as _;
use futures::stream::{FuturesUnordered, Stream};
use plimsoll_host::{Host, Task};
use plimsoll_proto::ids::PartitionId;
use plimsoll_proto::v1::produce_response::Result as Answer;
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::{Status, Streaming};

use super::budget::{Budget, BudgetLimits, Share};
use super::request;
use crate::runtime::{NodeHandle, ProduceResult};

/// What a producer waits at most before it tries a node that had no memory for its batch.
const MEMORY_RETRY_AFTER: Duration = Duration::from_millis(100);

/// Opens a produce stream.
pub(super) fn open(
    host: &Host,
    node: NodeHandle,
    node_budget: Budget,
    stream_limits: BudgetLimits,
    stopping: watch::Receiver<bool>,
    inbound: Streaming<v1::ProduceRequest>,
) -> Answers {
    let waiting_max = usize::try_from(stream_limits.requests_max).unwrap_or(usize::MAX).max(1);
    let (out, read) = mpsc::channel(waiting_max);
    let reader = Reader { node: node.clone(), node_budget, stream_budget: Budget::new(stream_limits), out };
    let task = host.tasks.spawn("produce reader", reader.run(inbound, stopping));
    Answers { node, read, waiting: FuturesUnordered::new(), end: None, closed: false, _reader: task }
}

enum Read {
    Request(Waiting),
    /// The inbound half broke; the stream ends with this after the answers that are still due.
    Broken(Status),
}

struct Reader {
    node: NodeHandle,
    node_budget: Budget,
    stream_budget: Budget,
    out: mpsc::Sender<Read>,
}

impl Reader {
    async fn run(self, mut inbound: Streaming<v1::ProduceRequest>, mut stopping: watch::Receiver<bool>) {
        loop {
            let message = tokio::select! {
                message = inbound.message() => message,
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            let read = match message {
                Ok(Some(request)) => Read::Request(self.take(request).await),
                Ok(None) => return,
                Err(status) => Read::Broken(status),
            };
            let last = matches!(read, Read::Broken(_));
            if self.out.send(read).await.is_err() || last {
                return;
            }
        }
    }

    /// Checks one request and queues it; returns when its place in the order is taken.
    async fn take(&self, request: v1::ProduceRequest) -> Waiting {
        let bytes = request.batch.len();
        let stream_share = self.stream_budget.take(bytes).await;
        let mut waiting = Waiting {
            request_id: request.request_id,
            leader_epoch: request.leader_epoch,
            partition: None,
            answer: Due::Now(None),
            _stream_share: stream_share,
            _node_share: self.node_budget.try_take(bytes),
        };
        if waiting._node_share.is_none() {
            let detail = ErrorDetail::not_written(Reason::MemoryPressure, "too much produce is on its way")
                .retry_after(MEMORY_RETRY_AFTER);
            waiting.answer = Due::Now(Some(Box::new(detail)));
            return waiting;
        }
        let limit = request::batch_bytes_max(&self.node.metadata(), &request.topic_id);
        match request::produce(request, limit) {
            Ok(job) => {
                waiting.partition = Some(job.partition);
                waiting.answer = Due::Later(self.node.produce(job).await);
            }
            Err(detail) => waiting.answer = Due::Now(Some(Box::new(detail))),
        }
        waiting
    }
}

/// One request whose answer is due, and its share of the budgets until then.
struct Waiting {
    request_id: u64,
    leader_epoch: u32,
    partition: Option<PartitionId>,
    answer: Due,
    _stream_share: Share,
    _node_share: Option<Share>,
}

enum Due {
    Now(Option<Box<ErrorDetail>>),
    Later(oneshot::Receiver<ProduceResult>),
}

struct Answered {
    request_id: u64,
    leader_epoch: u32,
    partition: Option<PartitionId>,
    answer: ProduceResult,
}

impl Future for Waiting {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        let answer = match &mut self.answer {
            Due::Now(refusal) => refusal.take().map(|detail| Answer::Error(*detail)),
            Due::Later(answer) => std::task::ready!(Pin::new(answer).poll(cx)).ok(),
        };
        // The node dropped the request with its answer: it may have been appended before.
        let gone = || {
            Answer::Error(ErrorDetail::unknown(Reason::ShuttingDown, "the node stopped before it answered"))
        };
        Poll::Ready(Answered {
            request_id: self.request_id,
            leader_epoch: self.leader_epoch,
            partition: self.partition,
            answer: answer.unwrap_or_else(gone),
        })
    }
}

/// The outbound half of a produce stream.
pub struct Answers {
    node: NodeHandle,
    read: mpsc::Receiver<Read>,
    waiting: FuturesUnordered<Waiting>,
    end: Option<Status>,
    closed: bool,
    _reader: Task,
}

impl Answers {
    fn take_read(&mut self, cx: &mut Context<'_>) {
        while !self.closed {
            match self.read.poll_recv(cx) {
                Poll::Ready(Some(Read::Request(waiting))) => self.waiting.push(waiting),
                Poll::Ready(Some(Read::Broken(status))) => self.end = Some(status),
                Poll::Ready(None) => self.closed = true,
                Poll::Pending => return,
            }
        }
    }

    fn response(&self, answered: Answered) -> v1::ProduceResponse {
        let (spu_id, incarnation) = self.node.identity();
        let level = answered.partition.and_then(|partition| self.node.level_of(&partition));
        let leader_epoch = match (&answered.answer, answered.partition) {
            // A refusal carries what the producer may not know yet.
            (Answer::Error(_), Some(partition)) => self
                .node
                .metadata()
                .partition(&partition)
                .map_or(answered.leader_epoch, |known| known.leader_epoch),
            (Answer::Error(_), None) | (Answer::Ack(_), _) => answered.leader_epoch,
        };
        v1::ProduceResponse {
            request_id: answered.request_id,
            result: Some(answered.answer),
            spu_id: spu_id.0,
            incarnation: incarnation.0,
            leader_epoch,
            level: level.map_or(v1::DiskLevel::Unspecified, v1::DiskLevel::from).into(),
        }
    }
}

impl Stream for Answers {
    type Item = Result<v1::ProduceResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.take_read(cx);
        match self.waiting.poll_next_unpin(cx) {
            Poll::Ready(Some(answered)) => Poll::Ready(Some(Ok(self.response(answered)))),
            Poll::Ready(None) if self.closed => Poll::Ready(self.end.take().map(Err)),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
