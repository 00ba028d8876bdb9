//! `plimsoll produce`: one record for each line of standard input or of a file.

mod check;
mod input;
mod interrupts;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use plimsoll_client::{Acks, Compression, Delivery, OnFull, ProduceError, Producer, ProducerEvent, Record};
use plimsoll_host::Host;
use plimsoll_host::config::{ByteSize, Span};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use crate::change::ChangeArgs;
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::latency::{Latencies, shown};
use crate::output::{print, say};
pub(crate) use check::Limits;
use input::{Input, Line, Shape};
use interrupts::Interrupts;

/// Deliveries looked after at once.
const DELIVERIES_MAX: usize = 100_000;
/// How often progress is told on a terminal.
const PROGRESS: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    topic: String,
    /// Reads this file instead of standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What a line is
    #[arg(long, value_enum, default_value_t)]
    format: Shape,
    /// Takes what stands in front of the first separator of a line as the key
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// Gives every record this header; repeat it for more
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = input::header)]
    headers: Vec<(String, String)>,
    /// Sends everything to this partition
    #[arg(long)]
    partition: Option<u32>,
    #[command(flatten)]
    settings: ProducerArgs,
    /// Records a second at most
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Says nothing of progress, also on a terminal
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

impl ProduceArgs {
    /// The record that a line is.
    fn record(&self, line: &Line<'_>) -> Result<Record, String> {
        line.record(self.format, self.key_separator.as_deref(), self.partition, &self.headers)
    }
}

/// Settings of a producer, for `produce` and `bench`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ProducerArgs {
    /// When a record counts as delivered
    #[arg(long, value_enum, default_value_t)]
    acks: AcksArg,
    /// Sends without producer id and sequences: a batch whose fate is unknown fails
    #[arg(long)]
    no_idempotence: bool,
    /// What to do when a disk is full
    #[arg(long, value_enum, default_value_t)]
    on_full: OnFullArg,
    /// How batches are compressed: none, gzip, snappy, lz4, zstd
    #[arg(long, default_value = "none", value_parser = compression)]
    compression: Compression,
    /// How long a batch waits for more records
    #[arg(long, default_value = "2ms")]
    linger: Span,
    /// Size at which a batch is sent without waiting
    #[arg(long, default_value = "256KiB")]
    batch_bytes: ByteSize,
    /// How long a record may take until it is acknowledged, retries included
    #[arg(long, default_value = "120s")]
    deadline: Span,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum AcksArg {
    /// Every in-sync copy has it
    #[default]
    All,
    /// The leader has it
    Leader,
    /// At once
    None,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum OnFullArg {
    /// Follow the leader to a node with room, or wait
    #[default]
    Reroute,
    /// As reroute, but keep keyless records where they are
    Wait,
    /// Fail at once
    Fail,
}

fn compression(name: &str) -> Result<Compression, String> {
    Compression::from_name(name).ok_or_else(|| "one of none, gzip, snappy, lz4, zstd".to_owned())
}

impl ProducerArgs {
    /// Looks at topic and settings as [`ProducerArgs::build`] does; takes no producer id and sends nothing.
    pub(crate) async fn check(
        &self,
        client: &plimsoll_client::Client,
        topic: &str,
    ) -> Result<(), ProduceError> {
        let plain = Self { no_idempotence: true, ..self.clone() };
        plain.build(client, topic).await.map(drop)
    }

    /// When a record counts as delivered, as it is typed.
    pub(crate) fn acks(&self) -> &'static str {
        match self.acks {
            AcksArg::All => "all",
            AcksArg::Leader => "leader",
            AcksArg::None => "none",
        }
    }

    /// Builds a producer of `topic` with these settings.
    pub(crate) async fn build(
        &self,
        client: &plimsoll_client::Client,
        topic: &str,
    ) -> Result<Producer, ProduceError> {
        client
            .producer(topic)
            .acks(match self.acks {
                AcksArg::All => Acks::All,
                AcksArg::Leader => Acks::Leader,
                AcksArg::None => Acks::None,
            })
            .on_full(match self.on_full {
                OnFullArg::Reroute => OnFull::Reroute,
                OnFullArg::Wait => OnFull::Wait,
                OnFullArg::Fail => OnFull::Fail,
            })
            .idempotent(!self.no_idempotence && !matches!(self.acks, AcksArg::None))
            .compression(self.compression)
            .linger(self.linger.0)
            .batch_bytes(usize::try_from(self.batch_bytes.0).unwrap_or(usize::MAX))
            .deadline(self.deadline.0)
            .build()
            .await
    }
}

