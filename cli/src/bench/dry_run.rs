//! `plimsoll bench produce --dry-run`: everything is asked for and looked at, nothing is sent.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use plimsoll_client::{Client, GroupError, PartitionId, Record};
use plimsoll_host::Host;
use plimsoll_host::config::ByteSize;
use serde::Serialize;

use super::BenchProduceArgs;
use crate::change::Change;
use crate::exit::{Code, Failure, Outcome};
use crate::produce::Limits;

/// Leaders asked at once.
const ASKED_AT_ONCE: usize = 8;

/// What would be sent.
#[derive(Debug, Serialize)]
struct Planned {
    topic: String,
    partitions: u32,
    records: u64,
    record_bytes: u64,
    /// Of all values.
    bytes: u64,
    /// Absent: as fast as it goes.
    records_per_s: Option<u64>,
    /// At this rate.
    bytes_per_s: Option<u64>,
    acks: &'static str,
}

pub(super) async fn run(args: &BenchProduceArgs, host: &Host) -> Outcome {
    let client = args.connect.connect(host).await?;
    args.settings.check(&client, &args.topic).await?;
    let limits = Limits::of(&client.metadata(), &args.topic)?;
    let mut largest = Record::new(vec![0; usize::try_from(args.size.0).unwrap_or(usize::MAX)]);
    if let Some(keys) = args.keys {
        largest = largest.key((keys.min(args.records) - 1).to_string());
    }
    limits.check(&largest).map_err(|wrong| Failure::new(wrong.code, wrong.why))?;
    let partitions = reach_leaders(&client, &args.topic).await?;
    let planned = Planned {
        topic: args.topic.clone(),
        partitions,
        records: args.records,
        record_bytes: args.size.0,
        bytes: args.records.saturating_mul(args.size.0),
        records_per_s: args.rate,
        bytes_per_s: args.rate.map(|rate| rate.saturating_mul(args.size.0)),
        acks: args.settings.acks(),
    };
    Change::with(args.change, text(&planned), "", planned).print(args.change)
}

fn text(planned: &Planned) -> String {
    let pace = match (planned.records_per_s, planned.bytes_per_s) {
        (Some(records), Some(bytes)) => format!("at {records} records/s, {}/s", ByteSize(bytes)),
        _ => "as fast as it goes".to_owned(),
    };
    format!(
        "send {} records of {}, {} in all, to {} partitions of topic {}, {pace}, with --acks {}",
        planned.records,
        ByteSize(planned.record_bytes),
        ByteSize(planned.bytes),
        planned.partitions,
        planned.topic,
        planned.acks,
    )
}

/// Asks the leader of each partition where it ends, which changes nothing; how many partitions there are.
async fn reach_leaders(client: &Client, topic: &str) -> Result<u32, Failure> {
    let image = client.metadata();
    let count = image.topic_by_name(topic).map_or(0, |topic| topic.partitions.len());
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let topic_id = client.topic_id(topic);
    let partitions = topic_id
        .into_iter()
        .flat_map(|topic_id| (0..count).map(move |index| PartitionId { topic_id, index }));
    let ask = |partition: PartitionId| async move {
        let told = client.partition_ends(partition, None).await;
        told.map(drop).map_err(|error| unreached(topic, partition.index, error))
    };
    stream::iter(partitions.map(ask)).buffered(ASKED_AT_ONCE).try_collect::<()>().await?;
    Ok(count)
}

fn unreached(topic: &str, index: u32, error: GroupError) -> Failure {
    match error {
        GroupError::TimedOut { waited, last, .. } => {
            let why = last.map(|last| format!("; {last}")).unwrap_or_default();
            let waited = waited.as_millis();
            let text = format!("the leader of {topic}/{index} did not answer within {waited} ms{why}");
            Failure::new(Code::TimedOut, text)
        }
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_told_in_records_and_bytes() {
        let mut planned = Planned {
            topic: "t".to_owned(),
            partitions: 3,
            records: 1000,
            record_bytes: 2048,
            bytes: 2_048_000,
            records_per_s: Some(512),
            bytes_per_s: Some(1 << 20),
            acks: "leader",
        };
        assert_eq!(
            text(&planned),
            "send 1000 records of 2KiB, 1.9MiB in all, to 3 partitions of topic t, at 512 records/s, 1MiB/s, with --acks leader"
        );
        (planned.records_per_s, planned.bytes_per_s) = (None, None);
        assert!(text(&planned).contains("topic t, as fast as it goes, with"), "{}", text(&planned));
    }
}
