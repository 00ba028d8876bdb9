//! The client of a simulated run: it produces throughout, then reads everything back from every replica.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use plimsoll_client::{Outcome, Record, StartAt};
use plimsoll_history::{Answer, Event, Held, Payload, Promise};
use plimsoll_host::Host;
use plimsoll_proto::ids::{Offset, PartitionId, SpuId, TopicId};
use plimsoll_proto::v1::TopicConfig;

use super::cluster::controllers;
use super::faults::LAST;

const TOPIC: &str = "t";
const PARTITIONS: u32 = 2;
const PRODUCER: u64 = 1;
const CONSUMER: u64 = 1;
/// Pause between two records.
const PACE: Duration = Duration::from_millis(25);
/// After the faults the cluster must be whole again within this.
const HEAL_LIMIT: Duration = Duration::from_secs(60);

/// What the run recorded so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) lines: Vec<String>,
    pub(super) events: Vec<Event>,
    pub(super) acked: u64,
    pub(super) refused: u64,
}

impl Told {
    pub(super) fn line(&mut self, at: Duration, what: impl std::fmt::Display) {
        self.lines.push(format!("{:>9} us  {what}", at.as_micros()));
    }
}

/// A connected client.
pub(super) struct Client {
    host: Host,
    client: plimsoll_client::Client,
    topic: TopicId,
    told: Rc<RefCell<Told>>,
}

type Problem = Box<dyn std::error::Error>;

impl Client {
    pub(super) async fn connect(host: Host, told: Rc<RefCell<Told>>) -> Result<Self, Problem> {
        let builder = || plimsoll_client::Client::builder().controllers(controllers()).host(host.clone());
        // The cluster forms meanwhile.
        let client = loop {
            match builder().build().await {
                Ok(client) => break client,
                Err(error) if host.clock.now() > LAST => return Err(error.into()),
                Err(_) => host.clock.sleep(Duration::from_millis(100)).await,
            }
        };
        let config =
            TopicConfig { partitions: PARTITIONS, replicas: 3, min_in_sync: 2, ..TopicConfig::default() };
        let topic = client.admin().timeout(Duration::from_secs(30)).create_topic(TOPIC, config).await?;
        let client = Self { host, client, topic, told };
        client.line("topic created");
        Ok(client)
    }

    pub(super) async fn run(&self) -> Result<(), Problem> {
        self.produce().await?;
        self.whole_again().await?;
        self.read_back().await?;
        self.replicas().await?;
        self.committed_events().await
    }

    fn line(&self, what: impl std::fmt::Display) {
        self.told.borrow_mut().line(self.host.clock.now(), what);
    }

    fn event(&self, event: Event) {
        self.told.borrow_mut().events.push(event);
    }

    fn partition(&self, index: u32) -> PartitionId {
        PartitionId { topic_id: self.topic, index }
    }

    async fn produce(&self) -> Result<(), Problem> {
        let producer = self.client.producer(TOPIC).deadline(HEAL_LIMIT).build().await?;
        let mut waiting = FuturesUnordered::new();
        let mut number = 0u64;
        while self.host.clock.now() < LAST {
            let index = u32::try_from(number % u64::from(PARTITIONS))?;
            let value = format!("record {number}");
            let payload = Payload::of(None, Some(value.as_bytes()));
            let partition = self.partition(index);
            self.event(Event::Sent { producer: PRODUCER, partition, payload });
            let delivery = producer.send(Record::new(value).partition(index)).await?;
            waiting.push(async move { (partition, payload, delivery.await) });
            number += 1;
            let pause = self.host.clock.sleep(PACE);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    biased;
                    Some(answered) = waiting.next() => self.answered(answered),
                    () = &mut pause => break,
                }
            }
        }
        self.line(format!("sent {number} records"));
        while let Some(answered) = waiting.next().await {
            self.answered(answered);
        }
        producer.close().await;
        Ok(())
    }

    fn answered(
        &self,
        (partition, payload, result): (
            PartitionId,
            Payload,
            Result<plimsoll_client::Delivered, plimsoll_client::ProduceError>,
        ),
    ) {
        let answer = match result {
            Ok(delivered) => {
                self.told.borrow_mut().acked += 1;
                Answer::Acked {
                    offset: delivered.offset.unwrap_or(Offset::ZERO),
                    promise: Promise::Replicated,
                }
            }
            Err(error) if error.outcome() == Outcome::NotWritten => {
                self.told.borrow_mut().refused += 1;
                Answer::Refused
            }
            Err(_) => Answer::Unknown,
        };
        self.line(format!("partition {} {answer:?}", partition.index));
        self.event(Event::Answered { partition, payload, answer });
    }

    /// Liveness: with the faults over, every partition has its full in-sync set again.
    async fn whole_again(&self) -> Result<(), Problem> {
        let whole = self.client.wait_metadata(HEAL_LIMIT, |image| {
            image.topic_by_name(TOPIC).is_some_and(|topic| {
                topic.partitions.iter().all(|p| p.in_sync.len() == p.replicas.len() && p.leader != 0)
            })
        });
        if !whole.await {
            return Err("the cluster is not whole again after the faults".into());
        }
        self.line("whole again");
        Ok(())
    }

    async fn read_back(&self) -> Result<(), Problem> {
        let mut consumer = self.client.consumer(TOPIC).start(StartAt::Earliest).until_end().build().await?;
        while let Some(record) = consumer.next().await {
            let record = record?;
            self.event(Event::Read {
                consumer: CONSUMER,
                partition: self.partition(record.partition),
                offset: record.offset,
                payload: Payload::of(record.key.as_deref(), record.value.as_deref()),
            });
        }
        self.line("read back");
        Ok(())
    }

    async fn replicas(&self) -> Result<(), Problem> {
        let image = self.client.metadata();
        let topic = image.topic_by_name(TOPIC).ok_or("the topic is gone")?;
        for info in &topic.partitions {
            for spu in &info.in_sync {
                let mut records = Vec::new();
                let mut consumer = self
                    .client
                    .consumer(TOPIC)
                    .partitions([info.index])
                    .replica(SpuId(*spu))
                    .start(StartAt::Earliest)
                    .until_end()
                    .build()
                    .await?;
                while let Some(record) = consumer.next().await {
                    let record = record?;
                    records
                        .push((record.offset, Payload::of(record.key.as_deref(), record.value.as_deref())));
                }
                let end = records.last().and_then(|(offset, _)| offset.checked_add(1)).unwrap_or_default();
                self.line(format!("partition {} on s{spu}: {} records", info.index, records.len()));
                self.event(Event::Held(Held {
                    spu: SpuId(*spu),
                    partition: self.partition(info.index),
                    leader: info.leader == *spu,
                    log_start: Offset::ZERO,
                    high_watermark: end,
                    records,
                }));
            }
        }
        Ok(())
    }

    async fn committed_events(&self) -> Result<(), Problem> {
        for event in self.client.admin().list_events(0, 10_000).await? {
            self.line(format!(
                "entry {}.{} {} spu {} partition {}: {} -> {} ({})",
                event.index,
                event.ordinal,
                event.kind,
                event.spu_id,
                event.partition,
                event.from,
                event.to,
                event.reason
            ));
        }
        Ok(())
    }
}
