//! What every copy of a topic gives back in the end.

use std::time::Duration;

use anyhow::{Context as _, bail};
use plimsoll_client::{Client, SpuId, StartAt};
use plimsoll_history::{Event, Held, Payload};
use plimsoll_host::Host;
use plimsoll_proto::ids::{Offset, PartitionId};

use crate::plain;
use crate::workload::Evidence;

/// How long a copy may take to have what its leader has committed.
const CATCH_UP: Duration = Duration::from_secs(30);

/// Takes in what every replica of a topic holds, once all have what was acknowledged. Copies on nodes that are
/// `excused` are not asked for.
///
/// # Errors
/// When the topic is gone, a copy does not catch up, or can't be read.
pub async fn hold(
    host: &Host,
    client: &Client,
    evidence: &Evidence,
    topic: &str,
    excused: impl Fn(u32) -> bool,
) -> anyhow::Result<()> {
    let image = client.metadata();
    let info = image.topic_by_name(topic).context("the topic is gone")?.clone();
    let topic_id = client.topic_id(topic).context("the topic is gone")?;
    for partition in &info.partitions {
        let leader = client.spu_address(SpuId(partition.leader)).context("no leader")?;
        let wanted = plain::ends(host, &leader, &info.topic_id, partition.index).await?.high_watermark;
        for replica in partition.replicas.iter().filter(|found| !excused(found.spu_id)) {
            let address = client.spu_address(SpuId(replica.spu_id)).context("a node's address")?;
            let deadline = host.clock.now() + CATCH_UP;
            let ends = loop {
                let ends = plain::ends(host, &address, &info.topic_id, partition.index).await;
                match ends {
                    Ok(ends) if ends.high_watermark >= wanted => break ends,
                    _ if host.clock.now() < deadline => host.clock.sleep(Duration::from_millis(20)).await,
                    other => bail!("spu {} has not caught up to {wanted}: {other:?}", replica.spu_id),
                }
            };
            // A leader that has just changed asks its readers to come again.
            let records = loop {
                let spu = SpuId(replica.spu_id);
                match records_of(host, client, topic, partition.index, spu, ends.high_watermark).await {
                    Ok(records) => break records,
                    Err(_) if host.clock.now() < deadline => {
                        host.clock.sleep(Duration::from_millis(200)).await;
                    }
                    Err(error) => return Err(error),
                }
            };
            let offset = |value| Offset::new(value).context("an offset");
            evidence.record(Event::Held(Held {
                spu: SpuId(replica.spu_id),
                partition: PartitionId { topic_id, index: partition.index },
                leader: replica.spu_id == partition.leader,
                log_start: offset(ends.log_start)?,
                high_watermark: offset(ends.high_watermark)?,
                records,
            }));
        }
    }
    Ok(())
}

/// Where every replica of a topic begins, and nothing else of it: of a topic that is trimmed.
///
/// # Errors
/// When the topic is gone or a node does not answer.
pub async fn starts(host: &Host, client: &Client, topic: &str) -> anyhow::Result<Vec<Held>> {
    let image = client.metadata();
    let info = image.topic_by_name(topic).context("the topic is gone")?;
    let topic_id = client.topic_id(topic).context("the topic is gone")?;
    let mut found = Vec::new();
    for partition in &info.partitions {
        for replica in &partition.replicas {
            let spu = SpuId(replica.spu_id);
            let address = client.spu_address(spu).context("a node's address")?;
            let ends = plain::ends(host, &address, &info.topic_id, partition.index).await?;
            let log_start = Offset::new(ends.log_start).context("an offset")?;
            found.push(Held {
                spu,
                partition: PartitionId { topic_id, index: partition.index },
                leader: replica.spu_id == partition.leader,
                log_start,
                high_watermark: log_start,
                records: Vec::new(),
            });
        }
    }
    Ok(found)
}

/// Records of one partition below `end` that one node's copy gives a reader.
///
/// # Errors
/// When it can't be read, or not within 30 s.
pub async fn records_of(
    host: &Host,
    client: &Client,
    topic: &str,
    partition: u32,
    spu: SpuId,
    end: u64,
) -> anyhow::Result<Vec<(Offset, Payload)>> {
    let reading = async {
        let consumer = client.consumer(topic).partitions([partition]).replica(spu);
        let mut consumer = consumer.start(StartAt::Earliest).until_end().build().await?;
        let mut records = Vec::new();
        while let Some(record) = consumer.next().await {
            let record = record?;
            if record.offset.get() < end {
                let payload = Payload::of(record.key.as_deref(), record.value.as_deref());
                records.push((record.offset, payload));
            }
        }
        anyhow::Ok(records)
    };
    host.clock.timeout(Duration::from_secs(30), reading).await.context("not read in time")?
}
