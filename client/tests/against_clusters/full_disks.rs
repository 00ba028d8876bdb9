use std::time::Duration;

use futures::StreamExt;
use futures::future::try_join_all;
use plimsoll_client::testkit::{BYTE_LIMIT_MIN, TestCluster};
use plimsoll_client::{
    Client, Delivery, LastCause, OnFull, Outcome, ProduceErrorKind, Producer, ProducerEvent, Reason, Record,
    RetryAdvice, TopicConfig, partition_of_key,
};
use plimsoll_host::Host;

use super::{LIMIT, TOPIC, cluster, cluster_with};

/// More than the smallest limit leaves, so that setting it fills the disk.
pub(crate) async fn use_space(client: &Client) {
    let producer = client.producer(TOPIC).build().await.expect("a producer");
    for _ in 0..200 {
        drop(producer.send(Record::new(vec![7u8; 100_000]).partition(0)).await.expect("accepted"));
    }
    producer.close().await;
    assert_eq!(producer.stats().acked_records, 200);
}

pub(crate) fn fill(cluster: &mut TestCluster, spu: u32) {
    cluster.set_byte_limit(spu, BYTE_LIMIT_MIN).expect("a limit");
}

pub(crate) fn give_back(cluster: &mut TestCluster, spu: u32) {
    cluster.set_byte_limit(spu, 256 << 20).expect("a limit");
}

/// Sends to the first partition until a record is refused.
async fn first_refusal(producer: &Producer) -> plimsoll_client::ProduceError {
    let clock = Host::real().clock;
    let until = clock.now() + LIMIT;
    while clock.now() < until {
        if let Err(error) = producer.send(Record::new("probe").partition(0)).await.expect("accepted").await {
            return error;
        }
        clock.sleep(Duration::from_millis(5)).await;
    }
    panic!("the disk does not get full");
}

#[tokio::test]
async fn a_full_disk_is_told_in_numbers_at_once_and_by_the_health_within_a_second() {
    let Some((mut cluster, client)) = cluster(1, 1).await else { return };
    use_space(&client).await;
    let mut health = client.watch_health();
    let first = health.next().await.expect("a first");
    assert!(first.reachable && first.takes_writes() && first.volumes.len() == 1, "{first:?}");

    let clock = Host::real().clock;
    let hasty = client.producer(TOPIC).on_full(OnFull::Fail).linger(Duration::ZERO).build();
    let hasty = hasty.await.expect("a producer");
    fill(&mut cluster, 1);
    let told = async {
        loop {
            let now = health.next().await.expect("it never ends");
            if now.full_volumes().count() == 1 {
                return (clock.now(), now);
            }
        }
    };
    let refused = async { (first_refusal(&hasty).await, clock.now()) };
    let ((told_at, told), (error, refused_at)) = tokio::join!(told, refused);
    let late = told_at.saturating_sub(refused_at);
    assert!(late <= Duration::from_secs(1), "{late:?} after the first refusal");
    assert!(!told.takes_writes() && told.volumes[0].spu.0 == 1);
    println!("health {} ms after the first refusal", late.as_millis());

    assert_eq!((error.reason(), error.outcome()), (Some(Reason::DiskFull), Outcome::NotWritten));
    let space = error.space().expect("three numbers");
    assert!(space.needed_bytes > 0 && space.capacity_bytes == BYTE_LIMIT_MIN, "{space:?}");
    assert!(matches!(error.retry_advice(), RetryAdvice::ElsewhereAfter(wait) if wait > Duration::ZERO));
    assert_eq!(error.into_record().and_then(|record| record.value).as_deref(), Some(&b"probe"[..]));

    // Who waits learns the reason when the deadline passes, and not only that it did.
    let patient = client.producer(TOPIC).deadline(Duration::from_secs(1)).build().await.expect("a producer");
    let late = patient.send(Record::new("late")).await.expect("accepted").await.expect_err("no room");
    let ProduceErrorKind::DeadlineExceeded { last, outcome, .. } = &late.kind else { panic!("{late}") };
    assert_eq!(*outcome, Outcome::NotWritten);
    assert!(matches!(last, Some(LastCause::Refused(_))) && late.space().is_some(), "{late}");

    // Who waits longer gets through by itself.
    let waiting = client.producer(TOPIC).on_full(OnFull::Wait).build().await.expect("a producer");
    let delivery = waiting.send(Record::new("held")).await.expect("accepted");
    give_back(&mut cluster, 1);
    delivery.await.expect("acknowledged when there was room");
    let back = async { while !health.next().await.expect("it never ends").takes_writes() {} };
    clock.timeout(LIMIT, back).await.expect("in time");
}

