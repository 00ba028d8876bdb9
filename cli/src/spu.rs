//! `plimsoll spu`: storage nodes, and what is asked of them.

use clap::{Args, Subcommand};
use plimsoll_client::{Client, SpuId};
use plimsoll_host::Host;
use plimsoll_proto::v1::{SpuDuty, SpuStatus};
use serde::Serialize;

use crate::change::{Change, ChangeArgs};
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{ShowArgs, print, table};
use crate::server::SpuRunArgs;
use crate::volume::{Volume, gauge, volumes_of, why};
use crate::{server, words};

#[derive(Debug, Subcommand)]
pub(crate) enum SpuCommand {
    /// Runs a storage node until SIGTERM
    Run(Box<SpuRunArgs>),
    /// Lists all storage nodes
    List(ListArgs),
    /// Shows one storage node with its volumes
    Describe(DescribeArgs),
    /// Keeps new replicas and leaderships away from a node; it keeps what it has
    Cordon(DutyArgs),
    /// Moves leaderships, then replicas, off a node; `spu online` calls it off
    Drain(DutyArgs),
    /// Brings a node back that was cordoned, drained or taken offline
    Online(DutyArgs),
    /// Takes a node out of service until `spu online`
    Offline(OfflineArgs),
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
    /// Number of the node
    spu: u32,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DutyArgs {
    /// Number of the node
    spu: u32,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OfflineArgs {
    #[command(flatten)]
    duty: DutyArgs,
    /// Also when it has the only living in-sync copy of a partition, which then can't be written
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Spus {
    spus: Vec<Spu>,
}

#[derive(Serialize)]
struct One {
    spu: Spu,
}

#[derive(Serialize)]
struct Spu {
    id: u32,
    state: &'static str,
    duty: &'static str,
    address: String,
    rack: String,
    incarnation: u64,
    heartbeat_age_ms: Option<u64>,
    leaders: u32,
    replicas: u32,
    volumes: Vec<Volume>,
}

pub(crate) async fn run(command: SpuCommand, host: &Host) -> Outcome {
    match command {
        SpuCommand::Run(args) => server::run_spu(*args, host).await,
        SpuCommand::List(args) => {
            let spus = all(&args.connect.connect(host).await?).await?;
            print(args.show, &Spus { spus }, |spus| list_table(&spus.spus))
        }
        SpuCommand::Describe(args) => {
            let spus = all(&args.connect.connect(host).await?).await?;
            let spu = spus.into_iter().find(|spu| spu.id == args.spu).ok_or_else(|| unknown(args.spu))?;
            print(args.show, &One { spu }, |one| describe(&one.spu))
        }
        SpuCommand::Cordon(args) => set(args, SpuDuty::Cordoned, false, host).await,
        SpuCommand::Drain(args) => set(args, SpuDuty::Draining, false, host).await,
        SpuCommand::Online(args) => set(args, SpuDuty::Serving, false, host).await,
        SpuCommand::Offline(OfflineArgs { duty, force }) => set(duty, SpuDuty::Offline, force, host).await,
    }
}

fn unknown(spu: u32) -> Failure {
    let why = format!("there is no storage node {spu}\nsee which there are with `plimsoll spu list`");
    Failure::new(Code::NotFound, why)
}

async fn all(client: &Client) -> Result<Vec<Spu>, Failure> {
    let status = client.admin().cluster_status().await?;
    let image = client.metadata();
    let partitions = || image.topics.values().flat_map(|topic| &topic.partitions);
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let spu = |status: &SpuStatus| {
        let info = status.info.clone().unwrap_or_default();
        let holds = partitions().filter(|p| p.replicas.iter().any(|replica| replica.spu_id == info.spu_id));
        Spu {
            id: info.spu_id,
            state: words::spu_state(info.state()),
            duty: words::duty(info.duty()),
            address: info.address.clone(),
            rack: info.rack.clone(),
            incarnation: info.incarnation,
            heartbeat_age_ms: (status.heartbeat_age_ms > 0).then_some(status.heartbeat_age_ms),
            leaders: count(partitions().filter(|p| p.leader == info.spu_id).count()),
            replicas: count(holds.count()),
            volumes: volumes_of(status),
        }
    };
    Ok(status.spus.iter().map(spu).collect())
}

fn list_table(spus: &[Spu]) -> String {
    let rows: Vec<Vec<String>> = spus
        .iter()
        .map(|spu| {
            vec![
                spu.id.to_string(),
                spu.address.clone(),
                spu.state.to_owned(),
                spu.duty.to_owned(),
                if spu.rack.is_empty() { "-".to_owned() } else { spu.rack.clone() },
                spu.heartbeat_age_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
                spu.leaders.to_string(),
                spu.replicas.to_string(),
                spu.volumes.len().to_string(),
            ]
        })
        .collect();
    table(&["spu", "address", "state", "duty", "rack", "heard", "led", "replicas", "volumes"], &rows)
}

fn describe(spu: &Spu) -> String {
    let rack = if spu.rack.is_empty() { "no rack" } else { spu.rack.as_str() };
    let heard = spu.heartbeat_age_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms ago"));
    let drained = spu.duty == "draining" && spu.replicas == 0;
    let rows: Vec<Vec<String>> = spu
        .volumes
        .iter()
        .map(|volume| {
            vec![
                volume.path.clone(),
                volume.level.unwrap_or("unknown").to_owned(),
                gauge(volume),
                format!("{}/{}", volume.leaders, volume.replicas),
                why(volume),
            ]
        })
        .collect();
    format!(
        "storage node {} at {}, {rack}\n{}, duty {}{}; incarnation {}, heard of {heard}\nleads {} of {} replicas\n\n{}",
        spu.id,
        spu.address,
        spu.state,
        spu.duty,
        if drained { " (done: nothing is left on it)" } else { "" },
        spu.incarnation,
        spu.leaders,
        spu.replicas,
        table(&["volume", "level", "not free", "led", "why"], &rows)
    )
}

async fn set(args: DutyArgs, duty: SpuDuty, force: bool, host: &Host) -> Outcome {
    let client = args.connect.connect(host).await?;
    let id = SpuId(args.spu);
    let Some(known) = client.metadata().spus.get(&id).cloned() else { return Err(unknown(args.spu)) };
    let before =
        if args.change.dry_run { known.duty() } else { client.admin().set_spu_duty(id, duty, force).await? };
    let (would, done) = match duty {
        SpuDuty::Serving => ("bring back", "brought back"),
        SpuDuty::Cordoned => ("cordon", "cordoned"),
        SpuDuty::Draining => ("drain", "draining"),
        SpuDuty::Offline => ("take offline", "took offline"),
    };
    let of = |verb: &str| format!("{verb} storage node {id}, which was {}", words::duty(before));
    let change = Change::new(args.change, of(would), of(done));
    let back = match before {
        _ if before == duty => None,
        SpuDuty::Serving => Some("online"),
        SpuDuty::Cordoned => Some("cordon"),
        SpuDuty::Draining => Some("drain"),
        SpuDuty::Offline => Some("offline"),
    };
    match back {
        Some(verb) => change.undo(format!("plimsoll spu {verb} {id}")).print(args.change),
        None => change.print(args.change),
    }
}
