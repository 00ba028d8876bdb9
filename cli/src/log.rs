//! `plimsoll log`: the files of logs, offline. Never writes; works without a running cluster.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use plimsoll_host::config::ByteSize;
use plimsoll_proto::ids::PartitionId;
use plimsoll_spu::offline::{
    BadBytes, Finding, LogFiles, OfflineError, OfflineLogs, Seen, SeenBatch, SeenSegment, Verified,
};
use serde::Serialize;

use crate::exit::{Code, Failure, Outcome};
use crate::output::{OutputArgs, ShowArgs, one_line, print, quiet_pipe, table};

/// Bytes of a key or value that a table shows.
const SHOWN_BYTES: usize = 64;

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Prints the segments and batches of the logs in a directory
    Dump(DumpArgs),
    /// Checks every byte of the logs in a directory; ends with 1 when something is damaged
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct WhereArgs {
    /// A data directory, or the directory of one partition in it
    directory: PathBuf,
    /// This partition only, named as its directory is: TOPIC_ID-INDEX
    #[arg(long)]
    partition: Option<PartitionId>,
}

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// Prints the records of each batch as well
    #[arg(long)]
    records: bool,
    /// Leaves out batches that end at or before this offset
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: u64,
    /// Leaves out batches that begin at or after this offset
    #[arg(long, value_name = "OFFSET", default_value_t = u64::MAX)]
    to: u64,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    place: WhereArgs,
    #[command(flatten)]
    show: ShowArgs,
}

impl From<OfflineError> for Failure {
    fn from(error: OfflineError) -> Self {
        let code = match &error {
            OfflineError::NotFound { .. } | OfflineError::NoLog { .. } => Code::NotFound,
            OfflineError::Disk { .. } => Code::Failed,
        };
        Self::new(code, error.to_string())
    }
}

pub(crate) fn run(command: LogCommand) -> Outcome {
    match command {
        LogCommand::Dump(args) => dump(&args),
        LogCommand::Verify(args) => verify(&args),
    }
}

fn open(place: &WhereArgs) -> Result<(OfflineLogs, Vec<LogFiles>), Failure> {
    if place.directory.exists() && !place.directory.is_dir() {
        let why = format!(
            "{} is no directory; give a data directory, or the directory of one partition in it",
            place.directory.display()
        );
        return Err(Failure::new(Code::NotFound, why));
    }
    let found = OfflineLogs::open(&place.directory)?;
    let wanted = |log: &&LogFiles| place.partition.is_none_or(|partition| log.partition == Some(partition));
    let logs: Vec<LogFiles> = found.logs().iter().filter(wanted).cloned().collect();
    match place.partition {
        Some(partition) if logs.is_empty() => {
            let why = format!("{} has no partition {partition}", place.directory.display());
            Err(Failure::new(Code::NotFound, why))
        }
        _ => Ok((found, logs)),
    }
}

/// One line of a dump.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    Segment {
        partition: Option<String>,
        file: &'a str,
        base_offset: u64,
        size_bytes: u64,
        allocated_bytes: u64,
        sealed: bool,
    },
    Batch {
        position: u64,
        base_offset: u64,
        last_offset: u64,
        records: u32,
        leader_epoch: Option<u32>,
        producer_id: Option<i64>,
        producer_epoch: Option<i16>,
        base_sequence: Option<i32>,
        compression: &'static str,
        size_bytes: usize,
        crc: String,
        sound: bool,
        damage: Option<String>,
        base_timestamp_ms: i64,
        max_timestamp_ms: i64,
    },
    Record {
        offset: u64,
        timestamp_ms: i64,
        key: Option<String>,
        value: Option<String>,
        headers: Vec<(String, Option<String>)>,
    },
    Damage {
        position: u64,
        size_bytes: u64,
        what: String,
    },
}

fn segment_line<'a>(log: &LogFiles, segment: &'a SeenSegment) -> Line<'a> {
    Line::Segment {
        partition: log.partition.map(|partition| partition.to_string()),
        file: &segment.file,
        base_offset: segment.base_offset.get(),
        size_bytes: segment.size_bytes,
        allocated_bytes: segment.allocated_bytes,
        sealed: segment.sealed_end.is_some(),
    }
}

