//! `plimsoll consume --group`: a member of a group that prints what it is given.

use std::io::{self, BufWriter, Write as _};

use futures::FutureExt as _;
use plimsoll_client::{Client, OnTrimmed, StartAt};

use super::format;
use crate::exit::Outcome;
use crate::output::quiet_pipe;

/// Records printed before they are committed at the latest.
const COMMIT_EVERY: u64 = 10_000;

pub(super) struct GroupRun<'a> {
    pub(super) client: Client,
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) start: StartAt,
    pub(super) on_trimmed: OnTrimmed,
    pub(super) count: Option<u64>,
    pub(super) format: &'a format::RecordFormat,
    pub(super) separator: &'a str,
}

/// What was printed is flushed, then committed: nothing that was not printed is ever skipped by the next member.
pub(super) async fn run(args: GroupRun<'_>) -> Outcome {
    let builder = args.client.group(args.group).topics([args.topic]);
    let builder =
        builder.start(args.start).on_trimmed(args.on_trimmed).auto_commit(None).name("plimsoll consume");
    let mut consumer = builder.build().await?;
    let mut out = BufWriter::with_capacity(256 * 1024, io::stdout().lock());
    let (mut left, mut uncommitted) = (args.count, 0);
    while left != Some(0) {
        let next = match consumer.next().now_or_never() {
            Some(next) => next,
            None => {
                quiet_pipe(out.flush())?;
                if uncommitted > 0 {
                    consumer.commit().await?;
                    uncommitted = 0;
                }
                consumer.next().await
            }
        };
        let Some(record) = next else { break };
        let record = record?;
        quiet_pipe(format::write(&mut out, &record.topic, &record.record, args.format, args.separator))?;
        uncommitted += 1;
        if uncommitted >= COMMIT_EVERY {
            quiet_pipe(out.flush())?;
            consumer.commit().await?;
            uncommitted = 0;
        }
        left = left.map(|left| left - 1);
    }
    quiet_pipe(out.flush())?;
    consumer.commit().await?;
    Ok(consumer.close().await?)
}
