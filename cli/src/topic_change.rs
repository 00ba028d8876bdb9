//! `plimsoll topic alter` and `plimsoll topic add-partitions`.

use clap::Args;
use plimsoll_client::{FlushPolicy, OnPressure, TopicConfig};
use plimsoll_host::Host;
use plimsoll_host::config::{ByteSize, Span};
use plimsoll_proto::v1::AlterTopicRequest;
use serde::Serialize;

use crate::change::{Change, ChangeArgs};
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::given;
use crate::topic::{Flush, Pressure, milliseconds, pressure_name};

#[derive(Debug, Args)]
pub(crate) struct AlterArgs {
    name: String,
    /// Copies that must be in sync for acks=all
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    min_in_sync: Option<u32>,
    /// How long records are kept, such as 7d, or forever
    #[arg(long, value_parser = kept_time)]
    retention: Option<Kept<Span>>,
    /// Bytes kept of each partition, such as 10GiB, or forever
    #[arg(long, value_parser = kept_size)]
    retention_bytes: Option<Kept<ByteSize>>,
    /// Bytes of a segment, from the next one on; 0 for the node's default
    #[arg(long)]
    segment_bytes: Option<ByteSize>,
    /// Greatest batch
    #[arg(long, value_parser = given::size)]
    batch_bytes_max: Option<ByteSize>,
    /// When records are synced to the disk
    #[arg(long, value_enum)]
    flush: Option<Flush>,
    /// Pause between two syncs, with --flush interval
    #[arg(long, value_parser = given::time)]
    flush_interval: Option<Span>,
    /// What a filling disk may do to records that have not expired
    #[arg(long, value_enum)]
    on_pressure: Option<Pressure>,
    /// Age below which a filling disk never deletes records, with --on-pressure trim; 0s for none
    #[arg(long)]
    min_retention: Option<Span>,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

/// `plimsoll retention set`: what of [`AlterArgs`] is about keeping records.
#[derive(Debug, Args)]
pub(crate) struct RetentionArgs {
    /// The topic
    topic: String,
    /// How long records are kept, such as 7d, or forever
    #[arg(long = "for", value_name = "TIME", value_parser = kept_time)]
    retention: Option<Kept<Span>>,
    /// Bytes kept of each partition, such as 10GiB, or forever
    #[arg(long, value_name = "SIZE", value_parser = kept_size)]
    bytes: Option<Kept<ByteSize>>,
    /// What a filling disk may do to records that have not expired
    #[arg(long, value_enum)]
    on_pressure: Option<Pressure>,
    /// Age below which a filling disk never deletes records, with --on-pressure trim; 0s for none
    #[arg(long, value_name = "TIME")]
    min: Option<Span>,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

impl From<RetentionArgs> for AlterArgs {
    fn from(args: RetentionArgs) -> Self {
        Self {
            name: args.topic,
            min_in_sync: None,
            retention: args.retention,
            retention_bytes: args.bytes,
            segment_bytes: None,
            batch_bytes_max: None,
            flush: None,
            flush_interval: None,
            on_pressure: args.on_pressure,
            min_retention: args.min,
            connect: args.connect,
            change: args.change,
        }
    }
}

pub(crate) async fn retention(args: RetentionArgs, host: &Host) -> Outcome {
    let args = AlterArgs::from(args);
    if request(&args)? == unchanged(&args.name) {
        let why = "nothing to change is given; see `plimsoll retention set --help`";
        return Err(Failure::new(Code::Usage, why));
    }
    alter(args, host).await
}

#[derive(Debug, Args)]
pub(crate) struct AddPartitionsArgs {
    name: String,
    /// How many partitions the topic is to have in all; records with a key may go elsewhere afterwards
    #[arg(long, value_name = "TOTAL", value_parser = clap::value_parser!(u32).range(1..))]
    to: u32,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

/// A limit, or none.
#[derive(Clone, Copy, Debug)]
enum Kept<T> {
    Limit(T),
    ForEver,
}

fn kept_time(text: &str) -> Result<Kept<Span>, String> {
    kept(text, given::time)
}

fn kept_size(text: &str) -> Result<Kept<ByteSize>, String> {
    kept(text, given::size)
}

fn kept<T>(text: &str, limit: impl Fn(&str) -> Result<T, String>) -> Result<Kept<T>, String> {
    if text == "forever" {
        return Ok(Kept::ForEver);
    }
    limit(text).map(Kept::Limit).map_err(|why| format!("{why}; or forever"))
}

#[derive(Serialize)]
struct Altered {
    topic: String,
    changes: Vec<Difference>,
}

#[derive(Serialize)]
struct Difference {
    key: &'static str,
    before: String,
    after: String,
}

pub(crate) async fn alter(args: AlterArgs, host: &Host) -> Outcome {
    let request = request(&args)?;
    if request == unchanged(&args.name) {
        let why = "nothing to alter is given; see `plimsoll topic alter --help`";
        return Err(Failure::new(Code::Usage, why));
    }
    let admin = args.connect.connect(host).await?.admin();
    let before = admin.describe_topic(args.name.clone()).await?.config.unwrap_or_default();
    let after =
        if args.change.dry_run { planned(&before, &request) } else { admin.alter_topic(request).await? };
    let changes = differences(&before, &after);
    let listed: Vec<String> = changes
        .iter()
        .map(|change| format!("{} {} -> {}", change.key, change.before, change.after))
        .collect();
    let what = if listed.is_empty() { "nothing is different".to_owned() } else { listed.join(", ") };
    let undo = undo(&args.name, &before, &after);
    let would = format!("alter topic {}: {what}", args.name);
    let done = format!("altered topic {}: {what}", args.name);
    let change = Change::with(args.change, would, done, Altered { topic: args.name, changes });
    match undo {
        Some(undo) => change.undo(undo).print(args.change),
        None => change.print(args.change),
    }
}

/// A request that changes nothing.
fn unchanged(name: &str) -> AlterTopicRequest {
    AlterTopicRequest { name: name.to_owned(), ..Default::default() }
}

fn request(args: &AlterArgs) -> Result<AlterTopicRequest, Failure> {
    let batch_bytes_max = args
        .batch_bytes_max
        .map(|size| u32::try_from(size.0))
        .transpose()
        .map_err(|_| Failure::new(Code::Usage, "--batch-bytes-max must be below 4GiB"))?;
    let mut request = AlterTopicRequest {
        name: args.name.clone(),
        min_in_sync: args.min_in_sync,
        retention_ms: args.retention.map(|kept| match kept {
            Kept::Limit(span) => milliseconds(span),
            Kept::ForEver => 0,
        }),
        retention_bytes: args.retention_bytes.map(|kept| match kept {
            Kept::Limit(size) => size.0,
            Kept::ForEver => 0,
        }),
        segment_bytes: args.segment_bytes.map(|size| size.0),
        flush_interval_ms: args.flush_interval.map(milliseconds),
        min_retention_ms: args.min_retention.map(milliseconds),
        batch_bytes_max,
        ..Default::default()
    };
    if let Some(flush) = args.flush {
        request.set_flush(FlushPolicy::from(flush));
    }
    if let Some(pressure) = args.on_pressure {
        request.set_on_pressure(OnPressure::from(pressure));
    }
    Ok(request)
}

/// What the controllers would make of it, as far as it can be seen from here.
fn planned(before: &TopicConfig, request: &AlterTopicRequest) -> TopicConfig {
    let mut after = *before;
    after.min_in_sync = request.min_in_sync.unwrap_or(after.min_in_sync);
    after.retention_ms = request.retention_ms.unwrap_or(after.retention_ms);
    after.retention_bytes = request.retention_bytes.unwrap_or(after.retention_bytes);
    after.segment_bytes = request.segment_bytes.unwrap_or(after.segment_bytes);
    after.flush = request.flush.unwrap_or(after.flush);
    after.flush_interval_ms = request.flush_interval_ms.unwrap_or(match after.flush() {
        FlushPolicy::Interval => after.flush_interval_ms,
        FlushPolicy::Os | FlushPolicy::Ack | FlushPolicy::Unspecified => 0,
    });
    after.on_pressure = request.on_pressure.unwrap_or(after.on_pressure);
    after.min_retention_ms = request.min_retention_ms.unwrap_or(after.min_retention_ms);
    after.batch_bytes_max = request.batch_bytes_max.unwrap_or(after.batch_bytes_max);
    after
}

/// The keys with the flag that sets each, and its value.
fn shown(config: &TopicConfig) -> [(&'static str, String); 9] {
    let span = |ms: u64| Span(std::time::Duration::from_millis(ms)).to_string();
    let limit = |value: u64, text: String| if value == 0 { "forever".to_owned() } else { text };
    [
        ("min-in-sync", config.min_in_sync.to_string()),
        ("retention", limit(config.retention_ms, span(config.retention_ms))),
        ("retention-bytes", limit(config.retention_bytes, config.retention_bytes.to_string())),
        ("segment-bytes", config.segment_bytes.to_string()),
        ("flush", config.flush().as_str_name().trim_start_matches("FLUSH_POLICY_").to_lowercase()),
        ("flush-interval", span(config.flush_interval_ms)),
        ("on-pressure", pressure_name(config.on_pressure()).to_owned()),
        ("min-retention", span(config.min_retention_ms)),
        ("batch-bytes-max", config.batch_bytes_max.to_string()),
    ]
}

fn differences(before: &TopicConfig, after: &TopicConfig) -> Vec<Difference> {
    let pairs = shown(before).into_iter().zip(shown(after));
    let different = pairs.filter(|((_, before), (_, after))| before != after);
    different.map(|((key, before), (_, after))| Difference { key, before, after }).collect()
}

fn undo(name: &str, before: &TopicConfig, after: &TopicConfig) -> Option<String> {
    let flags: Vec<String> = differences(before, after)
        .into_iter()
        // It follows from the policy, and is refused with any other.
        .filter(|change| change.key != "flush-interval" || before.flush() == FlushPolicy::Interval)
        .map(|change| format!("--{} {}", change.key, change.before))
        .collect();
    (!flags.is_empty()).then(|| format!("plimsoll topic alter {name} {}", flags.join(" ")))
}

pub(crate) async fn add_partitions(args: AddPartitionsArgs, host: &Host) -> Outcome {
    let admin = args.connect.connect(host).await?.admin();
    let before = admin.describe_topic(args.name.clone()).await?.partitions.len();
    if !args.change.dry_run {
        admin.add_partitions(args.name.clone(), args.to).await?;
    } else if usize::try_from(args.to).unwrap_or(usize::MAX) < before {
        let why =
            format!("INVALID_ARGUMENT: the topic has {before} partitions; it can have more, never fewer");
        return Err(Failure::new(Code::Failed, why));
    }
    let of = |verb: &str| format!("{verb} topic {}: partitions {before} -> {}", args.name, args.to);
    Change::new(args.change, of("grow"), of("grew")).print(args.change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed<T: Args>(line: &str) -> Result<T, clap::Error> {
        let command = T::augment_args(clap::Command::new("t").no_binary_name(true));
        T::from_arg_matches(&command.try_get_matches_from(line.split(' '))?)
    }

    #[test]
    fn what_pressure_may_do_is_said_by_the_same_words_everywhere() {
        for (word, policy) in [
            ("refuse", OnPressure::Refuse),
            ("trim", OnPressure::Trim),
            ("trim-past-groups", OnPressure::TrimPastGroups),
        ] {
            let line = format!("t --on-pressure {word}");
            let altered: AlterArgs = parsed(&line).expect("a policy");
            let retention: RetentionArgs = parsed(&line).expect("a policy");
            for args in [altered, retention.into()] {
                let request = request(&args).expect("a request");
                assert_eq!(request.on_pressure, Some(policy.into()), "{word}");
                let before = TopicConfig { on_pressure: OnPressure::Refuse.into(), ..Default::default() };
                let after = planned(&before, &request);
                assert_eq!((after.on_pressure(), pressure_name(policy)), (policy, word));
                // What takes it back can be typed, too.
                let back = undo("t", &after, &before);
                let expected = format!("plimsoll topic alter t --on-pressure {word}");
                assert_eq!(back, (policy != OnPressure::Refuse).then_some(expected));
            }
        }
        for wrong in ["t --on-pressure past-groups", "t --on-pressure"] {
            assert!(parsed::<AlterArgs>(wrong).is_err(), "{wrong}");
        }
        assert_eq!(pressure_name(OnPressure::Unspecified), "refuse");
    }

    #[test]
    fn what_takes_it_back_names_the_values_before() {
        let before = TopicConfig {
            min_in_sync: 2,
            retention_ms: 0,
            flush: FlushPolicy::Interval.into(),
            flush_interval_ms: 1000,
            ..Default::default()
        };
        let request = AlterTopicRequest {
            retention_ms: Some(60_000),
            flush: Some(FlushPolicy::Ack.into()),
            ..Default::default()
        };
        let after = planned(&before, &request);
        assert_eq!(after.flush_interval_ms, 0);
        assert_eq!(
            undo("t", &before, &after).expect("something changed"),
            "plimsoll topic alter t --retention forever --flush interval --flush-interval 1s"
        );
        assert_eq!(undo("t", &before, &before), None);
    }
}