/// What became of everything that was sent.
#[derive(Serialize)]
pub(crate) struct Summary {
    acked: u64,
    failed: u64,
    refused: u64,
    refused_by_reason: BTreeMap<&'static str, u64>,
    rerouted: u64,
    duplicates: u64,
    acked_bytes: u64,
    elapsed_ms: u64,
    records_per_s: u64,
    /// From handing a record over to its acknowledgement.
    latency_p50_us: Option<u64>,
    latency_p99_us: Option<u64>,
    latency_max_us: Option<u64>,
    first_error: Option<String>,
    /// Always absent: no command takes records back.
    undo: Option<String>,
}

/// Counts deliveries as they come.
#[derive(Default)]
struct Tally {
    sent: u64,
    acked: u64,
    failed: u64,
    first_error: Option<ProduceError>,
    latencies: Latencies,
}

/// Follows what was sent; [`Deliveries::end`] waits for the rest.
pub(crate) struct Deliveries {
    sent: mpsc::Sender<(Delivery, Duration)>,
    tally: Arc<Mutex<Tally>>,
    task: plimsoll_host::Task,
    host: Host,
}

impl Deliveries {
    pub(crate) fn start(host: &Host) -> Self {
        let (sent, mut deliveries) = mpsc::channel::<(Delivery, Duration)>(1024);
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (counts, clock) = (Arc::clone(&tally), host.clock.clone());
        let settle = async move {
            let mut open = FuturesUnordered::new();
            let mut more = true;
            while more || !open.is_empty() {
                tokio::select! {
                    sent = deliveries.recv(), if more && open.len() < DELIVERIES_MAX => match sent {
                        Some((delivery, at)) => open.push(async move { (delivery.await, at) }),
                        None => more = false,
                    },
                    Some((done, at)) = open.next(), if !open.is_empty() => {
                        let mut tally = lock(&counts);
                        match done {
                            Ok(_) => {
                                tally.acked += 1;
                                tally.latencies.record(clock.now().saturating_sub(at));
                            }
                            Err(error) => {
                                tally.failed += 1;
                                tally.first_error.get_or_insert(error);
                            }
                        }
                    }
                }
            }
        };
        let task = host.tasks.spawn("deliveries", settle);
        Self { sent, tally, task, host: host.clone() }
    }

    /// Sends one record; a refusal of the SDK counts as a failure and is given back.
    ///
    /// Cancel safe: when dropped before it is ready, the record was neither sent nor counted.
    pub(crate) async fn send(&self, producer: &Producer, record: Record) -> Result<(), ProduceError> {
        // First: nothing is waited for between handing a record over and counting it.
        let place = self.sent.reserve().await;
        let at = self.host.clock.now();
        let sent = producer.send(record).await;
        let mut tally = lock(&self.tally);
        tally.sent += 1;
        match sent {
            Ok(delivery) => {
                // The task ends after this handle only.
                if let Ok(place) = place {
                    place.send((delivery, at));
                }
                Ok(())
            }
            Err(error) => {
                tally.failed += 1;
                tally.first_error.get_or_insert_with(|| error.clone());
                Err(error)
            }
        }
    }

    /// What was counted so far, also while [`finish`] has the rest.
    fn counts(&self) -> Counts {
        Counts(Arc::clone(&self.tally))
    }

