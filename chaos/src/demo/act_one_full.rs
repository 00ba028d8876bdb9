//! Act 2: something outside of Plimsoll takes every byte of one node's disk.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use plimsoll_client::{SpuId, StartAt};
use tokio::sync::oneshot;

use super::NODES;
use super::act_normal::SCRATCH_RECORD_BYTES;
use super::refusal_probe::{First, RefusalProbe, in_full};
use super::volumes::{leaderships, led_by, volume_state};
use super::{Story, millis};
use crate::filler::{Fill, Filler};
use crate::plain::{self, Hammered, Target};
use crate::rig::Space;
use crate::screen::mib;

/// Speed of the foreign writer.
pub(super) const FILL_BYTES_PER_S: u64 = 64 << 20;
/// The foreign writer goes on until there was nothing to take for so long.
pub(super) const FILL_SETTLED: Duration = Duration::from_millis(400);
/// Refusals that the client without backoff asks for.
const HAMMER_REFUSALS: u64 = 55_000;
const HAMMER_WINDOW: usize = 128;
const HAMMER_LIMIT: Duration = Duration::from_secs(35);
/// How long the disk stays full after everything was shown.
const FULL_LASTS: Duration = Duration::from_secs(8);
const WAIT: Duration = Duration::from_secs(20);

/// A disk that is full, as act 2 hands it to act 3.
pub(super) struct FullDisk {
    pub(super) spu: u32,
    pub(super) filler: Filler,
    /// Partitions the node led before.
    pub(super) led: usize,
    /// When the fill began.
    pub(super) from: Duration,
}

impl Story {
    /// Act 2.
    pub(super) async fn act_one_full(&mut self) -> anyhow::Result<FullDisk> {
        self.board.screen.heading("Act 2: something outside fills the disk of one SPU, to the last byte");
        let image = self.board.client.metadata();
        let spu = (1..=NODES)
            .max_by_key(|id| {
                (led_by(&image, "flights", *id).len().min(1), led_by(&image, "scratch", *id).len())
            })
            .context("three nodes")?;
        let led = leaderships(&image, spu);
        let moved: BTreeSet<u32> = led_by(&image, "flights", spu).into_iter().collect();
        if moved.is_empty() {
            bail!("spu {spu} leads no partition of flights: {:?}", image.topic_by_name("flights"));
        }
        let index_before = self.applied_index().await?;
        let target = self.target("flights", *moved.first().context("a moved partition")?)?;
        let probe = RefusalProbe::start(&self.host, self.probe_target(spu).unwrap_or_else(|| target.clone()));

        let scratch_before = self.scratch_starts(spu).await?;
        let from = self.now();
        let mut filler = Filler::create(self.cluster.disk(spu))?;
        let before = self.space(spu)?;
        let mark = self.read_only_mark(spu, &before);
        let fill = self.fill(spu, &mut filler, mark).await?;
        self.note_full(spu, &fill, mark);

        let first = self.first_refusal(&probe, from).await?;
        let began = fill.began().context("the disk never became full")?;
        let detect = first.at.saturating_sub(began);
        self.figures.detect_ms = self.figures.detect_ms.max(Some(millis(detect)));
        self.say(&format!(
            "first typed refusal {} ms after the mark was crossed. As a plain client gets it:",
            detect.as_millis()
        ));
        self.board.screen.detail(&in_full(&first.detail));

        let scratch_after = self.scratch_starts(spu).await?;
        let trimmed: u64 = scratch_after
            .iter()
            .zip(&scratch_before)
            .map(|(after, before)| after.saturating_sub(*before))
            .sum();
        self.say(&format!(
            "before it refused, spu {spu} deleted what scratch may lose: {trimmed} records, {}",
            mib(trimmed.saturating_mul(SCRATCH_RECORD_BYTES))
        ));

        // From here on every byte that is given back is taken again, as a foreign writer does.
        let clock = self.host.clock.clone();
        let hold = hold_full(&clock, &mut filler);
        let scenes = self.while_full(spu, &moved, &first, target, index_before);
        tokio::select! {
            held = hold => held?,
            scenes = scenes => scenes?,
        }
        let told = probe.told();
        drop(probe);
        self.count_refusals(&told);
        Ok(FullDisk { spu, filler, led, from })
    }

    /// Fills the disk of `spu`, showing it in its gauge.
    pub(super) async fn fill(&self, spu: u32, filler: &mut Filler, mark: u64) -> anyhow::Result<Fill> {
        let fill = filler.fill(&self.host.clock, FILL_BYTES_PER_S, mark, FILL_SETTLED).await?;
        self.board.set_foreign(spu, filler.taken_bytes());
        Ok(fill)
    }

