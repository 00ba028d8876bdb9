//! `plimsoll consume`: records to standard output.

mod format;
mod group;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::FutureExt as _;
use plimsoll_client::{Consumer, ConsumerEvent, Offset, OnTrimmed, SpuId, StartAt};
use plimsoll_host::Host;
use plimsoll_host::config::Span;

use crate::change::Cluster;
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{OutputArgs, quiet_pipe, say};
use format::RecordFormat;
use group::GroupRun;

/// A partition that can't be read for so long is worth a word.
const WAIT_SAID: Duration = Duration::from_secs(2);

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
    /// value, key-value, json, yaml, or a template such as '%k=%s at %o\n'; wins over -o
    #[arg(short = 'f', long, value_parser = format::parse, long_help = format!("How records are printed: value, key-value, json, yaml, or a template with {}. It wins over -o, of which table is value, wide is '{}', json and yaml are themselves", format::TOKENS, format::WIDE))]
    format: Option<RecordFormat>,
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
    #[arg(long, conflicts_with_all = ["partitions", "replica"])]
    group: Option<String>,
    /// With --group: reads all that the group would go on with, but does not join it and commits nothing
    #[arg(long, requires = "group")]
    dry_run: bool,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    output: OutputArgs,
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
    if args.group.is_some() && args.until_end && !args.dry_run {
        let why = "--until-end cannot be used with --group, whose members share what there is, except with --dry-run";
        return Err(Failure::new(Code::Usage, why));
    }
    let client = args.connect.connect_for_records(host).await?;
    let format = args.format.unwrap_or_else(|| args.output.output.into());
    if let Some(group) = args.group.as_ref().filter(|_| !args.dry_run) {
        let (group, topic) = (group.clone(), args.topic);
        let (start, on_trimmed) = (args.from.at(host.clock.wall_ms()), args.on_trimmed.into());
        let (format, separator, count, cluster) =
            (&format, args.separator.as_str(), args.count, args.cluster);
        let run = GroupRun { client, group, topic, start, on_trimmed, count, format, separator, cluster };
        return group::run(run).await;
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
    let committed = match &args.group {
        Some(group) => group::committed(&client, group).await?,
        None => BTreeMap::new(),
    };
    let mut consumer = builder.build().await?;
    if let Some(group) = &args.group {
        let topic_id = client.topic_id(&args.topic);
        let undo = args.cluster.typed(group::undo(group, &args.topic, topic_id, &committed));
        group::go_on(&mut consumer, topic_id, &committed, group, undo)?;
    }
    tell_events(&consumer, host);
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
        quiet_pipe(format::write(&mut out, &args.topic, &record, &format, &args.separator))?;
        left = left.map(|left| left - 1);
    }
    quiet_pipe(out.flush())
}

/// Says on standard error what standard output can't: what was trimmed, and what is waited for.
fn tell_events(consumer: &Consumer, host: &Host) {
    let mut events = consumer.events();
    let clock = host.clock.clone();
    let tell = async move {
        let mut waits = Waits::default();
        while let Ok(event) = events.recv().await {
            if let Some(text) = waits.told(&event, clock.now()) {
                say(text);
            }
        }
    };
    host.tasks.spawn("consumer events", tell).detach();
}

/// Since when partitions can't be read, and whether that was said. A change of leader takes a moment and is not worth a
/// word.
#[derive(Default)]
struct Waits(BTreeMap<u32, (Duration, bool)>);

impl Waits {
    fn told(&mut self, event: &ConsumerEvent, now: Duration) -> Option<String> {
        let (partition, why) = match event {
            ConsumerEvent::Trimmed { partition, from, to } => {
                let what = format!("records {from} to {to} were trimmed before they were read");
                return Some(format!("partition {partition}: {what}"));
            }
            ConsumerEvent::Connected { partition, spu } => {
                let (_, said) = self.0.remove(partition)?;
                return said.then(|| format!("partition {partition}: goes on at spu {spu}"));
            }
            ConsumerEvent::NoLeader { partition } => (*partition, "it has no leader".to_owned()),
            ConsumerEvent::Disconnected { partition, spu, why } => {
                (*partition, format!("no connection to spu {spu}: {why}"))
            }
        };
        let (since, said) = self.0.entry(partition).or_insert((now, false));
        if *said || now.saturating_sub(*since) < WAIT_SAID {
            return None;
        }
        *said = true;
        Some(format!("partition {partition}: waiting; {why}"))
    }
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

    #[test]
    fn what_is_waited_for_is_said_once_and_the_end_of_it_too() {
        let (spu, why, s) = (SpuId(3), "nothing listens there".to_owned(), Duration::from_secs);
        let lost = ConsumerEvent::Disconnected { partition: 1, spu, why };
        let (none, back) = (
            ConsumerEvent::NoLeader { partition: 1 },
            ConsumerEvent::Connected { partition: 1, spu: SpuId(4) },
        );
        let mut waits = Waits::default();
        // A leader that is replaced at once.
        assert_eq!(
            [waits.told(&lost, s(1)), waits.told(&none, s(2)), waits.told(&back, s(2))],
            [const { None }; 3]
        );
        // One that is not.
        assert_eq!(waits.told(&none, s(10)), None);
        let said = waits.told(&lost, s(12)).expect("two seconds without a leader");
        assert_eq!(said, "partition 1: waiting; no connection to spu 3: nothing listens there");
        assert_eq!(waits.told(&lost, s(60)), None, "it was said");
        assert_eq!(
            waits.told(&ConsumerEvent::NoLeader { partition: 2 }, s(60)),
            None,
            "of another partition"
        );
        assert_eq!(waits.told(&back, s(61)).as_deref(), Some("partition 1: goes on at spu 4"));
        assert_eq!(waits.told(&back, s(62)), None);
    }
}
