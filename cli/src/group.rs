//! `plimsoll group`.

pub(crate) mod reset;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use plimsoll_client::{Client, GroupError, PartitionId, Reason, TopicId};
use plimsoll_host::Host;
use plimsoll_host::config::Span;
use serde::Serialize;

use crate::change::{Change, ChangeArgs};
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{ShowArgs, print, table};
use reset::ResetArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Lists all groups
    List(ListArgs),
    /// Shows the members of a group and how far it has read
    Describe(DescribeArgs),
    /// Sets where a group without members goes on
    Reset(ResetArgs),
    /// Forgets a group without members, and its offsets
    Delete(DeleteArgs),
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
    group: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    group: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Serialize)]
struct Groups {
    groups: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    group: String,
    members: u32,
    partitions: u32,
    committed_ms: Option<u64>,
}

#[derive(Serialize)]
struct Described {
    group: String,
    coordinator: u32,
    members: Vec<Member>,
    offsets: Vec<Read>,
    lag: u64,
}

#[derive(Serialize)]
struct Member {
    member: String,
    name: String,
    topics: Vec<String>,
    partitions: Vec<String>,
    rebalancing: bool,
    heartbeat_age_ms: u64,
}

#[derive(Serialize)]
struct Read {
    topic: String,
    partition: u32,
    member: Option<String>,
    committed: Option<u64>,
    committed_ms: Option<u64>,
    end: u64,
    lag: u64,
}

pub(crate) async fn run(command: GroupCommand, host: &Host) -> Outcome {
    match command {
        GroupCommand::List(args) => {
            let groups = args.connect.connect(host).await?.list_groups().await?;
            let listed = |info: plimsoll_client::GroupInfo| Listed {
                group: info.group,
                members: info.members,
                partitions: info.offsets,
                committed_ms: (info.committed_ms > 0).then_some(info.committed_ms),
            };
            let now = host.clock.wall_ms();
            print(args.show, &Groups { groups: groups.into_iter().map(listed).collect() }, |groups| {
                list_table(groups, now)
            })
        }
        GroupCommand::Describe(args) => {
            let client = args.connect.connect(host).await?;
            print(args.show, &describe(&client, &args.group).await?, describe_table)
        }
        GroupCommand::Reset(args) => reset::reset(args, host).await,
        GroupCommand::Delete(args) => delete(args, host).await,
    }
}

fn name_of(client: &Client, topic_id: TopicId) -> String {
    let image = client.metadata();
    image.topics.get(&topic_id).map_or_else(|| topic_id.to_string(), |topic| topic.name.clone())
}

async fn describe(client: &Client, group: &str) -> Result<Described, Failure> {
    let described = client.group(group).describe().await?;
    let mut owners: BTreeMap<PartitionId, String> = BTreeMap::new();
    let mut members = Vec::new();
    for member in described.members {
        let mut partitions = Vec::new();
        for topic in &member.assigned {
            let Ok(topic_id) = TopicId::from_slice(&topic.topic_id) else { continue };
            for index in &topic.partitions {
                owners.insert(PartitionId { topic_id, index: *index }, member.member_id.clone());
                partitions.push(format!("{}/{index}", name_of(client, topic_id)));
            }
        }
        members.push(Member {
            member: member.member_id,
            name: member.client,
            topics: member.topics,
            partitions,
            rebalancing: member.rebalancing,
            heartbeat_age_ms: member.heartbeat_age_ms,
        });
    }
    let mut committed = BTreeMap::new();
    for offset in &described.offsets {
        let Ok(topic_id) = TopicId::from_slice(&offset.topic_id) else { continue };
        committed
            .insert(PartitionId { topic_id, index: offset.partition }, (offset.offset, offset.committed_ms));
    }
    let mut offsets = Vec::new();
    let mut all: Vec<PartitionId> = owners.keys().chain(committed.keys()).copied().collect();
    all.sort_unstable();
    all.dedup();
    for partition in all {
        // A topic that is gone has no end.
        if client.metadata().partition(&partition).is_none() {
            continue;
        }
        let ends = client.partition_ends(partition, None).await?;
        let at = committed.get(&partition).copied();
        let from = at.map_or(ends.log_start, |(offset, _)| offset.max(ends.log_start));
        offsets.push(Read {
            topic: name_of(client, partition.topic_id),
            partition: partition.index,
            member: owners.get(&partition).cloned(),
            committed: at.map(|(offset, _)| offset),
            committed_ms: at.map(|(_, ms)| ms),
            end: ends.high_watermark,
            lag: ends.high_watermark.saturating_sub(from),
        });
    }
    offsets.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    let lag = offsets.iter().map(|read| read.lag).sum();
    Ok(Described { group: group.to_owned(), coordinator: described.coordinator, members, offsets, lag })
}

