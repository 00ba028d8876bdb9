//! What waits is bounded: who comes beyond it is refused, and told that nothing was written.

use std::time::Duration;

use plimsoll_proto::v1::{self, Acks, Outcome, Reason};

use super::produce::WAITING_ACKS_MAX;
use super::testing::{CLUSTER, LIMIT, PARTITION, TestCluster, batch, config, job, produce, produce_when_led};
use super::{POSITIONS_MAX, ProduceJob, ProduceResult};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_that_wait_for_followers_are_bounded_and_go_on_when_these_catch_up() {
    let cluster = TestCluster::new(2, 64 << 20, config(2, 2)).await;
    drop(produce_when_led(cluster.node(1), job(1, Acks::Leader, batch(b"first"))).await);
    let waits = || ProduceJob { timeout: Duration::from_secs(600), ..job(1, Acks::All, batch(b"x")) };
    let mut waiting = Vec::with_capacity(WAITING_ACKS_MAX);
    for _ in 0..WAITING_ACKS_MAX {
        waiting.push(cluster.node(1).handle.produce(waits()).await);
    }
    let short = ProduceJob { timeout: Duration::from_millis(10), ..waits() };
    let ProduceResult::Error(refused) = produce(cluster.node(1), short).await else {
        panic!("one more than may wait was appended");
    };
    assert_eq!((refused.reason(), refused.outcome()), (Reason::MemoryPressure, Outcome::NotWritten));
    assert!(refused.retry_after_ms > 0, "{refused:?}");
    let end = cluster.node(1).handle.standing(&PARTITION).await.expect("it stands").log_end;
    assert_eq!(end, 1 + u64::try_from(WAITING_ACKS_MAX).expect("small"), "a refused record is nowhere");
    assert!(waiting.iter_mut().all(|answer| answer.try_recv().is_err()), "the others wait on");

    let mut last = waiting.pop().expect("many");
    let until = cluster.host.clock.now() + LIMIT;
    let last = loop {
        cluster.replicate_round().await;
        match last.try_recv() {
            Ok(answer) => break answer,
            Err(_) => assert!(cluster.host.clock.now() < until, "the follower catches up"),
        }
    };
    assert!(matches!(last, ProduceResult::Ack(_)), "{last:?}");
    let mut again = cluster.node(1).handle.produce(waits()).await;
    let again = loop {
        cluster.replicate_round().await;
        match again.try_recv() {
            Ok(answer) => break answer,
            Err(_) => assert!(cluster.host.clock.now() < until, "there is room again"),
        }
    };
    assert!(matches!(again, ProduceResult::Ack(_)), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_of_more_positions_than_allowed_is_refused_as_a_whole() {
    let cluster = TestCluster::new(2, 64 << 20, config(2, 1)).await;
    drop(produce_when_led(cluster.node(1), job(1, Acks::Leader, batch(b"a"))).await);
    let position = v1::ReplicaPosition {
        topic_id: PARTITION.topic_id.to_bytes(),
        leader_epoch: 1,
        ..v1::ReplicaPosition::default()
    };
    let fetch = async |positions: usize| {
        let request = v1::ReplicateRequest {
            cluster_id: CLUSTER.to_bytes(),
            fetch_id: 1,
            spu_id: 2,
            incarnation: 20,
            bytes_max: 1 << 20,
            positions: vec![position.clone(); positions],
            ..v1::ReplicateRequest::default()
        };
        cluster.node(1).handle.replicate(request).await
    };
    let refused = fetch(POSITIONS_MAX + 1).await;
    assert_eq!(refused.error.map(|detail| detail.reason()), Some(Reason::InvalidArgument));
    assert!(refused.partitions.is_empty());
    assert_eq!(fetch(POSITIONS_MAX).await.error, None);
}
