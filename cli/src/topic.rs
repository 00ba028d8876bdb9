//! `plimsoll topic`.

use clap::{Args, Subcommand, ValueEnum};
use plimsoll_client::{FlushPolicy, OnPressure, TopicConfig, TopicInfo};
use plimsoll_host::Host;
use plimsoll_host::config::{ByteSize, Span};
use serde::Serialize;

use crate::change::{Change, ChangeArgs};
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::given;
use crate::known;
use crate::output::{ShowArgs, print, print_wide, table};
use crate::topic_change::{self, AddPartitionsArgs, AlterArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Creates a topic
    Create(CreateArgs),
    /// Lists all topics
    List(ListArgs),
    /// Changes what a topic keeps and how, while it is in use
    Alter(AlterArgs),
    /// Adds partitions to a topic
    AddPartitions(AddPartitionsArgs),
    /// Shows one topic with its partitions
    Describe(DescribeArgs),
    /// Deletes a topic with everything in it; its space is free again at once
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// 1 to 200 ASCII letters, digits, '.', '_' and '-'
    name: String,
    /// Number of partitions
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// Copies of each partition, each on another node
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    replicas: u32,
    /// Copies that must be in sync for acks=all; default one less than the replicas, at least 1
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    min_in_sync: Option<u32>,
    /// How long records are kept, such as 7d; for ever when not given
    #[arg(long, value_parser = given::time)]
    retention: Option<Span>,
    /// Bytes kept of each partition, such as 10GiB; without limit when not given
    #[arg(long, value_parser = given::size)]
    retention_bytes: Option<ByteSize>,
    /// Bytes of a segment; the node's default when not given
    #[arg(long, value_parser = given::size)]
    segment_bytes: Option<ByteSize>,
    /// Greatest batch; 1MiB when not given
    #[arg(long, value_parser = given::size)]
    batch_bytes_max: Option<ByteSize>,
    /// When records are synced to the disk
    #[arg(long, value_enum, default_value_t)]
    flush: Flush,
    /// Pause between two syncs, with --flush interval
    #[arg(long, default_value = "1s", value_parser = given::time)]
    flush_interval: Span,
    /// What a filling disk may do to records that have not expired
    #[arg(long, value_enum, default_value_t)]
    on_pressure: Pressure,
    /// Age below which a filling disk never deletes records, with --on-pressure trim
    #[arg(long)]
    min_retention: Option<Span>,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    name: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    name: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Flush {
    /// When the operating system sees fit
    #[default]
    Os,
    /// Every --flush-interval
    Interval,
    /// Before each acknowledgement
    Ack,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Pressure {
    /// Nothing: produce is refused
    #[default]
    Refuse,
    /// Delete the oldest, but nothing that active groups have still to read
    Trim,
    /// Delete the oldest, whoever has still to read it
    TrimPastGroups,
}

/// As on the command line.
pub(crate) fn pressure_name(pressure: OnPressure) -> &'static str {
    match pressure {
        OnPressure::Refuse | OnPressure::Unspecified => "refuse",
        OnPressure::Trim => "trim",
        OnPressure::TrimPastGroups => "trim-past-groups",
    }
}

impl From<Flush> for FlushPolicy {
    fn from(flush: Flush) -> Self {
        match flush {
            Flush::Os => Self::Os,
            Flush::Interval => Self::Interval,
            Flush::Ack => Self::Ack,
        }
    }
}

impl From<Pressure> for OnPressure {
    fn from(pressure: Pressure) -> Self {
        match pressure {
            Pressure::Refuse => Self::Refuse,
            Pressure::Trim => Self::Trim,
            Pressure::TrimPastGroups => Self::TrimPastGroups,
        }
    }
}

#[derive(Serialize)]
struct Topics {
    topics: Vec<Topic>,
}

#[derive(Serialize)]
struct One {
    topic: Topic,
}

#[derive(Serialize)]
struct Deleted {
    deleted: String,
}

#[derive(Serialize)]
pub(crate) struct Topic {
    name: String,
    id: String,
    replicas: u32,
    min_in_sync: u32,
    retention_ms: Option<u64>,
    retention_bytes: Option<u64>,
    segment_bytes: Option<u64>,
    batch_bytes_max: Option<u32>,
    flush: &'static str,
    flush_interval_ms: Option<u64>,
    on_pressure: &'static str,
    min_retention_ms: Option<u64>,
    partitions: Vec<Partition>,
}

#[derive(Serialize)]
struct Partition {
    index: u32,
    leader: Option<u32>,
    leader_epoch: u32,
    partition_epoch: u32,
    replicas: Vec<u32>,
    in_sync: Vec<u32>,
    /// Outside of the set, but holding everything committed.
    eligible: Vec<u32>,
    /// Leader epoch of the last election that may have lost committed records.
    lossy_epoch: Option<u32>,
}

pub(crate) async fn run(command: TopicCommand, host: &Host) -> Outcome {
    match command {
        TopicCommand::Create(args) => create(args, host).await,
        TopicCommand::List(args) => {
            let mut known = known::topics(&args.connect.connect(host).await?, None).await?;
            let topics = std::mem::take(&mut known.topics);
            let topics = Topics { topics: topics.into_iter().map(Topic::from).collect() };
            print_wide(args.show, &topics, list_table)?;
            known.end()
        }
        TopicCommand::Describe(args) => {
            let mut known = known::topics(&args.connect.connect(host).await?, Some(&args.name)).await?;
            for topic in std::mem::take(&mut known.topics) {
                print(args.show, &One { topic: topic.into() }, |one| describe_table(&one.topic))?;
            }
            known.end()
        }
        TopicCommand::Delete(args) => delete(args, host).await,
        TopicCommand::Alter(args) => topic_change::alter(args, host).await,
        TopicCommand::AddPartitions(args) => topic_change::add_partitions(args, host).await,
    }
}

async fn delete(args: DeleteArgs, host: &Host) -> Outcome {
    let admin = args.connect.connect(host).await?.admin();
    let name = args.name;
    if args.change.dry_run {
        let topic = admin.describe_topic(name.clone()).await?;
        let would = format!("delete topic {name} with {} partitions and all records", topic.partitions.len());
        return Change::with(args.change, would, "", Deleted { deleted: name }).print(args.change);
    }
    admin.delete_topic(name.clone()).await?;
    let done = format!("deleted topic {name}");
    Change::with(args.change, "", done, Deleted { deleted: name }).print(args.change)
}

async fn create(args: CreateArgs, host: &Host) -> Outcome {
    let client = args.connect.connect(host).await?;
    let admin = client.admin();
    let batch_bytes_max = u32::try_from(args.batch_bytes_max.map_or(0, |size| size.0))
        .map_err(|_| Failure::new(Code::Usage, "--batch-bytes-max must be below 4GiB"))?;
    let config = TopicConfig {
        partitions: args.partitions,
        replicas: args.replicas,
        min_in_sync: args.min_in_sync.unwrap_or(args.replicas.saturating_sub(1).max(1)),
        retention_ms: args.retention.map_or(0, milliseconds),
        retention_bytes: args.retention_bytes.map_or(0, |size| size.0),
        segment_bytes: args.segment_bytes.map_or(0, |size| size.0),
        flush: FlushPolicy::from(args.flush).into(),
        flush_interval_ms: match args.flush {
            Flush::Interval => milliseconds(args.flush_interval),
            Flush::Os | Flush::Ack => 0,
        },
        on_pressure: OnPressure::from(args.on_pressure).into(),
        min_retention_ms: args.min_retention.map_or(0, milliseconds),
        batch_bytes_max,
        ..TopicConfig::default()
    };
    let of = |partitions: usize, replicas: u32| {
        format!("topic {} with {partitions} partitions of {replicas} replicas", args.name)
    };
    let undo = format!("plimsoll topic delete {}", args.name);
    if args.change.dry_run {
        check_creation(&client, &args)?;
        let partitions = usize::try_from(args.partitions).unwrap_or(usize::MAX);
        let would = format!("create {}", of(partitions, args.replicas));
        return Change::new(args.change, would, "").undo(undo).print(args.change);
    }
    admin.create_topic(args.name.clone(), config).await?;
    let topic: Topic = admin.describe_topic(args.name.clone()).await?.into();
    let done = format!("created {}", of(topic.partitions.len(), topic.replicas));
    Change::with(args.change, "", done, One { topic }).undo(undo).print(args.change)
}

/// What the controllers would refuse, as far as it can be seen from here.
fn check_creation(client: &plimsoll_client::Client, args: &CreateArgs) -> Outcome {
    let image = client.metadata();
    if let Err(invalid) = plimsoll_proto::ids::TopicName::new(args.name.clone()) {
        return Err(Failure::new(Code::Failed, format!("INVALID_TOPIC: {invalid}")));
    }
    if image.topic_by_name(&args.name).is_some() {
        return Err(Failure::new(Code::Failed, format!("TOPIC_EXISTS: there is a topic {}", args.name)));
    }
    let takes = |spu: &&plimsoll_proto::v1::SpuInfo| {
        spu.state() == plimsoll_proto::v1::SpuState::Online
            && spu.volumes.iter().any(|volume| volume.state() == plimsoll_client::VolumeState::Writable)
    };
    let nodes = image.spus.values().filter(takes).count();
    if usize::try_from(args.replicas).unwrap_or(usize::MAX) > nodes {
        let why = format!(
            "NO_PLACEMENT: {} replicas need as many nodes with room; there are {nodes}",
            args.replicas
        );
        return Err(Failure::new(Code::Failed, why));
    }
    Ok(())
}

pub(crate) fn milliseconds(span: Span) -> u64 {
    u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX)
}

