use std::time::Duration;

use futures::StreamExt;
use plimsoll_client::testkit::{BYTE_LIMIT_MIN, TestCluster};
use plimsoll_client::{
    Client, LastCause, OnFull, Outcome, ProduceErrorKind, Producer, Reason, Record, RetryAdvice,
};
use plimsoll_host::Host;

use super::{LIMIT, TOPIC, cluster};

/// More than the smallest limit leaves, so that setting it fills the disk.
pub(crate) async fn use_space(client: &Client) {
    let producer = client.producer(TOPIC).build().await.expect("a producer");
    for _ in 0..200 {
        drop(producer.send(Record::new(vec![7u8; 100_000])).await.expect("accepted"));
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

/// Sends until a record is refused.
async fn first_refusal(producer: &Producer) -> plimsoll_client::ProduceError {
    let clock = Host::real().clock;
    let until = clock.now() + LIMIT;
    while clock.now() < until {
        if let Err(error) = producer.send(Record::new("probe")).await.expect("accepted").await {
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
