//! A fetch stream: whole batches as far as the credit goes, heartbeats when there is nothing new.
//!
//! Nothing here writes: a consumer can be opened and served on a disk without a free byte.

use std::pin::pin;
use std::time::Duration;

use futures::stream::{self, Stream};
use plimsoll_host::Host;
use plimsoll_proto::v1::fetch_request::Request;
use plimsoll_proto::v1::fetch_response::Result as Answer;
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use tokio::sync::watch;
use tonic::{Status, Streaming};

use super::credit::Credit;
use super::request::{self, Opening};
use crate::runtime::{FetchFrom, FetchJob, Fetched, NodeHandle};

/// How long a client may take to send the message that opens its stream.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(10);

/// Opens a fetch stream. Everything happens when the transport asks for the next message, so that a client
/// that does not read costs nothing.
pub(super) fn open(
    host: Host,
    node: NodeHandle,
    bytes_max: usize,
    heartbeat: Duration,
    stopping: watch::Receiver<bool>,
    inbound: Streaming<v1::FetchRequest>,
) -> impl Stream<Item = Result<v1::FetchResponse, Status>> {
    let session = Session { host, node, bytes_max, heartbeat, stopping, inbound, input: Input::Open };
    stream::unfold(State::Opening(Box::new(session)), |state| async move {
        match state {
            State::Opening(session) => session.first().await,
            State::Serving(session, position) => session.next(position).await,
            State::Ended => None,
        }
    })
}

enum State {
    Opening(Box<Session>),
    Serving(Box<Session>, Position),
    /// The last message was sent.
    Ended,
}

type Step = Option<(Result<v1::FetchResponse, Status>, State)>;

#[derive(Clone, Copy)]
struct Position {
    opening: Opening,
    from: FetchFrom,
    credit: Credit,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    /// The client sends no more; what credit it gave is still served.
    Closed,
}

struct Session {
    host: Host,
    node: NodeHandle,
    bytes_max: usize,
    heartbeat: Duration,
    stopping: watch::Receiver<bool>,
    inbound: Streaming<v1::FetchRequest>,
    input: Input,
}

/// What came first.
enum Event {
    Fetched(Result<Fetched, Box<ErrorDetail>>),
    Message(Result<Option<v1::FetchRequest>, Status>),
    Stopping,
}

impl Session {
    async fn first(mut self: Box<Self>) -> Step {
        let message = self.host.clock.timeout(OPEN_WAIT_MAX, self.inbound.message()).await;
        let opening = match message {
            Ok(Ok(Some(message))) => request::opening(message),
            Ok(Ok(None)) => return None,
            Ok(Err(status)) => return Some((Err(status), State::Ended)),
            Err(_) => Err(request::invalid("the message that opens the stream did not come in time")),
        };
        match opening {
            Ok(opening) => {
                let credit = Credit::new(opening.credit_bytes);
                self.next(Position { opening, from: opening.from, credit }).await
            }
            Err(detail) => self.refuse(detail, None),
        }
    }

    async fn next(mut self: Box<Self>, mut position: Position) -> Step {
        loop {
            if position.credit.to_read().is_none() && self.input == Input::Closed {
                return None;
            }
            let event = self.event(position).await;
            match event {
                Event::Fetched(Ok(fetched)) => {
                    let bytes = size_of_batches(&fetched);
                    // A heartbeat needs none.
                    if bytes == 0 || position.credit.admits(bytes) {
                        return self.serve(position, fetched);
                    }
                }
                Event::Fetched(Err(detail)) => return self.refuse(*detail, Some(&position)),
                Event::Stopping => {
                    let detail = ErrorDetail::not_written(Reason::ShuttingDown, "the node is stopping");
                    return self.refuse(detail, Some(&position));
                }
                Event::Message(Ok(Some(message))) => match message.request {
                    Some(Request::CreditBytes(more)) => {
                        position.credit.granted(more);
                    }
                    Some(Request::Open(_)) | None => {
                        let detail =
                            request::invalid("only credit may follow the message that opened the stream");
                        return self.refuse(detail, Some(&position));
                    }
                },
                Event::Message(Ok(None)) => self.input = Input::Closed,
                Event::Message(Err(status)) => return Some((Err(status), State::Ended)),
            }
        }
    }