/// Bytes of a batch, and of a record that has no room beside another.
const BATCH_BYTES: usize = 16 << 10;

/// A producer that has met the full disk under this partition.
async fn turned_away(client: &Client, on_full: OnFull, full: u32) -> Producer {
    let producer = client.producer(TOPIC).on_full(on_full).batch_bytes(BATCH_BYTES).build();
    let producer = producer.await.expect("a producer");
    let mut events = producer.events();
    drop(producer.send(Record::new("held").partition(full)).await.expect("accepted"));
    let refused = async {
        loop {
            let event = events.recv().await.expect("the producer lives");
            if let ProducerEvent::Refused { partition, refusal, .. } = event {
                assert_eq!((partition, refusal.reason()), (full, Reason::DiskFull));
                return;
            }
        }
    };
    Host::real().clock.timeout(LIMIT, refused).await.expect("in time");
    producer
}

/// Sends 40 records, each of which closes the batch before it, so that keyless ones move on.
async fn send_all(producer: &Producer, record: impl Fn(u32) -> Record) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in 0..40 {
        deliveries.push(producer.send(record(number)).await.expect("accepted"));
    }
    deliveries
}

#[tokio::test]
async fn only_records_without_a_key_leave_a_partition_whose_disk_is_full_and_only_if_they_may() {
    let config = TopicConfig { partitions: 2, replicas: 1, min_in_sync: 1, ..Default::default() };
    let Some((mut cluster, client)) = cluster_with(1, 2, config).await else { return };
    let leaders: Vec<u32> = {
        let image = client.metadata();
        image.topic_by_name(TOPIC).expect("it is there").partitions.iter().map(|p| p.leader).collect()
    };
    assert_ne!(leaders[0], leaders[1], "the partitions are on different nodes");
    use_space(&client).await;
    fill(&mut cluster, leaders[0]);
    let hasty = client.producer(TOPIC).on_full(OnFull::Fail).build().await.expect("a producer");
    assert_eq!(first_refusal(&hasty).await.reason(), Some(Reason::DiskFull));
    // Those of one client that wait for the same partition try it in turns.
    drop(hasty);
    let value = || vec![7u8; BATCH_BYTES - 100];
    let partitions = |deliveries: &[Delivery]| deliveries.iter().map(Delivery::partition).collect::<Vec<_>>();

    let producer = turned_away(&client, OnFull::Reroute, 0).await;
    let keyless = send_all(&producer, |_| Record::new(value())).await;
    assert!(partitions(&keyless).iter().all(|partition| *partition == 1), "{:?}", partitions(&keyless));
    let acked = Host::real().clock.timeout(LIMIT, try_join_all(keyless)).await;
    acked.expect("in time").expect("the other disk has room");
    // Keys stay together, wherever that is.
    let key = |number: u32| format!("key {number}");
    let keyed = send_all(&producer, |number| Record::new("on time").key(key(number))).await;
    let expected: Vec<u32> = (0..40).map(|number| partition_of_key(key(number).as_bytes(), 2)).collect();
    assert_eq!(partitions(&keyed), expected);
    assert!(expected.contains(&0), "some belong where the disk is full");
    drop(producer);

    let waiting = turned_away(&client, OnFull::Wait, 0).await;
    let keyless = partitions(&send_all(&waiting, |_| Record::new(value())).await);
    assert!(keyless.contains(&0) && keyless.contains(&1), "none is steered: {keyless:?}");
}
