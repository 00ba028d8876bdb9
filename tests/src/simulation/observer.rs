//! Watches a run from a host that no fault touches, waits for the cluster to heal, and reads everything back.

use std::time::Duration;

use plimsoll_client::{AdminError, Client, Record, StartAt};
use plimsoll_history::{Event, Held, Payload, Regained};
use plimsoll_host::Host;
use plimsoll_proto::ids::{Incarnation, LeaderEpoch, Offset, PartitionId, SpuId, TopicId};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1::{FlushPolicy, TopicConfig};

use super::faults::{LAST, Node};
use super::servers::{EPOCH_MS, controllers};
use super::told::{Phase, Shared};
use super::{groups, operators};

/// The topic that is produced to throughout.
pub(super) const TOPIC: &str = "t";
/// The topic that a fault deletes.
pub(super) const DOOMED: &str = "doomed";
pub(super) const PARTITIONS: u32 = 2;
const REPLICAS: usize = 3;
/// Below the smallest segment.
const BATCH_BYTES_MAX: u32 = 48 << 10;
/// Number of the producer that probes after the faults.
const PROBE: u64 = 99;
/// Producers of which the observer waits for the last answer.
const PRODUCERS: usize = super::producers::COUNT;

/// How long the cluster may take to form.
const FORM_MAX: Duration = Duration::from_secs(20);
/// After the faults the run waits so long for everything to be whole and acknowledged again. Most of it is for the hold of a
/// volume or a node that was out several times; where there is none, the history checker allows less.
const HEAL_MAX: Duration = Duration::from_secs(45);
/// Producers have all of their answers within this once nothing is in the way.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Reading back takes no longer than this.
const READ_MAX: Duration = Duration::from_secs(20);
/// Why a node is online that came back too often for that to be at once.
const HELD_NODE: &str = "joined after a hold";
/// Pause before a copy that is behind is read again.
const READ_AGAIN: Duration = Duration::from_millis(100);
/// A deletion is agreed within this after the faults.
const DELETE_MAX: Duration = Duration::from_secs(30);

pub(super) type Problem = Box<dyn std::error::Error>;

/// Connects as soon as the cluster answers.
pub(super) async fn connect(host: &Host) -> Result<Client, Problem> {
    loop {
        let built = Client::builder().controllers(controllers()).host(host.clone()).build().await;
        match built {
            Ok(client) => return Ok(client),
            Err(error) if host.clock.now() > FORM_MAX => return Err(error.into()),
            Err(_) => host.clock.sleep(Duration::from_millis(100)).await,
        }
    }
}

pub(super) struct Observer {
    pub(super) host: Host,
    pub(super) client: Client,
    topic: TopicId,
    pub(super) told: Shared,
}

/// Creates the topics, watches, and judges at the end.
pub(super) async fn observe(
    host: Host,
    told: Shared,
    flush: FlushPolicy,
    segment_bytes: u64,
) -> Result<(), Problem> {
    let client = connect(&host).await?;
    let config = TopicConfig {
        partitions: PARTITIONS,
        replicas: 3,
        min_in_sync: 2,
        flush: flush.into(),
        flush_interval_ms: if flush == FlushPolicy::Interval { 50 } else { 0 },
        segment_bytes,
        batch_bytes_max: BATCH_BYTES_MAX,
        ..TopicConfig::default()
    };
    let admin = client.admin().timeout(FORM_MAX);
    let topic = admin.create_topic(TOPIC, config).await?;
    admin.create_topic(DOOMED, config).await?;
    {
        let mut told = told.borrow_mut();
        told.topic_exists = true;
        told.topic = Some(topic);
        told.line(host.clock.now(), format!("topic created, {flush:?}"));
    }
    let observer = Observer { host, client, topic, told };
    let run = async {
        observer.wait_until_healed().await?;
        observer.drain().await?;
        observer.read_back().await?;
        groups::judge(&observer).await?;
        observer.committed_events().await
    };
    tokio::select! {
        biased;
        result = run => result,
        result = observer.delete_when_asked() => result,
        () = operators::operate(&observer) => Ok(()),
        () = observer.watch() => Ok(()),
        () = groups::watch(&observer) => Ok(()),
    }
}

