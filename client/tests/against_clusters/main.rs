//! The SDK against clusters of real processes.

mod consuming;
mod deadlines;
mod dual_stack;
mod examples;
mod full_disks;
mod producing;
mod servers;
mod spans;

use std::time::Duration;

use plimsoll_client::testkit::{TestCluster, TestkitError};
use plimsoll_client::{Client, Consumer, Record, TopicConfig};
use plimsoll_host::Host;

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(30);
const TOPIC: &str = "flights";

/// A cluster with a topic, every partition led, with a copy on each node. `None`, said aloud, where there is no binary.
async fn cluster(spus: u32, partitions: u32) -> Option<(TestCluster, Client)> {
    cluster_with(1, spus, TopicConfig { partitions, replicas: spus, min_in_sync: 1, ..Default::default() })
        .await
}

/// The same with a topic as it is told.
async fn cluster_with(controllers: u32, spus: u32, config: TopicConfig) -> Option<(TestCluster, Client)> {
    let cluster = match TestCluster::builder().controllers(controllers).spus(spus).start().await {
        Ok(cluster) => cluster,
        Err(error @ TestkitError::NoBinary) => {
            println!("SKIPPED {}: {error}", std::thread::current().name().unwrap_or_default());
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let client = cluster.client().clone();
    client.admin().create_topic(TOPIC, config).await.expect("a topic");
    assert!(all_led(&client).await, "every partition has a leader");
    Some((cluster, client))
}

async fn all_led(client: &Client) -> bool {
    client
        .wait_metadata(LIMIT, |image| {
            let topic = image.topic_by_name(TOPIC);
            topic.is_some_and(|topic| topic.partitions.iter().all(|partition| partition.leader != 0))
        })
        .await
}

/// So many records into a partition, `v0` on, a second apart, ten seconds after 1970 the first.
async fn fill(client: &Client, partition: u32, count: i64) {
    let producer = client.producer(TOPIC).build().await.expect("a producer");
    for number in 0..count {
        let record =
            Record::new(format!("v{number}")).partition(partition).timestamp_ms(10_000 + number * 1000);
        drop(producer.send(record).await.expect("accepted"));
    }
    producer.close().await;
    assert_eq!(producer.stats().acked_records, u64::try_from(count).expect("not negative"));
}

/// The next value, in time.
async fn next(consumer: &mut Consumer) -> String {
    let next = Host::real().clock.timeout(LIMIT, consumer.next()).await.expect("in time");
    text(&next.expect("more to come").expect("no error"))
}

fn text(record: &plimsoll_client::ConsumedRecord) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}
