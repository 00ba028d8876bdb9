//! `plimsoll-chaos`: breaks clusters on purpose and tells what came of it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use plimsoll_chaos::demo::{self, Options, Verdict};
use plimsoll_chaos::nemesis::short_writes;
use plimsoll_chaos::rig::network::leave_the_machines_network;
use plimsoll_chaos::rig::{DiskKind, Privilege, last_run, privilege};
use plimsoll_chaos::scenario::{self, Outcome, Show, Totals, liveness};
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
    /// Breaks clusters for hours, in rounds whose faults a seed chooses
    Soak(SoakArguments),
    /// Drills a running cluster: one volume behaves as if it were full, and the same is judged. Takes no space
    Drill(DrillArguments),
    /// Proves that silence is not death, and that what is dead is replaced in time; ends with a line for scripts/prove
    Liveness(LivenessArguments),
    /// What the scenario `short-writes` runs beside a server: cuts its writes until standard input ends
    #[command(name = short_writes::COMMAND, hide = true)]
    CutWrites { pid: u32 },
    /// Shows what came of the last run
    Report {
        /// As JSON, with everything that was recorded over time
        #[arg(long)]
        json: bool,
        /// Write the page with the timelines here
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
}

/// How outcomes are shown.
#[derive(Args)]
struct Output {
    /// Print the outcomes as one JSON array on standard output, everything else on standard error
    #[arg(long)]
    json: bool,
    /// No colours, also on a terminal
    #[arg(long)]
    no_color: bool,
    /// Fixes what is left to chance; by default 1
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the page with the timelines here, too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Args)]
struct SoakArguments {
    /// No round begins after so many hours; the last one is played to its end
    #[arg(long, default_value_t = 1.0)]
    hours: f64,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct DrillArguments {
    /// Address of a controller of the running cluster; may be repeated
    #[arg(long, value_name = "HOST:PORT", required = true)]
    controller: Vec<String>,
    /// This storage node; by default one that leads
    #[arg(long)]
    spu: Option<u32>,
    /// Its volume
    #[arg(long, value_name = "PATH", requires = "spu")]
    volume: Option<String>,
    /// Records of 512 bytes a second that are written to a topic of the drill's own meanwhile
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(50..=100_000))]
    rate: u32,
    /// How long the volume stays full in pretence once its leaders have moved
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct LivenessArguments {
    /// Which parts; all by default
    #[arg(value_name = "PART")]
    parts: Vec<String>,
    /// One cluster, a few faults once each
    #[arg(long, conflicts_with = "parts")]
    quick: bool,
    /// At most so many repetitions of each fault
    #[arg(long, value_name = "N", default_value_t = u32::MAX, hide_default_value = true)]
    times: u32,
    /// Fixes what is left to chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
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
    #[command(flatten)]
    output: Output,
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
        Command::Run(arguments) => run(arguments),
        Command::Soak(arguments) => soak(arguments),
        Command::Drill(arguments) => drill(arguments),
        Command::Liveness(arguments) => liveness(arguments),
        Command::CutWrites { pid } => match short_writes::cut(pid) {
            Ok(cut) => {
                println!("{cut}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("plimsoll-chaos: {error:#}");
                ExitCode::FAILURE
            }
        },
        Command::Report { json, html } => report(json, html.as_deref()),
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

fn run(arguments: RunArguments) -> ExitCode {
    let no_network = set_up();
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
    let output = arguments.output;
    to_the_end(async move {
        let show = show(&output, no_network);
        let mut outcomes = Vec::new();
        for scenario in chosen {
            show.screen.heading(&format!("{}: {}", scenario.name, scenario.about));
            let outcome = scenario.run(&show).await;
            tell(&show, &outcome);
            outcomes.push(outcome);
        }
        conclude(&show, &output, &outcomes)
    })
}

fn soak(arguments: SoakArguments) -> ExitCode {
    let no_network = set_up();
    let Ok(lasts) = Duration::try_from_secs_f64(arguments.hours * 3_600.0) else {
        eprintln!("plimsoll-chaos: --hours takes a number of hours");
        return ExitCode::from(2);
    };
    let output = arguments.output;
    to_the_end(async move {
        let show = show(&output, no_network);
        show.screen.heading(&format!("soak for {} s, seed {}", lasts.as_secs(), output.seed));
        let soak = scenario::Soak { lasts, seed: output.seed };
        let outcomes = scenario::rounds(soak, &show, |outcome| {
            tell(&show, outcome);
            if outcome.verdict == scenario::Verdict::Fail {
                let again = format!("plimsoll-chaos soak --hours 0 --seed {}", outcome.seed);
                show.screen.say(&format!("this round again: {again}"));
            }
        });
        let outcomes = outcomes.await;
        conclude(&show, &output, &outcomes)
    })
}

fn drill(arguments: DrillArguments) -> ExitCode {
    let output = arguments.output;
    let order = scenario::Order {
        controllers: arguments.controller,
        spu: arguments.spu,
        volume: arguments.volume,
        rate_per_s: arguments.rate,
        lasts: Duration::from_secs(arguments.seconds),
    };
    // An interrupt ends the drill, which then puts everything back.
    in_a_runtime(async move {
        let show = show(&output, None);
        show.screen.heading("drill: one volume behaves as if it were full");
        let outcome = scenario::drill(&order, &show, interrupted()).await;
        tell(&show, &outcome);
        conclude(&show, &output, &[outcome])
    })
}

fn liveness(arguments: LivenessArguments) -> ExitCode {
    let no_network = set_up();
    let mut parts = if arguments.quick { vec![liveness::quick()] } else { liveness::parts() };
    if let Some(unknown) =
        arguments.parts.iter().find(|name| parts.iter().all(|part| part.scenario.name != **name))
    {
        let names: Vec<&str> = parts.iter().map(|part| part.scenario.name).collect();
        eprintln!("plimsoll-chaos: there is no part {unknown}; there are: {}", names.join(" "));
        return ExitCode::from(2);
    }
    parts
        .retain(|part| arguments.parts.is_empty() || arguments.parts.iter().any(|n| n == part.scenario.name));
    to_the_end(async move {
        let output = Output { json: true, no_color: true, seed: arguments.seed, html: None };
        let mut show = Show { times_max: arguments.times, ..show(&output, no_network) };
        let mut outcomes = Vec::new();
        for part in parts {
            for _ in 0..part.clusters.min(arguments.times) {
                show.screen.heading(&format!("{}: {}", part.scenario.name, part.scenario.about));
                let outcome = part.scenario.run(&show).await;
                tell(&show, &outcome);
                show.seed = show.seed.wrapping_add(1);
                outcomes.push(outcome);
            }
        }
        let proof = liveness::Proof::of(&outcomes);
        println!("{}", proof.lines());
        if proof.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    })
}

/// First thing, because it may run this program again in namespaces of its own; then why there is no network that can
/// be cut, if there is none.
fn set_up() -> Option<String> {
    match privilege() {
        Privilege::Root => leave_the_machines_network().err().map(|error| format!("{error:#}")),
        Privilege::Namespace | Privilege::None => Some("hosts of their own need root".to_owned()),
    }
}

fn show(output: &Output, no_network: Option<String>) -> Show {
    let host = plimsoll_host::Host::real();
    let screen = Arc::new(Screen::new(host.clock.clone(), colour(output.no_color), output.json));
    Show { host, screen, seed: output.seed, times_max: u32::MAX, no_network }
}

fn tell(show: &Show, outcome: &Outcome) {
    show.screen.say(&outcome.line());
    show.screen.detail(&outcome.reasons.join("\n"));
}

/// The last line, and what is kept for `report`.
fn conclude(show: &Show, output: &Output, outcomes: &[Outcome]) -> ExitCode {
    let totals = Totals::of(outcomes);
    let kept = serde_json::to_string(outcomes).unwrap_or_default();
    if let Err(error) = last_run::save(&kept) {
        show.screen.say(&format!("the report of this run is not kept: {error:#}"));
    }
    if let Some(file) = &output.html {
        match last_run::write(file, &scenario::page(outcomes)) {
            Ok(()) => show.screen.say(&format!("timelines: {}", file.display())),
            Err(error) => show.screen.say(&format!("no page: {error:#}")),
        }
    }
    if output.json {
        let short: Vec<Outcome> = outcomes.iter().map(Outcome::without_timeline).collect();
        println!("{}", serde_json::to_string(&short).unwrap_or_default());
    } else {
        println!("{}", totals.line());
    }
    if totals.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(json: bool, html: Option<&Path>) -> ExitCode {
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
            if let Some(file) = html
                && let Err(error) = last_run::write(file, &scenario::page(&outcomes))
            {
                eprintln!("plimsoll-chaos: {error:#}");
                return ExitCode::FAILURE;
            }
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
    // It runs in the main thread: the servers end with the thread that started them.
    in_a_runtime(async {
        tokio::select! {
            code = work => code,
            () = interrupted() => {
                eprintln!("\nplimsoll-chaos: interrupted; everything is cleaned up");
                ExitCode::from(130)
            }
        }
    })
}

fn in_a_runtime(work: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("plimsoll-chaos: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(work)
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
