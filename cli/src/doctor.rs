//! `plimsoll doctor`: looks at this machine and at the cluster, and says PASS, WARN or FAIL with a remedy.

mod local;
mod remote;

use std::path::{Path, PathBuf};

use clap::Args;
use plimsoll_host::Host;
use serde::Serialize;
use serde_json::Value;

use crate::change::quoted;
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::files;
use crate::output::{Colour, ShowArgs, paint, print, say};

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Also looks at this data directory: filesystem, room, rights, allocation; repeat it for more
    #[arg(long = "data-dir", value_name = "DIR")]
    data_dirs: Vec<PathBuf>,
    /// Looks at this machine only
    #[arg(long)]
    local: bool,
    /// Writes everything that was found, with status, topics and events, into a new file: for whoever helps you.
    /// It has addresses, paths and names of topics in it, but no records
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// With --bundle: says what the file would hold, and writes none
    #[arg(long, requires = "bundle")]
    dry_run: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Result {
    Pass,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    check: String,
    result: Result,
    found: String,
    /// What to do; absent when it passed.
    remedy: Option<String>,
}

impl Check {
    fn pass(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), result: Result::Pass, found: found.into(), remedy: None }
    }

    fn warn(check: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { check: check.into(), result: Result::Warn, found: found.into(), remedy }
    }

    fn fail(check: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { result: Result::Fail, ..Self::warn(check, found, remedy) }
    }
}

#[derive(Serialize)]
struct Report {
    plimsoll: &'static str,
    time_ms: u64,
    worst: Result,
    checks: Vec<Check>,
}

pub(crate) async fn run(args: DoctorArgs, host: &Host) -> Outcome {
    if let Some(path) = args.bundle.as_ref().filter(|path| path.exists()) {
        let why = format!("{} is there already; name a new file with --bundle", path.display());
        return Err(Failure::new(Code::Usage, why));
    }
    let mut checks = local::checks(&args.data_dirs);
    let mut evidence = Vec::new();
    if !args.local {
        let remote = remote::checks(&args.connect, host).await;
        checks.extend(remote.checks);
        evidence = remote.evidence;
    }
    let worst = checks.iter().map(|check| check.result).max().unwrap_or(Result::Pass);
    let report = Report { plimsoll: env!("CARGO_PKG_VERSION"), time_ms: host.clock.wall_ms(), worst, checks };
    print(args.show, &report, text)?;
    if let Some(path) = &args.bundle {
        let undo = format!("undo: rm {}", quoted(&path.display().to_string()));
        let whole = bundle(path, &report, evidence)?;
        if args.dry_run {
            let parts: Vec<&str> =
                whole.as_object().into_iter().flatten().map(|(part, _)| part.as_str()).collect();
            say(format!(
                "would write {} with {}\nnothing was changed\n{undo}",
                path.display(),
                parts.join(", ")
            ));
        } else {
            write(path, &whole)?;
            say(format!("wrote {}; read it before you hand it on\n{undo}", path.display()));
        }
    }
    match worst {
        Result::Pass | Result::Warn => Ok(()),
        Result::Fail => Err(Failure::silent(Code::Failed)),
    }
}

fn text(report: &Report) -> String {
    let width = report.checks.iter().map(|check| check.check.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for check in &report.checks {
        let word = match check.result {
            Result::Pass => paint(Colour::Green, "PASS"),
            Result::Warn => paint(Colour::Yellow, "WARN"),
            Result::Fail => paint(Colour::Red, "FAIL"),
        };
        text.push_str(&format!("{word}  {:<width$}  {}\n", check.check, check.found));
        if let Some(remedy) = &check.remedy {
            text.push_str(&format!("      {:<width$}  -> {remedy}\n", ""));
        }
    }
    let count = |result| report.checks.iter().filter(|check| check.result == result).count();
    text.push_str(&format!(
        "{} passed, {} warnings, {} failed\n",
        count(Result::Pass),
        count(Result::Warn),
        count(Result::Fail)
    ));
    text
}

/// One JSON document; what was found first, then the evidence by name.
fn bundle(
    path: &Path,
    report: &Report,
    evidence: Vec<(&'static str, Value)>,
) -> std::result::Result<Value, Failure> {
    let mut whole = serde_json::to_value(report).map_err(|error| unwritten(path, error))?;
    if let Some(map) = whole.as_object_mut() {
        map.insert("version".to_owned(), Value::from(1));
        map.extend(evidence.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }
    Ok(whole)
}

fn write(path: &Path, whole: &Value) -> Outcome {
    let file = files::create_new(path).map_err(|error| unwritten(path, error))?;
    serde_json::to_writer_pretty(file, whole).map_err(|error| unwritten(path, error))
}

fn unwritten(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Failed, format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_that_did_not_pass_has_a_remedy() {
        let report = Report {
            plimsoll: "0",
            time_ms: 0,
            worst: Result::Fail,
            checks: vec![Check::pass("a", "x"), Check::warn("bb", "y", "z"), Check::fail("c", "y", "w")],
        };
        let text = text(&report);
        assert!(text.contains("PASS  a   x\nWARN  bb  y\n          -> z\n"), "{text}");
        assert!(text.ends_with("1 passed, 1 warnings, 1 failed\n"), "{text}");
    }
}
