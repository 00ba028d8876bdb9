//! A drill against a cluster that is at work: one volume behaves as if it were full, and the same is judged as in the
//! scenarios. No space is taken; what is written is a topic of the drill's own, which is deleted in the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use plimsoll_client::{Client, MetadataImage, OnPressure, SpuId, TopicConfig, VolumeState};
use plimsoll_host::Host;
use plimsoll_proto::v1::{self, SpuState};

use super::bars::Bar;
use super::recorder::{Recorder, Watched};
use super::run::{Show, millis, of_requests_to_full_disks};
use super::{Outcome, Verdict};
use crate::copies;
use crate::process;
use crate::workload::{Evidence, Load, LoadSpec, Reader};

/// What the drill shall be.
#[derive(Clone, Debug)]
pub struct Order {
    /// Addresses of controllers, `host:port`.
    pub controllers: Vec<String>,
    /// The storage node; by default one that leads.
    pub spu: Option<u32>,
    /// Its volume, by path; needed where it has several.
    pub volume: Option<String>,
    /// Records a second that are produced meanwhile.
    pub rate_per_s: u32,
    /// How long the volume behaves as if it were full, once its leaders have moved.
    pub lasts: Duration,
}

/// Name of a drill's outcome.
const NAME: &str = "drill";
const RECORD_BYTES: usize = 512;
const CONNECT: Duration = Duration::from_secs(10);
/// What each step may take.
const STEP: Duration = Duration::from_secs(20);
/// Longest time that a drill stays when nobody ends it: this program may be killed.
const LEFT_ALONE: &str = "2min";
const REPLICAS_WANTED: u32 = 3;
const ELSEWHERE: &str = "the processes of a running cluster are not looked into";

/// Plays a drill, until it is over or `stopped`. The drill is ended and its topic deleted in either case.
pub async fn drill(order: &Order, show: &Show, stopped: impl Future<Output = ()>) -> Outcome {
    let began = show.host.clock.now();
    let mut outcome = match Drill::prepare(order, show).await {
        Ok(mut drill) => {
            let played = tokio::select! {
                played = drill.play() => played,
                () = stopped => Err(anyhow::anyhow!("interrupted")),
            };
            drill.conclude(played).await
        }
        Err(error) => Outcome::failed(NAME, format!("{error:#}")),
    };
    show.screen.end();
    outcome.seconds = show.host.clock.now().saturating_sub(began).as_secs();
    outcome
}

struct Drill<'a> {
    order: &'a Order,
    show: &'a Show,
    host: Host,
    client: Client,
    binary: PathBuf,
    recorder: Recorder,
    evidence: Arc<Evidence>,
    topic: String,
    /// The arguments that name the volume, once a drill was begun there.
    began_on: Option<Vec<String>>,
    load: Option<Load>,
    reader: Option<Reader>,
    applied_before: u64,
    outcome: Outcome,
}

/// Where the drill takes place.
struct Place {
    spu: u32,
    volume: v1::VolumeInfo,
    /// Partitions of the drill's topic that are led there.
    led: Vec<u32>,
    /// Whether every one of them has another replica.
    can_move: bool,
}

impl<'a> Drill<'a> {
    async fn prepare(order: &'a Order, show: &'a Show) -> anyhow::Result<Self> {
        let host = show.host.clone();
        let controllers = order.controllers.iter().cloned();
        let client = Client::builder().host(host.clone()).controllers(controllers).connect_timeout(CONNECT);
        let client = client.build().await.context("no controller answers")?;
        let image = client.metadata();
        if let Some(spu) = order.spu.filter(|spu| !image.spus.contains_key(&SpuId(*spu))) {
            bail!("there is no spu {spu}; see `plimsoll spu list`");
        }
        let volumes = watched(&image);
        let recorder = Recorder::start(&host, &client, &show.screen, NAME, volumes);
        let topic = format!("plimsoll-drill-{:x}", host.clock.wall_ms());
        Ok(Self {
            order,
            show,
            binary: process::find_binary()?,
            recorder,
            evidence: Arc::default(),
            topic,
            began_on: None,
            load: None,
            reader: None,
            applied_before: client.admin().cluster_status().await?.applied_index,
            outcome: Outcome { seed: show.seed, ..Outcome::new(NAME) },
            client,
            host,
        })
    }