impl From<TopicInfo> for Topic {
    fn from(info: TopicInfo) -> Self {
        let config = info.config.unwrap_or_default();
        let some = |value: u64| (value > 0).then_some(value);
        let id: String = info.topic_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let partitions = info.partitions.into_iter().map(|partition| Partition {
            index: partition.index,
            leader: (partition.leader > 0).then_some(partition.leader),
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            replicas: partition.replicas.iter().map(|replica| replica.spu_id).collect(),
            in_sync: partition.in_sync,
            eligible: partition.eligible,
            lossy_epoch: (partition.lossy_epoch > 0).then_some(partition.lossy_epoch),
        });
        Self {
            name: info.name,
            id,
            replicas: config.replicas,
            min_in_sync: config.min_in_sync,
            retention_ms: some(config.retention_ms),
            retention_bytes: some(config.retention_bytes),
            segment_bytes: some(config.segment_bytes),
            batch_bytes_max: (config.batch_bytes_max > 0).then_some(config.batch_bytes_max),
            flush: match config.flush() {
                FlushPolicy::Os | FlushPolicy::Unspecified => "os",
                FlushPolicy::Interval => "interval",
                FlushPolicy::Ack => "ack",
            },
            flush_interval_ms: some(config.flush_interval_ms),
            on_pressure: pressure_name(config.on_pressure()),
            min_retention_ms: some(config.min_retention_ms),
            partitions: partitions.collect(),
        }
    }
}

