//! Repetitions of a proof within one run, and what the cluster committed meanwhile.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_client::SpuId;
use plimsoll_proto::v1::{ClusterEvent, SpuState};

use super::{Run, TOPIC};

/// One repetition under way.
#[derive(Debug)]
pub(in crate::scenario) struct Case {
    /// What had gone wrong before it began.
    reasons: usize,
    /// Index of the last entry before it.
    pub(in crate::scenario) applied: u64,
}

impl Run {
    /// How often to repeat something: as often as wanted, or as much less as was asked for.
    pub(in crate::scenario) fn times(&self, wanted: u32) -> u32 {
        wanted.min(self.times_max)
    }

    /// The next repetition.
    pub(in crate::scenario) async fn begin_case(&mut self, what: &str) -> anyhow::Result<Case> {
        self.outcome.cases += 1;
        self.say(&format!("{}: {what}", self.outcome.cases));
        let reasons = self.outcome.reasons.len();
        let deadline = self.now() + Duration::from_secs(10);
        loop {
            match self.applied().await {
                Ok(applied) => return Ok(Case { reasons, applied }),
                Err(error) if self.now() > deadline => return Err(error),
                Err(_) => self.pause(0.05).await,
            }
        }
    }

    /// It counts as failed when anything did not hold since it began.
    pub(in crate::scenario) fn end_case(&mut self, case: &Case) {
        if self.outcome.reasons.len() > case.reasons {
            self.outcome.failed_cases += 1;
        }
    }

    /// Notes what this repetition measured, which must lie in `bar`.
    pub(in crate::scenario) fn sample(
        &mut self,
        name: &'static str,
        value: Option<u64>,
        bar: RangeInclusive<u64>,
    ) {
        let within = value.is_some_and(|value| bar.contains(&value));
        if let Some(value) = value {
            self.outcome.samples.entry(name.to_owned()).or_default().push(value);
        }
        self.expect(within, || {
            let value = value.map_or_else(|| "never reached".to_owned(), |value| value.to_string());
            format!("{name}={value}, wanted {} to {}", bar.start(), bar.end())
        });
    }

    /// What was committed after an entry.
    pub(in crate::scenario) async fn events_after(&self, applied: u64) -> anyhow::Result<Vec<ClusterEvent>> {
        let deadline = self.now() + Duration::from_secs(15);
        loop {
            let admin = self.client.admin().timeout(Duration::from_secs(3));
            match admin.list_events(applied, 10_000).await {
                Ok(events) => return Ok(events),
                Err(error) if self.now() > deadline => {
                    return Err(error).context("the events of the cluster");
                }
                Err(_) => self.pause(0.05).await,
            }
        }
    }

    /// Entries after `applied` that took a node offline.
    pub(in crate::scenario) async fn offline_verdicts(
        &self,
        spu: u32,
        applied: u64,
    ) -> anyhow::Result<Vec<ClusterEvent>> {
        let mut events = self.events_after(applied).await?;
        events.retain(|event| event.kind == "spu_state" && event.spu_id == spu && event.to == "offline");
        Ok(events)
    }

    /// Fails the case when a node was declared offline in it.
    pub(in crate::scenario) async fn expect_never_offline(
        &mut self,
        spu: u32,
        case: &Case,
    ) -> anyhow::Result<()> {
        let verdicts = self.offline_verdicts(spu, case.applied).await?;
        self.expect(verdicts.is_empty(), || {
            let reasons: Vec<&str> = verdicts.iter().map(|event| event.reason.as_str()).collect();
            format!("spu {spu} was declared offline: {reasons:?}")
        });
        Ok(())
    }

    /// Fails the case unless a node was declared offline exactly once in it, for this reason; milliseconds from
    /// `from_wall_ms` until that was proposed.
    pub(in crate::scenario) async fn expect_offline_once(
        &mut self,
        spu: u32,
        case: &Case,
        reason: &str,
        from_wall_ms: u64,
    ) -> anyhow::Result<Option<u64>> {
        let verdicts = self.offline_verdicts(spu, case.applied).await?;
        let reasons: Vec<&str> = verdicts.iter().map(|event| event.reason.as_str()).collect();
        self.expect(reasons == [reason], || {
            format!("spu {spu} was to be declared offline once, for {reason:?}, and was for {reasons:?}")
        });
        Ok(verdicts.first().map(|event| event.time_ms.saturating_sub(from_wall_ms)))
    }

    /// Which run of a node is registered.
    pub(in crate::scenario) fn incarnation(&self, spu: u32) -> u64 {
        self.client.metadata().spus.get(&SpuId(spu)).map_or(0, |info| info.incarnation)
    }

    /// Whether a node is online, by the last committed entry.
    pub(in crate::scenario) fn online(&self, spu: u32) -> bool {
        self.client.metadata().spus.get(&SpuId(spu)).is_some_and(|info| info.state() == SpuState::Online)
    }

    /// Whether a node has logged a line with `text` since `from`.
    pub(in crate::scenario) fn has_logged(&self, spu: u32, from: Duration, text: &str) -> bool {
        self.poll_logs();
        let at = usize::try_from(spu).unwrap_or(0).saturating_sub(1);
        let logs = self.logs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let end = Duration::MAX;
        logs.get(at).is_some_and(|log| log.between(from, end).any(|line| line.text.contains(text)))
    }

    /// The controller that leads.
    pub(in crate::scenario) async fn leading_controller(&self) -> anyhow::Result<u32> {
        let deadline = self.now() + Duration::from_secs(10);
        loop {
            let leader = self.client.admin().cluster_status().await.map(|status| status.leader);
            match leader {
                Ok(leader) if leader != 0 => return Ok(u32::try_from(leader)?),
                _ if self.now() > deadline => anyhow::bail!("no controller leads: {leader:?}"),
                _ => self.pause(0.05).await,
            }
        }
    }

    /// This node once it leads partitions of the judged topic; another one that does when it takes long.
    pub(in crate::scenario) async fn leading_again(&self, spu: u32) -> anyhow::Result<u32> {
        let leads = |run: &Self| !run.led_by(TOPIC, spu).is_empty();
        match self.until(Duration::from_secs(30), leads).await {
            Some(_) => Ok(spu),
            None => self.a_leader(),
        }
    }
}
