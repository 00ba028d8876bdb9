//! What the SDK costs for each record of 100 bytes: `cargo bench -p plimsoll-client --features testkit`.
//!
//! Two figures against a real cluster of one node, every delivery awaited: the processor time of the whole client process,
//! which has `send`, the encoding, gRPC and the system calls in it, and the time that passed, which has the server in it
//! where cores are few. Servers are processes of their own and do not count as processor time.

use std::collections::VecDeque;
use std::error::Error;
use std::time::Duration;

use plimsoll_client::testkit::TestCluster;
use plimsoll_client::{Client, Record, TopicConfig};
use plimsoll_host::Host;

const RECORDS: u32 = 2_000_000;
const RECORD_BYTES: usize = 100;
const RUNS: usize = 5;
/// Promises kept by the caller.
const DELIVERIES_MAX: usize = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let cluster = TestCluster::builder().byte_limit(8 << 30).start().await?;
        let client = cluster.client();
        for run in 0..RUNS {
            measure(client, &format!("t{run}")).await?;
        }
        Ok(())
    })
}

async fn measure(client: &Client, topic: &str) -> Result<(), Box<dyn Error>> {
    let config = TopicConfig { partitions: 1, replicas: 1, min_in_sync: 1, ..Default::default() };
    client.admin().create_topic(topic, config).await?;
    let producer = client.producer(topic).build().await?;
    producer.send(Record::new("warm")).await?.await?;
    let clock = Host::real().clock;
    let value = bytes::Bytes::from(vec![b'x'; RECORD_BYTES]);
    let (began, busy) = (clock.now(), processor_time());
    let mut deliveries = VecDeque::with_capacity(DELIVERIES_MAX);
    for _ in 0..RECORDS {
        if deliveries.len() == DELIVERIES_MAX {
            for delivery in deliveries.drain(..DELIVERIES_MAX / 2) {
                delivery.await?;
            }
        }
        deliveries.push_back(producer.send(Record::new(value.clone())).await?);
    }
    for delivery in deliveries {
        delivery.await?;
    }
    let (elapsed, busy) = (clock.now() - began, processor_time() - busy);
    producer.close().await;
    client.admin().delete_topic(topic).await?;
    println!(
        "produce: {} ns/record of processor time of the client, {} ns/record elapsed ({} records of {RECORD_BYTES} bytes)",
        busy.as_nanos() / u128::from(RECORDS),
        elapsed.as_nanos() / u128::from(RECORDS),
        RECORDS
    );
    Ok(())
}

/// User and system time of this process (all threads), from `/proc/self/stat` (proc(5)), in ticks of 10 ms.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