fn list_table(topics: &Topics, wide: bool) -> String {
    let rows: Vec<Vec<String>> = topics
        .topics
        .iter()
        .map(|topic| {
            let led = topic.partitions.iter().filter(|partition| partition.leader.is_some()).count();
            let mut row = vec![
                topic.name.clone(),
                topic.partitions.len().to_string(),
                led.to_string(),
                topic.replicas.to_string(),
                topic.min_in_sync.to_string(),
                topic.on_pressure.to_owned(),
            ];
            if wide {
                row.extend([kept(topic), topic.flush.to_owned(), topic.id.clone()]);
            }
            row
        })
        .collect();
    let mut header = vec!["topic", "partitions", "led", "replicas", "min in sync", "on pressure"];
    if wide {
        header.extend(["kept", "flush", "id"]);
    }
    table(&header, &rows)
}

/// How long and how much is kept, in words.
fn kept(topic: &Topic) -> String {
    match (topic.retention_ms, topic.retention_bytes) {
        (None, None) => "for ever".to_owned(),
        (Some(ms), None) => Span(std::time::Duration::from_millis(ms)).to_string(),
        (None, Some(bytes)) => format!("{} a partition", ByteSize(bytes)),
        (Some(ms), Some(bytes)) => {
            let age = Span(std::time::Duration::from_millis(ms));
            format!("{age} or {} a partition", ByteSize(bytes))
        }
    }
}

fn describe_table(topic: &Topic) -> String {
    let list = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let rows: Vec<Vec<String>> = topic
        .partitions
        .iter()
        .map(|partition| {
            vec![
                partition.index.to_string(),
                partition.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
                partition.leader_epoch.to_string(),
                list(&partition.replicas),
                list(&partition.in_sync),
                list(&partition.eligible),
            ]
        })
        .collect();
    format!(
        "topic {} ({})\n{} replicas, {} must be in sync; kept {}; flush {}; on pressure {}\n\n{}",
        topic.name,
        topic.id,
        topic.replicas,
        topic.min_in_sync,
        kept(topic),
        topic.flush,
        topic.on_pressure,
        table(&["partition", "leader", "epoch", "replicas", "in sync", "eligible"], &rows)
    )
}
