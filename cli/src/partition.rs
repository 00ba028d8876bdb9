//! `plimsoll partition`.

use clap::{Args, Subcommand};
use plimsoll_client::TopicInfo;
use plimsoll_host::Host;
use serde::Serialize;

use crate::connect::ConnectArgs;
use crate::elect;
use crate::exit::Outcome;
use crate::known;
use crate::moves;
use crate::output::{ShowArgs, print, table};

#[derive(Debug, Subcommand)]
pub(crate) enum PartitionCommand {
    /// Lists partitions with their leaders and replicas
    List(ListArgs),
    /// Moves a partition to other nodes, without losing a copy
    Reassign(moves::ReassignArgs),
    /// Moves replicas off volumes that are short of room
    Relief(moves::ReliefArgs),
    /// Elects a leader; says first what each replica holds and what its election would lose
    Elect(elect::ElectArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Of this topic only
    topic: Option<String>,
    /// Only those with fewer in-sync replicas than replicas, or without a leader
    #[arg(long)]
    broken: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Serialize)]
struct Partitions {
    partitions: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    topic: String,
    partition: u32,
    leader: Option<u32>,
    leader_epoch: u32,
    replicas: Vec<u32>,
    in_sync: Vec<u32>,
}

pub(crate) async fn run(command: PartitionCommand, host: &Host) -> Outcome {
    match command {
        PartitionCommand::List(args) => list(args, host).await,
        PartitionCommand::Reassign(args) => moves::reassign(args, host).await,
        PartitionCommand::Relief(args) => moves::relief(args, host).await,
        PartitionCommand::Elect(args) => elect::elect(args, host).await,
    }
}

async fn list(args: ListArgs, host: &Host) -> Outcome {
    let known = known::topics(&args.connect.connect(host).await?, args.topic.as_deref()).await?;
    let mut partitions = Partitions { partitions: known.topics.iter().flat_map(rows).collect() };
    if args.broken {
        let broken = |row: &Row| row.leader.is_none() || row.in_sync.len() < row.replicas.len();
        partitions.partitions.retain(broken);
    }
    print(args.show, &partitions, |listed| {
        let ids = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let rows: Vec<Vec<String>> = listed
            .partitions
            .iter()
            .map(|row| {
                vec![
                    format!("{}/{}", row.topic, row.partition),
                    row.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
                    row.leader_epoch.to_string(),
                    ids(&row.replicas),
                    ids(&row.in_sync),
                ]
            })
            .collect();
        table(&["partition", "leader", "epoch", "replicas", "in sync"], &rows)
    })?;
    known.end()
}

fn rows(topic: &TopicInfo) -> Vec<Row> {
    let row = |partition: &plimsoll_proto::v1::PartitionInfo| Row {
        topic: topic.name.clone(),
        partition: partition.index,
        leader: (partition.leader > 0).then_some(partition.leader),
        leader_epoch: partition.leader_epoch,
        replicas: partition.replicas.iter().map(|replica| replica.spu_id).collect(),
        in_sync: partition.in_sync.clone(),
    };
    topic.partitions.iter().map(row).collect()
}
