//! One scenario under way: its cluster, its workloads, its figures; and how every one of them ends.

mod cases;
mod conclude;
mod figures;
mod healed;
mod waits;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_client::{Client, SpuId, VolumeState};
use plimsoll_host::{Host, Random};
use plimsoll_proto::v1::{self, VolumeFacts};

use super::Scenario;
use super::recorder::{Recorder, Watched};
use super::report::Outcome;
use crate::cluster::Cluster;
use crate::filler::{Fill, Filler};
use crate::log_tail::LogTail;
use crate::rig::{Disk, DiskKind, Rig, VolumeSpec};
use crate::screen::{Screen, mib};
use crate::workload::{Ack, Evidence, Load, Reader, Refused};

/// The topic whose records are judged.
pub(super) const TOPIC: &str = "judged";
const FILL_BYTES_PER_S: u64 = 128 << 20;
const SETTLED: Duration = Duration::from_millis(300);

/// Where a run is shown.
#[derive(Debug)]
pub struct Show {
    /// Clock and tasks.
    pub host: Host,
    /// The story.
    pub screen: Arc<Screen>,
    /// Fixes what is left to chance.
    pub seed: u64,
    /// The most repetitions of anything that is repeated.
    pub times_max: u32,
    /// Why servers cannot be hosts of their own, if they can't.
    pub no_network: Option<String>,
}

/// One scenario under way.
pub struct Run {
    pub(super) host: Host,
    pub(super) cluster: Cluster,
    pub(super) client: Client,
    /// What is left to chance, by the seed.
    pub(super) random: Random,
    evidence: Arc<Evidence>,
    pub(super) loads: Vec<Load>,
    readers: Vec<Reader>,
    topics: Vec<String>,
    logs: Mutex<Vec<LogTail>>,
    episodes: Vec<(u32, Duration, Duration)>,
    /// Nodes that the scenario itself silences.
    silenced: BTreeSet<u32>,
    /// When a fault was lifted last, unless another one came since.
    lifted: Mutex<Option<Duration>>,
    /// Nodes whose copy is not asked for in the end, and why.
    excused: BTreeMap<u32, &'static str>,
    /// What each node had open in the beginning.
    open_before: BTreeMap<u32, figures::OpenFiles>,
    /// How long refusals took that were asked for on purpose.
    probed: Vec<Duration>,
    times_max: u32,
    applied_before: u64,
    outcome: Outcome,
    recorder: Recorder,
    screen: Arc<Screen>,
}

impl Run {
    pub(super) async fn start(show: &Show, rig: Rig, scenario: &Scenario) -> anyhow::Result<Self> {
        let host = show.host.clone();
        let mut cluster = Cluster::start(rig, &(scenario.topology)())?;
        let client = cluster.connect(&host).await?;
        let logs = cluster.spu_logs().iter().map(|path| LogTail::new(path)).collect();
        let volumes = cluster
            .spu_ids()
            .flat_map(|spu| cluster.disks(spu).iter().map(move |disk| Watched::disk(spu, disk)))
            .collect();
        let recorder = Recorder::start(&host, &client, &show.screen, scenario.name, volumes);
        Ok(Self {
            host,
            cluster,
            client,
            random: Random::seeded(show.seed),
            evidence: Arc::default(),
            loads: Vec::new(),
            readers: Vec::new(),
            topics: Vec::new(),
            logs: Mutex::new(logs),
            episodes: Vec::new(),
            silenced: BTreeSet::new(),
            lifted: Mutex::default(),
            excused: BTreeMap::new(),
            open_before: BTreeMap::new(),
            probed: Vec::new(),
            times_max: show.times_max,
            applied_before: 0,
            outcome: Outcome { seed: show.seed, ..Outcome::new(scenario.name) },
            recorder,
            screen: Arc::clone(&show.screen),
        })
    }

    pub(super) fn disk_kind(&self) -> DiskKind {
        self.cluster.disk_kind()
    }

    pub(super) fn say(&self, text: &str) {
        self.recorder.say(text);
        self.screen.say(text);
    }

    pub(super) fn now(&self) -> Duration {
        self.host.clock.now()
    }

    pub(super) async fn pause(&self, seconds: f64) {
        let end = self.now() + Duration::from_secs_f64(seconds);
        loop {
            self.poll_logs();
            let left = end.saturating_sub(self.now());
            if left.is_zero() {
                return;
            }
            self.host.clock.sleep(left.min(Duration::from_millis(100))).await;
        }
    }

    /// A bar that cannot be held against this run, and why; the first reason counts.
    pub(super) fn not_applicable(&mut self, name: &str, why: &str) {
        self.outcome.not_applicable(name, why);
    }

    /// Notes a figure; a bar that is missed fails the run.
    pub(super) fn figure(&mut self, name: &'static str, value: Option<u64>, at_most: Option<u64>) {
        self.outcome.figure(name, value, at_most);
    }