impl Observer {
    pub(super) fn line(&self, what: impl std::fmt::Display) {
        self.told.borrow_mut().line(self.host.clock.now(), what);
    }

    fn event(&self, event: Event) {
        self.told.borrow_mut().events.push(event);
    }

    fn partition(&self, index: u32) -> PartitionId {
        PartitionId { topic_id: self.topic, index }
    }

    /// Records who leads, and what the injector has to know.
    async fn watch(&self) {
        let mut images = self.client.watch_metadata();
        let mut before = String::new();
        loop {
            let image = images.borrow_and_update().clone();
            let now = self.note(&image);
            if now != before {
                self.line(format!("metadata {now}"));
                before = now;
            }
            if images.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn note(&self, image: &MetadataImage) -> String {
        let mut shown = String::new();
        let mut told = self.told.borrow_mut();
        for (spu, info) in &image.spus {
            if let Ok(n) = u8::try_from(spu.0) {
                told.incarnations.insert(Node::Spu(n), info.incarnation);
            }
            shown.push_str(&format!("{spu}:{:?}/{} ", info.state(), info.incarnation));
        }
        told.whole = whole(image);
        let Some(topic) = image.topic_by_name(TOPIC) else { return shown };
        let leaders = topic.partitions.iter().filter_map(|info| u8::try_from(info.leader).ok());
        told.leaders = leaders.map(Node::Spu).collect();
        for info in &topic.partitions {
            shown.push_str(&format!(
                "p{} leader {} epoch {} in sync {:?} ",
                info.index, info.leader, info.leader_epoch, info.in_sync
            ));
            if info.leader != 0 {
                told.events.push(Event::Led {
                    partition: self.partition(info.index),
                    epoch: LeaderEpoch(info.leader_epoch),
                    spu: SpuId(info.leader),
                    incarnation: Some(Incarnation(info.leader_incarnation)),
                });
            }
        }
        shown
    }

    /// Liveness: with the faults over, every partition has its full in-sync set and acknowledges.
    async fn wait_until_healed(&self) -> Result<(), Problem> {
        self.host.clock.sleep_until(LAST).await;
        while self.told.borrow().phase < Phase::Liveness {
            self.host.clock.sleep(Duration::from_millis(10)).await;
        }
        operators::restore(self).await?;
        if !self.client.wait_metadata(HEAL_MAX, whole).await {
            let image = self.client.metadata();
            return Err(format!("not whole again after the faults: {}", self.note(&image)).into());
        }
        self.line("whole again");
        {
            let at = self.host.clock.now();
            let mut told = self.told.borrow_mut();
            told.whole_at = Some(at);
            told.partitions().for_each(|partition| told.regained(partition, Regained::FullSet, at, at));
        }
        let producer = self.client.producer(TOPIC).deadline(HEAL_MAX).build().await?;
        for index in 0..PARTITIONS {
            let value = format!("probe {index}");
            let (partition, payload) = (self.partition(index), Payload::of(None, Some(value.as_bytes())));
            self.event(Event::Sent { producer: PROBE, partition, payload });
            let sent_at = self.host.clock.now();
            let delivered = producer.send(Record::new(value).partition(index)).await?.await;
            let delivered = delivered.map_err(|error| format!("after the faults: {error}"))?;
            super::producers::acked(&self.told, partition, payload, delivered.offset);
            let at = self.host.clock.now();
            self.told.borrow_mut().regained(partition, Regained::Acknowledges, sent_at, at);
        }
        producer.close().await;
        let mut told = self.told.borrow_mut();
        told.healed_after = self.host.clock.now().saturating_sub(LAST);
        let at = self.host.clock.now();
        told.line(at, "acknowledged again");
        Ok(())
    }

    /// Every record has its answer.
    async fn drain(&self) -> Result<(), Problem> {
        self.told.borrow_mut().phase = Phase::Drain;
        let until = self.host.clock.now() + DRAIN_MAX;
        while self.told.borrow().drained < PRODUCERS {
            if self.host.clock.now() > until {
                return Err("producers still wait for answers although nothing is in the way".into());
            }
            self.host.clock.sleep(Duration::from_millis(20)).await;
        }
        // What was written without an acknowledgement may still become committed; so may a change of the set.
        if !self.client.wait_metadata(HEAL_MAX, whole).await {
            return Err("not whole when everything was answered".into());
        }
        Ok(())
    }

    async fn read_back(&self) -> Result<(), Problem> {
        let reading = async {
            let image = self.client.metadata();
            let topic = image.topic_by_name(TOPIC).ok_or("the topic is gone")?;
            for info in &topic.partitions {
                // The leader last: what it has by then, the others may have as well, and not the other way round.
                let mut copies = info.in_sync.clone();
                copies.sort_by_key(|spu| (*spu == info.leader, *spu));
                let mut all = Vec::new();
                for spu in copies {
                    all.push(self.held(info.index, spu, spu == info.leader).await?);
                }
                let end = all.last().map_or(Offset::ZERO, |leader| leader.high_watermark);
                self.told.borrow_mut().ends.insert(info.index, end);
                for held in all {
                    let held = self.held_up_to(end, held, info.index).await?;
                    self.event(Event::Held(held));
                }
            }
            Ok::<(), Problem>(())
        };
        match self.host.clock.timeout(READ_MAX, reading).await {
            Ok(read) => read?,
            Err(_) => {
                return Err("reading back hangs, or a copy in sync never gives what its leader gives".into());
            }
        }
        self.told.borrow_mut().phase = Phase::Done;
        Ok(())
    }

    /// Who is in sync has everything that its leader has committed, or is about to learn that it is committed.
    async fn held_up_to(&self, end: Offset, mut held: Held, index: u32) -> Result<Held, Problem> {
        while held.high_watermark < end {
            let (spu, has) = (held.spu, held.high_watermark);
            self.line(format!("partition {index} on s{spu} ends at {has}, its leader at {end}"));
            self.host.clock.sleep(READ_AGAIN).await;
            held = self.held(index, spu.0, false).await?;
        }
        Ok(held)
    }

    async fn held(&self, index: u32, spu: u32, leader: bool) -> Result<Held, Problem> {
        let consumer = self.client.consumer(TOPIC).partitions([index]).replica(SpuId(spu));
        let mut consumer = consumer.start(StartAt::Earliest).until_end().build().await?;
        let mut records = Vec::new();
        while let Some(record) = consumer.next().await {
            let record = record?;
            records.push((record.offset, Payload::of(record.key.as_deref(), record.value.as_deref())));
        }
        let high_watermark = records.last().and_then(|(offset, _)| offset.checked_add(1)).unwrap_or_default();
        self.line(format!("partition {index} on s{spu}: {} records", records.len()));
        let log_start = Offset::ZERO;
        Ok(Held {
            spu: SpuId(spu),
            partition: self.partition(index),
            leader,
            log_start,
            high_watermark,
            records,
        })
    }

    /// Deletes the second topic when a fault says so; that needs a majority of controllers and no room.
    async fn delete_when_asked(&self) -> Result<(), Problem> {
        while !self.told.borrow().delete_topic {
            self.host.clock.sleep(Duration::from_millis(20)).await;
        }
        let limit = LAST.saturating_sub(self.host.clock.now()) + DELETE_MAX;
        match self.client.admin().timeout(limit).delete_topic(DOOMED).await {
            Ok(()) => self.line("topic deleted"),
            // A repetition of a call whose first answer was lost.
            Err(AdminError::Refused(refusal)) if refusal.reason_name() == "UNKNOWN_TOPIC" => {
                self.line("topic was deleted");
            }
            Err(error) => return Err(format!("the topic can't be deleted: {error}").into()),
        }
        std::future::pending().await
    }

    async fn committed_events(&self) -> Result<(), Problem> {
        for event in self.client.admin().list_events(0, 10_000).await? {
            if event.kind == "spu_state" && event.reason == HELD_NODE {
                self.told
                    .borrow_mut()
                    .held_back(Duration::from_millis(event.time_ms.saturating_sub(EPOCH_MS)));
            }
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

fn whole(image: &MetadataImage) -> bool {
    image.topic_by_name(TOPIC).is_some_and(|topic| {
        topic.partitions.iter().all(|p| {
            p.in_sync.len() == REPLICAS
                && p.replicas.len() == REPLICAS
                && p.reassignment.is_none()
                && p.leader != 0
        })
    })
}