    /// Says how full the disk is; a disk that is not below its mark contradicts PASS.
    pub(super) fn note_full(&mut self, spu: u32, fill: &Fill, mark: u64) {
        let Space { free_bytes, capacity_bytes, .. } = fill.full;
        self.say(&format!(
            "ENOSPC on the disk of spu {spu}: statvfs says {free_bytes} of {capacity_bytes} bytes free, its ReadOnly mark is {mark}"
        ));
        if free_bytes >= mark || fill.enospc.is_none() {
            self.figures.failures.push(format!(
                "the disk of spu {spu} was not below its ReadOnly mark: {free_bytes} >= {mark}"
            ));
        }
    }

    /// Where each partition of `scratch` starts in the replica of `spu`.
    async fn scratch_starts(&self, spu: u32) -> anyhow::Result<Vec<u64>> {
        let topic_id = self.topic_id("scratch")?;
        let address = self.address(spu)?;
        let mut starts = Vec::new();
        for partition in 0..3 {
            starts.push(plain::ends(&self.host, &address, &topic_id, partition).await?.log_start);
        }
        Ok(starts)
    }

    fn target(&self, topic: &str, partition: u32) -> anyhow::Result<Target> {
        let image = self.board.client.metadata();
        let topic = image.topic_by_name(topic).context("a topic in the metadata")?;
        let found = topic.partitions.iter().find(|found| found.index == partition).context("a partition")?;
        let address = image.address(SpuId(found.leader)).context("the leader's address")?.to_owned();
        Ok(Target { address, topic_id: topic.topic_id.clone(), partition, leader_epoch: found.leader_epoch })
    }

    /// A partition of `scratch` that `spu` leads: what a probe gets accepted there does no harm.
    pub(super) fn probe_target(&self, spu: u32) -> Option<Target> {
        let partition = *led_by(&self.board.client.metadata(), "scratch", spu).first()?;
        self.target("scratch", partition).ok()
    }

    /// The first refusal for a full disk that any client got at or after `from`.
    async fn first_refusal(&self, probe: &RefusalProbe, from: Duration) -> anyhow::Result<First> {
        let board = &self.board;
        let of_replay = || {
            let first = board.replay.with_log(|log| log.first_disk_full(from).cloned());
            first.map(|refused| First { at: refused.at, detail: refused.refusal.detail().clone() })
        };
        let first = || match (probe.first(), of_replay()) {
            (Some(a), Some(b)) => Some(if a.at <= b.at { a } else { b }),
            (a, b) => a.or(b),
        };
        board.until(WAIT, || first().is_some()).await;
        first().with_context(|| {
            format!("no DISK_FULL within {} s of the fill; told so far: {:?}", WAIT.as_secs(), probe.told())
        })
    }

    /// Everything that happens while the disk stays full.
    async fn while_full(
        &mut self,
        spu: u32,
        moved: &BTreeSet<u32>,
        first: &First,
        target: Target,
        index_before: u64,
    ) -> anyhow::Result<()> {
        let (done, hammered) = oneshot::channel();
        let host = self.host.clone();
        let _hammer = self.host.tasks.spawn("hammer", async move {
            drop(
                done.send(plain::hammer(&host, &target, HAMMER_WINDOW, HAMMER_REFUSALS, HAMMER_LIMIT).await),
            );
        });
        self.rerouted(spu, moved, first.at).await?;
        self.kill_leading_controller().await?;
        let told: Hammered = hammered.await.context("the client without backoff")??;
        self.say(&format!(
            "a client without backoff was refused {} times, each with a typed error: {:?}",
            told.total(),
            told.refused
        ));
        if told.acked > 0 || told.not_clear > 0 {
            self.figures.failures.push(format!(
                "the full node acknowledged {} and left {} in doubt",
                told.acked, told.not_clear
            ));
        }
        self.figures.refused_hammer = told.total();
        self.count_refusals(&told);
        self.one_transition(spu, index_before).await?;
        self.restart_at_zero(spu, moved).await?;
        let before = self.board.with_audit(|audit| audit.read);
        self.host.clock.sleep(FULL_LASTS).await;
        let read = self.board.with_audit(|audit| audit.read);
        self.say(&format!(
            "{} s later the disk is as full as before; the consumer has read {} more flights meanwhile",
            FULL_LASTS.as_secs(),
            read.saturating_sub(before)
        ));
        if read == before {
            self.figures.failures.push("the consumer stood still while one disk was full".to_owned());
        }
        Ok(())
    }

    /// Adds what a client was told to the refusals of the run.
    pub(super) fn count_refusals(&mut self, told: &Hammered) {
        self.figures.refused += told.total();
    }

