//! `plimsoll cluster status`.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use plimsoll_client::{AdminError, Client, ClusterStatusResponse};
use plimsoll_host::Host;
use serde::Serialize;

use super::local::{DirArgs, Local};
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{ShowArgs, print_wide, say, table};
use crate::volume::{Volume, gauge, volumes_of};
use crate::words;

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Of the cluster started on this machine, with its processes
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    dir: DirArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Serialize)]
pub(crate) struct Status {
    cluster_id: String,
    leader: Option<u64>,
    /// The controller that answered does not lead: it may be old.
    stale: bool,
    no_quorum: bool,
    answered_by: Option<u64>,
    term: u64,
    applied_index: u64,
    controllers: Vec<Controller>,
    spus: Vec<Spu>,
    topics: u32,
    partitions: u32,
    partitions_without_leader: u32,
    partitions_under_replicated: u32,
    partitions_below_min_in_sync: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<Vec<Process>>,
}

#[derive(Serialize)]
struct Controller {
    id: u64,
    address: String,
    leader: bool,
    reachable: bool,
    applied_index: u64,
    /// Its disk has too little room for more topics.
    disk_full: bool,
}

#[derive(Serialize)]
struct Spu {
    id: u32,
    state: &'static str,
    address: String,
    rack: String,
    incarnation: u64,
    heartbeat_age_ms: Option<u64>,
    volumes: Vec<Volume>,
}

#[derive(Serialize)]
struct Process {
    name: String,
    address: String,
    pid: Option<u32>,
}

pub(crate) async fn run(args: StatusArgs, host: &Host) -> Outcome {
    let mut connect = args.connect.clone();
    let mut processes = None;
    if args.local || args.dir.dir.is_some() {
        let dir = args.dir.path()?;
        let Some(local) = Local::load(&dir)? else {
            let why = format!(
                "no cluster was ever started in {}; start one with `plimsoll cluster start --local --dir {}`",
                dir.display(),
                dir.display()
            );
            return Err(Failure::new(Code::NotFound, why));
        };
        let found = look(&local, &dir);
        if found.iter().all(|process| process.pid.is_none()) {
            say(format!("the cluster in {} is stopped", dir.display()));
            return Err(Failure { code: Code::NoConnection as u8, message: String::new() });
        }
        connect.controllers = local.controllers();
        processes = Some(found);
    }
    let answer = status_of(&connect.connect(host).await?).await?;
    let status = Status { processes, ..Status::from(answer) };
    print_wide(args.show, &status, show)?;
    if status.no_quorum {
        let why = "NO_QUORUM: no controller leads; more than half of them must run and reach each other\nstart those that are down; until then leaders stay where they are";
        return Err(Failure::new(Code::NoConnection, why));
    }
    Ok(())
}

/// How long the leading controller may take before another one is asked for what it knows.
const LEADER_MAX: Duration = Duration::from_secs(2);

/// What the leading controller says, else what any other knows.
pub(crate) async fn status_of(client: &Client) -> Result<ClusterStatusResponse, AdminError> {
    match client.admin().timeout_at_most(LEADER_MAX).cluster_status().await {
        Err(AdminError::NoController { .. } | AdminError::TimedOut { .. }) => {
            client.admin().stale_cluster_status().await
        }
        done => done,
    }
}

fn look(local: &Local, dir: &Path) -> Vec<Process> {
    let look = |member: &super::local::Member| Process {
        name: member.name(),
        address: member.address.clone(),
        pid: member.running(dir),
    };
    local.members.iter().map(look).collect()
}

