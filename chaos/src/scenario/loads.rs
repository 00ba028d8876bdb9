//! Clients of all kinds while a disk is full.

use std::time::Duration;

use anyhow::Context as _;
use plimsoll_client::{Acks, SpuId, TopicConfig};

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION};
use super::many_full;
use super::run::{Run, TOPIC, millis, percentile};
use crate::cluster::Topology;
use crate::plain::{self, Hammered, Target};
use crate::rig::VolumeSpec;
use crate::workload::LoadSpec;

/// Many fit onto a disk.
const SMALL_BYTES: usize = 128;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("every-kind-of-producer", "a leader is full under every kind of producer", |run| {
            Box::pin(every_kind(run))
        })
        .without(&[(Bar::Detect, "see leader-full"), EVERY_PARTITION]),
        Scenario::new("hundred-hammering-producers", "100 producers without backoff at full disks", |run| {
            Box::pin(hammered(run))
        })
        .without(&[
            (Bar::Detect, "several disks fill at once"),
            (Bar::Reroute, "no replica with room is there to lead"),
            (Bar::RefusedWhileWaiting, "these producers do not wait, and the others wait behind them"),
            (Bar::RefusalP99, "100 producers take both processors; their refusals are counted, not timed"),
            EVERY_PARTITION,
        ]),
        Scenario::new(
            "unaffected-partitions",
            "a disk fills; partitions on other nodes notice nothing",
            |run| Box::pin(unaffected(run)),
        )
        .on(|| Topology { spus: vec![vec![VolumeSpec::of_bytes(768 << 20)]; 5], ..Topology::default() })
        .without(&[(Bar::Detect, "see leader-full"), (Bar::Reroute, "see leader-full")]),
    ]
}

async fn every_kind(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 300, 512).await?;
    let spec = |rate, bytes| LoadSpec::new(TOPIC, rate, bytes);
    let kinds = [
        LoadSpec { acks: Acks::Leader, ..spec(200, 256) },
        LoadSpec { acks: Acks::None, idempotent: false, ..spec(200, 256) },
        LoadSpec { idempotent: false, ..spec(100, 256) },
        LoadSpec { keyed: true, ..spec(200, 256) },
        // A hot partition, and records of very different sizes.
        LoadSpec { partitions: vec![0], ..spec(600, 128) },
        spec(4, 200 << 10),
    ];
    for kind in kinds {
        run.load_of(kind).await?;
    }
    run.pause(3.0).await;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    let from = run.now();
    let disk = run.cluster.disk(spu).clone();
    let (filler, fill) = run.fill(&disk).await?;
    let reroute = run.reroute_ms(&led, spu, &fill).await;
    run.bar(Bar::Reroute, reroute);
    run.pause(3.0).await;
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(spu, removed).await;
    run.bar(Bar::Recover, recover);
    run.end_episode(spu, from).await
}

async fn hammered(run: &mut Run) -> anyhow::Result<()> {
    const PRODUCERS: usize = 100;
    const LASTS: Duration = Duration::from_secs(8);
    run.flowing(3, 200, 512).await?;
    let from = run.now();
    let fillers = many_full::fill(run, &[1, 2, 3]).await?;
    many_full::refused_for_good(run, from).await;
    let image = run.client.metadata();
    let topic = image.topic_by_name(TOPIC).context("the topic")?.clone();
    let mut hammers = Vec::new();
    for number in 0..PRODUCERS {
        let partition = &topic.partitions[number % topic.partitions.len()];
        let target = Target {
            address: run.client.spu_address(SpuId(partition.leader)).context("a leader's address")?,
            topic_id: topic.topic_id.clone(),
            partition: partition.index,
            leader_epoch: partition.leader_epoch,
        };
        let host = run.host.clone();
        hammers.push(async move { plain::hammer(&host, &target, 1, u64::MAX, LASTS).await });
    }
    run.say(&format!("{PRODUCERS} producers without backoff"));
    let mut told = Hammered::default();
    for hammer in futures::future::join_all(hammers).await {
        told.add(&hammer?);
    }
    run.say(&format!("{} refusals in {} s: {:?}", told.total(), LASTS.as_secs(), told.refused));
    run.figure("refusals_per_s", Some(told.total() / LASTS.as_secs()), None);
    run.expect(told.acked == 0, || format!("{} batches taken by full disks", told.acked));
    run.expect(told.not_clear == 0, || format!("{} refusals do not say NOT_WRITTEN", told.not_clear));
    run.expect(told.broken == 0, || format!("{} streams broke", told.broken));
    let removed = run.now();
    drop(fillers);
    many_full::writable_after(run, removed).await;
    for spu in 1..=3 {
        run.end_episode(spu, from).await?;
    }
    Ok(())
}