async fn delete(args: DeleteArgs, host: &Host) -> Outcome {
    let client = args.connect.connect(host).await?;
    let group = client.group(args.group.clone());
    let described = group.describe().await?;
    if !args.change.dry_run {
        group.delete().await?;
    } else if !described.members.is_empty() {
        let why = format!("group {} has {} members; stop them first", args.group, described.members.len());
        return Err(Failure::new(Code::Failed, why));
    }
    let what = format!("group {} with offsets of {} partitions", args.group, described.offsets.len());
    Change::new(args.change, format!("delete {what}"), format!("deleted {what}")).print(args.change)
}

fn list_table(groups: &Groups, now_ms: u64) -> String {
    let rows: Vec<Vec<String>> = groups
        .groups
        .iter()
        .map(|group| {
            let age = |ms: u64| {
                let seconds = now_ms.saturating_sub(ms) / 1000;
                format!("{} ago", Span(std::time::Duration::from_secs(seconds)))
            };
            vec![
                group.group.clone(),
                group.members.to_string(),
                group.partitions.to_string(),
                group.committed_ms.map_or_else(|| "never".to_owned(), age),
            ]
        })
        .collect();
    table(&["group", "members", "partitions", "committed"], &rows)
}

fn describe_table(group: &Described) -> String {
    let short = |id: &str| id.chars().take(8).collect::<String>();
    let members: Vec<Vec<String>> = group
        .members
        .iter()
        .map(|member| {
            vec![
                short(&member.member),
                member.name.clone(),
                member.partitions.len().to_string(),
                if member.rebalancing { "rebalancing" } else { "stable" }.to_owned(),
                format!("{} ms", member.heartbeat_age_ms),
            ]
        })
        .collect();
    let offsets: Vec<Vec<String>> = group
        .offsets
        .iter()
        .map(|read| {
            vec![
                read.topic.clone(),
                read.partition.to_string(),
                read.member.as_deref().map_or_else(|| "none".to_owned(), short),
                read.committed.map_or_else(|| "nothing".to_owned(), |offset| offset.to_string()),
                read.end.to_string(),
                read.lag.to_string(),
            ]
        })
        .collect();
    format!(
        "group {}: {} members, lag {} records; coordinated by spu {}\n\n{}\n{}",
        group.group,
        group.members.len(),
        group.lag,
        group.coordinator,
        table(&["member", "name", "partitions", "state", "heartbeat"], &members),
        table(&["topic", "partition", "member", "committed", "end", "lag"], &offsets)
    )
}

impl From<GroupError> for Failure {
    fn from(error: GroupError) -> Self {
        let code = match (&error, error.reason()) {
            (_, Some(Reason::DiskFull | Reason::OffsetsFull)) => Code::DiskFull,
            (_, Some(Reason::UnknownGroup | Reason::UnknownTopic)) => Code::NotFound,
            (GroupError::TimedOut { .. }, _) => Code::TimedOut,
            (GroupError::Consume { error, .. }, _) => return error.clone().into(),
            (GroupError::Admin(error), _) => return error.clone().into(),
            (GroupError::Refused(_) | GroupError::Lost(_), _) => Code::Failed,
        };
        let remedy = match error.reason() {
            Some(Reason::UnknownGroup) => "\nsee which there are with `plimsoll group list`",
            Some(Reason::GroupActive) => "\nsee its members with `plimsoll group describe`",
            _ => "",
        };
        Self::new(code, format!("{error}{remedy}"))
    }
}
