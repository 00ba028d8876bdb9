//! `plimsoll produce`: one record for each line of standard input.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use plimsoll_client::{Acks, Compression, Delivery, OnFull, ProduceError, Producer, ProducerEvent, Record};
use plimsoll_host::Host;
use plimsoll_host::config::{ByteSize, Span};
use serde::Serialize;
use tokio::io::AsyncBufReadExt as _;
use tokio::sync::broadcast::error::RecvError;

use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{Format, OutputArgs, print, say};

/// Deliveries looked after at once.
const DELIVERIES_MAX: usize = 100_000;
/// Longest line.
const LINE_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    topic: String,
    /// Takes what stands in front of the first separator of a line as the key
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// Sends everything to this partition
    #[arg(long)]
    partition: Option<u32>,
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
    /// Records a second at most
    #[arg(long)]
    rate: Option<u64>,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    output: OutputArgs,
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

#[derive(Serialize)]
struct Summary {
    acked: u64,
    failed: u64,
    refused: u64,
    refused_by_reason: BTreeMap<&'static str, u64>,
    rerouted: u64,
    duplicates: u64,
    elapsed_ms: u64,
    records_per_s: u64,
    first_error: Option<String>,
}

/// Awaits deliveries in order and counts what became of them.
#[derive(Default)]
struct Deliveries {
    waiting: VecDeque<Delivery>,
    acked: u64,
    failed: u64,
    first_error: Option<ProduceError>,
}

impl Deliveries {
    async fn push(&mut self, delivery: Delivery) {
        self.waiting.push_back(delivery);
        if self.waiting.len() >= DELIVERIES_MAX {
            self.settle(DELIVERIES_MAX / 2).await;
        }
    }

    /// Waits until at most `rest` are open.
    async fn settle(&mut self, rest: usize) {
        while self.waiting.len() > rest {
            let Some(delivery) = self.waiting.pop_front() else { return };
            match delivery.await {
                Ok(_) => self.acked += 1,
                Err(error) => self.failed(error),
            }
        }
    }

    fn failed(&mut self, error: ProduceError) {
        self.failed += 1;
        self.first_error.get_or_insert(error);
    }
}

pub(crate) async fn run(args: ProduceArgs, host: &Host) -> Outcome {
    let client = args.connect.connect(host).await?;
    let producer = client
        .producer(args.topic.clone())
        .acks(match args.acks {
            AcksArg::All => Acks::All,
            AcksArg::Leader => Acks::Leader,
            AcksArg::None => Acks::None,
        })
        .on_full(match args.on_full {
            OnFullArg::Reroute => OnFull::Reroute,
            OnFullArg::Wait => OnFull::Wait,
            OnFullArg::Fail => OnFull::Fail,
        })
        .idempotent(!args.no_idempotence && !matches!(args.acks, AcksArg::None))
        .compression(args.compression)
        .linger(args.linger.0)
        .batch_bytes(usize::try_from(args.batch_bytes.0).unwrap_or(usize::MAX))
        .deadline(args.deadline.0)
        .build()
        .await?;
    let refusals = watch_refusals(&producer, host);
    let started = host.clock.now();
    let mut deliveries = Deliveries::default();
    let read = send_lines(&args, host, &producer, &mut deliveries, started).await;
    deliveries.settle(0).await;
    producer.close().await;
    let elapsed = host.clock.now().saturating_sub(started);
    let stats = producer.stats();
    let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let summary = Summary {
        acked: deliveries.acked,
        failed: deliveries.failed,
        refused: stats.refused_batches,
        refused_by_reason: refusals.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone(),
        rerouted: stats.reroutes,
        duplicates: stats.duplicate_batches,
        elapsed_ms,
        records_per_s: deliveries.acked.saturating_mul(1000) / elapsed_ms.max(1),
        first_error: deliveries.first_error.as_ref().map(ToString::to_string),
    };
    match args.output.output {
        // Standard output stays free: in a pipeline nobody expects a summary there.
        Format::Table => say(summary_line(&summary)),
        Format::Json => print(args.output, &summary, summary_line)?,
    }
    read?;
    match deliveries.first_error {
        None => Ok(()),
        Some(error) => Err(error.into()),
    }
}

fn summary_line(summary: &Summary) -> String {
    let mut line = format!(
        "{} records acknowledged, {} failed; {} batches refused, {} reroutes; {}.{:03} s, {} records/s",
        summary.acked,
        summary.failed,
        summary.refused,
        summary.rerouted,
        summary.elapsed_ms / 1000,
        summary.elapsed_ms % 1000,
        summary.records_per_s
    );
    for (reason, count) in &summary.refused_by_reason {
        line.push_str(&format!("\n  refused with {reason}: {count}"));
    }
    line
}

type Refusals = std::sync::Arc<std::sync::Mutex<BTreeMap<&'static str, u64>>>;

/// Says the first refusal of each kind at once, and counts them all.
fn watch_refusals(producer: &Producer, host: &Host) -> Refusals {
    let refusals = Refusals::default();
    let (counted, mut events) = (refusals.clone(), producer.events());
    let watch = async move {
        loop {
            match events.recv().await {
                Ok(ProducerEvent::Refused { refusal, partition, .. }) => {
                    let mut counted = counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
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
    deliveries: &mut Deliveries,
    started: Duration,
) -> Outcome {
    use tokio::io::AsyncReadExt as _;
    let mut input = tokio::io::BufReader::with_capacity(256 * 1024, tokio::io::stdin());
    let mut line = Vec::new();
    let mut sent = 0u64;
    loop {
        line.clear();
        let read = (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
        let read = read.map_err(|error| Failure::new(Code::Failed, format!("standard input: {error}")))?;
        if read == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if let Some(rate) = args.rate.filter(|rate| *rate > 0) {
            let due = u128::from(sent) * 1_000_000_000 / u128::from(rate);
            let due = Duration::from_nanos(u64::try_from(due).unwrap_or(u64::MAX));
            host.clock.sleep_until(started.saturating_add(due)).await;
        }
        let record = record(&line, args.key_separator.as_deref(), args.partition);
        match producer.send(record).await {
            Ok(delivery) => deliveries.push(delivery).await,
            Err(error) => deliveries.failed(error),
        }
        sent += 1;
    }
}

fn record(line: &[u8], separator: Option<&str>, partition: Option<u32>) -> Record {
    let at = separator.filter(|text| !text.is_empty()).and_then(|text| {
        let text = text.as_bytes();
        line.windows(text.len()).position(|window| window == text).map(|at| (at, at + text.len()))
    });
    let mut record = match at {
        Some((end, start)) => {
            Record::new(Bytes::copy_from_slice(&line[start..])).key(Bytes::copy_from_slice(&line[..end]))
        }
        None => Record::new(Bytes::copy_from_slice(line)),
    };
    record.partition = partition;
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_splits_off_the_key() {
        assert_eq!(record(b"k:v:w", Some(":"), None), Record::new("v:w").key("k"));
        assert_eq!(record(b"no key", Some(":"), None), Record::new("no key"));
        assert_eq!(record(b"k:v", None, Some(2)), Record::new("k:v").partition(2));
        assert_eq!(record(b"k:v", Some(""), None), Record::new("k:v"));
        assert_eq!(record(b"k=>v", Some("=>"), None), Record::new("v").key("k"));
    }
}
