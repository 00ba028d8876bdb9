//! `cluster_figures [idle] [round-trip] [cli] [group-rebalance]`: figures of a whole cluster of real processes; `scripts/bench` runs it and
//! docs/performance.md says what they mean.

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use plimsoll_chaos::process;
use plimsoll_client::{Client, GroupConsumer, Record, TopicConfig};
use plimsoll_host::{ChannelOptions, Clock, Network};
use plimsoll_proto::ids::SpuId;
use plimsoll_tests::{Layout, LocalCluster};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const FIGURES: [&str; 4] = ["idle", "round-trip", "cli", "group-rebalance"];

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

const STARTS: usize = 40;
const COMMAND_MAX: Duration = Duration::from_secs(60);

const MEMBERS: usize = 10;
const SHARED_PARTITIONS: u32 = 100;
const REBALANCES: usize = 5;
/// How often it is looked who has what: a figure of the rebalancing may be too large by so much.
const LOOK: Duration = Duration::from_millis(5);

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
            "round-trip" => round_trip().await,
            "cli" => cli().await,
            _ => group_rebalance().await,
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
    create(&client, IDLE_PARTITIONS, 3).await?;
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
    create(&client, 1, 3).await?;
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

/// How long a person waits for a command.
async fn cli() -> anyhow::Result<()> {
    let mut cluster = LocalCluster::start(Layout { controllers: 1, spus: 1, disk_bytes: None })?;
    // Its connection ends here: the commands meet a cluster that nobody else asks.
    drop(cluster.online().await?);
    let members = cluster.members();
    let status: Vec<&str> =
        ["cluster", "status"].into_iter().chain(members.iter().map(String::as_str)).collect();
    let (mut version_speaks, mut status_ends) = (Vec::new(), Vec::new());
    for start in 0..=STARTS {
        let version = run(&["version"]).await?;
        let status = run(&status).await?;
        // The first start warms up.
        if start > 0 {
            version_speaks.push(millis(version.first_output));
            status_ends.push(millis(status.ended));
        }
    }
    cluster.check_alive()?;
    figure("cli_version_first_output_ms", version_speaks, Some(20.0));
    figure("cli_cluster_status_ms", status_ends, Some(100.0));
    Ok(())
}

/// Times of a command from its start.
struct Ran {
    first_output: Duration,
    ended: Duration,
}

async fn run(arguments: &[&str]) -> anyhow::Result<Ran> {
    let binary = process::find_binary()?;
    let clock = Clock::real();
    let began = clock.now();
    let mut child = Command::new(&binary)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("run {}", binary.display()))?;
    let mut stdout = child.stdout.take().context("a pipe from the command")?;
    let whole = async {
        let mut text = Vec::new();
        stdout.read_buf(&mut text).await?;
        let first_output = clock.now().saturating_sub(began);
        ensure!(!text.is_empty(), "it says nothing");
        stdout.read_to_end(&mut text).await?;
        let status = child.wait().await?;
        let ended = clock.now().saturating_sub(began);
        ensure!(status.success(), "{status}: {}", String::from_utf8_lossy(&text));
        Ok(Ran { first_output, ended })
    };
    let ran = clock.timeout(COMMAND_MAX, whole).await.context("it does not end").flatten();
    ran.with_context(|| format!("plimsoll {}", arguments.join(" ")))
}

/// How long it takes until every partition is owned and balanced again after a member has come or gone.
async fn group_rebalance() -> anyhow::Result<()> {
    let mut cluster = LocalCluster::start(Layout { controllers: 1, spus: 1, disk_bytes: None })?;
    let client = cluster.online().await?;
    create(&client, SHARED_PARTITIONS, 1).await?;
    let member = || client.group("figures").topics(["figures"]).build();
    let mut members = Vec::new();
    for _ in 1..MEMBERS {
        members.push(member().await?);
    }
    balanced(&mut members).await?;
    let clock = Clock::real();
    let (mut joins, mut leaves) = (Vec::new(), Vec::new());
    for _ in 0..REBALANCES {
        let began = clock.now();
        members.push(member().await?);
        balanced(&mut members).await?;
        joins.push(millis(clock.now().saturating_sub(began)));

        // The oldest goes, so that each round is one of other members.
        let leaver = members.remove(0);
        let began = clock.now();
        let (left, rest) = tokio::join!(leaver.close(), balanced(&mut members));
        leaves.push(millis(clock.now().saturating_sub(began)));
        left?;
        rest?;
    }
    cluster.check_alive()?;
    figure("group_join_ms", joins, Some(1000.0));
    figure("group_leave_ms", leaves, Some(1000.0));
    Ok(())
}

/// Polls every member until all partitions are owned, by each as many as by the others or one more.
async fn balanced(members: &mut [GroupConsumer]) -> anyhow::Result<()> {
    let clock = Clock::real();
    let until = clock.now() + FORM_MAX;
    let partitions = usize::try_from(SHARED_PARTITIONS)?;
    let share = partitions / members.len()..=partitions.div_ceil(members.len());
    loop {
        let polls = members.iter_mut().map(|member| clock.timeout(LOOK, member.next()));
        for record in futures::future::join_all(polls).await.into_iter().flatten() {
            record.context("the stream goes on")??;
        }
        let counts: Vec<usize> = members.iter().map(|member| member.assigned().len()).collect();
        if counts.iter().sum::<usize>() == partitions && counts.iter().all(|count| share.contains(count)) {
            return Ok(());
        }
        ensure!(clock.now() < until, "not balanced: {counts:?}");
    }
}

fn micros(clock: &Clock, began: Duration) -> f64 {
    clock.now().saturating_sub(began).as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A topic whose partitions are all led, and whole.
async fn create(client: &Client, partitions: u32, replicas: u32) -> anyhow::Result<()> {
    let min_in_sync = replicas.saturating_sub(1).max(1);
    let config = TopicConfig { partitions, replicas, min_in_sync, ..TopicConfig::default() };
    client.admin().timeout(FORM_MAX).create_topic("figures", config).await?;
    let whole = client.wait_metadata(FORM_MAX, |image| {
        image.topic_by_name("figures").is_some_and(|topic| {
            let led = topic.partitions.iter().filter(|partition| partition.leader != 0);
            let whole = led.filter(|partition| u32::try_from(partition.in_sync.len()) == Ok(replicas));
            whole.count() == topic.partitions.len()
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