    async fn end(self) -> Tally {
        let Self { sent, tally, mut task, .. } = self;
        drop(sent);
        task.finished().await;
        std::mem::take(&mut *lock(&tally))
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at a [`Tally`] while it grows.
struct Counts(Arc<Mutex<Tally>>);

impl Counts {
    /// Sent, acknowledged and failed so far.
    fn now(&self) -> (u64, u64, u64) {
        let tally = lock(&self.0);
        (tally.sent, tally.acked, tally.failed)
    }
}

/// Waits for everything that is under way and sums it up.
pub(crate) async fn finish(
    producer: Producer,
    deliveries: Deliveries,
    refusals: &Refusals,
    host: &Host,
    started: Duration,
) -> (Summary, Option<ProduceError>) {
    let flushed = producer.flush();
    let tally = deliveries.end();
    let (_, tally) = futures::join!(flushed, tally);
    producer.close().await;
    let elapsed = host.clock.now().saturating_sub(started);
    let stats = producer.stats();
    let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let summary = Summary {
        acked: tally.acked,
        failed: tally.failed,
        refused: stats.refused_batches,
        refused_by_reason: refusals.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        rerouted: stats.reroutes,
        duplicates: stats.duplicate_batches,
        acked_bytes: stats.acked_bytes,
        elapsed_ms,
        records_per_s: tally.acked.saturating_mul(1000) / elapsed_ms.max(1),
        latency_p50_us: tally.latencies.permille(500),
        latency_p99_us: tally.latencies.permille(990),
        latency_max_us: tally.latencies.max_us(),
        first_error: tally.first_error.as_ref().map(ToString::to_string),
        undo: None,
    };
    (summary, tally.first_error)
}

pub(crate) async fn run(args: ProduceArgs, host: &Host) -> Outcome {
    // Before anything is dialled: what cannot be read is told at once.
    let mut input = Input::open(args.file.as_deref())?;
    if args.change.dry_run {
        return check::run(&args, host, &mut input).await;
    }
    let client = args.connect.connect_for_records(host).await?;
    let producer = args.settings.build(&client, &args.topic).await?;
    let refusals = watch_refusals(&producer, host);
    let started = host.clock.now();
    let deliveries = Deliveries::start(host);
    let counts = deliveries.counts();
    let progress = !args.quiet && args.change.output.for_people() && std::io::stderr().is_terminal();
    // Up to here nothing was sent, and a signal simply ends the process.
    let mut interrupts = Interrupts::listen()?;
    let read = {
        let lines = send_lines(&args, host, &producer, &deliveries, &mut input, started, progress);
        interrupts.unless(lines).await
    };
    if read.is_none() {
        interrupts.tell(&counts);
    }
    let finishing = finish(producer, deliveries, &refusals, host, started);
    let (summary, first_error) = interrupts.wait_out(finishing, &counts).await?;
    if progress {
        eprint!("\r\x1b[K");
    }
    if args.change.output.for_people() {
        // Standard output stays free: in a pipeline nobody expects a summary there.
        say(summary_text(&summary));
    } else {
        print(args.change, &summary, summary_text)?;
    }
    match (read, first_error) {
        (None, error) => Err(interrupts.failure(error)),
        (Some(Err(failure)), _) => Err(failure),
        (Some(Ok(())), Some(error)) => Err(error.into()),
        (Some(Ok(())), None) => Ok(()),
    }
}

pub(crate) fn summary_text(summary: &Summary) -> String {
    let mut line = format!(
        "{} records acknowledged, {} failed; {} batches refused, {} reroutes; {}.{:03} s, {} records/s; latency p50 {}, p99 {}",
        summary.acked,
        summary.failed,
        summary.refused,
        summary.rerouted,
        summary.elapsed_ms / 1000,
        summary.elapsed_ms % 1000,
        summary.records_per_s,
        shown(summary.latency_p50_us),
        shown(summary.latency_p99_us),
    );
    for (reason, count) in &summary.refused_by_reason {
        line.push_str(&format!("\n  refused with {reason}: {count}"));
    }
    line.push_str("\nundo: there is none");
    line
}

pub(crate) type Refusals = Arc<Mutex<BTreeMap<&'static str, u64>>>;

/// Says the first refusal of each kind at once, and counts them all.
pub(crate) fn watch_refusals(producer: &Producer, host: &Host) -> Refusals {
    let refusals = Refusals::default();
    let (counted, mut events) = (refusals.clone(), producer.events());
    let watch = async move {
        loop {
            match events.recv().await {
                Ok(ProducerEvent::Refused { refusal, partition, .. }) => {
                    let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
                    let count = counted.entry(refusal.reason_name()).or_default();
                    *count += 1;
                    if *count == 1 {
                        say(format!("partition {partition}: {refusal}"));
                    }
                }
                Ok(ProducerEvent::Rerouted { partition, from, to, .. }) => {
                    say(format!("partition {partition}: goes on at spu {to} instead of {from}"));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    };
    host.tasks.spawn("refusals", watch).detach();
    refusals
}

async fn send_lines(
    args: &ProduceArgs,
    host: &Host,
    producer: &Producer,
    deliveries: &Deliveries,
    input: &mut Input,
    started: Duration,
    progress: bool,
) -> Outcome {
    let mut sent = 0u64;
    let mut told_at = started;
    let mut told_failure = false;
    while let Some(line) = input.next_line().await? {
        if let Some(rate) = args.rate {
            let due = u128::from(sent) * 1_000_000_000 / u128::from(rate);
            let due = Duration::from_nanos(u64::try_from(due).unwrap_or(u64::MAX));
            host.clock.sleep_until(started.saturating_add(due)).await;
        }
        let number = line.number;
        let record = args.record(&line).map_err(|why| {
            let why = format!("line {number}: {why}\n{sent} records were sent before it, none after");
            Failure::new(Code::Failed, why)
        })?;
        if let Err(error) = deliveries.send(producer, record).await
            && !std::mem::replace(&mut told_failure, true)
        {
            say(format!("line {number}: {error}"));
        }
        sent += 1;
        let now = host.clock.now();
        if progress && now.saturating_sub(told_at) >= PROGRESS {
            told_at = now;
            let (sent, acked, failed) = deliveries.counts().now();
            eprint!("\r\x1b[K{sent} records sent, {acked} acknowledged, {failed} failed");
        }
    }
    Ok(())
}
