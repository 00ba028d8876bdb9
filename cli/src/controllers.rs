//! `plimsoll controller`: the controllers, one joining or leaving at a time.

use clap::{Args, Subcommand};
use plimsoll_host::Host;
use plimsoll_proto::ids::ControllerId;
use plimsoll_proto::v1::{ClusterStatusResponse, ControllerStatus};
use serde::Serialize;

use crate::change::{Change, ChangeArgs};
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::given;
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
    if given::is_address(address) { Ok((id, address.to_owned())) } else { Err(wrong()) }
}

/// What the controllers would refuse, as far as their status tells.
fn check_joining(status: &ClusterStatusResponse, id: u64, address: &str) -> Outcome {
    match status.controllers.iter().find(|known| known.controller_id == id || known.address == address) {
        // Asked for again, it is there.
        Some(known) if known.controller_id == id && known.address == address => Ok(()),
        Some(known) if known.controller_id == id => {
            Err(invalid(format!("controller {id} is there already, at {}", known.address)))
        }
        Some(_) => Err(invalid(format!("{address} is another controller's address"))),
        None => Ok(()),
    }
}

/// As [`check_joining`].
fn check_leaving(status: &ClusterStatusResponse, id: u64) -> Outcome {
    check_there(status, id)?;
    let others = status.controllers.len() - 1;
    if others == 0 {
        return Err(invalid("the last controller can't be removed".to_owned()));
    }
    let answers = |known: &&ControllerStatus| known.controller_id != id && (known.leader || known.reachable);
    let reachable = status.controllers.iter().filter(answers).count();
    if reachable <= others / 2 {
        return Err(unmet(format!("without controller {id} only {reachable} of {others} answer")));
    }
    Ok(())
}

/// As [`check_joining`].
fn check_leading(status: &ClusterStatusResponse, id: u64) -> Outcome {
    let known = check_there(status, id)?;
    if known.leader || known.reachable {
        return Ok(());
    }
    Err(unmet(format!("controller {id} does not answer")))
}

fn check_there(status: &ClusterStatusResponse, id: u64) -> Result<&ControllerStatus, Failure> {
    let known = status.controllers.iter().find(|known| known.controller_id == id);
    known.ok_or_else(|| invalid(format!("there is no controller {id}")))
}

fn invalid(why: String) -> Failure {
    Failure::new(Code::Failed, format!("INVALID_ARGUMENT: {why}"))
}

fn unmet(why: String) -> Failure {
    Failure::new(Code::Failed, format!("EXPECTATION_FAILED: {why}"))
}

pub(crate) async fn run(command: ControllerCommand, host: &Host) -> Outcome {
    match command {
        ControllerCommand::Run(args) => server::run_controller(args, host).await,
        ControllerCommand::List(args) => list(args, host).await,
        ControllerCommand::Add(args) => {
            let admin = args.connect.connect(host).await?.admin();
            let (id, address) = args.member;
            if args.change.dry_run {
                check_joining(&admin.cluster_status().await?, id, &address)?;
            } else {
                admin.add_controller(ControllerId(id), address.clone()).await?;
            }
            let of = |verb: &str| format!("{verb} controller {id} at {address}");
            Change::new(args.change, of("add"), of("added"))
                .undo(format!("plimsoll controller remove {id}"))
                .print(args.change)
        }
        ControllerCommand::Remove(args) => {
            let admin = args.connect.connect(host).await?.admin();
            if args.change.dry_run {
                check_leaving(&admin.cluster_status().await?, args.id)?;
            } else {
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
    let status = admin.cluster_status().await?;
    let before = status.leader;
    if args.change.dry_run {
        check_leading(&status, args.id)?;
    } else {
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
        for wrong in ["h:7001", "0@h:7001", "x@h:7001", "@h:1", "9@nonsense", "9@", "9@h:0", "9@:7001"] {
            assert!(member(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_would_be_refused_is_seen_beforehand() {
        let status = |reachable: &[bool]| ClusterStatusResponse {
            leader: 1,
            controllers: (1..)
                .zip(reachable)
                .map(|(id, reachable)| ControllerStatus {
                    controller_id: id,
                    address: format!("c{id}:7001"),
                    leader: id == 1,
                    reachable: *reachable,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        let why = |done: Outcome| done.map_err(|failure| (failure.code, failure.message));
        let refused = |done: Outcome, words: &str| {
            let (code, message) = why(done).expect_err(words);
            assert!(code == 1 && message.contains(words), "{words}: {message}");
        };
        let (one, three, two_of_three) = (status(&[true]), status(&[true; 3]), status(&[true, true, false]));
        assert_eq!(why(check_joining(&three, 4, "c4:7001")), Ok(()));
        assert_eq!(why(check_joining(&three, 3, "c3:7001")), Ok(()));
        refused(check_joining(&three, 3, "c4:7001"), "controller 3 is there already, at c3:7001");
        refused(check_joining(&three, 4, "c3:7001"), "c3:7001 is another controller's address");
        assert_eq!(why(check_leaving(&three, 3)), Ok(()));
        assert_eq!(why(check_leaving(&two_of_three, 3)), Ok(()));
        refused(check_leaving(&three, 9), "there is no controller 9");
        refused(check_leaving(&one, 1), "the last controller can't be removed");
        refused(check_leaving(&two_of_three, 2), "without controller 2 only 1 of 2 answer");
        assert_eq!(why(check_leading(&three, 2)), Ok(()));
        refused(check_leading(&three, 9), "there is no controller 9");
        refused(check_leading(&two_of_three, 3), "controller 3 does not answer");
    }
}