impl From<ClusterStatusResponse> for Status {
    fn from(answer: ClusterStatusResponse) -> Self {
        let controllers = answer.controllers.into_iter().map(|controller| Controller {
            id: controller.controller_id,
            address: controller.address,
            leader: controller.leader,
            reachable: controller.reachable,
            applied_index: controller.applied_index,
            disk_full: controller.disk_full,
        });
        let spus = answer.spus.iter().map(|spu| {
            let info = spu.info.clone().unwrap_or_default();
            let volumes = volumes_of(spu);
            Spu {
                id: info.spu_id,
                state: words::spu_state(info.state()),
                address: info.address,
                rack: info.rack,
                incarnation: info.incarnation,
                heartbeat_age_ms: (spu.heartbeat_age_ms > 0).then_some(spu.heartbeat_age_ms),
                volumes,
            }
        });
        Self {
            cluster_id: words::hex(&answer.cluster_id),
            leader: (answer.leader > 0).then_some(answer.leader),
            stale: answer.stale,
            no_quorum: answer.no_quorum || answer.leader == 0,
            answered_by: (answer.answered_by > 0).then_some(answer.answered_by),
            term: answer.term,
            applied_index: answer.applied_index,
            controllers: controllers.collect(),
            spus: spus.collect(),
            topics: answer.topics,
            partitions: answer.partitions,
            partitions_without_leader: answer.partitions_without_leader,
            partitions_under_replicated: answer.partitions_under_replicated,
            partitions_below_min_in_sync: answer.partitions_below_min_in_sync,
            processes: None,
        }
    }
}

fn show(status: &Status, wide: bool) -> String {
    let leader = match status.leader {
        Some(leader) => format!("controller {leader} leads in term {}", status.term),
        None => "no controller leads".to_owned(),
    };
    let mut text =
        format!("cluster {}: {leader}, entry {} applied\n", status.cluster_id, status.applied_index);
    if status.stale {
        let who =
            status.answered_by.map_or_else(|| "a controller".to_owned(), |id| format!("controller {id}"));
        text.push_str(&format!("as {who} knows it, which does not lead: it may be old\n"));
    }
    text.push('\n');
    let rows: Vec<Vec<String>> = status
        .controllers
        .iter()
        .map(|controller| {
            let state = match (controller.leader, controller.reachable) {
                (true, _) => "leads",
                (false, _) if status.leader.is_none() => "unknown",
                (false, true) => "follows",
                (false, false) => "not heard of",
            };
            let mut row = vec![controller.id.to_string(), controller.address.clone(), state.to_owned()];
            if wide {
                row.push(controller.applied_index.to_string());
            }
            row
        })
        .collect();
    let header = ["controller", "address", "state", "applied"];
    text.push_str(&table(if wide { &header } else { &header[..3] }, &rows));
    text.push('\n');
    let mut rows = Vec::new();
    for spu in &status.spus {
        let age = spu.heartbeat_age_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        let mut first = Some(vec![
            spu.id.to_string(),
            spu.address.clone(),
            spu.state.to_owned(),
            spu.incarnation.to_string(),
            age,
        ]);
        for volume in &spu.volumes {
            let mut row = first.take().unwrap_or_else(|| vec![String::new(); 5]);
            let level = volume.level.unwrap_or("unknown");
            row.extend([volume.path.clone(), level.to_owned(), gauge(volume)]);
            rows.push(row);
        }
        rows.extend(first);
    }
    text.push_str(&table(
        &["spu", "address", "state", "incarnation", "heard", "volume", "level", "not free"],
        &rows,
    ));
    text.push_str(&format!(
        "\ntopics {}, partitions {}: {} without leader, {} under-replicated, {} below min in sync\n",
        status.topics,
        status.partitions,
        status.partitions_without_leader,
        status.partitions_under_replicated,
        status.partitions_below_min_in_sync
    ));
    if let Some(processes) = &status.processes {
        let rows: Vec<Vec<String>> = processes
            .iter()
            .map(|process| {
                let pid = process.pid.map_or_else(|| "stopped".to_owned(), |pid| pid.to_string());
                vec![process.name.clone(), process.address.clone(), pid]
            })
            .collect();
        text.push('\n');
        text.push_str(&table(&["process", "address", "pid"], &rows));
    }
    text
}
