//! Everything that was told and read of `flights`, for the history checker: a second judge that shares no code
//! with the counting in `audit`.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use plimsoll_client::{ConsumedRecord, Offset, SpuId, TopicId};
use plimsoll_history::{Answer, Event, Held, History, Payload, Promise};
use plimsoll_proto::ids::PartitionId;

use crate::flights::{self, Flight};

/// The replaying producer, and the consumer during the run.
const WHO: u64 = 1;

/// What is recorded; shared by the tasks that see it happen.
#[derive(Debug)]
pub(super) struct Evidence {
    topic_id: OnceLock<TopicId>,
    flights: Arc<Vec<Flight>>,
    payloads: Vec<Payload>,
    history: Mutex<History>,
}

impl Evidence {
    pub(super) fn new(flights: Arc<Vec<Flight>>) -> Arc<Self> {
        let payloads =
            flights.iter().map(|flight| Payload::of(Some(&flight.key), Some(&flight.value))).collect();
        Arc::new(Self { topic_id: OnceLock::new(), flights, payloads, history: Mutex::default() })
    }

    /// Which topic it is about, once that is created.
    pub(super) fn about(&self, topic_id: TopicId) {
        let _first = self.topic_id.set(topic_id);
    }

    fn partition(&self, index: u32) -> PartitionId {
        let topic_id = self.topic_id.get().copied().unwrap_or(TopicId([0; 16]));
        PartitionId { topic_id, index }
    }

    fn record(&self, event: Event) {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).record(event);
    }

    /// A flight was handed to the producer.
    pub(super) fn sent(&self, partition: u32, number: usize) {
        let payload = self.payloads[number];
        self.record(Event::Sent { producer: WHO, partition: self.partition(partition), payload });
    }

    /// A flight was acknowledged at an offset.
    pub(super) fn acked(&self, partition: u32, number: usize, offset: Offset) {
        let answer = Answer::Acked { offset, promise: Promise::Replicated };
        let payload = self.payloads[number];
        self.record(Event::Answered { partition: self.partition(partition), payload, answer });
    }

    /// The consumer was given a record.
    pub(super) fn read(&self, record: &ConsumedRecord) {
        let partition = self.partition(record.partition);
        self.record(Event::Read {
            consumer: WHO,
            partition,
            offset: record.offset,
            payload: self.payload(record),
        });
    }

    /// What a replica holds at the end.
    pub(super) fn held(
        &self,
        spu: u32,
        partition: u32,
        leader: bool,
        end: Offset,
        records: Vec<(Offset, Payload)>,
    ) {
        self.record(Event::Held(Held {
            spu: SpuId(spu),
            partition: self.partition(partition),
            leader,
            log_start: Offset::ZERO,
            high_watermark: end,
            records,
        }));
    }

    /// Identity of a record. Hashing is left out where the bytes are those of the flight.
    pub(super) fn payload(&self, record: &ConsumedRecord) -> Payload {
        let known = record.value.as_deref().and_then(flights::number).and_then(|number| {
            let flight = self.flights.get(number)?;
            let same =
                record.value.as_ref() == Some(&flight.value) && record.key.as_ref() == Some(&flight.key);
            if same { self.payloads.get(number).copied() } else { None }
        });
        known.unwrap_or_else(|| Payload::of(record.key.as_deref(), record.value.as_deref()))
    }

    /// Every promise that was broken, for people.
    pub(super) fn violations(&self) -> Vec<String> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        plimsoll_history::check(&history).iter().map(ToString::to_string).collect()
    }
}
