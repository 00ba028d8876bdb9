//! The partitions that a consumer reads: a reader for each, replaced when the caller goes elsewhere.
//!
//! ```text
//!   assign --> Reading --pause--> Paused --resume--> Reading
//!                 |  ^--- seek: another reader, at the new place
//!                 +--> Ended (until_end), Failed
//! ```
//!
//! Every reader has a generation. What an older one still had on its way is dropped, so that nothing comes from a
//! place that the caller has left.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_host::Task;
use plimsoll_proto::ids::Offset;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tracing::Instrument as _;

use super::chunk::{Chunk, Item, News};
use super::reader::{Outlet, Reader};
use super::settings::{ConsumerEvent, StartAt, Which};
use super::source::Source;
use crate::error::ConsumeError;
use crate::record::ConsumedRecord;

/// Chunks waiting for the caller, of all partitions; their bytes are bounded too.
const CHUNKS_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Partitions {
    source: Source,
    sender: mpsc::Sender<Item>,
    pub(crate) items: mpsc::Receiver<Item>,
    waiting: Arc<Semaphore>,
    decoding: Arc<Semaphore>,
    reading: BTreeMap<u32, Reading>,
    generation: u64,
    /// For the first who asks, so that nothing since the start is missed.
    first_events: Mutex<Option<broadcast::Receiver<ConsumerEvent>>>,
    _growing: Option<Task>,
}

/// One partition.
#[derive(Debug)]
struct Reading {
    generation: u64,
    /// Where the caller is.
    next: StartAt,
    end: Option<Offset>,
    state: State,
}

#[derive(Debug)]
enum State {
    Reading(#[expect(dead_code, reason = "the task lives as long as this")] Task),
    Paused,
    Ended,
}

/// What came in, for the caller.
pub(crate) enum Arrived {
    Chunk(u32, Chunk),
    Failed(ConsumeError),
    /// Nothing for the caller.
    Nothing,
}

impl Partitions {
    pub(crate) fn new(source: Source, first_events: broadcast::Receiver<ConsumerEvent>) -> Self {
        let (sender, items) = mpsc::channel(CHUNKS_MAX);
        let waiting = Arc::new(Semaphore::new(source.settings.waiting_bytes()));
        let growing = (source.settings.which == Which::All && !source.settings.until_end)
            .then(|| source.client.shared.host.tasks.spawn("partitions", grow(source.of(0), sender.clone())));
        Self {
            source,
            sender,
            items,
            waiting,
            decoding: Arc::new(Semaphore::new(1)),
            reading: BTreeMap::new(),
            generation: 0,
            first_events: Mutex::new(Some(first_events)),
            _growing: growing,
        }
    }

    /// Reads a partition from `start`, in place of what was read of it before.
    pub(crate) fn start(&mut self, partition: u32, start: StartAt, end: Option<Offset>) {
        self.generation += 1;
        let planned = self.reading.len().max(self.source.partitions_planned());
        let outlet = Outlet {
            items: self.sender.clone(),
            waiting: Arc::clone(&self.waiting),
            decoding: Arc::clone(&self.decoding),
            credit_bytes: self.source.settings.credit_bytes(planned),
        };
        let source = self.source.of(partition);
        let tasks = source.client.shared.host.tasks.clone();
        let span = tracing::debug_span!("consume", topic = %source.topic, partition);
        let reader = Reader::new(Arc::new(source), self.generation, start, end, outlet);
        let task = tasks.spawn("consumer", reader.run().instrument(span));
        let state = State::Reading(task);
        self.reading.insert(partition, Reading { generation: self.generation, next: start, end, state });
    }

    /// Stops reading; where the caller was.
    pub(crate) fn stop(&mut self, partition: u32) -> Option<StartAt> {
        self.reading.remove(&partition).map(|reading| reading.next)
    }

    /// Goes elsewhere; whether the partition is read at all. A paused one stays paused.
    pub(crate) fn seek(&mut self, partition: u32, to: StartAt) -> bool {
        let Some(reading) = self.reading.get_mut(&partition) else { return false };
        match reading.state {
            State::Paused => reading.next = to,
            State::Reading(_) | State::Ended => {
                let end = reading.end;
                self.start(partition, to, end);
            }
        }
        true
    }

    pub(crate) fn pause(&mut self, partition: u32) {
        if let Some(reading) = self.reading.get_mut(&partition)
            && matches!(reading.state, State::Reading(_))
        {
            // What is on its way is read again when it goes on.
            self.generation += 1;
            reading.generation = self.generation;
            reading.state = State::Paused;
        }
    }

    pub(crate) fn resume(&mut self, partition: u32) {
        if let Some(reading) = self.reading.get(&partition)
            && matches!(reading.state, State::Paused)
        {
            let (next, end) = (reading.next, reading.end);
            self.start(partition, next, end);
        }
    }

    /// The caller got this record.
    pub(crate) fn delivered(&mut self, record: &ConsumedRecord) {
        if let Some(next) = record.offset.checked_add(1) {
            self.passed(record.partition, next);
        }
    }

    /// The caller got everything in front of `next`.
    pub(crate) fn passed(&mut self, partition: u32, next: Offset) {
        if let Some(reading) = self.reading.get_mut(&partition) {
            reading.next = StartAt::Offset(next);
        }
    }

    /// The offset that the caller gets next, once it is known.
    pub(crate) fn position(&self, partition: u32) -> Option<Offset> {
        offset_of(self.reading.get(&partition)?.next)
    }

    pub(crate) fn assigned(&self) -> Vec<u32> {
        self.reading.keys().copied().collect()
    }

    /// Whether nothing more can come.
    pub(crate) fn all_ended(&self) -> bool {
        self.source.settings.until_end
            && self.reading.values().all(|reading| matches!(reading.state, State::Ended))
    }

    pub(crate) fn arrived(&mut self, item: Item) -> Arrived {
        let (partition, generation, news) = match item {
            Item::Partitions(count) => {
                let known = self.reading.last_key_value().map_or(0, |(partition, _)| partition + 1);
                for partition in known..count {
                    self.start(partition, StartAt::Earliest, None);
                }
                return Arrived::Nothing;
            }
            Item::Of { partition, generation, news } => (partition, generation, news),
        };
        let Some(reading) = self.reading.get_mut(&partition).filter(|r| r.generation == generation) else {
            return Arrived::Nothing;
        };
        match news {
            News::Starts(offset) => {
                reading.next = StartAt::Offset(offset);
                Arrived::Nothing
            }
            News::Chunk(chunk) => Arrived::Chunk(partition, chunk),
            News::End => {
                reading.state = State::Ended;
                Arrived::Nothing
            }
            News::Failed(error) => {
                reading.state = State::Ended;
                Arrived::Failed(error)
            }
        }
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<ConsumerEvent> {
        let first = self.first_events.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| self.source.events.subscribe())
    }

    pub(crate) fn trimmed_records(&self) -> u64 {
        self.source.trimmed.load(Ordering::Relaxed)
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }
}

pub(crate) fn offset_of(start: StartAt) -> Option<Offset> {
    match start {
        StartAt::Offset(offset) => Some(offset),
        StartAt::Earliest | StartAt::Latest | StartAt::TimestampMs(_) | StartAt::Last(_) => None,
    }
}

/// Tells when the topic has more partitions.
async fn grow(source: Source, items: mpsc::Sender<Item>) {
    let mut images = source.client.watch_metadata();
    let mut known = source.partitions();
    while images.changed().await.is_ok() {
        let now = source.partitions();
        if now > known {
            known = now;
            if items.send(Item::Partitions(now)).await.is_err() {
                return;
            }
        }
    }
}