    async fn rerouted(
        &mut self,
        spu: u32,
        moved: &BTreeSet<u32>,
        refused_at: Duration,
    ) -> anyhow::Result<()> {
        let board = &self.board;
        let last = || {
            let of = |partition: &u32| {
                board.replay.with_log(|log| {
                    log.first_ack(refused_at, |ack| ack.partition == *partition && ack.spu != spu)
                })
            };
            let acks: Vec<_> = moved.iter().filter_map(of).collect();
            if acks.len() == moved.len() { acks.iter().map(|ack| ack.at).max() } else { None }
        };
        board.until(WAIT, || last().is_some()).await;
        let Some(at) = last() else {
            bail!(
                "partitions {moved:?} have no acknowledgement from a new leader: {:?}",
                board.client.metadata().topic_by_name("flights")
            );
        };
        let took = at.saturating_sub(refused_at);
        self.figures.reroute_ms = Some(millis(took));
        self.say(&format!("partitions {moved:?} of flights have new leaders; the producer goes on there {} ms after the refusal", took.as_millis()));
        Ok(())
    }

    async fn kill_leading_controller(&mut self) -> anyhow::Result<()> {
        let (leader, _) =
            self.board.client.metadata().controller_leader.clone().context("a leading controller")?;
        let id = u32::try_from(leader.0).context("a small id")?;
        self.cluster.controller(id).kill();
        let killed = self.now();
        self.say(&format!("kill -9 for the leading controller {id}"));
        let new = self
            .board
            .client
            .wait_metadata(WAIT, |image| {
                image.controller_leader.as_ref().is_some_and(|(other, _)| *other != leader)
            })
            .await;
        if !new {
            bail!("no other controller leads {} s after the kill", WAIT.as_secs());
        }
        let took = self.now().saturating_sub(killed);
        let now_leads = self.board.client.metadata().controller_leader.clone().map_or(0, |(id, _)| id.0);
        self.say(&format!(
            "controller {now_leads} leads {} ms later; controller {id} is started again",
            took.as_millis()
        ));
        self.cluster.controller(id).start()
    }

    async fn one_transition(&mut self, spu: u32, index_before: u64) -> anyhow::Result<()> {
        let entries = self.write_offline_entries(spu, index_before).await?;
        let state = volume_state(&self.board.client.metadata(), spu);
        self.say(&format!(
            "{entries} committed write-offline entry; the volume of spu {spu} is {}",
            super::board::state_name(state)
        ));
        if entries != 1 {
            self.figures
                .failures
                .push(format!("{entries} write-offline entries for the fill of spu {spu} in act 2, not 1"));
        }
        Ok(())
    }

    /// `kill -9` for the full node, and again a start with no byte free.
    async fn restart_at_zero(&mut self, spu: u32, moved: &BTreeSet<u32>) -> anyhow::Result<()> {
        self.cluster.spu(spu).kill();
        let free = self.space(spu)?.free_bytes;
        let started = self.now();
        self.cluster.spu(spu).start()?;
        self.say(&format!("kill -9 for spu {spu}, and started again with {free} bytes free"));
        let partition = *moved.first().context("a partition")?;
        let deadline = started + WAIT;
        let mut last = "no attempt".to_owned();
        while self.now() < deadline {
            self.cluster.check_alive()?;
            match self.read_from(spu, partition).await {
                Ok(count) if count > 0 => {
                    let took = self.now().saturating_sub(started);
                    let free = self.space(spu)?.free_bytes;
                    self.say(&format!(
                        "spu {spu} serves reads again {} ms after its start: {count} flights of partition {partition}, {} free",
                        took.as_millis(),
                        mib(free)
                    ));
                    return Ok(());
                }
                Ok(_) => last = "nothing to read".to_owned(),
                Err(error) => last = format!("{error:#}"),
            }
            self.host.clock.sleep(Duration::from_millis(50)).await;
        }
        bail!("spu {spu} serves no reads {} s after its start at {free} bytes free: {last}", WAIT.as_secs())
    }

    /// Records of one partition of `flights` that the replica of `spu` knows to be committed, all of them read.
    async fn read_from(&self, spu: u32, partition: u32) -> anyhow::Result<usize> {
        let reading = async {
            let ends =
                plain::ends(&self.host, &self.address(spu)?, &self.topic_id("flights")?, partition).await?;
            let consumer = self.board.client.consumer("flights").partitions([partition]).replica(SpuId(spu));
            let mut consumer = consumer.start(StartAt::Earliest).build().await?;
            let mut count = 0usize;
            let mut next = ends.log_start;
            while next < ends.high_watermark {
                let record = consumer.next().await.context("the consumer ended")??;
                next = record.offset.get() + 1;
                count += 1;
            }
            anyhow::Ok(count)
        };
        self.host
            .clock
            .timeout(Duration::from_secs(3), reading)
            .await
            .map_err(|_| anyhow::anyhow!("no answer within 3 s"))?
    }
}

/// Takes whatever is given back, until dropped.
async fn hold_full(clock: &plimsoll_host::Clock, filler: &mut Filler) -> anyhow::Result<()> {
    loop {
        filler.take(1 << 20)?;
        clock.sleep(Duration::from_millis(10)).await;
    }
}
