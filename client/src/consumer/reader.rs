//! The task that reads one partition: from its leader, or from a given copy.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::retry::Backoff;
use plimsoll_proto::ids::Offset;
use plimsoll_proto::v1::{
    self, ErrorDetail, FetchBatches, FetchOpen, FetchRequest, FetchResponse, Reason, fetch_request,
    fetch_response,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::beyond::BeyondEnd;
use super::chunk::{Chunk, Decoder, Item, News};
use super::settings::{ConsumerEvent, OnTrimmed, StartAt};
use super::source::{Place, Source};
use crate::error::{ConsumeError, LastCause};
use crate::metadata::why;
use crate::refusal::Refusal;

/// A stream that says nothing for so long is opened again; servers send heartbeats more often.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Damaged batches in a row before the consumer ends.
const DAMAGED_MAX: u32 = 5;
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Credit messages waiting for the stream.
const CREDITS_MAX: usize = 256;

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Start(StartAt),
    At(Offset),
}

pub(crate) struct Reader {
    source: Arc<Source>,
    /// Tells its items from those of a reader that it replaced.
    generation: u64,
    credit_bytes: usize,
    end: Option<Offset>,
    waiting: Arc<Semaphore>,
    decoding: Arc<Semaphore>,
    items: mpsc::Sender<Item>,
    position: Position,
    backoff: Backoff,
    beyond: BeyondEnd,
    damaged: u32,
}

/// Where a reader hands its records over, and how much it may read ahead.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    pub(crate) items: mpsc::Sender<Item>,
    /// Bytes of records that wait for the caller, of all readers.
    pub(crate) waiting: Arc<Semaphore>,
    /// One reader at a time decodes what is not counted as waiting yet.
    pub(crate) decoding: Arc<Semaphore>,
    /// Bytes under way of this reader.
    pub(crate) credit_bytes: usize,
}

/// Why reading a stream stopped.
enum Stop {
    /// Open it again, after a pause when the server or the network is the reason.
    Again {
        why: String,
        pause: bool,
    },
    /// Read to the end, or the caller is gone.
    Done,
    Failed(ConsumeError),
}

