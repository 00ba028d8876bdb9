//! A topic whose records are written down: what was sent, what became of it, what consumers and copies give back. The
//! history checker judges at the end, as it does in the simulation and under faults.

use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_chaos::copies;
use plimsoll_chaos::workload::Evidence;
use plimsoll_client::{Client, Record, StartAt};
use plimsoll_history::{Answer, Event, Payload, Promise, check};
use plimsoll_host::Host;
use plimsoll_proto::ids::{PartitionId, TopicId};

use super::PATIENCE;

/// Fills records up to their size.
const PAD: char = '.';

pub(super) struct Recorded {
    client: Client,
    name: &'static str,
    topic_id: TopicId,
    evidence: Evidence,
    producers: AtomicU64,
    consumers: AtomicU64,
}

impl Recorded {
    /// Of a topic that was created.
    pub(super) async fn of(client: &Client, name: &'static str) -> Self {
        assert!(client.wait_metadata(PATIENCE, |image| image.topic_by_name(name).is_some()).await, "{name}");
        Self {
            client: client.clone(),
            name,
            topic_id: client.topic_id(name).expect("the topic is there"),
            evidence: Evidence::default(),
            producers: AtomicU64::new(0),
            consumers: AtomicU64::new(0),
        }
    }

    fn partition(&self, index: u32) -> PartitionId {
        PartitionId { topic_id: self.topic_id, index }
    }

    /// Small records with these numbers, which are all acknowledged.
    pub(super) async fn produce(&self, from: u32, count: u32) {
        self.produce_of(from, count, 0).await;
    }

    /// Records of at least so many bytes.
    pub(super) async fn produce_of(&self, from: u32, count: u32, bytes: usize) {
        let id = self.producers.fetch_add(1, Ordering::Relaxed);
        let producer = self.client.producer(self.name).build().await.expect("a producer");
        let mut deliveries = Vec::new();
        for number in from..from + count {
            let mut value = number.to_string();
            value.extend(std::iter::repeat_n(PAD, bytes.saturating_sub(value.len())));
            let payload = Payload::of(None, Some(value.as_bytes()));
            let delivery = producer.send(Record::new(value)).await.expect("accepted");
            let partition = self.partition(delivery.partition());
            self.evidence.record(Event::Sent { producer: id, partition, payload });
            deliveries.push((partition, payload, delivery));
        }
        for (partition, payload, delivery) in deliveries {
            let offset = delivery.await.expect("acknowledged").offset.expect("acks=all tells the offset");
            let answer = Answer::Acked { offset, promise: Promise::Replicated };
            self.evidence.record(Event::Answered { partition, payload, answer });
        }
        producer.close().await;
    }

    /// Every record there is, as numbers in order.
    pub(super) async fn consume(&self) -> Vec<u32> {
        let consumer = self.consumers.fetch_add(1, Ordering::Relaxed);
        let building = self.client.consumer(self.name).start(StartAt::Earliest).until_end().build();
        let mut reading = building.await.expect("a consumer");
        let mut numbers = Vec::new();
        while let Some(record) = reading.next().await {
            let record = record.expect("a record");
            let payload = Payload::of(record.key.as_deref(), record.value.as_deref());
            let partition = self.partition(record.partition);
            self.evidence.record(Event::Read { consumer, partition, offset: record.offset, payload });
            let value = record.value.unwrap_or_default();
            let digits = std::str::from_utf8(&value).expect("text").trim_end_matches(PAD);
            numbers.push(digits.parse().expect("a number"));
        }
        numbers.sort_unstable();
        numbers
    }

    /// Reads every copy back and judges.
    pub(super) async fn judge(&self) {
        let host = Host::real();
        let held = copies::hold(&host, &self.client, &self.evidence, self.name, |_| false);
        held.await.expect("every copy is read back");
        let violations = self.evidence.with(check);
        assert!(violations.is_empty(), "{violations:#?}");
    }
}
