//! `plimsoll bench`: load on a topic that exists, with percentiles.

mod dry_run;

use std::time::Duration;

use clap::{Args, Subcommand};
use plimsoll_client::{Record, StartAt};
use plimsoll_host::Host;
use plimsoll_host::config::ByteSize;
use serde::Serialize;

use crate::change::ChangeArgs;
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::latency::{Latencies, shown};
use crate::output::{ShowArgs, print};
use crate::produce::{Deliveries, ProducerArgs, Summary, finish, summary_text, watch_refusals};

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Produces records of one size as fast as it goes, or at a rate; they stay in the topic
    Produce(BenchProduceArgs),
    /// Reads a topic from its oldest record up to what is committed now
    Consume(BenchConsumeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchProduceArgs {
    topic: String,
    /// How many
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Bytes of each value
    #[arg(long, default_value = "1KiB")]
    size: ByteSize,
    /// Records a second; as fast as it goes when not given
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Gives each record one of so many keys; without it records have none
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    keys: Option<u64>,
    #[command(flatten)]
    settings: ProducerArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BenchConsumeArgs {
    topic: String,
    /// Ends after so many records
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    records: Option<u64>,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Serialize)]
struct Produced {
    #[serde(flatten)]
    summary: Summary,
    record_bytes: u64,
}

#[derive(Serialize)]
struct Consumed {
    records: u64,
    bytes: u64,
    elapsed_ms: u64,
    records_per_s: u64,
    bytes_per_s: u64,
    /// Time until the next record was there.
    wait_p50_us: Option<u64>,
    wait_p99_us: Option<u64>,
    wait_max_us: Option<u64>,
}

/// Largest record of a bench: nothing is gained beyond, and it stays in memory.
const SIZE_MAX: u64 = 16 << 20;

pub(crate) async fn run(command: BenchCommand, host: &Host) -> Outcome {
    match command {
        BenchCommand::Produce(args) => produce(args, host).await,
        BenchCommand::Consume(args) => consume(args, host).await,
    }
}

async fn produce(args: BenchProduceArgs, host: &Host) -> Outcome {
    if args.size.0 > SIZE_MAX {
        return Err(Failure::new(Code::Usage, format!("--size is at most {}", ByteSize(SIZE_MAX))));
    }
    if args.change.dry_run {
        return dry_run::run(&args, host).await;
    }
    let client = args.connect.connect_for_records(host).await?;
    let producer = args.settings.build(&client, &args.topic).await?;
    let refusals = watch_refusals(&producer, host);
    let started = host.clock.now();
    let deliveries = Deliveries::start(host);
    // Not all alike, so that compression does not make it a toy.
    let size = usize::try_from(args.size.0).unwrap_or(0);
    let mut value = Vec::with_capacity(size + 16);
    while value.len() < size {
        value.extend_from_slice(&host.random.id16());
    }
    value.truncate(size);
    let value = bytes::Bytes::from(value);
    for number in 0..args.records {
        if let Some(rate) = args.rate {
            let due = u128::from(number) * 1_000_000_000 / u128::from(rate);
            let due = Duration::from_nanos(u64::try_from(due).unwrap_or(u64::MAX));
            host.clock.sleep_until(started.saturating_add(due)).await;
        }
        let mut record = Record::new(value.clone());
        if let Some(keys) = args.keys {
            record = record.key((number % keys).to_string());
        }
        // Counted as failed, and told at the end.
        let _ = deliveries.send(&producer, record).await;
    }
    let (summary, first_error) = finish(producer, deliveries, &refusals, host, started).await;
    let produced = Produced { summary, record_bytes: args.size.0 };
    print(args.change, &produced, |produced| summary_text(&produced.summary) + "\n")?;
    first_error.map_or(Ok(()), |error| Err(error.into()))
}

async fn consume(args: BenchConsumeArgs, host: &Host) -> Outcome {
    let client = args.connect.connect_for_records(host).await?;
    let builder = client.consumer(args.topic).start(StartAt::Earliest).until_end();
    let mut consumer = builder.build().await?;
    let started = host.clock.now();
    let (mut records, mut bytes, mut waits) = (0u64, 0u64, Latencies::default());
    let mut at = started;
    while args.records.is_none_or(|wanted| records < wanted) {
        let Some(record) = consumer.next().await else { break };
        let record = record?;
        let now = host.clock.now();
        waits.record(now.saturating_sub(at));
        at = now;
        records += 1;
        let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        let both = length(record.key.as_deref()) + length(record.value.as_deref());
        bytes = bytes.saturating_add(u64::try_from(both).unwrap_or(0));
    }
    let elapsed = host.clock.now().saturating_sub(started);
    let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let consumed = Consumed {
        records,
        bytes,
        elapsed_ms,
        records_per_s: records.saturating_mul(1000) / elapsed_ms.max(1),
        bytes_per_s: bytes.saturating_mul(1000) / elapsed_ms.max(1),
        wait_p50_us: waits.permille(500),
        wait_p99_us: waits.permille(990),
        wait_max_us: waits.max_us(),
    };
    print(args.show, &consumed, |consumed| {
        format!(
            "{} records, {} in {}.{:03} s: {} records/s, {}/s; wait for the next p50 {}, p99 {}, max {}\n",
            consumed.records,
            ByteSize(consumed.bytes),
            consumed.elapsed_ms / 1000,
            consumed.elapsed_ms % 1000,
            consumed.records_per_s,
            ByteSize(consumed.bytes_per_s),
            shown(consumed.wait_p50_us),
            shown(consumed.wait_p99_us),
            shown(consumed.wait_max_us),
        )
    })
}
