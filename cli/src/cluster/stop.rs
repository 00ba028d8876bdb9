//! `plimsoll cluster stop`.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use plimsoll_host::Host;
use plimsoll_host::config::Span;
use serde::Serialize;

use super::local::{DirArgs, Local, Member, Process, Role};
use crate::change::{Change, ChangeArgs, quoted};
use crate::exit::{Code, Failure, Outcome};
use crate::output::say;

const LOOK_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// On this machine
    #[arg(long)]
    local: bool,
    /// How long each kind of process may take
    #[arg(long, default_value = "30s")]
    timeout: Span,
    #[command(flatten)]
    dir: DirArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

/// What a local cluster consists of, for programs.
#[derive(Serialize)]
struct Stopped {
    dir: String,
    processes: Vec<Process>,
}

pub(crate) async fn run(args: StopArgs, host: &Host) -> Outcome {
    let dir = args.dir.path()?;
    let Some(local) = Local::load(&dir)? else {
        let why = format!("no cluster was ever started in {}; name its folder with --dir", dir.display());
        return Err(Failure::new(Code::NotFound, why));
    };
    let stopped = Stopped { dir: dir.display().to_string(), processes: local.processes(&dir) };
    let undo = format!("plimsoll cluster start --local --dir {}", quoted(&dir.display().to_string()));
    let names: Vec<String> = local.running(&dir).into_iter().map(Member::name).collect();
    if names.is_empty() {
        let already = format!("the cluster in {} is stopped already", dir.display());
        if args.change.output.for_people() {
            say(already);
            return Ok(());
        }
        return Change::with(args.change, already.clone(), already, stopped).print(args.change);
    }
    let would = format!("stop {} in {}", names.join(", "), dir.display());
    let done = format!("stopped the cluster in {}", dir.display());
    let change = Change::with(args.change, would, done, stopped).undo(undo);
    if args.change.dry_run {
        return change.print(args.change);
    }
    // Storage nodes first: they hand over to each other through the controllers.
    stop(&local, Role::Spu, &dir, &args, host).await?;
    stop(&local, Role::Controller, &dir, &args, host).await?;
    change.print(args.change)
}

async fn stop(local: &Local, role: Role, dir: &Path, args: &StopArgs, host: &Host) -> Outcome {
    for member in local.of(role) {
        member.terminate(dir)?;
    }
    let deadline = host.clock.now().saturating_add(args.timeout.0);
    loop {
        let left: Vec<&Member> = local.of(role).filter(|member| member.running(dir).is_some()).collect();
        if left.is_empty() {
            break;
        }
        if host.clock.now() >= deadline {
            let named: Vec<String> = left
                .iter()
                .map(|member| format!("{} (process {})", member.name(), member.running(dir).unwrap_or(0)))
                .collect();
            let why = format!(
                "{} did not stop within {}; see the logs in {}, wait on, or kill -9: nothing acknowledged is lost by that",
                named.join(", "),
                args.timeout,
                dir.display()
            );
            return Err(Failure::new(Code::TimedOut, why));
        }
        host.clock.sleep(LOOK_PAUSE).await;
    }
    local.of(role).try_for_each(|member| member.stopped(dir))
}
