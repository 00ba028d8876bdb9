//! How a cluster is: a verdict first, then what is wrong, whom it concerns, since when, and what to do.

mod codes;
mod evaluate;
mod mute;

use std::time::Duration;

use clap::{Args, Subcommand};
use plimsoll_client::{AdminError, Client};
use plimsoll_host::Host;
use plimsoll_host::config::Span;
use serde::Serialize;

use crate::change::{Change, ChangeArgs};
use crate::connect::ConnectArgs;
use crate::exit::{self, Failure, Outcome};
use crate::given;
use crate::output::{Colour, ShowArgs, paint, print, print_wide, table};
use crate::words;
use codes::{CODES, Code, Page, Severity};
pub(crate) use evaluate::{Finding, Picture, Verdict, evaluate, verdict};
use mute::Mutes;

/// Events looked at for since when.
const EVENTS: u64 = 5_000;
/// How long they may take.
const EVENTS_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, Subcommand)]
pub(crate) enum HealthCommand {
    /// Tells cause, effect and remedy of a code; without one lists all codes
    Explain(ExplainArgs),
    /// Lets a code not count for a while, for you on this machine
    Mute(MuteArgs),
    /// Lets a muted code count again
    Unmute(UnmuteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Such as DISK_FULL
    #[arg(value_parser = code)]
    code: Option<Code>,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MuteArgs {
    #[arg(value_parser = code)]
    code: Code,
    /// For how long; at most 30d
    #[arg(long = "for", value_name = "TIME", default_value = "4h")]
    span: Span,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UnmuteArgs {
    #[arg(value_parser = code)]
    code: Code,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Longest mute: what is forgotten must not stay silent for ever.
const MUTE_MAX_S: u64 = 30 * 86_400;

fn code(name: &str) -> Result<Code, String> {
    Code::named(name).ok_or_else(|| "no such code; see `plimsoll health explain` for all of them".to_owned())
}

#[derive(Serialize)]
struct Report {
    verdict: Verdict,
    cluster_id: String,
    /// The answer is of a controller that does not lead and may be old.
    stale: bool,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Codes {
    codes: Vec<Page>,
}

pub(crate) fn run(command: HealthCommand, host: &Host) -> Outcome {
    match command {
        HealthCommand::Explain(args) => explain(&args),
        HealthCommand::Mute(args) => {
            let seconds = args.span.0.as_secs();
            if !(1..=MUTE_MAX_S).contains(&seconds) {
                return Err(Failure::new(exit::Code::Usage, "--for must be from 1s to 30d"));
            }
            let cluster = cluster_key(&args.connect)?;
            let now = host.clock.wall_ms();
            let mut mutes = Mutes::load()?;
            mutes.mute(&cluster, args.code, now.saturating_add(seconds * 1000), now);
            if !args.change.dry_run {
                mutes.save()?;
            }
            let what = format!("{} for {} on this machine", args.code.name(), args.span);
            let undo = format!("plimsoll health unmute {}", args.code.name());
            Change::new(args.change, format!("mute {what}"), format!("muted {what}"))
                .undo(undo)
                .print(args.change)
        }
        HealthCommand::Unmute(args) => {
            let mut mutes = Mutes::load()?;
            if !mutes.unmute(&cluster_key(&args.connect)?, args.code) {
                let why = format!("{} is not muted for this cluster", args.code.name());
                return Err(Failure::new(exit::Code::NotFound, why));
            }
            if !args.change.dry_run {
                mutes.save()?;
            }
            let name = args.code.name();
            let undo = format!("plimsoll health mute {name} --for 4h");
            Change::new(args.change, format!("unmute {name}"), format!("unmuted {name}"))
                .undo(undo)
                .print(args.change)
        }
    }
}

fn cluster_key(connect: &ConnectArgs) -> Result<String, Failure> {
    let mut controllers = connect.target()?.controllers.value;
    given::controllers(&controllers)
        .map_err(|why| Failure::new(exit::Code::Usage, format!("{why} (--controller)")))?;
    controllers.sort();
    Ok(controllers.join(","))
}

fn explain(args: &ExplainArgs) -> Outcome {
    match args.code {
        Some(code) => print(args.show, &Codes { codes: vec![code.page()] }, |_| page_text(&code.page())),
        None => {
            let codes = Codes { codes: CODES.iter().map(|code| code.page()).collect() };
            print(args.show, &codes, |codes| {
                let rows: Vec<Vec<String>> = codes
                    .codes
                    .iter()
                    .map(|page| {
                        let severity = severity(page.severity).to_owned();
                        vec![page.code.to_owned(), severity, page.cause.to_owned()]
                    })
                    .collect();
                table(&["code", "severity", "cause"], &rows)
            })
        }
    }
}

fn page_text(page: &Page) -> String {
    format!(
        "{} ({})\ncause:  {}\neffect: {}\nremedy: {}\nnext:   {}\n",
        page.code,
        severity(page.severity),
        page.cause,
        page.effect,
        page.remedy,
        page.next
    )
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Degraded => "degraded",
        Severity::Critical => "critical",
    }
}

/// What is judged, as any controller knows it.
pub(crate) struct Looked {
    pub(crate) status: plimsoll_client::ClusterStatusResponse,
    pub(crate) findings: Vec<Finding>,
    /// The latest, oldest first; none where nobody leads.
    pub(crate) events: Vec<plimsoll_client::ClusterEvent>,
}

/// Asks the controllers and judges.
pub(crate) async fn look(client: &Client, host: &Host) -> Result<Looked, AdminError> {
    let status = crate::cluster::status_of(client).await?;
    let image = client.metadata();
    let topics: Vec<plimsoll_client::TopicInfo> = image.topics.values().cloned().collect();
    let after = status.applied_index.saturating_sub(EVENTS);
    // Since when is worth less than the verdict.
    let events = if status.leader == 0 {
        Vec::new()
    } else {
        client.admin().timeout_at_most(EVENTS_MAX).list_events(after, 0).await.unwrap_or_default()
    };
    let now_ms = host.clock.wall_ms();
    let findings = evaluate(&Picture { status: &status, topics: &topics, events: &events, now_ms });
    Ok(Looked { status, findings, events })
}

/// `plimsoll cluster health`: exit code 0, 10 or 11 by the verdict.
pub(crate) async fn cluster_health(args: HealthArgs, host: &Host) -> Outcome {
    let client = args.connect.connect(host).await?;
    let Looked { status, mut findings, .. } = look(&client, host).await?;
    let now = host.clock.wall_ms();
    Mutes::load()?.apply(&cluster_key(&args.connect)?, &mut findings, now);
    let report = Report {
        verdict: verdict(&findings),
        cluster_id: words::hex(&status.cluster_id),
        stale: status.stale,
        findings,
    };
    print_wide(args.show, &report, |report, wide| text(report, wide, now))?;
    match report.verdict {
        Verdict::Ok => Ok(()),
        Verdict::Degraded => Err(Failure::silent(exit::Code::Degraded)),
        Verdict::Critical => Err(Failure::silent(exit::Code::Critical)),
    }
}

fn text(report: &Report, wide: bool, now_ms: u64) -> String {
    let mut text = match report.verdict {
        Verdict::Ok => paint(Colour::Green, "OK"),
        Verdict::Degraded => paint(Colour::Yellow, "DEGRADED"),
        Verdict::Critical => paint(Colour::Red, "CRITICAL"),
    };
    let counted = report.findings.iter().filter(|finding| finding.muted_until_ms.is_none()).count();
    match (report.verdict, counted) {
        (Verdict::Ok, 0) => text.push_str("  nothing is wrong"),
        (_, 1) => text.push_str("  1 finding"),
        (_, counted) => text.push_str(&format!("  {counted} findings")),
    }
    if report.stale {
        text.push_str(" (told by a controller that does not lead: it may be old)");
    }
    text.push('\n');
    for finding in &report.findings {
        let since = finding.since_ms.map(|since| words::span(now_ms.saturating_sub(since)));
        let since = since.map(|since| format!(" for {since}")).unwrap_or_default();
        let muted = finding.muted_until_ms.map(|until| words::span(until.saturating_sub(now_ms)));
        let muted = muted.map(|left| format!(", muted for {left} more")).unwrap_or_default();
        let (code, severity) = (finding.code, severity(finding.severity));
        text.push_str(&format!("\n{code} ({severity}{since}{muted})\n  {}\n", finding.summary));
        // The summary has told the only one.
        let shown = if wide { finding.members.len() } else { MEMBERS };
        if finding.members.len() > 1 {
            for member in finding.members.iter().take(shown) {
                text.push_str(&format!("    {}: {}\n", member.name, member.detail));
            }
            if let Some(more) = finding.members.len().checked_sub(shown).filter(|more| *more > 0) {
                text.push_str(&format!("    and {more} more; -o wide shows all\n"));
            }
        }
        if let Some(page) = Code::named(finding.code).map(Code::page) {
            text.push_str(&format!("  effect: {}\n  remedy: {}\n", page.effect, page.remedy));
        }
        text.push_str(&format!("  next:   {}\n", finding.next));
    }
    text
}

/// Members shown of each finding.
const MEMBERS: usize = 5;
