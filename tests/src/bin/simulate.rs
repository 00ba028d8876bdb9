//! `simulate --seeds N --seed S`: runs the seeds S to S+N-1; a single one prints its history.

use std::process::ExitCode;

use plimsoll_tests::simulation::{Report, run, run_aloud};

const USAGE: &str = "usage: simulate --seeds N --seed S
  --seeds N  how many seeds to run (default 1); with 1 the history of the run is printed
  --seed S   the first of them (default 1)";

fn main() -> ExitCode {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    match arguments(std::env::args().skip(1)) {
        Ok((seeds, first)) => simulate(seeds, first),
        Err(problem) => {
            eprintln!("simulate: {problem}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<(u64, u64), String> {
    let (mut seeds, mut first) = (1, 1);
    while let Some(name) = given.next() {
        let target = match name.as_str() {
            "--seeds" => &mut seeds,
            "--seed" => &mut first,
            other => return Err(format!("unknown argument {other:?}")),
        };
        let value = given.next().ok_or_else(|| format!("{name} needs a number"))?;
        *target = value.parse().map_err(|_| format!("{name} needs a number, not {value:?}"))?;
    }
    if seeds == 0 {
        return Err("--seeds must be at least 1".to_owned());
    }
    Ok((seeds, first))
}

fn simulate(seeds: u64, first: u64) -> ExitCode {
    let (mut failed, mut steps, mut faults) = (0u64, 0u64, 0u64);
    for seed in first..first.saturating_add(seeds) {
        let report = if seeds == 1 { run_aloud(seed) } else { run(seed) };
        steps += report.steps;
        faults += report.faults;
        println!("{}", summary(&report));
        if !report.violations.is_empty() {
            failed += 1;
            report.violations.iter().take(5).for_each(|violation| println!("  {violation}"));
            println!("  replay with: scripts/simulate --seeds 1 --seed {seed}");
        }
    }
    println!("SIMULATION seeds={seeds} failed={failed} steps={steps} faults={faults}");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn summary(report: &Report) -> String {
    format!(
        "seed {}: {}, {} acknowledged, {} unknown, refused {:?}, {} faults, relieved {}, called off {}, healed after {} ms",
        report.seed,
        if report.violations.is_empty() { "ok" } else { "FAILED" },
        report.acked,
        report.unknown,
        report.refused,
        report.faults,
        report.relieved,
        report.called_off,
        report.healed_after.as_millis()
    )
}
