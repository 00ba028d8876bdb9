//! The task that reads one partition: from its leader, or from a given copy.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::retry::Backoff;
use plimsoll_proto::ids::{Offset, PartitionId, SpuId};
use plimsoll_proto::v1::{
    self, ErrorDetail, FetchBatches, FetchOpen, FetchRequest, FetchResponse, ListOffsetsRequest, Reason,
    fetch_request, fetch_response,
};
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::chunk::{Chunk, Item, decode};
use super::settings::{ConsumerEvent, OnTrimmed, Settings, StartAt};
use crate::client::Client;
use crate::error::ConsumeError;
use crate::metadata::why;
use crate::refusal::Refusal;

/// How long the ends of a partition are asked for.
const END_MAX: Duration = Duration::from_secs(30);
/// How long a leader is asked for its end on behalf of a copy.
const LEADER_END_MAX: Duration = Duration::from_secs(3);
/// One attempt to ask.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);
/// A stream that says nothing for so long is opened again; servers send heartbeats more often.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// An offset that stays beyond the end for so long is not there to come.
const BEYOND_END_MAX: Duration = Duration::from_secs(10);
/// Damaged batches in a row before the consumer ends.
const DAMAGED_MAX: u32 = 5;
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Credit messages waiting for the stream.
const CREDITS_MAX: usize = 256;

/// What is read.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) client: Client,
    pub(crate) topic: String,
    pub(crate) partition: PartitionId,
    pub(crate) settings: Settings,
    pub(crate) events: broadcast::Sender<ConsumerEvent>,
}

struct Place {
    spu: SpuId,
    address: String,
    leader_epoch: u32,
}

impl Source {
    fn gone(&self) -> bool {
        !self.client.metadata().topics.contains_key(&self.partition.topic_id)
    }

    fn leader(&self) -> Option<Place> {
        let image = self.client.metadata();
        let partition = image.partition(&self.partition).filter(|partition| partition.leader != 0)?;
        let spu = SpuId(partition.leader);
        let address = image.address(spu)?.to_owned();
        Some(Place { spu, address, leader_epoch: partition.leader_epoch })
    }

    /// Where to read now.
    fn place(&self) -> Option<Place> {
        match self.settings.replica {
            None => self.leader(),
            Some(spu) => {
                let address = self.client.metadata().address(spu)?.to_owned();
                Some(Place { spu, address, leader_epoch: 0 })
            }
        }
    }

    fn tell(&self, event: ConsumerEvent) {
        // An error means that nobody listens.
        drop(self.events.send(event));
    }

    async fn offsets(
        &self,
        place: &Place,
        any_replica: bool,
    ) -> Result<v1::ListOffsetsResponse, Option<Refusal>> {
        let request = ListOffsetsRequest {
            topic_id: self.partition.topic_id.to_bytes(),
            partition: self.partition.index,
            any_replica,
            timestamp_ms: None,
        };
        let mut spu = self.client.shared.connections.spu(&place.address).map_err(|_| None)?;
        match self.client.shared.host.clock.timeout(ATTEMPT_MAX, spu.list_offsets(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(ErrorDetail::from_status(&status).map(Refusal::new)),
            Err(_) => Err(None),
        }
    }

    /// The high watermark now: the leader's; for a copy whose leader does not answer, its own.
    pub(crate) async fn end(&self) -> Result<Offset, ConsumeError> {
        let end_max = END_MAX.min(self.client.shared.call_timeout);
        let limit = if self.settings.replica.is_some() { LEADER_END_MAX.min(end_max) } else { end_max };
        let leader = self.high_watermark(|source| source.leader(), false, limit).await;
        match (leader, self.settings.replica) {
            (Err(ConsumeError::TimedOut { .. }), Some(_)) => {
                self.high_watermark(|source| source.place(), true, end_max).await
            }
            (end, _) => end,
        }
    }

    async fn high_watermark(
        &self,
        place: impl Fn(&Self) -> Option<Place>,
        any_replica: bool,
        limit: Duration,
    ) -> Result<Offset, ConsumeError> {
        let host = &self.client.shared.host;
        let deadline = host.clock.now().saturating_add(limit);
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX, &host.random);
        let mut last = None;
        loop {
            if self.gone() {
                return Err(ConsumeError::UnknownTopic(self.topic.clone()));
            }
            if let Some(place) = place(self) {
                match self.offsets(&place, any_replica).await {
                    Ok(answer) => match Offset::new(answer.high_watermark) {
                        Ok(end) => return Ok(end),
                        Err(_) => last = None,
                    },
                    Err(refusal) => last = refusal.or(last),
                }
            }
            if host.clock.now() >= deadline {
                return Err(ConsumeError::TimedOut { partition: self.partition.index, waited: limit, last });
            }
            host.clock.sleep(backoff.next_pause()).await;
        }
    }
}

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Start(StartAt),
    At(Offset),
}

