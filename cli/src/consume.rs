//! `plimsoll consume`: records to standard output.

use std::io::{self, BufWriter, Write};

use clap::{Args, ValueEnum};
use futures::FutureExt as _;
use plimsoll_client::{ConsumedRecord, Consumer, ConsumerEvent, Offset, OnTrimmed, SpuId, StartAt};
use plimsoll_host::Host;
use serde::Serialize;

use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{quiet_pipe, say};

#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    topic: String,
    /// Where to start: earliest, latest, or an offset
    #[arg(long, default_value = "earliest", value_parser = start)]
    from: StartAt,
    /// Ends after so many records
    #[arg(long)]
    count: Option<u64>,
    /// Ends at what is committed now
    #[arg(long)]
    until_end: bool,
    /// How records are printed
    #[arg(short = 'f', long, value_enum, default_value_t)]
    format: RecordFormat,
    /// Puts this between key and value, with --format key-value
    #[arg(long, default_value = "\t")]
    separator: String,
    /// Reads this partition only; repeat it for more
    #[arg(long = "partition")]
    partitions: Vec<u32>,
    /// Reads the copy on this storage node, leader or not
    #[arg(long, value_name = "SPU")]
    replica: Option<u32>,
    /// What to do when records were trimmed before they were read
    #[arg(long, value_enum, default_value_t)]
    on_trimmed: TrimmedArg,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum RecordFormat {
    /// The value, one a line
    #[default]
    Value,
    /// Key, separator, value
    KeyValue,
    /// One JSON object a line, with partition, offset, time and headers
    Json,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum TrimmedArg {
    #[default]
    Earliest,
    Latest,
    Fail,
}

fn start(text: &str) -> Result<StartAt, String> {
    match text {
        "earliest" => Ok(StartAt::Earliest),
        "latest" => Ok(StartAt::Latest),
        offset => offset
            .parse()
            .ok()
            .and_then(|offset| Offset::new(offset).ok())
            .map(StartAt::Offset)
            .ok_or_else(|| "earliest, latest, or an offset".to_owned()),
    }
}

#[derive(Serialize)]
struct Line {
    version: u32,
    partition: u32,
    offset: u64,
    timestamp_ms: i64,
    leader_epoch: u32,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
}

pub(crate) async fn run(args: ConsumeArgs, host: &Host) -> Outcome {
    let client = args.connect.connect(host).await?;
    let mut builder = client
        .consumer(args.topic.clone())
        .start(args.from)
        .partitions(args.partitions.iter().copied())
        .on_trimmed(match args.on_trimmed {
            TrimmedArg::Earliest => OnTrimmed::Earliest,
            TrimmedArg::Latest => OnTrimmed::Latest,
            TrimmedArg::Fail => OnTrimmed::Fail,
        });
    if let Some(spu) = args.replica {
        if client.spu_address(SpuId(spu)).is_none() {
            let why = format!("there is no spu {spu}\nsee which there are with `plimsoll cluster status`");
            return Err(Failure::new(Code::NotFound, why));
        }
        builder = builder.replica(SpuId(spu));
    }
    if args.until_end {
        builder = builder.until_end();
    }
    let mut consumer = builder.build().await?;
    tell_trimming(&consumer, host);
    let mut out = BufWriter::with_capacity(256 * 1024, io::stdout().lock());
    let mut left = args.count;
    while left != Some(0) {
        // What was printed is shown before waiting for more.
        let next = match consumer.next().now_or_never() {
            Some(next) => next,
            None => {
                quiet_pipe(out.flush())?;
                consumer.next().await
            }
        };
        let Some(record) = next else { break };
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                quiet_pipe(out.flush())?;
                return Err(error.into());
            }
        };
        quiet_pipe(write_record(&mut out, &record, &args))?;
        left = left.map(|left| left - 1);
    }
    quiet_pipe(out.flush())
}

fn tell_trimming(consumer: &Consumer, host: &Host) {
    let mut events = consumer.events();
    let tell = async move {
        while let Ok(event) = events.recv().await {
            if let ConsumerEvent::Trimmed { partition, from, to } = event {
                say(format!(
                    "partition {partition}: records {from} to {to} were trimmed before they were read"
                ));
            }
        }
    };
    host.tasks.spawn("trimming", tell).detach();
}

fn write_record(out: &mut impl Write, record: &ConsumedRecord, args: &ConsumeArgs) -> io::Result<()> {
    match args.format {
        RecordFormat::Value => out.write_all(record.value.as_deref().unwrap_or_default())?,
        RecordFormat::KeyValue => {
            out.write_all(record.key.as_deref().unwrap_or_default())?;
            out.write_all(args.separator.as_bytes())?;
            out.write_all(record.value.as_deref().unwrap_or_default())?;
        }
        RecordFormat::Json => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let line = Line {
                version: 1,
                partition: record.partition,
                offset: record.offset.get(),
                timestamp_ms: record.timestamp_ms,
                leader_epoch: record.leader_epoch.0,
                key: record.key.as_deref().map(text),
                value: record.value.as_deref().map(text),
                headers: record
                    .headers
                    .iter()
                    .map(|(key, value)| (text(key), value.as_deref().map(text)))
                    .collect(),
            };
            serde_json::to_writer(&mut *out, &line)?;
        }
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts() {
        assert_eq!(start("earliest"), Ok(StartAt::Earliest));
        assert_eq!(start("12"), Ok(StartAt::Offset(Offset::new(12).expect("small"))));
        for bad in ["", "-1", "soon", "18446744073709551615"] {
            assert!(start(bad).is_err(), "{bad}");
        }
    }
}
