//! How every scenario ends: everything is read back from everywhere and judged.

use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context as _, bail};
use plimsoll_client::{Acks, SpuId};

use super::super::Scenario;
use super::super::report::Outcome;
use super::super::timeline::{Moment, Timeline};
use super::{Run, TOPIC};
use crate::copies;
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
        match played {
            Ok(()) => {
                if let Err(error) = self.come_back(scenario.whole).await {
                    self.outcome.reasons.push(format!("after the faults: {error:#}"));
                }
            }
            Err(error) => self.outcome.reasons.push(format!("{error:#}")),
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
        self.log_budgets(scenario.without);
        self.evidence.with(|history| self.outcome.check(history));
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

    /// What happened when, of all that looked.
    async fn timeline(&self) -> Timeline {
        let mut timeline = self.recorder.timeline();
        let events = self.client.admin().timeout(Duration::from_secs(5)).list_events(0, 10_000).await;
        timeline.transitions = self.recorder.transitions(&events.unwrap_or_default());
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
            let excused = |spu| self.excused.contains_key(&spu);
            let holding = copies::hold(&self.host, &self.client, &self.evidence, &topic, excused);
            holding.await.with_context(|| topic.clone())?;
        }
        let promised = |load: &&Load| load.spec().topic == TOPIC && load.spec().acks == Acks::All;
        let acked: u64 = self.loads.iter().filter(promised).map(Load::acked).sum();
        if self.until(LIMIT, |run| run.read() >= acked).await.is_none() {
            bail!("the consumer has read {} of {acked}: {:?}", self.read(), self.readers[0].failed());
        }
        Ok(())
    }

    /// Records of the judged topic that one node's copies give a reader.
    pub(in crate::scenario) async fn read_copy(&self, spu: u32) -> anyhow::Result<usize> {
        let partitions =
            self.client.metadata().topic_by_name(TOPIC).map_or(0, |topic| topic.partitions.len());
        let mut count = 0;
        for partition in 0..u32::try_from(partitions)? {
            let records =
                copies::records_of(&self.host, &self.client, TOPIC, partition, SpuId(spu), u64::MAX);
            count += records.await?.len();
        }
        Ok(count)
    }
}