pub(crate) struct Reader {
    source: Arc<Source>,
    end: Option<Offset>,
    prefetch: Arc<Semaphore>,
    items: mpsc::Sender<Item>,
    position: Position,
    backoff: Backoff,
    /// Since when the offset has been beyond the end.
    beyond_since: Option<Duration>,
    damaged: u32,
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
        end: Option<Offset>,
        prefetch: Arc<Semaphore>,
        items: mpsc::Sender<Item>,
    ) -> Self {
        let position = match source.settings.start {
            StartAt::Offset(offset) => Position::At(offset),
            start => Position::Start(start),
        };
        let backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX, &source.client.shared.host.random);
        Self { source, end, prefetch, items, position, backoff, beyond_since: None, damaged: 0 }
    }

    pub(crate) async fn run(mut self) {
        let item = loop {
            if self.finished() {
                break Item::End;
            }
            if self.source.gone() {
                break Item::Failed(ConsumeError::UnknownTopic(self.source.topic.clone()));
            }
            let stop = match self.source.place() {
                Some(place) => self.read_from(&place).await,
                None => Stop::Again { why: "no leader".to_owned(), pause: true },
            };
            match stop {
                Stop::Done => break Item::End,
                Stop::Failed(error) => break Item::Failed(error),
                Stop::Again { why, pause } => {
                    tracing::debug!(partition = %self.source.partition, %why, "reading again");
                    if pause {
                        self.pause().await;
                    }
                }
            }
        };
        // An error means that the caller is gone.
        drop(self.items.send(item).await);
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
            Position::Start(StartAt::Earliest | StartAt::Offset(_)) => end == Offset::ZERO,
        }
    }

    fn open_request(&self, place: &Place, credit_bytes: u64) -> FetchRequest {
        let (start_at, offset) = match self.position {
            Position::At(offset) => (v1::StartAt::Offset, offset),
            Position::Start(StartAt::Latest) => (v1::StartAt::Latest, Offset::ZERO),
            Position::Start(StartAt::Earliest | StartAt::Offset(_)) => (v1::StartAt::Earliest, Offset::ZERO),
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
        let (requests, outgoing) = mpsc::channel(CREDITS_MAX);
        let credit = u64::try_from(source.settings.prefetch_bytes / 2).unwrap_or(u64::MAX);
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

    /// Whether the metadata name another place to read, or none because the topic is gone.
    fn moved(&self, place: &Place) -> bool {
        match self.source.place() {
            Some(now) => now.spu != place.spu || now.address != place.address,
            None => self.source.gone(),
        }
    }

    async fn take(&mut self, answer: FetchBatches) -> ControlFlow<Stop> {
        let partition = self.source.partition.index;
        let malformed = || Stop::Again { why: "an offset beyond the last".to_owned(), pause: true };
        if answer.batches.is_empty() {
            // A heartbeat. It also tells where "earliest" and "latest" are.
            let Ok(next) = Offset::new(answer.next_offset) else { return ControlFlow::Break(malformed()) };
            self.beyond_since = None;
            if let Position::Start(_) = self.position {
                self.position = Position::At(next);
            }
            return if self.finished() { ControlFlow::Break(Stop::Done) } else { ControlFlow::Continue(()) };
        }
        let next = match self.position {
            Position::At(next) => next,
            Position::Start(_) => match first_offset(&answer.batches) {
                Some(first) => first,
                None => return ControlFlow::Break(self.damage(Offset::ZERO, "no batch header".to_owned())),
            },
        };
        let decoded = match decode(&answer.batches, partition, next, self.end) {
            Ok(decoded) => decoded,
            Err(error) => return ControlFlow::Break(self.damage(next, error.to_string())),
        };
        self.beyond_since = None;
        self.damaged = 0;
        self.backoff.reset();
        if !decoded.records.is_empty() {
            let wanted = answer.batches.len().min(self.source.settings.prefetch_bytes);
            let permits = u32::try_from(wanted).unwrap_or(u32::MAX);
            let Ok(permit) = Arc::clone(&self.prefetch).acquire_many_owned(permits).await else {
                return ControlFlow::Break(Stop::Done);
            };
            if self.items.send(Item::Chunk(Chunk::new(decoded.records, permit))).await.is_err() {
                return ControlFlow::Break(Stop::Done);
            }
        }
        self.position = Position::At(decoded.next);
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
                // A new leader may not know its high watermark yet; only what lasts is beyond the end.
                let now = self.source.client.shared.host.clock.now();
                let since = *self.beyond_since.get_or_insert(now);
                let beyond =
                    matches!(self.position, Position::At(next) if next.get() > refusal.detail().log_end);
                if beyond && now.saturating_sub(since) >= BEYOND_END_MAX {
                    return self.trimmed(&refusal);
                }
                again(refusal.to_string())
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
        self.beyond_since = None;
        Stop::Again { why: "records were trimmed".to_owned(), pause }
    }
}

fn first_offset(batches: &bytes::Bytes) -> Option<Offset> {
    plimsoll_proto::batch::first_batch(batches).ok().map(|header| header.base_offset)
}
