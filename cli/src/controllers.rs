//! `plimsoll controller`: the controllers, one joining or leaving at a time.

use clap::{Args, Subcommand};
use plimsoll_host::Host;
use plimsoll_proto::ids::ControllerId;
use serde::Serialize;

use crate::change::{Change, ChangeArgs};
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{ShowArgs, print, table};
use crate::server::{self, ControllerRunArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum ControllerCommand {
    /// Runs a controller until SIGTERM
    Run(ControllerRunArgs),
    /// Lists the controllers
    List(ListArgs),
    /// Takes a controller into the cluster that was started with --join
    Add(AddArgs),
    /// Removes a controller; its number is never used again
    Remove(IdArgs),
    /// Makes a controller lead
    Transfer(IdArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The new controller
    #[arg(value_name = "ID@HOST:PORT", value_parser = member)]
    member: (u64, String),
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    /// Number of the controller
    id: u64,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Serialize)]
struct Controllers {
    controllers: Vec<Controller>,
}

#[derive(Serialize)]
struct Controller {
    id: u64,
    address: String,
    leader: bool,
    reachable: bool,
    applied_index: u64,
    disk_full: bool,
}

fn member(text: &str) -> Result<(u64, String), String> {
    let wrong = || format!("'{text}' is not ID@HOST:PORT");
    let (id, address) = text.split_once('@').ok_or_else(wrong)?;
    let id = id.parse().ok().filter(|id| *id > 0).ok_or_else(wrong)?;
    Ok((id, address.to_owned()))
}

pub(crate) async fn run(command: ControllerCommand, host: &Host) -> Outcome {
    match command {
        ControllerCommand::Run(args) => server::run_controller(args, host).await,
        ControllerCommand::List(args) => list(args, host).await,
        ControllerCommand::Add(args) => {
            let admin = args.connect.connect(host).await?.admin();
            let (id, address) = args.member;
            if !args.change.dry_run {
                admin.add_controller(ControllerId(id), address.clone()).await?;
            }
            let of = |verb: &str| format!("{verb} controller {id} at {address}");
            Change::new(args.change, of("add"), of("added"))
                .undo(format!("plimsoll controller remove {id}"))
                .print(args.change)
        }
        ControllerCommand::Remove(args) => {
            let admin = args.connect.connect(host).await?.admin();
            if !args.change.dry_run {
                admin.remove_controller(ControllerId(args.id)).await?;
            }
            let of = |verb: &str| format!("{verb} controller {}", args.id);
            Change::new(args.change, of("remove"), of("removed")).print(args.change)
        }
        ControllerCommand::Transfer(args) => transfer(args, host).await,
    }
}

async fn list(args: ListArgs, host: &Host) -> Outcome {
    let status = args.connect.connect(host).await?.admin().cluster_status().await?;
    let controllers = status.controllers.into_iter().map(|controller| Controller {
        id: controller.controller_id,
        address: controller.address,
        leader: controller.leader,
        reachable: controller.reachable,
        applied_index: controller.applied_index,
        disk_full: controller.disk_full,
    });
    print(args.show, &Controllers { controllers: controllers.collect() }, |all| {
        let row = |controller: &Controller| {
            let state = match (controller.leader, controller.reachable) {
                (true, _) => "leads",
                (false, true) => "follows",
                (false, false) => "not heard of",
            };
            let disk = if controller.disk_full { "full" } else { "has room" };
            let applied = controller.applied_index.to_string();
            vec![
                controller.id.to_string(),
                controller.address.clone(),
                state.to_owned(),
                applied,
                disk.to_owned(),
            ]
        };
        let rows: Vec<_> = all.controllers.iter().map(row).collect();
        table(&["controller", "address", "state", "entries", "disk"], &rows)
    })
}

async fn transfer(args: IdArgs, host: &Host) -> Outcome {
    let admin = args.connect.connect(host).await?.admin();
    let before = admin.cluster_status().await?.leader;
    if !args.change.dry_run {
        let leads = admin.transfer_controller(ControllerId(args.id)).await?;
        if leads.0 != args.id {
            return Err(Failure::new(Code::Failed, format!("controller {leads} leads")));
        }
    }
    let of = |verb: &str| format!("{verb} the lead from controller {before} to {}", args.id);
    Change::new(args.change, of("move"), of("moved"))
        .undo(format!("plimsoll controller transfer {before}"))
        .print(args.change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_a_number_and_an_address() {
        assert_eq!(member("4@h:7001"), Ok((4, "h:7001".to_owned())));
        for wrong in ["h:7001", "0@h:7001", "x@h:7001", "@h:1"] {
            assert!(member(wrong).is_err(), "{wrong}");
        }
    }
}
