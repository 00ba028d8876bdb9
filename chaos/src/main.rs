//! `plimsoll-chaos`: breaks clusters on purpose and tells what came of it.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use plimsoll_chaos::demo::{self, Options, Verdict};
use plimsoll_chaos::rig::{DiskKind, last_run, privilege};
use plimsoll_chaos::scenario::{self, Show, Totals};
use plimsoll_chaos::screen::Screen;
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
    /// Names every scenario
    List,
    /// Runs scenarios, each on a cluster of its own
    Run(RunArguments),
    /// Shows what came of the last run
    Report {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct RunArguments {
    /// Which; see `list`
    #[arg(value_name = "SCENARIO", required_unless_present_any = ["all", "smoke"])]
    scenarios: Vec<String>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// The quick ones
    #[arg(long, conflicts_with = "all")]
    smoke: bool,
    /// Print the outcomes as one JSON array on standard output, everything else on standard error
    #[arg(long)]
    json: bool,
    /// No colours, also on a terminal
    #[arg(long)]
    no_color: bool,
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
    match Cli::parse().command {
        Command::Demo(arguments) => demo(arguments),
        Command::List => {
            for scenario in scenario::all() {
                let set = if scenario.smoke { "smoke" } else { "" };
                println!("{:<32} {set:<6} {}", scenario.name, scenario.about);
            }
            ExitCode::SUCCESS
        }
        Command::Run(arguments) => run(&arguments),
        Command::Report { json } => report(json),
    }
}

fn demo(arguments: Demo) -> ExitCode {
    // First thing, because it may run this program again in namespaces of its own.
    let privilege = privilege();
    let options = Options {
        json: arguments.json,
        colour: colour(arguments.no_color),
        keep: arguments.keep,
        speed: arguments.speed,
        privilege,
        disks: arguments.rig,
    };
    to_the_end(async move {
        match demo::run(options).await {
            Verdict::Pass => ExitCode::SUCCESS,
            Verdict::Fail => ExitCode::FAILURE,
        }
    })
}

fn colour(no_color: bool) -> bool {
    !no_color && std::env::var_os("NO_COLOR").is_none()
}

fn run(arguments: &RunArguments) -> ExitCode {
    let _may_mount = privilege();
    let all = scenario::all();
    let mut chosen = Vec::new();
    for name in &arguments.scenarios {
        let Some(found) = all.iter().find(|scenario| scenario.name == name) else {
            eprintln!("plimsoll-chaos: there is no scenario {name}; see `plimsoll-chaos list`");
            return ExitCode::from(2);
        };
        chosen.push(*found);
    }
    if arguments.all || arguments.smoke {
        chosen = all.into_iter().filter(|scenario| arguments.all || scenario.smoke).collect();
    }
    let (json, colour) = (arguments.json, colour(arguments.no_color));
    to_the_end(async move {
        let host = plimsoll_host::Host::real();
        let screen = Screen::new(host.clock.clone(), colour, json);
        let show = Show { host, screen };
        let mut outcomes = Vec::new();
        for scenario in chosen {
            show.screen.heading(&format!("{}: {}", scenario.name, scenario.about));
            let outcome = scenario.run(&show).await;
            show.screen.say(&outcome.line());
            show.screen.detail(&outcome.reasons.join("\n"));
            outcomes.push(outcome);
        }
        let totals = Totals::of(&outcomes);
        let text = serde_json::to_string(&outcomes).unwrap_or_default();
        if let Err(error) = last_run::save(&text) {
            show.screen.say(&format!("the report of this run is not kept: {error:#}"));
        }
        println!("{}", if json { text } else { totals.line() });
        if totals.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    })
}

fn report(json: bool) -> ExitCode {
    let outcomes = match last_run::load() {
        Ok(text) if json => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Ok(text) => serde_json::from_str::<Vec<scenario::Outcome>>(&text).map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    match outcomes {
        Ok(outcomes) => {
            for outcome in &outcomes {
                println!("{}", outcome.line());
                for reason in &outcome.reasons {
                    println!("    {reason}");
                }
            }
            println!("{}", Totals::of(&outcomes).line());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("plimsoll-chaos: no run to report: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn to_the_end(work: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("plimsoll-chaos: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    // It runs in the main thread: the servers end with the thread that started them.
    runtime.block_on(async {
        tokio::select! {
            code = work => code,
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