    /// Waits for records, credit or the end. Without credit for more only the ends of the partition are asked for,
    /// once a heartbeat. A fetch that is dropped for a message is asked again; it has no effect.
    async fn event(&mut self, position: Position) -> Event {
        let Self { host, node, inbound, stopping, input, .. } = self;
        let heartbeat = self.heartbeat;
        let to_read = position.credit.to_read();
        let job = FetchJob {
            partition: position.opening.partition,
            from: position.from,
            bytes_max: usize::try_from(to_read.unwrap_or(0)).unwrap_or(usize::MAX).min(self.bytes_max),
            any_replica: position.opening.any_replica,
            leader_epoch: position.opening.leader_epoch,
            wait_max: heartbeat,
        };
        let fetched = pin!(async {
            if to_read.is_some() {
                return node.fetch(job).await;
            }
            host.clock.sleep(heartbeat).await;
            ends(node, &position).await
        });
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => Event::Stopping,
            message = inbound.message(), if *input == Input::Open => Event::Message(message),
            fetched = fetched => Event::Fetched(fetched.map_err(Box::new)),
        }
    }

    fn serve(self: Box<Self>, mut position: Position, fetched: Fetched) -> Step {
        position.credit.sent(size_of_batches(&fetched));
        position.from = FetchFrom::Offset(fetched.next_offset);
        let batches = v1::FetchBatches {
            batches: fetched.batches,
            high_watermark: fetched.high_watermark.get(),
            log_start: fetched.log_start.get(),
            next_offset: fetched.next_offset.get(),
        };
        let response = self.response(Answer::Batches(batches), fetched.leader_epoch.0);
        Some((Ok(response), State::Serving(self, position)))
    }

    /// The last message of the stream.
    fn refuse(self: Box<Self>, detail: ErrorDetail, position: Option<&Position>) -> Step {
        let image = self.node.metadata();
        let partition = position.and_then(|position| image.partition(&position.opening.partition));
        let leader_epoch = partition.map_or(0, |partition| partition.leader_epoch);
        Some((Ok(self.response(Answer::Error(detail), leader_epoch)), State::Ended))
    }

    fn response(&self, result: Answer, leader_epoch: u32) -> v1::FetchResponse {
        let (spu_id, incarnation) = self.node.identity();
        v1::FetchResponse { result: Some(result), spu_id: spu_id.0, incarnation: incarnation.0, leader_epoch }
    }
}

fn size_of_batches(fetched: &Fetched) -> u64 {
    u64::try_from(fetched.batches.len()).unwrap_or(u64::MAX)
}

/// Where a partition ends, as a fetch without records, for a client that has given no credit.
async fn ends(node: &NodeHandle, position: &Position) -> Result<Fetched, ErrorDetail> {
    let job = crate::runtime::ListOffsetsJob {
        partition: position.opening.partition,
        any_replica: position.opening.any_replica,
        timestamp_ms: None,
    };
    let ends = node.list_offsets(job).await?;
    let offset = |value| {
        plimsoll_proto::ids::Offset::new(value).expect("the ends of a log never exceed the greatest offset")
    };
    let (log_start, high_watermark) = (offset(ends.log_start), offset(ends.high_watermark));
    Ok(Fetched {
        batches: bytes::Bytes::new(),
        high_watermark,
        log_start,
        next_offset: match position.from {
            FetchFrom::Offset(offset) => offset,
            FetchFrom::Earliest => log_start,
            FetchFrom::Latest => high_watermark,
        },
        leader_epoch: plimsoll_proto::ids::LeaderEpoch(ends.leader_epoch),
    })
}
