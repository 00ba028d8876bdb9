//! `plimsoll cluster stop`.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use plimsoll_host::Host;
use plimsoll_host::config::Span;

use super::local::{DirArgs, Local, Member, Role};
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
    /// Says what would be stopped, and stops nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(args: StopArgs, host: &Host) -> Outcome {
    let dir = args.dir.path()?;
    let Some(local) = Local::load(&dir)? else {
        let why = format!("no cluster was ever started in {}; name its folder with --dir", dir.display());
        return Err(Failure::new(Code::NotFound, why));
    };
    if local.running(&dir).is_empty() {
        say(format!("the cluster in {} is stopped already", dir.display()));
        return Ok(());
    }
    if args.dry_run {
        let names: Vec<String> = local.running(&dir).into_iter().map(Member::name).collect();
        say(format!("would stop {} in {}; nothing was changed", names.join(", "), dir.display()));
        return Ok(());
    }
    // Storage nodes first: they hand over to each other through the controllers.
    stop(&local, Role::Spu, &dir, &args, host).await?;
    stop(&local, Role::Controller, &dir, &args, host).await?;
    say(format!(
        "stopped the cluster in {}; `plimsoll cluster start --local --dir {}` starts it again",
        dir.display(),
        dir.display()
    ));
    Ok(())
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