/// Offered and acknowledged, and the 99th percentile, over some seconds.
async fn measure(run: &Run, load: usize, seconds: f64) -> (u64, u64, Duration) {
    let from = run.now();
    let sent = run.loads[load].sent();
    run.pause(seconds).await;
    let (offered, to) = (run.loads[load].sent() - sent, run.now());
    run.pause(0.5).await;
    let mut latencies: Vec<Duration> = run.loads[load].with_log(|log| {
        let within = log.latencies.iter().filter(|(at, _)| *at >= from && *at < to);
        within.map(|(_, took)| *took).collect()
    });
    latencies.sort_unstable();
    let acked = u64::try_from(latencies.len()).unwrap_or(u64::MAX);
    (offered, acked, percentile(&latencies, 99).unwrap_or_default())
}

/// What these partitions acknowledge in a second when more is offered than they take.
async fn sustains(run: &mut Run, partitions: &[u32]) -> anyhow::Result<u64> {
    const TOO_MUCH_PER_S: u32 = 200_000;
    let load = run.loads.len();
    let spec = LoadSpec {
        partitions: partitions.to_vec(),
        ..LoadSpec::new("elsewhere", TOO_MUCH_PER_S, SMALL_BYTES)
    };
    run.load_of(spec).await?;
    run.pause(1.0).await;
    let (acked, from) = (run.loads[load].acked(), run.now());
    run.pause(3.0).await;
    let (more, took) = (run.loads[load].acked() - acked, run.now().saturating_sub(from));
    run.loads[load].stop();
    let ended = run.until(Duration::from_secs(20), |run| run.loads[load].finished()).await;
    anyhow::ensure!(ended.is_some(), "the load does not end");
    Ok(more * 1_000 / millis(took).max(1))
}

async fn unaffected(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 300, 512).await?;
    run.plain_topic("elsewhere", TopicConfig { partitions: 10, ..TopicConfig::default() }).await?;
    let spu = run.a_leader()?;
    let image = run.client.metadata();
    let topic = image.topic_by_name("elsewhere").context("the topic")?.clone();
    let without: Vec<u32> = topic
        .partitions
        .iter()
        .filter(|partition| partition.replicas.iter().all(|replica| replica.spu_id != spu))
        .map(|partition| partition.index)
        .collect();
    anyhow::ensure!(!without.is_empty(), "every partition has a replica on spu {spu}");
    let sustained = sustains(run, &without).await?;
    let rate = u32::try_from(sustained * 2 / 5).unwrap_or(u32::MAX).max(1);
    run.figure("sustained_per_s", Some(sustained), None);
    run.figure("offered_per_s", Some(rate.into()), None);
    let load = run.loads.len();
    run.load_of(LoadSpec { partitions: without, ..LoadSpec::new("elsewhere", rate, SMALL_BYTES) }).await?;
    run.pause(2.0).await;
    let (_, _, before) = measure(run, load, 5.0).await;
    let from = run.now();
    let disk = run.cluster.disk(spu).clone();
    let (filler, _) = run.fill(&disk).await?;
    run.until(Duration::from_secs(5), |run| !run.writable(spu)).await;
    let (offered, acked, during) = measure(run, load, 5.0).await;
    let missing = offered.saturating_sub(acked).saturating_mul(1_000) / offered.max(1);
    run.bar(Bar::Unaffected, Some(missing));
    // Below 10 ms a wake-up that waits for the processor is all that is measured.
    let floor = before.max(Duration::from_millis(10));
    run.figure("unaffected_p99_before_ms", Some(millis(before)), None);
    run.figure("unaffected_p99_ms", Some(millis(during)), Some(millis(floor * 2)));
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(spu, removed).await;
    run.bar(Bar::Recover, recover);
    run.end_episode(spu, from).await
}
