//! `plimsoll consume`: records to standard output.

mod format;
mod group;

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::FutureExt as _;
use plimsoll_client::{Consumer, ConsumerEvent, Offset, OnTrimmed, SpuId, StartAt};
use plimsoll_host::Host;
use plimsoll_host::config::Span;

use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{quiet_pipe, say};
use format::RecordFormat;
use group::GroupRun;

#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    topic: String,
    /// Where to start: earliest, latest, an offset, -N for the last N, a time ago such as 1h, or @MS for
    /// milliseconds since 1970
    #[arg(long, default_value = "earliest", value_parser = start, allow_hyphen_values = true)]
    from: From,
    /// Ends after so many records
    #[arg(long)]
    count: Option<u64>,
    /// Ends at what is committed now
    #[arg(long)]
    until_end: bool,
    /// value, key-value, json, or a template such as '%k=%s at %o\n'
    #[arg(short = 'f', long, default_value = "value", value_parser = format::parse, long_help = format!("How records are printed: value, key-value, json, or a template with {}", format::TOKENS))]
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
    /// Reads as a member of this group: goes on where the group was, and shares the partitions with its members
    #[arg(long, conflicts_with_all = ["partitions", "replica", "until_end"])]
    group: Option<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum TrimmedArg {
    #[default]
    Earliest,
    Latest,
    Fail,
}

impl std::convert::From<TrimmedArg> for OnTrimmed {
    fn from(arg: TrimmedArg) -> Self {
        match arg {
            TrimmedArg::Earliest => Self::Earliest,
            TrimmedArg::Latest => Self::Latest,
            TrimmedArg::Fail => Self::Fail,
        }
    }
}

/// Where to start, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    At(StartAt),
    Ago(Duration),
}

impl From {
    fn at(self, now_ms: u64) -> StartAt {
        match self {
            Self::At(start) => start,
            Self::Ago(time) => {
                let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
                StartAt::TimestampMs(now.saturating_sub(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
            }
        }
    }
}

fn start(text: &str) -> Result<From, String> {
    let wrong = || "earliest, latest, an offset, -N, a time ago such as 1h, or @MILLISECONDS".to_owned();
    match text {
        "earliest" => return Ok(From::At(StartAt::Earliest)),
        "latest" => return Ok(From::At(StartAt::Latest)),
        _ => {}
    }
    if let Some(ms) = text.strip_prefix('@') {
        return ms.parse().map(|ms| From::At(StartAt::TimestampMs(ms))).map_err(|_| wrong());
    }
    if let Some(last) = text.strip_prefix('-') {
        return last.parse().map(|last| From::At(StartAt::Last(last))).map_err(|_| wrong());
    }
    if let Ok(Ok(offset)) = text.parse().map(Offset::new) {
        return Ok(From::At(StartAt::Offset(offset)));
    }
    text.parse::<Span>().map(|ago| From::Ago(ago.0)).map_err(|_| wrong())
}

pub(crate) async fn run(args: ConsumeArgs, host: &Host) -> Outcome {
    let client = args.connect.connect_for_records(host).await?;
    if let Some(group) = args.group {
        let start = args.from.at(host.clock.wall_ms());
        let (topic, on_trimmed) = (args.topic, args.on_trimmed.into());
        let (format, separator) = (&args.format, args.separator.as_str());
        let count = args.count;
        return group::run(GroupRun { client, group, topic, start, on_trimmed, count, format, separator })
            .await;
    }
    let mut builder = client
        .consumer(args.topic.clone())
        .start(args.from.at(host.clock.wall_ms()))
        .partitions(args.partitions.iter().copied())
        .on_trimmed(args.on_trimmed.into());
    if let Some(spu) = args.replica {
        if client.spu_address(SpuId(spu)).is_none() {
            let why = format!("there is no spu {spu}\nsee which there are with `plimsoll spu list`");
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
        quiet_pipe(format::write(&mut out, &args.topic, &record, &args.format, &args.separator))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts() {
        assert_eq!(start("earliest"), Ok(From::At(StartAt::Earliest)));
        assert_eq!(start("12"), Ok(From::At(StartAt::Offset(Offset::new(12).expect("small")))));
        assert_eq!(start("-100"), Ok(From::At(StartAt::Last(100))));
        assert_eq!(start("@1700000000000"), Ok(From::At(StartAt::TimestampMs(1_700_000_000_000))));
        assert_eq!(start("1h").map(|from| from.at(3_600_001)), Ok(StartAt::TimestampMs(1)));
        for bad in ["", "-", "soon", "18446744073709551615", "@x", "--5", "1 fortnight"] {
            assert!(start(bad).is_err(), "{bad}");
        }
    }
}
