//! How every scenario ends: everything is read back from everywhere and judged.

use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context as _, bail};
use plimsoll_client::{Acks, SpuId, StartAt};
use plimsoll_history::{Event, Held, Payload, Violation};
use plimsoll_proto::ids::{Offset, PartitionId};

use super::super::Scenario;
use super::super::report::Outcome;
use super::super::timeline::{Moment, Timeline};
use super::{Run, TOPIC};
use crate::plain;
use crate::rig::Missing;
use crate::workload::Load;

impl Run {
    /// Stops everything, reads everything back from everywhere and judges.
    pub(in crate::scenario) async fn conclude(
        mut self,
        scenario: &Scenario,
        played: anyhow::Result<()>,
    ) -> Outcome {
        if let Err(error) = &played
            && let Some(missing) = Missing::of(error)
        {
            return Outcome { seed: self.outcome.seed, ..Outcome::skipped(scenario.name, &missing) };
        }
        if let Err(error) = played {
            self.outcome.reasons.push(format!("{error:#}"));
        }
        self.say("reading everything back");
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
        self.check_history();
        self.take_figures().await;
        for (bar, why) in scenario.without {
            self.not_applicable(bar.figure(), why);
            // What every run measures is shown all the same.
            let measured = self.outcome.figures.iter_mut().filter(|figure| figure.name == bar.figure());
            measured.for_each(|figure| figure.at_most = None);
        }
        for (spu, why) in self.excused.clone() {
            self.not_applicable(&format!("copies_of_spu_{spu}"), why);
        }
        self.outcome.timeline = self.timeline().await;
        self.outcome.judge();
        if !self.outcome.reasons.is_empty() {
            self.keep_logs();
        }
        self.outcome
    }

    fn check_history(&mut self) {
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
    }

    /// What happened when, of all that looked.
    async fn timeline(&self) -> Timeline {
        let mut timeline = self.recorder.timeline();
        let events = self.client.admin().timeout(Duration::from_secs(5)).list_events(0, 10_000).await;
        for event in events.unwrap_or_default() {
            timeline.transitions.push(Moment {
                ms: self.recorder.wall_ms(event.time_ms),
                who: if event.spu_id == 0 { String::new() } else { format!("spu-{}", event.spu_id) },
                what: format!("{} {} -> {} {}", event.kind, event.from, event.to, event.reason)
                    .trim()
                    .to_owned(),
            });
        }
        for (spu, log) in (1..).zip(self.logs.lock().unwrap_or_else(PoisonError::into_inner).iter()) {
            timeline.log_lines.extend(log.lines().iter().map(|line| Moment {
                ms: self.recorder.ms(line.seen),
                who: format!("spu-{spu}"),
                what: line.text.clone(),
            }));
        }
        timeline
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
        // The others are told UNKNOWN where these are sent again.
        for load in self.loads.iter().filter(|load| load.spec().idempotent) {
            if let (failed, Some(why)) = load.with_log(|log| log.failed.clone()) {
                self.outcome.reasons.push(format!("{failed} records failed, the first: {why}"));
            }
        }
        for topic in self.topics.clone() {
            self.hold(&topic).await.with_context(|| topic.clone())?;
        }
        let promised = |load: &&Load| load.spec().topic == TOPIC && load.spec().acks == Acks::All;
        let acked: u64 = self.loads.iter().filter(promised).map(Load::acked).sum();
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
            for replica in partition.replicas.iter().filter(|found| !self.excused.contains_key(&found.spu_id))
            {
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
                // A leader that has just changed asks its readers to come again.
                let records = loop {
                    match self.records_of(topic, partition.index, replica.spu_id, ends.high_watermark).await {
                        Ok(records) => break records,
                        Err(_) if self.now() < deadline => self.pause(0.2).await,
                        Err(error) => return Err(error),
                    }
                };
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

    /// Records of the judged topic that one node's copies give a reader.
    pub(in crate::scenario) async fn read_copy(&self, spu: u32) -> anyhow::Result<usize> {
        let partitions =
            self.client.metadata().topic_by_name(TOPIC).map_or(0, |topic| topic.partitions.len());
        let mut count = 0;
        for partition in 0..u32::try_from(partitions)? {
            count += self.records_of(TOPIC, partition, spu, u64::MAX).await?.len();
        }
        Ok(count)
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
