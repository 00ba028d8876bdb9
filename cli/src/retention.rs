//! `plimsoll retention`: how long and how much each topic keeps, and what a filling disk may do about it.

use clap::{Args, Subcommand};
use plimsoll_client::TopicInfo;
use plimsoll_host::Host;
use plimsoll_host::config::{ByteSize, Span};
use serde::Serialize;

use crate::connect::ConnectArgs;
use crate::exit::Outcome;
use crate::known;
use crate::output::{ShowArgs, print, table};
use crate::topic_change::{self, RetentionArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum RetentionCommand {
    /// Shows what topics keep
    Show(RetentionShowArgs),
    /// Changes what a topic keeps; it takes effect while the topic is in use
    Set(Box<RetentionArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct RetentionShowArgs {
    /// Of this topic only
    topic: Option<String>,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Serialize)]
struct Kept {
    topics: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    topic: String,
    /// Absent: for ever.
    retention_ms: Option<u64>,
    /// Of each partition; absent: without limit.
    retention_bytes: Option<u64>,
    on_pressure: &'static str,
    min_retention_ms: Option<u64>,
}

impl From<TopicInfo> for Row {
    fn from(info: TopicInfo) -> Self {
        let config = info.config.unwrap_or_default();
        let some = |value: u64| (value > 0).then_some(value);
        Self {
            topic: info.name,
            retention_ms: some(config.retention_ms),
            retention_bytes: some(config.retention_bytes),
            on_pressure: crate::topic::pressure_name(config.on_pressure()),
            min_retention_ms: some(config.min_retention_ms),
        }
    }
}

pub(crate) async fn run(command: RetentionCommand, host: &Host) -> Outcome {
    match command {
        RetentionCommand::Show(args) => show(args, host).await,
        RetentionCommand::Set(args) => topic_change::retention(*args, host).await,
    }
}

async fn show(args: RetentionShowArgs, host: &Host) -> Outcome {
    let mut known = known::topics(&args.connect.connect(host).await?, args.topic.as_deref()).await?;
    let topics = std::mem::take(&mut known.topics);
    let kept = Kept { topics: topics.into_iter().map(Row::from).collect() };
    print(args.show, &kept, |kept| {
        let time = |ms: Option<u64>, none: &str| {
            ms.map_or_else(|| none.to_owned(), |ms| Span(std::time::Duration::from_millis(ms)).to_string())
        };
        let rows: Vec<Vec<String>> = kept
            .topics
            .iter()
            .map(|row| {
                vec![
                    row.topic.clone(),
                    time(row.retention_ms, "forever"),
                    row.retention_bytes.map_or_else(|| "forever".to_owned(), |b| ByteSize(b).to_string()),
                    row.on_pressure.to_owned(),
                    time(row.min_retention_ms, "-"),
                ]
            })
            .collect();
        table(&["topic", "kept for", "of each partition", "on pressure", "never below"], &rows)
    })?;
    known.end()
}