impl Reader {
    pub(crate) fn new(
        source: Arc<Source>,
        generation: u64,
        start: StartAt,
        end: Option<Offset>,
        outlet: Outlet,
    ) -> Self {
        let position = match start {
            StartAt::Offset(offset) => Position::At(offset),
            start => Position::Start(start),
        };
        let backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX, &source.client.shared.host.random);
        let Outlet { items, waiting, decoding, credit_bytes } = outlet;
        Self {
            source,
            generation,
            credit_bytes,
            end,
            waiting,
            decoding,
            items,
            position,
            backoff,
            beyond: BeyondEnd::default(),
            damaged: 0,
        }
    }

    /// Whether the caller is still there.
    async fn hand_over(&self, news: News) -> bool {
        let partition = self.source.partition.index;
        self.items.send(Item::Of { partition, generation: self.generation, news }).await.is_ok()
    }

    pub(crate) async fn run(mut self) {
        let news = loop {
            if self.finished() {
                break News::End;
            }
            if self.source.gone() {
                break News::Failed(ConsumeError::UnknownTopic(self.source.topic.clone()));
            }
            let stop = match self.source.place() {
                Some(place) => self.read_from(&place).await,
                None => {
                    self.source.tell(ConsumerEvent::NoLeader { partition: self.source.partition.index });
                    Stop::Again { why: "no leader".to_owned(), pause: true }
                }
            };
            match stop {
                Stop::Done => break News::End,
                Stop::Failed(error) => break News::Failed(error),
                Stop::Again { why, pause } => {
                    tracing::debug!(partition = %self.source.partition, %why, "reading again");
                    if pause {
                        self.pause().await;
                    }
                }
            }
        };
        // False means that the caller is gone.
        self.hand_over(news).await;
    }

    /// Waits a little, or until the metadata change.
    async fn pause(&mut self) {
        let pause = self.backoff.next_pause();
        let mut images = self.source.client.watch_metadata();
        images.mark_unchanged();
        // Either way it is time to try again.
        drop(self.source.client.shared.host.clock.timeout(pause, images.changed()).await);
    }

    fn finished(&self) -> bool {
        let Some(end) = self.end else { return false };
        match self.position {
            Position::At(next) => next >= end,
            // Behind the newest record there is nothing in front of the end; an empty log has none either.
            Position::Start(StartAt::Latest) => true,
            Position::Start(_) => end == Offset::ZERO,
        }
    }

    fn open_request(&self, place: &Place, credit_bytes: u64) -> FetchRequest {
        let (start_at, offset) = match self.position {
            Position::At(offset) => (v1::StartAt::Offset, offset),
            Position::Start(StartAt::Latest) => (v1::StartAt::Latest, Offset::ZERO),
            // Times and counts are offsets by now.
            Position::Start(_) => (v1::StartAt::Earliest, Offset::ZERO),
        };
        let open = FetchOpen {
            topic_id: self.source.partition.topic_id.to_bytes(),
            partition: self.source.partition.index,
            leader_epoch: place.leader_epoch,
            start_at: start_at.into(),
            offset: offset.get(),
            credit_bytes,
            any_replica: self.source.settings.replica.is_some(),
        };
        FetchRequest { request: Some(fetch_request::Request::Open(open)) }
    }

    async fn read_from(&mut self, place: &Place) -> Stop {
        let partition = self.source.partition.index;
        let stop = self.stream_from(place).await;
        if let Stop::Again { why, .. } = &stop {
            let event = ConsumerEvent::Disconnected { partition, spu: place.spu, why: why.clone() };
            self.source.tell(event);
        }
        stop
    }

    async fn stream_from(&mut self, place: &Place) -> Stop {
        let again = |why| Stop::Again { why, pause: true };
        let source = Arc::clone(&self.source);
        let clock = &source.client.shared.host.clock;
        if let Err(stop) = self.find_start(place).await {
            return stop;
        }
        let (requests, outgoing) = mpsc::channel(CREDITS_MAX);
        let credit = u64::try_from(self.credit_bytes).unwrap_or(u64::MAX);
        if requests.try_send(self.open_request(place, credit)).is_err() {
            return again("the stream takes no request".to_owned());
        }
        let mut spu = match source.client.shared.connections.spu(&place.address) {
            Ok(spu) => spu,
            Err(invalid) => return again(invalid.to_string()),
        };
        let opened = clock.timeout(SILENCE_MAX, spu.fetch(ReceiverStream::new(outgoing))).await;
        let mut answers: Streaming<FetchResponse> = match opened {
            Err(_) => return again("no answer".to_owned()),
            Ok(Err(status)) => return self.status(&status),
            Ok(Ok(answer)) => answer.into_inner(),
        };
        source.tell(ConsumerEvent::Connected { partition: source.partition.index, spu: place.spu });
        let mut images = source.client.watch_metadata();
        loop {
            let answer = tokio::select! {
                answer = clock.timeout(SILENCE_MAX, answers.message()) => answer,
                _ = images.changed() => {
                    if self.moved(place) {
                        return Stop::Again { why: "another node leads".to_owned(), pause: false };
                    }
                    continue;
                }
            };
            let answer = match answer {
                Err(_) => return again("the node fell silent".to_owned()),
                Ok(Err(status)) => return self.status(&status),
                Ok(Ok(None)) => return again("the node closed the stream".to_owned()),
                Ok(Ok(Some(answer))) => answer,
            };
            match answer.result {
                None => return again("an answer without a result".to_owned()),
                Some(fetch_response::Result::Error(detail)) => return self.refused(Refusal::new(detail)),
                Some(fetch_response::Result::Batches(batches)) => {
                    let bytes = u64::try_from(batches.batches.len()).unwrap_or(u64::MAX);
                    if let ControlFlow::Break(stop) = self.take(batches).await {
                        return stop;
                    }
                    let credit = FetchRequest { request: Some(fetch_request::Request::CreditBytes(bytes)) };
                    if bytes > 0 && requests.send(credit).await.is_err() {
                        return again("the stream takes no credit".to_owned());
                    }
                }
            }
        }
    }

    /// Turns a time or a count into an offset; the stream itself knows neither.
    async fn find_start(&mut self, place: &Place) -> Result<(), Stop> {
        let Position::Start(start) = self.position else { return Ok(()) };
        let timestamp_ms = match start {
            StartAt::TimestampMs(ms) => Some(ms),
            StartAt::Last(_) => None,
            StartAt::Earliest | StartAt::Latest | StartAt::Offset(_) => return Ok(()),
        };
        let any_replica = self.source.settings.replica.is_some();
        let ends = match self.source.offsets(place, any_replica, timestamp_ms).await {
            Ok(ends) => ends,
            Err(LastCause::Refused(refusal)) => return Err(self.refused(refusal)),
            Err(LastCause::ConnectionLost { why, .. }) => return Err(Stop::Again { why, pause: true }),
            Err(_) => return Err(Stop::Again { why: "no answer".to_owned(), pause: true }),
        };
        let offset = match start {
            StartAt::Last(count) => ends.high_watermark.saturating_sub(count).max(ends.log_start),
            _ => ends.offset_at_timestamp.unwrap_or(ends.high_watermark),
        };
        match Offset::new(offset) {
            Ok(offset) => self.starts(offset).await,
            Err(_) => Err(Stop::Again { why: "an offset beyond the last".to_owned(), pause: true }),
        }
    }

    async fn starts(&mut self, offset: Offset) -> Result<(), Stop> {
        self.position = Position::At(offset);
        let wanted = self.hand_over(News::Starts(offset)).await;
        if wanted && !self.finished() { Ok(()) } else { Err(Stop::Done) }
    }

    /// Whether the metadata name another place to read, or none because the topic is gone.
    fn moved(&self, place: &Place) -> bool {
        match self.source.place() {
            Some(now) => now.spu != place.spu || now.address != place.address,
            None => self.source.gone(),
        }
    }

    async fn take(&mut self, answer: FetchBatches) -> ControlFlow<Stop> {
        let malformed = || Stop::Again { why: "an offset beyond the last".to_owned(), pause: true };
        self.beyond.over();
        if let Position::Start(_) = self.position {
            let first = if answer.batches.is_empty() {
                // A heartbeat. It also tells where "earliest" and "latest" are.
                Offset::new(answer.next_offset).map_err(|_| malformed())
            } else {
                let missing = || self.damage(Offset::ZERO, "no batch header".to_owned());
                first_offset(&answer.batches).ok_or_else(missing)
            };
            let started = match first {
                Ok(first) => self.starts(first).await,
                Err(stop) => Err(stop),
            };
            if let Err(stop) = started {
                return ControlFlow::Break(stop);
            }
        }
        let Position::At(next) = self.position else { return ControlFlow::Break(malformed()) };
        let mut decoder = Decoder::new(&answer.batches, self.source.partition.index, next, self.end);
        loop {
            let Ok(turn) = Arc::clone(&self.decoding).acquire_owned().await else {
                return ControlFlow::Break(Stop::Done);
            };
            // Small against what is under way, so that decoding adds little to it.
            let decoded = match decoder.decode(self.credit_bytes / 4) {
                Ok(Some(decoded)) => decoded,
                Ok(None) => break,
                Err(error) => {
                    let Position::At(next) = self.position else { return ControlFlow::Break(malformed()) };
                    return ControlFlow::Break(self.damage(next, error.to_string()));
                }
            };
            self.damaged = 0;
            self.backoff.reset();
            let next = decoded.next;
            if !decoded.records.is_empty() {
                let wanted = decoded.bytes.min(self.source.settings.waiting_bytes());
                let permits = u32::try_from(wanted).unwrap_or(u32::MAX);
                let Ok(permit) = Arc::clone(&self.waiting).acquire_many_owned(permits).await else {
                    return ControlFlow::Break(Stop::Done);
                };
                drop(turn);
                if !self.hand_over(News::Chunk(Chunk::new(decoded, permit))).await {
                    return ControlFlow::Break(Stop::Done);
                }
            }
            self.position = Position::At(next);
        }
        if self.finished() { ControlFlow::Break(Stop::Done) } else { ControlFlow::Continue(()) }
    }

    /// A damaged batch is asked for again: it may have been the way, or another node has a good copy.
    fn damage(&mut self, offset: Offset, why: String) -> Stop {
        self.damaged += 1;
        if self.damaged >= DAMAGED_MAX {
            let partition = self.source.partition.index;
            return Stop::Failed(ConsumeError::Corrupt { partition, offset, why });
        }
        Stop::Again { why: format!("damaged batch at offset {offset}: {why}"), pause: true }
    }

    fn status(&mut self, status: &tonic::Status) -> Stop {
        match ErrorDetail::from_status(status) {
            Some(detail) => self.refused(Refusal::new(detail)),
            None => Stop::Again { why: why(status), pause: true },
        }
    }

    fn refused(&mut self, refusal: Refusal) -> Stop {
        let again = |why| Stop::Again { why, pause: true };
        match refusal.reason() {
            Reason::OffsetTrimmed => self.trimmed(&refusal),
            Reason::OffsetNotAvailable => {
                let now = self.source.client.shared.host.clock.now();
                let beyond =
                    matches!(self.position, Position::At(next) if next.get() > refusal.detail().log_end);
                if self.beyond.refused(beyond, now) {
                    self.trimmed(&refusal)
                } else {
                    again(refusal.to_string())
                }
            }
            // The node may not have heard of the topic yet; the metadata say when it is really gone.
            Reason::UnknownTopic | Reason::UnknownPartition => again(refusal.to_string()),
            _ if refusal.is_retryable() => again(refusal.to_string()),
            _ => Stop::Failed(ConsumeError::Refused { partition: self.source.partition.index, refusal }),
        }
    }

    /// The next offset is not there any more: the policy says where to go on.
    fn trimmed(&mut self, refusal: &Refusal) -> Stop {
        let partition = self.source.partition.index;
        let requested = match self.position {
            Position::At(next) => next,
            Position::Start(_) => Offset::ZERO,
        };
        let Ok(log_start) = Offset::new(refusal.detail().log_start) else {
            return Stop::Again { why: "a log start beyond the last offset".to_owned(), pause: true };
        };
        let (to, position) = match self.source.settings.on_trimmed {
            OnTrimmed::Fail => {
                return Stop::Failed(ConsumeError::Trimmed { partition, requested, log_start });
            }
            OnTrimmed::Earliest => (log_start, Position::At(log_start)),
            OnTrimmed::Latest => {
                let end = Offset::new(refusal.detail().log_end).unwrap_or(log_start).max(log_start);
                (end, Position::Start(StartAt::Latest))
            }
        };
        tracing::warn!(topic = %self.source.topic, partition, from = %requested, to = %to, "records were trimmed before they were read");
        self.source.tell(ConsumerEvent::Trimmed { partition, from: requested, to });
        // The same answer again must not become a tight loop.
        let pause = position == self.position;
        self.position = position;
        self.beyond.over();
        Stop::Again { why: "records were trimmed".to_owned(), pause }
    }
}

fn first_offset(batches: &bytes::Bytes) -> Option<Offset> {
    plimsoll_proto::batch::first_batch(batches).ok().map(|header| header.base_offset)
}
