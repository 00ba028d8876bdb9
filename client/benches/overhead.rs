//! What the SDK costs for each record of 100 bytes; `scripts/bench sdk` runs it and docs/performance.md says what it means.
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
/// Most processor time for a record.
const BAR_NS: f64 = 1000.0;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let cluster = TestCluster::builder().byte_limit(8 << 30).start().await?;
        let client = cluster.client();
        let (mut busy, mut elapsed) = (Vec::new(), Vec::new());
        for run in 0..RUNS {
            let cost = measure(client, &format!("t{run}")).await?;
            busy.push(cost.busy_ns);
            elapsed.push(cost.elapsed_ns);
        }
        figure("sdk_record_ns", busy, Some(BAR_NS));
        figure("sdk_record_elapsed_ns", elapsed, None);
        Ok(())
    })
}

/// Of one record, in nanoseconds.
struct Cost {
    busy_ns: f64,
    elapsed_ns: f64,
}

async fn measure(client: &Client, topic: &str) -> Result<Cost, Box<dyn Error>> {
    let config = TopicConfig { partitions: 1, replicas: 1, min_in_sync: 1, ..Default::default() };
    client.admin().create_topic(topic, config).await?;
    let producer = client.producer(topic).build().await?;
    producer.send(Record::new("warm")).await?.await?;
    let clock = Host::real().clock;
    let value = bytes::Bytes::from(vec![b'x'; RECORD_BYTES]);
    let (began, before) = (clock.now(), processor_time()?);
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
    let (elapsed, busy) = (clock.now() - began, processor_time()? - before);
    producer.close().await;
    client.admin().delete_topic(topic).await?;
    let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(RECORDS);
    Ok(Cost { busy_ns: each(busy), elapsed_ns: each(elapsed) })
}

/// User and system time of this process (all threads), from `/proc/self/stat` (proc(5)), in ticks of 10 ms.
fn processor_time() -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name, which may hold anything, ends with the last parenthesis; utime and stime are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').ok_or("a process has a name")?;
    let field = |at: usize| -> Result<u64, Box<dyn Error>> {
        Ok(fields.split_whitespace().nth(at - 3).ok_or("a field is missing")?.parse()?)
    };
    Ok(Duration::from_millis((field(14)? + field(15)?) * 10))
}

/// One line: the median of the runs, and how far to trust it.
fn figure(name: &str, mut values: Vec<f64>, at_most: Option<f64>) {
    values.sort_by(f64::total_cmp);
    let told = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
    let (least, value, most) =
        (told(values.first()), told(values.get(values.len() / 2)), told(values.last()));
    let verdict = match at_most {
        None => "bar=none ok".to_owned(),
        Some(bar) if value <= bar => format!("bar=<={bar} ok"),
        Some(bar) => format!("bar=<={bar} missed"),
    };
    println!("FIGURE {name} value={value:.0} {verdict} min={least:.0} max={most:.0} runs={}", values.len());
}
