//! `plimsoll-chaos`: breaks clusters on purpose and tells what came of it.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use plimsoll_chaos::demo::{self, Options, Verdict};
use plimsoll_chaos::rig::{DiskKind, privilege};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(
    name = "plimsoll-chaos",
    version,
    about = "Breaks Plimsoll clusters on purpose and tells what came of it"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Three storage nodes, real disks that fill, and a client that loses nothing
    Demo(Demo),
}

#[derive(Args)]
struct Demo {
    /// Print the result as one JSON object on standard output, the story on standard error
    #[arg(long)]
    json: bool,
    /// No colours, also on a terminal
    #[arg(long)]
    no_color: bool,
    /// Leave disks and logs in place; the next run removes them
    #[arg(long)]
    keep: bool,
    /// Pace of the flights as a multiple of the usual one
    #[arg(long, default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// What the disks shall be. Simulated ones are plain folders with a byte limit inside of the servers; tmpfs falls
    /// back to them where nothing can be mounted. As root a run on simulated disks counts as failed
    #[arg(long, value_enum, default_value_t = DiskKind::Tmpfs, env = "PLIMSOLL_DEMO_RIG")]
    rig: DiskKind,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if (0.1..=20.0).contains(&factor) => Ok(factor),
        _ => Err("a factor from 0.1 to 20".to_owned()),
    }
}

fn main() -> ExitCode {
    let Command::Demo(arguments) = Cli::parse().command;
    // First thing, because it may run this program again in namespaces of its own.
    let privilege = privilege();
    let options = Options {
        json: arguments.json,
        colour: !arguments.no_color && std::env::var_os("NO_COLOR").is_none(),
        keep: arguments.keep,
        speed: arguments.speed,
        privilege,
        disks: arguments.rig,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("plimsoll-chaos: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    // The story runs in the main thread: the servers end with the thread that started them.
    runtime.block_on(async {
        tokio::select! {
            verdict = demo::run(options) => match verdict {
                Verdict::Pass => ExitCode::SUCCESS,
                Verdict::Fail => ExitCode::FAILURE,
            },
            () = interrupted() => {
                eprintln!("\nplimsoll-chaos: interrupted; everything is cleaned up");
                ExitCode::from(130)
            }
        }
    })
}

/// Ctrl-C, or a request to end.
async fn interrupted() {
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}
