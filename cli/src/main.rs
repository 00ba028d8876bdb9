//! `plimsoll`: runs the servers of a cluster and administers it.
//!
//! It holds no logic of its own: servers are in their crates, commands are calls of the SDK.

mod cluster;
mod connect;
mod consume;
mod disk;
mod events;
mod exit;
mod output;
mod produce;
mod server;
mod topic;
mod version;
mod volume;
mod words;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use plimsoll_host::Host;

use crate::exit::{Code, Failure, Outcome};

/// A distributed streaming log that treats a full disk as a state it passes through
///
/// Exit codes: 0 fine, 1 failed, 2 usage, 3 no connection, 4 not found, 5 directory locked or of another identity,
/// 6 port in use, 7 configuration, 20 refused for lack of disk space, 124 timed out.
#[derive(Debug, Parser)]
#[command(name = "plimsoll", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a controller
    #[command(subcommand)]
    Controller(ControllerCommand),
    /// Runs a storage node
    #[command(subcommand)]
    Spu(SpuCommand),
    /// Runs a controller and a storage node in one process
    Standalone(server::StandaloneArgs),
    /// Starts, stops and shows clusters
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Creates, lists, describes and deletes topics
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Sends each line of standard input as a record
    Produce(produce::ProduceArgs),
    /// Prints records
    Consume(consume::ConsumeArgs),
    /// Shows how full each volume is and why it is at its level
    Disk(disk::DiskArgs),
    /// Shows what the cluster committed about itself
    Events(events::EventsArgs),
    /// Shows the version
    Version(version::VersionArgs),
}

#[derive(Debug, Subcommand)]
enum ControllerCommand {
    /// Until SIGTERM
    Run(server::ControllerRunArgs),
}

#[derive(Debug, Subcommand)]
enum SpuCommand {
    /// Until SIGTERM
    Run(Box<server::SpuRunArgs>),
}

/// How long standard error may take for the last lines of a log.
const LOG_FLUSH_MAX: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = runtime(&command).and_then(|runtime| {
        let done = runtime.block_on(run(command));
        // A read of standard input that never returns must not hold the end up.
        runtime.shutdown_background();
        done
    });
    plimsoll_host::logging::flush(LOG_FLUSH_MAX);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::say(format!("plimsoll: {}", failure.message));
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Servers share the machine's cores; a command needs one.
fn runtime(command: &Command) -> Result<tokio::runtime::Runtime, Failure> {
    let serves = matches!(command, Command::Controller(_) | Command::Spu(_) | Command::Standalone(_));
    let mut builder = if serves {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build().map_err(|error| Failure::new(Code::Failed, format!("runtime: {error}")))
}

async fn run(command: Command) -> Outcome {
    let host = Host::real();
    match command {
        Command::Controller(ControllerCommand::Run(args)) => server::run_controller(args, &host).await,
        Command::Spu(SpuCommand::Run(args)) => server::run_spu(*args, &host).await,
        Command::Standalone(args) => server::run_standalone(args, &host).await,
        Command::Cluster(command) => cluster::run(command, &host).await,
        Command::Topic(command) => topic::run(command, &host).await,
        Command::Produce(args) => produce::run(args, &host).await,
        Command::Consume(args) => consume::run(args, &host).await,
        Command::Disk(args) => disk::run(args, &host).await,
        Command::Events(args) => events::run(args, &host).await,
        Command::Version(args) => version::run(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }
}