fn batch_line(batch: &SeenBatch) -> Line<'static> {
    let header = &batch.header;
    Line::Batch {
        position: batch.position,
        base_offset: header.base_offset.get(),
        last_offset: header.last_offset().get(),
        records: header.record_count,
        leader_epoch: header.leader_epoch.map(|epoch| epoch.0),
        producer_id: header.producer.map(|producer| producer.id.0),
        producer_epoch: header.producer.map(|producer| producer.epoch.0),
        base_sequence: header.producer.map(|producer| producer.base.to_i32()),
        compression: header.compression.name(),
        size_bytes: header.size_bytes,
        crc: format!("{:08x}", header.crc),
        sound: batch.sound.is_ok(),
        damage: batch.sound.as_ref().err().map(ToString::to_string),
        base_timestamp_ms: header.base_timestamp_ms,
        max_timestamp_ms: header.max_timestamp_ms,
    }
}

fn record_lines(batch: &SeenBatch) -> Vec<Line<'static>> {
    let damage = |what: String| Line::Damage {
        position: batch.position,
        size_bytes: u64::try_from(batch.bytes.len()).unwrap_or(u64::MAX),
        what,
    };
    let records = match batch.records() {
        Ok(records) => records,
        Err(error) => return vec![damage(error.to_string())],
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    records
        .map(|record| match record {
            Ok(record) => Line::Record {
                offset: record.offset.get(),
                timestamp_ms: record.timestamp_ms,
                key: record.key.as_deref().map(text),
                value: record.value.as_deref().map(text),
                headers: record
                    .headers
                    .iter()
                    .map(|header| (text(&header.key), header.value.as_deref().map(text)))
                    .collect(),
            },
            Err(error) => damage(error.to_string()),
        })
        .collect()
}

fn bad_line(bad: &BadBytes) -> Line<'static> {
    Line::Damage { position: bad.position, size_bytes: bad.bytes, what: bad.error.to_string() }
}

fn dump(args: &DumpArgs) -> Outcome {
    if args.from >= args.to {
        return Err(Failure::new(Code::Usage, "--from must be below --to; nothing is between them"));
    }
    let (found, logs) = open(&args.place)?;
    let mut out = BufWriter::with_capacity(256 * 1024, io::stdout().lock());
    for log in &logs {
        let mut done: Outcome = Ok(());
        found.walk(log, |seen| {
            done = dump_one(&mut out, log, &seen, args);
            if done.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        done?;
    }
    quiet_pipe(out.flush())
}

fn dump_one(out: &mut impl Write, log: &LogFiles, seen: &Seen<'_>, args: &DumpArgs) -> Outcome {
    let output: OutputArgs = args.show.into();
    let mut put = |line: &Line<'_>| {
        let text = if output.for_people() { show(line) } else { one_line(output.output, line)? };
        quiet_pipe(out.write_all(text.as_bytes()))
    };
    match seen {
        Seen::Segment(segment) => put(&segment_line(log, segment)),
        Seen::Batch(batch) => {
            let header = &batch.header;
            if header.end_offset().get() <= args.from || header.base_offset.get() >= args.to {
                return Ok(());
            }
            put(&batch_line(batch))?;
            if args.records {
                record_lines(batch).iter().try_for_each(put)?;
            }
            Ok(())
        }
        Seen::Bad(bad) => put(&bad_line(bad)),
    }
}

/// A line for people. What came from the disk is escaped: it could hold anything.
fn show(line: &Line<'_>) -> String {
    match line {
        Line::Segment { file, base_offset, size_bytes, allocated_bytes, sealed, .. } => {
            let state = if *sealed { "sealed" } else { "active" };
            let ahead = allocated_bytes.saturating_sub(*size_bytes);
            format!(
                "segment {base_offset} {state} {} ({} allocated ahead)  {file}\n",
                ByteSize(*size_bytes),
                ByteSize(ahead)
            )
        }
        Line::Batch {
            position,
            base_offset,
            last_offset,
            records,
            leader_epoch,
            producer_id,
            producer_epoch,
            base_sequence,
            compression,
            size_bytes,
            damage,
            base_timestamp_ms,
            max_timestamp_ms,
            ..
        } => {
            let epoch = leader_epoch.map_or("-".to_owned(), |epoch| epoch.to_string());
            let producer = match (producer_id, producer_epoch, base_sequence) {
                (Some(id), Some(epoch), Some(sequence)) => format!("{id}/{epoch}/{sequence}"),
                _ => "-".to_owned(),
            };
            let sound = damage.as_ref().map_or("ok".to_owned(), |damage| format!("DAMAGED: {damage}"));
            format!(
                "  batch {base_offset}..{last_offset} records {records} epoch {epoch} producer {producer} \
                 {compression} {size_bytes} B at {position} time {base_timestamp_ms}..{max_timestamp_ms} crc {sound}\n"
            )
        }
        Line::Record { offset, timestamp_ms, key, value, headers, .. } => {
            let cell = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), short);
            let headers: String = headers
                .iter()
                .map(|(key, value)| {
                    format!(" {}={}", short(key), value.as_deref().map_or("-".to_owned(), short))
                })
                .collect();
            format!(
                "    record {offset} time {timestamp_ms} key {} value {}{headers}\n",
                cell(key),
                cell(value)
            )
        }
        Line::Damage { position, size_bytes, what, .. } => {
            format!("  DAMAGED: {size_bytes} B at {position}: {what}\n")
        }
    }
}

fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_BYTES).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_BYTES).is_some() {
        shown.push_str("...");
    }
    format!("\"{shown}\"")
}

#[derive(Serialize)]
struct Report {
    damaged: bool,
    logs: Vec<LogReport>,
}

#[derive(Serialize)]
struct LogReport {
    partition: Option<String>,
    directory: String,
    segments: u64,
    batches: u64,
    records: u64,
    bytes: u64,
    log_start: u64,
    log_end: u64,
    damaged: bool,
    findings: Vec<FindingReport>,
    findings_left_out: u64,
}

#[derive(Serialize)]
struct FindingReport {
    kind: &'static str,
    damage: bool,
    file: String,
    position: Option<u64>,
    offset: Option<u64>,
    what: String,
}

impl From<Verified> for LogReport {
    fn from(found: Verified) -> Self {
        Self {
            damaged: found.is_damaged(),
            partition: found.partition.map(|partition| partition.to_string()),
            directory: found.dir,
            segments: found.segments,
            batches: found.batches,
            records: found.records,
            bytes: found.bytes,
            log_start: found.log_start.get(),
            log_end: found.log_end.get(),
            findings: found.findings.into_iter().map(FindingReport::from).collect(),
            findings_left_out: found.findings_left_out,
        }
    }
}

impl From<Finding> for FindingReport {
    fn from(finding: Finding) -> Self {
        Self {
            kind: finding.kind.name(),
            damage: finding.kind.is_damage(),
            file: finding.file,
            position: finding.position,
            offset: finding.offset.map(|offset| offset.get()),
            what: finding.what,
        }
    }
}

fn verify(args: &VerifyArgs) -> Outcome {
    let (found, logs) = open(&args.place)?;
    let mut reports = Vec::with_capacity(logs.len());
    for log in &logs {
        reports.push(LogReport::from(found.verify(log)?));
    }
    let report = Report { damaged: reports.iter().any(|log| log.damaged), logs: reports };
    print(args.show, &report, show_report)?;
    if report.damaged {
        let bad = report.logs.iter().filter(|log| log.damaged).count();
        let why = format!(
            "{bad} of {} logs are damaged\nwhat is damaged is fetched from another replica when the node runs",
            report.logs.len()
        );
        return Err(Failure::new(Code::Failed, why));
    }
    Ok(())
}

fn show_report(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report
        .logs
        .iter()
        .map(|log| {
            vec![
                log.partition.clone().unwrap_or_else(|| log.directory.clone()),
                log.segments.to_string(),
                log.batches.to_string(),
                log.records.to_string(),
                ByteSize(log.bytes).to_string(),
                log.log_start.to_string(),
                log.log_end.to_string(),
                if log.damaged { "DAMAGED" } else { "sound" }.to_owned(),
            ]
        })
        .collect();
    let header = ["partition", "segments", "batches", "records", "bytes", "log start", "log end", "state"];
    let mut text = table(&header, &rows);
    for log in &report.logs {
        for finding in &log.findings {
            let at = finding.position.map(|position| format!(" at {position}")).unwrap_or_default();
            let offset = finding.offset.map(|offset| format!(" (offset {offset})")).unwrap_or_default();
            let word = if finding.damage { "damage" } else { "note" };
            text.push_str(&format!(
                "{word}: {}{at}{offset}: {}: {}\n",
                finding.file, finding.kind, finding.what
            ));
        }
        if log.findings_left_out > 0 {
            text.push_str(&format!("and {} more in {}\n", log.findings_left_out, log.directory));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_the_disk_cannot_talk_to_the_terminal() {
        assert_eq!(short("a\u{1b}[2Jb\n\""), "\"a\\u{1b}[2Jb\\n\\\"\"");
        assert_eq!(short(&"x".repeat(70)), format!("\"{}...\"", "x".repeat(64)));
    }
}
