//! `simulate --seeds N --seed S`: runs the seeds S to S+N-1; a single one prints its history.

use std::process::ExitCode;

use plimsoll_tests::simulation::{Report, run, run_aloud, run_with_panic};

const USAGE: &str = "usage: simulate --seeds N --seed S [--panic]
  --seeds N  how many seeds to run (default 1); with 1 the history of the run is printed
  --seed S   the first of them (default 1)
  --panic    a server of each run panics: shows what is told of a run that fails";

fn main() -> ExitCode {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    match arguments(std::env::args().skip(1)) {
        Ok(wanted) => simulate(&wanted),
        Err(problem) => {
            eprintln!("simulate: {problem}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

struct Wanted {
    seeds: u64,
    first: u64,
    panic: bool,
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut wanted = Wanted { seeds: 1, first: 1, panic: false };
    while let Some(name) = given.next() {
        let target = match name.as_str() {
            "--seeds" => &mut wanted.seeds,
            "--seed" => &mut wanted.first,
            "--panic" => {
                wanted.panic = true;
                continue;
            }
            other => return Err(format!("unknown argument {other:?}")),
        };
        let value = given.next().ok_or_else(|| format!("{name} needs a number"))?;
        *target = value.parse().map_err(|_| format!("{name} needs a number, not {value:?}"))?;
    }
    if wanted.seeds == 0 {
        return Err("--seeds must be at least 1".to_owned());
    }
    Ok(wanted)
}

fn simulate(wanted: &Wanted) -> ExitCode {
    let Wanted { seeds, first, panic } = *wanted;
    let (mut failed, mut steps, mut faults, mut excused) = (0u64, 0u64, 0u64, 0u64);
    for seed in first..first.saturating_add(seeds) {
        let report = match (panic, seeds) {
            (true, _) => run_with_panic(seed),
            (false, 1) => run_aloud(seed),
            (false, _) => run(seed),
        };
        steps += report.steps;
        excused += u64::from(report.excused);
        faults += report.faults;
        println!("{}", summary(&report));
        if !report.violations.is_empty() {
            failed += 1;
            report.violations.iter().take(5).for_each(|violation| println!("  {violation}"));
            println!("  replay with: scripts/simulate --seeds 1 --seed {seed}");
        }
    }
    println!(
        "{excused} of {seeds} runs were whole later than in 10 s because volumes or nodes were held back"
    );
    println!("SIMULATION seeds={seeds} failed={failed} steps={steps} faults={faults}");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn summary(report: &Report) -> String {
    format!(
        "seed {}: {}, {} acknowledged, {} unknown, refused {:?}, {} faults, relieved {}, called off {}, healed after {} ms{}, events {:016x}, disks {:016x}, network {:016x}",
        report.seed,
        if report.violations.is_empty() { "ok" } else { "FAILED" },
        report.acked,
        report.unknown,
        report.refused,
        report.faults,
        report.relieved,
        report.called_off,
        report.healed_after.as_millis(),
        if report.excused { " (held back)" } else { "" },
        report.events_digest,
        report.disks_digest,
        report.network_digest,
    )
}