    fn say(&self, text: &str) {
        self.recorder.say(text);
        self.show.screen.say(text);
    }

    fn now(&self) -> Duration {
        self.host.clock.now()
    }

    async fn until(&self, mut condition: impl FnMut() -> bool) -> Option<Duration> {
        let deadline = self.now() + STEP;
        while self.now() < deadline {
            let now = self.now();
            if condition() {
                return Some(now);
            }
            self.host.clock.sleep(Duration::from_millis(5)).await;
        }
        None
    }

    fn bar(&mut self, bar: Bar, value: Option<u64>) {
        self.outcome.figure(bar.figure(), value, Some(bar.at_most()));
    }

    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            let why = otherwise();
            self.say(&format!("contradicts PASS: {why}"));
            self.outcome.reasons.push(why);
        }
    }

    async fn play(&mut self) -> anyhow::Result<()> {
        self.flow().await?;
        let place = self.place()?;
        let (spu, volume_id) = (place.spu, place.volume.volume_id.clone());
        let client = self.client.clone();
        let writable = move || volume_of(&client.metadata(), spu, &volume_id) == VolumeState::Writable;
        let volume = ["--spu", &spu.to_string(), "--volume", &place.volume.path].map(str::to_owned).to_vec();
        self.began_on = Some(volume);
        let began = self.now();
        let level = ["--level", "read-only", "--ttl", LEFT_ALONE];
        self.order_drill(&level).await?;
        self.say(&format!("spu {spu} {}: a drill, as if its disk were full", place.volume.path));

        let load = self.load.as_ref().context("a producer")?;
        let refused = || {
            load.with_log(|log| {
                log.refused.iter().find(|found| found.at >= began && found.spu == spu).map(|found| found.at)
            })
        };
        let seen = self.until(|| refused().is_some() || !writable()).await;
        let detected = refused().or(seen);
        let from = detected.unwrap_or(began);
        let moved = || {
            let of = |index: &u32| {
                load.with_log(|log| {
                    log.acks
                        .iter()
                        .find(|ack| ack.at >= from && ack.partition == *index && ack.spu != spu)
                        .map(|ack| ack.at)
                })
            };
            place.led.iter().map(of).collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max())
        };
        let rerouted =
            if place.can_move { self.until(|| moved().is_some()).await.and(moved()) } else { None };
        self.bar(Bar::Detect, detected.map(|at| millis(at.saturating_sub(began))));
        if place.can_move {
            self.bar(Bar::Reroute, rerouted.map(|at| millis(at.saturating_sub(from))));
        } else {
            self.outcome.not_applicable(Bar::Reroute.figure(), "no other node has a replica that could lead");
        }

        let read = self.read();
        self.host.clock.sleep(self.order.lasts).await;
        let read_now = self.read();
        self.expect(!place.can_move || read_now > read, || "the consumer stands still".to_owned());
        let entries = self.offline_entries(spu).await?;
        self.expect(entries == 1, || format!("{entries} write-offline entries for one drill, not 1"));
        let ended = self.now();
        self.order_drill(&["--end"]).await?;
        self.say("the drill is ended");
        let recovered = self.until(writable).await;
        self.bar(Bar::Recover, recovered.map(|at| millis(at.saturating_sub(ended))));
        let (load, after) = (self.load.as_ref().context("a producer")?, self.now());
        let again = || load.with_log(|log| log.acks.iter().any(|ack| ack.at > after));
        let flows = self.until(again).await.is_some();
        self.expect(flows, || "nothing is acknowledged after the drill".to_owned());
        self.read_back().await
    }

    /// A topic with leaders on every node, a producer and a consumer.
    async fn flow(&mut self) -> anyhow::Result<()> {
        let nodes = online(&self.client.metadata());
        if nodes == 0 {
            bail!("no storage node is online");
        }
        let replicas = nodes.min(REPLICAS_WANTED);
        let config = TopicConfig {
            partitions: nodes.saturating_mul(2),
            replicas,
            // With two replicas one of them could not leave.
            min_in_sync: replicas.saturating_sub(1).max(1),
            on_pressure: OnPressure::Refuse.into(),
            ..TopicConfig::default()
        };
        self.client.admin().create_topic(&self.topic, config).await.context("create a topic")?;
        self.say(&format!("topic {}, deleted in the end", self.topic));
        let led = |image: &MetadataImage| {
            let topic = image.topic_by_name(&self.topic);
            topic.is_some_and(|topic| topic.partitions.iter().all(|found| found.leader != 0))
        };
        if !self.client.wait_metadata(STEP, led).await {
            bail!("{} has no leaders", self.topic);
        }
        let spec = LoadSpec { id: 1, ..LoadSpec::new(&self.topic, self.order.rate_per_s, RECORD_BYTES) };
        let load = Load::start(&self.host, &self.client, &self.evidence, spec).await?;
        let reader = Reader::start(&self.host, &self.client, &self.evidence, &self.topic, 1, None)?;
        self.recorder.add_load(&load);
        self.recorder.add_reader(&reader);
        let flowing = self.until(|| load.acked() > 200 && reader.read() > 200).await;
        let (acked, read) = (load.acked(), reader.read());
        (self.load, self.reader) = (Some(load), Some(reader));
        flowing.with_context(|| format!("no records flow: {acked} acknowledged, {read} read"))?;
        Ok(())
    }

    fn read(&self) -> u64 {
        self.reader.as_ref().map_or(0, Reader::read)
    }

    fn place(&self) -> anyhow::Result<Place> {
        let image = self.client.metadata();
        let topic = image.topic_by_name(&self.topic).context("the topic is gone")?;
        let volume_at = |partition: &v1::PartitionInfo| {
            let here = partition.replicas.iter().find(|replica| replica.spu_id == partition.leader)?;
            let spu = image.spus.get(&SpuId(partition.leader))?;
            spu.volumes.iter().find(|volume| volume.volume_id == here.volume_id).cloned()
        };
        let wanted = |partition: &&v1::PartitionInfo| {
            self.order.spu.is_none_or(|spu| spu == partition.leader)
                && self
                    .order
                    .volume
                    .as_ref()
                    .is_none_or(|path| volume_at(partition).is_some_and(|found| found.path == *path))
        };
        let first = topic.partitions.iter().find(wanted).with_context(|| {
            let spu = self.order.spu.map_or_else(|| "any node".to_owned(), |spu| format!("spu {spu}"));
            format!("no partition of the drill's topic came to be led on that volume of {spu}; see `plimsoll disk`")
        })?;
        let (spu, volume) = (first.leader, volume_at(first).context("the leader's volume")?);
        let there = |partition: &&v1::PartitionInfo| {
            partition.leader == spu
                && volume_at(partition).is_some_and(|found| found.volume_id == volume.volume_id)
        };
        let led: Vec<&v1::PartitionInfo> = topic.partitions.iter().filter(there).collect();
        let can_move = led.iter().all(|partition| partition.in_sync.len() > 1);
        Ok(Place { spu, volume, led: led.iter().map(|partition| partition.index).collect(), can_move })
    }

    /// `plimsoll disk drill` on the volume that was chosen.
    async fn order_drill(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = tokio::process::Command::new(&self.binary);
        command.args(["disk", "drill"]).args(self.began_on.iter().flatten()).args(arguments);
        command.args(self.order.controllers.iter().flat_map(|address| ["--controller", address]));
        let output = command.kill_on_drop(true).stdin(std::process::Stdio::null()).output();
        let output = output.await.context("run plimsoll disk drill")?;
        if !output.status.success() {
            bail!("plimsoll disk drill: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    async fn events(&self) -> anyhow::Result<Vec<v1::ClusterEvent>> {
        Ok(self.client.admin().timeout(STEP).list_events(self.applied_before, 10_000).await?)
    }

    async fn offline_entries(&self, spu: u32) -> anyhow::Result<usize> {
        let taken = |event: &&v1::ClusterEvent| {
            event.kind == "volume_state" && event.spu_id == spu && event.to.starts_with("write_offline")
        };
        Ok(self.events().await?.iter().filter(taken).count())
    }

    async fn read_back(&mut self) -> anyhow::Result<()> {
        self.say("reading everything back");
        let load = self.load.as_ref().context("a producer")?;
        load.stop();
        if self.until(|| load.finished()).await.is_none() {
            bail!("{} records are not answered", load.sent() - load.acked());
        }
        if let (failed, Some(why)) = load.with_log(|log| log.failed.clone()) {
            bail!("{failed} records failed, the first: {why}");
        }
        let excused = |_| false;
        copies::hold(&self.host, &self.client, &self.evidence, &self.topic, excused).await?;
        if self.until(|| self.read() >= load.acked()).await.is_none() {
            bail!("the consumer has read {} of {}", self.read(), load.acked());
        }
        Ok(())
    }

    /// Ends the drill, deletes the topic, and judges.
    async fn conclude(mut self, played: anyhow::Result<()>) -> Outcome {
        let failed = played.is_err();
        if let Err(error) = played {
            self.outcome.reasons.push(format!("{error:#}"));
        }
        if failed
            && self.began_on.is_some()
            && let Err(error) = self.order_drill(&["--end"]).await
        {
            self.outcome.reasons.push(format!("it ends by itself after {LEFT_ALONE}: {error:#}"));
        }
        self.take_figures().await;
        if let Some(load) = self.load.take() {
            self.outcome.acked = load.acked();
            self.outcome.refused = load.with_log(|log| u64::try_from(log.refused.len()).unwrap_or(u64::MAX));
        }
        self.reader = None;
        self.evidence.with(|history| self.outcome.check(history));
        if self.client.topic_id(&self.topic).is_some()
            && let Err(error) = self.client.admin().delete_topic(&self.topic).await
        {
            let again = format!("delete it with `plimsoll topic delete {}`", self.topic);
            self.outcome.reasons.push(format!("the drill's topic is left: {error}; {again}"));
        }
        self.outcome.judge();
        if self.outcome.verdict == Verdict::Pass {
            self.say("the drill's topic is deleted, the volume writable");
        }
        self.outcome
    }

    async fn take_figures(&mut self) {
        for bar in [Bar::LogLines, Bar::DeletedButOpen, Bar::DeletedButOpenBytes, Bar::OpenFiles] {
            self.outcome.not_applicable(bar.figure(), ELSEWHERE);
        }
        self.outcome.not_applicable(Bar::OtherDescriptors.figure(), ELSEWHERE);
        self.outcome.not_applicable(Bar::RefusedWhileWaiting.figure(), "the leaders move, nobody waits");
        self.outcome.not_applicable(Bar::Unaffected.figure(), "what others do with the cluster is not known");
        if let Some(load) = &self.load {
            let mut after: Vec<Duration> = load.with_log(|log| of_requests_to_full_disks(log).collect());
            self.outcome.refusals(&mut after);
        }
        self.outcome.timeline = self.recorder.timeline();
        match self.events().await {
            Err(error) => self.outcome.reasons.push(format!("the events of the cluster: {error:#}")),
            Ok(events) => {
                let dead =
                    |event: &&v1::ClusterEvent| event.kind == "spu_state" && event.to.starts_with("offline");
                let dead = u64::try_from(events.iter().filter(dead).count()).ok();
                let mut changes = BTreeMap::<_, u64>::new();
                for event in events.iter().filter(|event| event.kind == "volume_state") {
                    *changes.entry((event.spu_id, event.volume_id.clone())).or_default() += 1;
                }
                self.bar(Bar::Liveness, dead);
                self.bar(Bar::LevelChanges, Some(changes.values().copied().max().unwrap_or(0)));
                self.outcome.timeline.transitions = self.recorder.transitions(&events);
            }
        }
    }
}

/// Every volume of a cluster.
fn watched(image: &MetadataImage) -> Vec<Watched> {
    let of = |(spu, info): (&SpuId, &v1::SpuInfo)| {
        let spu = spu.0;
        let volume = move |(number, volume): (usize, &v1::VolumeInfo)| Watched {
            spu,
            name: format!("disk-{spu}-{}", number + 1),
            path: volume.path.clone(),
            disk: None,
        };
        info.volumes.iter().enumerate().map(volume).collect::<Vec<_>>()
    };
    image.spus.iter().flat_map(of).collect()
}

fn online(image: &MetadataImage) -> u32 {
    let nodes = image.spus.values().filter(|spu| spu.state() == SpuState::Online).count();
    u32::try_from(nodes).unwrap_or(u32::MAX)
}

fn volume_of(image: &MetadataImage, spu: u32, volume_id: &[u8]) -> VolumeState {
    let volumes = image.spus.get(&SpuId(spu)).map(|info| info.volumes.as_slice()).unwrap_or_default();
    let found = volumes.iter().find(|volume| volume.volume_id == volume_id);
    found.map_or(VolumeState::Unspecified, v1::VolumeInfo::state)
}
