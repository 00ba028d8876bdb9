//! How every scenario ends: everything is read back from everywhere and judged.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use plimsoll_client::{SpuId, StartAt};
use plimsoll_history::{Event, Held, Payload, Violation};
use plimsoll_proto::ids::{Offset, PartitionId};

use super::super::report::Outcome;
use super::{Run, TOPIC};
use crate::plain;
use crate::workload::Load;

impl Run {
    /// Stops everything, reads everything back from everywhere and judges.
    pub(in crate::scenario) async fn conclude(mut self, played: anyhow::Result<()>) -> Outcome {
        if let Err(error) = played {
            self.outcome.reasons.push(format!("{error:#}"));
        }
        if let Err(error) = self.read_back().await {
            self.outcome.reasons.push(format!("reading back: {error:#}"));
        }
        if let Err(error) = self.cluster.check_alive() {
            self.outcome.reasons.push(format!("{error:#}"));
        }
        self.outcome.acked = self.acked();
        self.outcome.refused = self
            .loads
            .iter()
            .map(|load| load.with_log(|log| u64::try_from(log.refused.len()).unwrap_or(u64::MAX)))
            .sum();
        let violations = self.evidence.with(plimsoll_history::check);
        for violation in &violations {
            let counter = match violation {
                Violation::Lost { .. } => &mut self.outcome.lost,
                Violation::Phantom { .. } => &mut self.outcome.phantom,
                Violation::Duplicate { .. } => &mut self.outcome.duplicates,
                Violation::Reordered { .. } => &mut self.outcome.reordered,
                _ => &mut self.outcome.other_violations,
            };
            *counter += 1;
        }
        for violation in violations.iter().take(5) {
            self.outcome.reasons.push(violation.to_string());
        }
        if !self.episodes.is_empty() {
            self.count_log_lines();
        }
        self.outcome.judge();
        if !self.outcome.reasons.is_empty() {
            self.keep_logs();
        }
        self.outcome
    }

    fn count_log_lines(&mut self) {
        const BAR: u64 = 10;
        let lines = self.episodes.iter().map(|(spu, from, to)| self.log_lines(*spu, *from, *to));
        let most = lines.max();
        self.figure("log_lines", most, Some(BAR));
    }

    fn keep_logs(&self) {
        let base = self.cluster.root().parent().unwrap_or(Path::new("/tmp"));
        let kept = base.join(format!("failed-{}", self.outcome.scenario));
        drop(std::fs::remove_dir_all(&kept));
        if rustix::fs::rename(self.cluster.root().join("logs"), &kept).is_ok() {
            self.say(&format!("logs of the servers: {}", kept.display()));
        }
    }

    async fn read_back(&mut self) -> anyhow::Result<()> {
        const LIMIT: Duration = Duration::from_secs(40);
        self.loads.iter().for_each(Load::stop);
        if self.until(LIMIT, |run| run.loads.iter().all(Load::finished)).await.is_none() {
            let waiting: u64 = self.loads.iter().map(|load| load.sent() - load.acked()).sum();
            bail!("{waiting} records are not answered {} s after the last was sent", LIMIT.as_secs());
        }
        for load in &self.loads {
            if let (failed, Some(why)) = load.with_log(|log| log.failed.clone()) {
                self.outcome.reasons.push(format!("{failed} records failed, the first: {why}"));
            }
        }
        for topic in self.topics.clone() {
            self.hold(&topic).await.with_context(|| topic.clone())?;
        }
        let acked: u64 = self.loads.iter().filter(|load| load.spec().topic == TOPIC).map(Load::acked).sum();
        if self.until(LIMIT, |run| run.read() >= acked).await.is_none() {
            bail!("the consumer has read {} of {acked}: {:?}", self.read(), self.readers[0].failed());
        }
        Ok(())
    }

    /// Takes in what every replica of a topic holds, once all have what was acknowledged.
    async fn hold(&self, topic: &str) -> anyhow::Result<()> {
        let image = self.client.metadata();
        let info = image.topic_by_name(topic).context("the topic is gone")?.clone();
        let topic_id = self.client.topic_id(topic).context("the topic is gone")?;
        for partition in &info.partitions {
            let leader = self.client.spu_address(SpuId(partition.leader)).context("no leader")?;
            let wanted =
                plain::ends(&self.host, &leader, &info.topic_id, partition.index).await?.high_watermark;
            for replica in &partition.replicas {
                let address = self.client.spu_address(SpuId(replica.spu_id)).context("a node's address")?;
                let deadline = self.now() + Duration::from_secs(30);
                let ends = loop {
                    let ends = plain::ends(&self.host, &address, &info.topic_id, partition.index).await;
                    match ends {
                        Ok(ends) if ends.high_watermark >= wanted => break ends,
                        _ if self.now() < deadline => self.pause(0.02).await,
                        other => bail!("spu {} has not caught up to {wanted}: {other:?}", replica.spu_id),
                    }
                };
                let records =
                    self.records_of(topic, partition.index, replica.spu_id, ends.high_watermark).await?;
                let offset = |value| Offset::new(value).context("an offset");
                self.evidence.record(Event::Held(Held {
                    spu: SpuId(replica.spu_id),
                    partition: PartitionId { topic_id, index: partition.index },
                    leader: replica.spu_id == partition.leader,
                    log_start: offset(ends.log_start)?,
                    high_watermark: offset(ends.high_watermark)?,
                    records,
                }));
            }
        }
        Ok(())
    }

    async fn records_of(
        &self,
        topic: &str,
        partition: u32,
        spu: u32,
        end: u64,
    ) -> anyhow::Result<Vec<(Offset, Payload)>> {
        let reading = async {
            let consumer = self.client.consumer(topic).partitions([partition]).replica(SpuId(spu));
            let mut consumer = consumer.start(StartAt::Earliest).until_end().build().await?;
            let mut records = Vec::new();
            while let Some(record) = consumer.next().await {
                let record = record?;
                if record.offset.get() < end {
                    let payload = Payload::of(record.key.as_deref(), record.value.as_deref());
                    records.push((record.offset, payload));
                }
            }
            anyhow::Ok(records)
        };
        self.host.clock.timeout(Duration::from_secs(30), reading).await.context("not read in time")?
    }
}
