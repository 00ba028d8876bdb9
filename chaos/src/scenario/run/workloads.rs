//! Topics, producers and consumers of a run.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use plimsoll_client::{Client, MetadataImage, OnPressure, TopicConfig};
use plimsoll_history::Event;
use plimsoll_proto::ids::Offset;

use super::{Run, TOPIC};
use crate::copies;
use crate::workload::{Load, LoadSpec, Reader};

/// Of what is written to topics that are not judged.
const RECORD_BYTES: u64 = 16 << 10;

/// Records in so many bytes of such a topic.
pub(in crate::scenario) fn records_in(bytes: u64) -> u64 {
    bytes / RECORD_BYTES
}

impl Run {
    /// The judged topic: three replicas, `min_in_sync` 2, and no data given up under pressure.
    pub(in crate::scenario) async fn topic_of(&mut self, config: TopicConfig) -> anyhow::Result<()> {
        self.plain_topic(TOPIC, config).await?;
        self.topics.push(TOPIC.to_owned());
        Ok(())
    }

    /// A topic whose records are not judged. Nothing is given up under pressure unless `config` says so.
    pub(in crate::scenario) async fn plain_topic(
        &self,
        name: &str,
        config: TopicConfig,
    ) -> anyhow::Result<()> {
        let on_pressure = match config.on_pressure() {
            OnPressure::Unspecified => OnPressure::Refuse,
            chosen => chosen,
        };
        let config = TopicConfig { replicas: 3, min_in_sync: 2, on_pressure: on_pressure.into(), ..config };
        self.client.admin().create_topic(name, config).await.with_context(|| format!("create {name}"))?;
        let led = |image: &MetadataImage| {
            image
                .topic_by_name(name)
                .is_some_and(|topic| topic.partitions.iter().all(|found| found.leader != 0))
        };
        if !self.client.wait_metadata(Duration::from_secs(10), led).await {
            bail!("{name} has no leaders");
        }
        Ok(())
    }

    /// A producer that goes on until the end.
    pub(in crate::scenario) async fn load(
        &mut self,
        topic: &str,
        rate_per_s: u32,
        record_bytes: usize,
    ) -> anyhow::Result<()> {
        self.load_of(LoadSpec::new(topic, rate_per_s, record_bytes)).await
    }

    /// As [`Run::load`], in all its details.
    pub(in crate::scenario) async fn load_of(&mut self, spec: LoadSpec) -> anyhow::Result<()> {
        let client = self.client.clone();
        self.load_from(&client, spec).await
    }

    /// As [`Run::load_of`], of another client.
    pub(in crate::scenario) async fn load_from(
        &mut self,
        client: &Client,
        spec: LoadSpec,
    ) -> anyhow::Result<()> {
        let spec = LoadSpec { id: u64::try_from(self.loads.len())? + 1, ..spec };
        // What is sent elsewhere is nobody's to judge.
        let evidence =
            if self.topics.contains(&spec.topic) { Arc::clone(&self.evidence) } else { Arc::default() };
        let load = Load::start(&self.host, client, &evidence, spec).await?;
        self.recorder.add_load(&load);
        self.loads.push(load);
        Ok(())
    }

    /// A consumer that goes on until the end.
    pub(in crate::scenario) fn reader(&mut self, topic: &str, pause: Option<Duration>) -> anyhow::Result<()> {
        let id = u64::try_from(self.readers.len())? + 1;
        // What is read of other topics is nobody's to judge.
        let evidence = if topic == TOPIC { Arc::clone(&self.evidence) } else { Arc::default() };
        let reader = Reader::start(&self.host, &self.client, &evidence, topic, id, pause)?;
        if topic == TOPIC {
            self.recorder.add_reader(&reader);
        }
        self.readers.push(reader);
        Ok(())
    }

    /// The judged topic with a producer and a consumer, flowing.
    pub(in crate::scenario) async fn flowing(
        &mut self,
        partitions: u32,
        rate: u32,
        bytes: usize,
    ) -> anyhow::Result<()> {
        self.flowing_of(TopicConfig { partitions, ..TopicConfig::default() }, rate, bytes).await
    }

    /// As [`Run::flowing`], with other settings of the topic.
    pub(in crate::scenario) async fn flowing_of(
        &mut self,
        config: TopicConfig,
        rate: u32,
        bytes: usize,
    ) -> anyhow::Result<()> {
        self.topic_of(config).await?;
        self.load(TOPIC, rate, bytes).await?;
        self.reader(TOPIC, None)?;
        let enough = |run: &Self| run.acked() > 200 && run.read() > 200;
        if self.until(Duration::from_secs(15), enough).await.is_none() {
            bail!("no records flow: {} acknowledged, {} read", self.acked(), self.read());
        }
        self.applied_before = self.applied().await?;
        for spu in self.cluster.spu_ids() {
            let open = self.open_of(spu);
            self.open_before.insert(spu, open);
        }
        self.say(&format!("flowing: {} acknowledged", self.acked()));
        Ok(())
    }

    /// Where the replicas of a topic begin now that it may have deleted what lies below `may_trim_below(now)`; judged in
    /// the end.
    pub(in crate::scenario) async fn judge_starts(
        &self,
        topic: &str,
        may_trim_below: impl Fn(Duration) -> u64,
    ) -> anyhow::Result<()> {
        let found = copies::starts(&self.host, &self.client, topic).await?;
        // What may be deleted by now might have been when they were asked.
        let below = Offset::new(may_trim_below(self.now())).context("an offset")?;
        for held in found {
            self.evidence.record(Event::MayTrim { partition: held.partition, below });
            self.evidence.record(Event::Held(held));
        }
        Ok(())
    }

    /// Writes `bytes` to each partition of a topic that is not judged.
    pub(in crate::scenario) async fn write(&self, topic: &str, bytes: u64) -> anyhow::Result<()> {
        let producer = self.client.producer(topic).build().await?;
        let value = Bytes::from(vec![b'.'; usize::try_from(RECORD_BYTES)?]);
        let mut deliveries = Vec::new();
        for _ in 0..records_in(bytes) {
            for partition in 0..producer.partitions() {
                let record = plimsoll_client::Record::new(value.clone()).partition(partition);
                deliveries.push(producer.send(record).await?);
            }
        }
        for delivery in deliveries {
            delivery.await?;
        }
        producer.close().await;
        Ok(())
    }
}
