//! `cluster_figures [idle] [round-trip]`: figures of a whole cluster of real processes; `scripts/bench` runs it and
//! docs/performance.md says what they mean.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use plimsoll_client::{Client, Record, TopicConfig};
use plimsoll_host::{ChannelOptions, Clock, Network};
use plimsoll_proto::ids::SpuId;
use plimsoll_tests::{Layout, LocalCluster};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const FIGURES: [&str; 2] = ["idle", "round-trip"];

/// How long a cluster may take to be as it should.
const FORM_MAX: Duration = Duration::from_secs(300);

const IDLE_PARTITIONS: u32 = 1000;
/// Leaders and sets have come to rest after so long.
const SETTLE: Duration = Duration::from_secs(15);
const WINDOW: Duration = Duration::from_secs(5);
const WINDOWS: usize = 8;
/// Linux counts processor time for user space in hundredths of a second on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

const ROUNDS: usize = 20;
const CALLS: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|name| !FIGURES.contains(&name.as_str())) {
        eprintln!("no figure is called {unknown}; there are: {}", FIGURES.join(" "));
        return ExitCode::from(2);
    }
    for name in FIGURES.iter().filter(|name| wanted.is_empty() || wanted.iter().any(|w| w == *name)) {
        let taken = match *name {
            "idle" => idle().await,
            _ => round_trip().await,
        };
        if let Err(error) = taken {
            eprintln!("{name}: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Processor time of nodes that hold many partitions and get no data.
async fn idle() -> anyhow::Result<()> {
    let mut cluster = LocalCluster::start(Layout { controllers: 3, spus: 3, disk_bytes: None })?;
    let client = cluster.online().await?;
    create(&client, IDLE_PARTITIONS).await?;
    let clock = Clock::real();
    clock.sleep(SETTLE).await;
    let spus =
        (1..=3).map(|id| cluster.spu(id).pid()).collect::<Option<Vec<_>>>().context("a node is gone")?;
    let controllers = (1..=3)
        .map(|id| cluster.controller(id).pid())
        .collect::<Option<Vec<_>>>()
        .context("a node is gone")?;
    let (mut of_spus, mut of_controllers) = (Vec::new(), Vec::new());
    for _ in 0..WINDOWS {
        let (began, before) = (clock.now(), ticks_of(&spus, &controllers)?);
        clock.sleep(WINDOW).await;
        let (ended, after) = (clock.now(), ticks_of(&spus, &controllers)?);
        let percent = |after: &[f64], before: &[f64]| {
            let used = after.iter().zip(before).map(|(after, before)| after - before);
            let most = used.fold(0.0, f64::max);
            most / TICKS_PER_SECOND / ended.saturating_sub(began).as_secs_f64() * 100.0
        };
        of_spus.push(percent(&after.0, &before.0));
        of_controllers.push(percent(&after.1, &before.1));
    }
    cluster.check_alive()?;
    figure("idle_spu_core_percent", of_spus, Some(5.0));
    figure("idle_controller_core_percent", of_controllers, None);
    Ok(())
}

fn ticks_of(spus: &[u32], controllers: &[u32]) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let all = |pids: &[u32]| pids.iter().map(|pid| ticks(*pid)).collect::<anyhow::Result<Vec<f64>>>();
    Ok((all(spus)?, all(controllers)?))
}

/// Processor time that a process has used, user and system.
fn ticks(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read /proc")?;
    // proc(5): the name, which may hold anything, ends with the last parenthesis; utime and stime are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').context("a process has a name")?;
    let field = |at: usize| -> anyhow::Result<f64> {
        Ok(fields.split_whitespace().nth(at - 3).context("a field is missing")?.parse()?)
    };
    Ok(field(14)? + field(15)?)
}

/// A produce with acks=all beside a unary call to the same node that does nothing.
async fn round_trip() -> anyhow::Result<()> {
    let mut cluster = LocalCluster::start(Layout { controllers: 1, spus: 3, disk_bytes: None })?;
    let client = cluster.online().await?;
    create(&client, 1).await?;
    let image = client.metadata();
    let led = image.topic_by_name("figures").and_then(|topic| topic.partitions.first()).map(|p| p.leader);
    let leader = led.and_then(|spu| image.address(SpuId(spu))).context("nobody leads")?.to_owned();
    let channel = Network::real().channel(&leader, &ChannelOptions::default())?;
    let mut health = HealthClient::new(channel);
    let producer = client.producer("figures").linger(Duration::ZERO).build().await?;
    let clock = Clock::real();
    let (mut ratios, mut unary, mut produced) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (mut calls, mut sends) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            let began = clock.now();
            health.check(HealthCheckRequest::default()).await?;
            calls.push(micros(&clock, began));
            let began = clock.now();
            producer.send(Record::new(vec![b'x'; 100])).await?.await?;
            sends.push(micros(&clock, began));
        }
        // The first round warms up.
        if round > 0 {
            let (call, send) = (median(&mut calls), median(&mut sends));
            ratios.push(send / call);
            unary.push(call);
            produced.push(send);
        }
    }
    producer.close().await;
    cluster.check_alive()?;
    figure("produce_all_to_unary", ratios, Some(4.0));
    figure("produce_all_us", produced, None);
    figure("unary_us", unary, None);
    Ok(())
}

fn micros(clock: &Clock, began: Duration) -> f64 {
    clock.now().saturating_sub(began).as_secs_f64() * 1e6
}

/// A topic on all three nodes, whole.
async fn create(client: &Client, partitions: u32) -> anyhow::Result<()> {
    let config = TopicConfig { partitions, replicas: 3, min_in_sync: 2, ..TopicConfig::default() };
    client.admin().timeout(FORM_MAX).create_topic("figures", config).await?;
    let whole = client.wait_metadata(FORM_MAX, |image| {
        image.topic_by_name("figures").is_some_and(|topic| {
            topic.partitions.iter().all(|partition| partition.leader != 0 && partition.in_sync.len() == 3)
        })
    });
    if whole.await { Ok(()) } else { bail!("the topic is not whole in time") }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One line: the median of the runs, and how far to trust it.
fn figure(name: &str, mut values: Vec<f64>, at_most: Option<f64>) {
    let value = median(&mut values);
    let (least, most) = (values.first().copied().unwrap_or(0.0), values.last().copied().unwrap_or(0.0));
    let verdict = match at_most {
        None => "bar=none ok".to_owned(),
        Some(bar) if value <= bar => format!("bar=<={bar} ok"),
        Some(bar) => format!("bar=<={bar} missed"),
    };
    println!("FIGURE {name} value={value:.2} {verdict} min={least:.2} max={most:.2} runs={}", values.len());
}