    /// Fails the run unless `holds`; the play goes on.
    pub(super) fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            let why = otherwise();
            self.say(&format!("contradicts PASS: {why}"));
            self.outcome.reasons.push(why);
        }
    }

    /// Records acknowledged, of all producers.
    pub(super) fn acked(&self) -> u64 {
        self.loads.iter().map(Load::acked).sum()
    }

    /// Records read by the consumer of the judged topic.
    pub(super) fn read(&self) -> u64 {
        self.readers.first().map_or(0, Reader::read)
    }

    /// First refusal at or after `from`.
    pub(super) fn first_refusal(&self, from: Duration) -> Option<Refused> {
        let of = |load: &Load| {
            load.with_log(|log| {
                let start = log.refused.partition_point(|refused| refused.at < from);
                log.refused.get(start).copied()
            })
        };
        self.loads.iter().filter_map(of).min_by_key(|refused| refused.at)
    }

    /// First acknowledgement at or after `from` that satisfies `wanted`.
    pub(super) fn first_ack(&self, from: Duration, wanted: impl Fn(&Ack) -> bool) -> Option<Duration> {
        let of = |load: &Load| {
            load.with_log(|log| {
                let start = log.acks.partition_point(|ack| ack.at < from);
                log.acks.get(start..).and_then(|acks| acks.iter().find(|ack| wanted(ack))).map(|ack| ack.at)
            })
        };
        self.loads.iter().filter_map(of).min()
    }

    /// Polls until `condition` holds, at most `limit`; when that was.
    pub(super) async fn until(
        &self,
        limit: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let deadline = self.now() + limit;
        loop {
            let now = self.now();
            self.poll_logs();
            if condition(self) {
                return Some(now);
            }
            if now >= deadline {
                return None;
            }
            self.host.clock.sleep(Duration::from_millis(5)).await;
        }
    }

    // The cluster, as metadata and nodes tell it.

    /// Partitions of a topic that a node leads.
    pub(super) fn led_by(&self, topic: &str, spu: u32) -> Vec<u32> {
        let image = self.client.metadata();
        let partitions = image.topic_by_name(topic).map(|topic| topic.partitions.as_slice());
        let led = partitions.unwrap_or_default().iter().filter(|found| found.leader == spu);
        led.map(|found| found.index).collect()
    }

    /// A node that leads a partition of the judged topic.
    pub(super) fn a_leader(&self) -> anyhow::Result<u32> {
        let leads = |spu: &u32| !self.led_by(TOPIC, *spu).is_empty();
        self.cluster.spu_ids().find(leads).context("no node leads anything")
    }

    /// Facts of all volumes of a node.
    pub(super) async fn facts(&self, spu: u32) -> anyhow::Result<Vec<VolumeFacts>> {
        let status = self.client.admin().timeout(Duration::from_secs(3)).cluster_status().await?;
        let of_node = |found: &&v1::SpuStatus| found.info.as_ref().is_some_and(|info| info.spu_id == spu);
        Ok(status.spus.iter().find(of_node).map(|found| found.volumes.clone()).unwrap_or_default())
    }

    /// Whether all volumes of a node are writable by a committed entry.
    pub(super) fn writable(&self, spu: u32) -> bool {
        let image = self.client.metadata();
        image.spus.get(&SpuId(spu)).is_some_and(|info| {
            !info.volumes.is_empty()
                && info.volumes.iter().all(|found| found.state() == VolumeState::Writable)
        })
    }

    /// Index of the last applied entry.
    pub(super) async fn applied(&self) -> anyhow::Result<u64> {
        Ok(self.client.admin().cluster_status().await?.applied_index)
    }

    /// Entries after `after` that took a volume of `spu` offline for writes.
    pub(super) async fn offline_entries(&self, spu: u32, after: u64) -> anyhow::Result<u64> {
        let events = self.client.admin().list_events(after, 10_000).await?;
        let taken = events.iter().filter(|event| {
            event.kind == "volume_state" && event.spu_id == spu && event.to.starts_with("write_offline")
        });
        Ok(u64::try_from(taken.count())?)
    }

    /// How often the in-sync set of the partition changed for which it did most often, in entries after `after`.
    pub(super) async fn set_changes(&self, after: u64) -> anyhow::Result<u64> {
        let events = self.client.admin().list_events(after, 10_000).await?;
        let mut changes = BTreeMap::<_, u64>::new();
        for event in events.iter().filter(|event| event.kind == "in_sync_changed") {
            *changes.entry((event.topic_id.clone(), event.partition)).or_default() += 1;
        }
        Ok(changes.values().copied().max().unwrap_or(0))
    }

    // Faults.

    /// `kill -9` of a node; that it falls silent is no fault of anybody.
    pub(super) fn kill(&mut self, spu: u32) {
        self.silenced.insert(spu);
        self.broken_again();
        self.cluster.spu(spu).kill();
        self.say(&format!("spu {spu} is killed"));
    }

    /// Starts it again.
    pub(super) fn start_again(&mut self, spu: u32) -> anyhow::Result<()> {
        self.say(&format!("spu {spu} starts"));
        self.lifted(self.now());
        self.cluster.spu(spu).start()
    }

    /// A node that the scenario keeps from being heard.
    pub(super) fn silence(&mut self, spu: u32) {
        self.silenced.insert(spu);
    }

    /// The copies of a node are not asked for in the end.
    pub(super) fn excuse(&mut self, spu: u32, why: &'static str) {
        self.excused.insert(spu, why);
    }

    /// Another storage node.
    pub(super) fn add_spu(&mut self, disks: &[VolumeSpec]) -> anyhow::Result<u32> {
        let spu = self.cluster.add_spu(disks)?;
        self.recorder.add_disks(spu, self.cluster.disks(spu));
        let logs = self.cluster.spu_logs();
        let log = logs.last().context("a node was just added")?;
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).push(LogTail::new(log));
        self.say(&format!("spu {spu} is added"));
        Ok(spu)
    }

    /// Fills a disk to ENOSPC.
    pub(super) async fn fill(&self, disk: &Disk) -> anyhow::Result<(Filler, Fill)> {
        self.fill_at(disk, FILL_BYTES_PER_S).await
    }

    /// As [`Run::fill`], at another speed.
    pub(super) async fn fill_at(&self, disk: &Disk, bytes_per_s: u64) -> anyhow::Result<(Filler, Fill)> {
        let mut filler = Filler::create(disk)?;
        self.broken_again();
        let mark = disk.space()?.capacity_bytes / 20;
        let fill = filler.fill(&self.host.clock, bytes_per_s, mark, SETTLED).await?;
        self.say(&format!(
            "{} is full: {} free, a foreign file of {}",
            disk.name(),
            mib(fill.full.free_bytes),
            mib(filler.taken_bytes())
        ));
        Ok((filler, fill))
    }

    /// Milliseconds from the fill of a disk of `spu` to the first refusal, at most 10 s. Where the leaders move
    /// before anything is sent to them, nothing is refused: then until that was committed.
    pub(super) async fn detect_ms(&self, spu: u32, fill: &Fill) -> Option<u64> {
        let began = fill.began()?;
        let refused = |run: &Self| run.first_refusal(began).map(|refused| refused.at);
        let seen =
            self.until(Duration::from_secs(10), |run| refused(run).is_some() || !run.writable(spu)).await;
        refused(self).or(seen).map(|at| millis(at.saturating_sub(began)))
    }

    /// Milliseconds from `from` until `spu` is writable by a committed entry, at most 20 s.
    pub(super) async fn recover_ms(&self, spu: u32, from: Duration) -> Option<u64> {
        self.lifted(from);
        let at = self.until(Duration::from_secs(20), |run| run.writable(spu)).await?;
        Some(millis(at.saturating_sub(from)))
    }

    /// A node's log lines from `from` on count as one episode, from now on closed.
    pub(super) async fn end_episode(&mut self, spu: u32, from: Duration) -> anyhow::Result<()> {
        let deadline = self.now() + Duration::from_secs(15);
        while self.now() < deadline {
            self.poll_logs();
            let facts = self.facts(spu).await.unwrap_or_default();
            if !facts.is_empty() && facts.iter().all(|found| found.level() == v1::DiskLevel::Normal) {
                break;
            }
            self.pause(0.05).await;
        }
        // Levels crossed within a second share one line, which comes after that second.
        self.pause(1.5).await;
        let to = self.now();
        self.episodes.push((spu, from, to));
        Ok(())
    }

    /// As [`Run::end_episode`] for one with many changes of level, which may write 20 lines.
    pub(super) async fn end_oscillation(&mut self, spu: u32, from: Duration) -> anyhow::Result<()> {
        self.end_episode(spu, from).await?;
        self.episodes.pop();
        const LINES: u64 = 20;
        let lines = self.log_lines(spu, from, self.now());
        self.evidence.record(healed::logged(spu, lines, LINES));
        self.figure("log_lines", Some(lines), Some(LINES));
        Ok(())
    }

    /// Waits until a node has ended by itself; its status.
    pub(super) async fn wait_ended(&mut self, spu: u32) -> anyhow::Result<Option<i32>> {
        let deadline = self.now() + Duration::from_secs(15);
        loop {
            if let Some(status) = self.cluster.spu(spu).ended()? {
                return Ok(status.code());
            }
            if self.now() > deadline {
                self.cluster.spu(spu).kill();
                return Ok(None);
            }
            self.pause(0.02).await;
        }
    }

    /// Takes in what the nodes have logged; the more often, the better is known when.
    pub(super) fn poll_logs(&self) {
        let now = self.now();
        for log in self.logs.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            log.poll(now);
        }
    }

    fn log_lines(&self, spu: u32, from: Duration, to: Duration) -> u64 {
        let at = usize::try_from(spu).unwrap_or(0).saturating_sub(1);
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = logs.get(at).map_or(0, |log| log.between(from, to).count());
        u64::try_from(lines).unwrap_or(u64::MAX)
    }
}

pub(super) use healed::Whole;
pub(super) use workloads::records_in;

pub(super) use figures::{of_requests_to_full_disks, percentile};

/// Whole milliseconds.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
