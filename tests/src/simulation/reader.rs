//! The consumer that reads throughout.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_client::{OnTrimmed, StartAt};
use plimsoll_history::{Event, Payload};
use plimsoll_host::Host;
use plimsoll_proto::ids::{Offset, PartitionId};

use super::observer::{PARTITIONS, Problem, TOPIC, connect};
use super::told::{Phase, Shared};

const CONSUMER: u64 = 1;
/// It has read everything this long after producers got their last answer.
const BEHIND_MAX: Duration = Duration::from_secs(20);

/// Reads from the first record to the last one, whatever happens meanwhile.
pub(super) async fn read(host: Host, told: Shared) -> Result<(), Problem> {
    while !told.borrow().topic_exists {
        host.clock.sleep(Duration::from_millis(10)).await;
    }
    let client = connect(&host).await?;
    let settings = client.consumer(TOPIC).start(StartAt::Earliest).on_trimmed(OnTrimmed::Fail);
    let mut consumer = settings.build().await?;
    let topic_id = client.topic_id(TOPIC).ok_or("the topic is unknown")?;
    for index in 0..PARTITIONS {
        let partition = PartitionId { topic_id, index };
        told.borrow_mut().events.push(Event::Seek { consumer: CONSUMER, partition, to: Offset::ZERO });
    }
    let mut next = BTreeMap::<u32, Offset>::new();
    let mut done_at = None;
    loop {
        match host.clock.timeout(Duration::from_millis(100), consumer.next()).await {
            Ok(Some(Ok(record))) => {
                let payload = Payload::of(record.key.as_deref(), record.value.as_deref());
                let partition = PartitionId { topic_id, index: record.partition };
                let mut told = told.borrow_mut();
                if told.truth.known(partition).is_none_or(|committed| record.offset >= committed) {
                    told.look_at_committed(partition);
                }
                told.events.push(Event::Read {
                    consumer: CONSUMER,
                    partition,
                    offset: record.offset,
                    payload,
                });
                next.insert(record.partition, record.offset.checked_add(1).unwrap_or(record.offset));
            }
            Ok(Some(Err(error))) => return Err(format!("the consumer ended: {error}").into()),
            Ok(None) => return Err("the consumer ended".into()),
            Err(_) => {
                if told.borrow().phase < Phase::Done {
                    continue;
                }
                let now = host.clock.now();
                let since = *done_at.get_or_insert(now);
                let ends = told.borrow().ends.clone();
                if ends.iter().all(|(index, end)| next.get(index).copied().unwrap_or_default() >= *end) {
                    told.borrow_mut().line(now, format!("the consumer read up to {next:?}"));
                    return Ok(());
                }
                if now.saturating_sub(since) > BEHIND_MAX {
                    return Err(format!("the consumer is stuck at {next:?} of {ends:?}").into());
                }
            }
        }
    }
}
