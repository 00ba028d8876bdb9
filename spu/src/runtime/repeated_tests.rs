//! A batch that is in the log already comes again while nothing new is taken: NOT_WRITTEN would be wrong of it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use plimsoll_proto::ids::Incarnation;
use plimsoll_proto::v1::{self, Acks, ErrorDetail, Outcome, Reason};

use super::testing::{
    CLUSTER, LIMIT, PARTITION, TestCluster, batch, config, job, produce, produce_when_led, sequenced, start,
};
use super::{ProduceJob, ProduceResult};

const LARGE: &[u8] = &[b'x'; 4000];

fn short(acks: Acks, batch: Bytes) -> ProduceJob {
    ProduceJob { timeout: Duration::from_millis(10), ..job(1, acks, batch) }
}

#[track_caller]
fn refused(answer: ProduceResult, reason: Reason, outcome: Outcome) -> ErrorDetail {
    let ProduceResult::Error(detail) = answer else { panic!("acknowledged: {answer:?}") };
    assert_eq!((detail.reason(), detail.outcome()), (reason, outcome), "{detail:?}");
    detail
}

#[track_caller]
fn repeated(answer: &ProduceResult, meaning: v1::AckMeaning) {
    let ProduceResult::Ack(ack) = answer else { panic!("refused: {answer:?}") };
    assert_eq!((ack.base_offset, ack.duplicate, ack.meaning()), (1, true, meaning));
}

/// Two nodes, both in sync, with "a" at offset 0 and then, at 1, a batch of a producer that got no answer: node 2 has not
/// fetched it.
async fn appended_without_an_answer(min_in_sync: u32) -> TestCluster {
    let cluster = TestCluster::new(2, 64 << 20, config(2, min_in_sync)).await;
    drop(produce_when_led(cluster.node(1), job(1, Acks::Leader, batch(b"a"))).await);
    let answer = produce(cluster.node(1), short(Acks::All, sequenced(0, b"b"))).await;
    refused(answer, Reason::TimedOut, Outcome::Unknown);
    cluster
}

async fn log_end(cluster: &TestCluster, node: usize) -> u64 {
    cluster.node(node).handle.standing(&PARTITION).await.expect("it stands").log_end
}

/// Fills the disk of node 1 until a produce is refused, at the door if told so.
async fn fill(cluster: &TestCluster) {
    cluster.node(1).disk.take_all_bytes();
    let until = cluster.host.clock.now() + LIMIT;
    loop {
        if let ProduceResult::Error(detail) =
            produce(cluster.node(1), short(Acks::Leader, batch(LARGE))).await
            && detail.reason() == Reason::DiskFull
        {
            return;
        }
        assert!(cluster.host.clock.now() < until, "it is full");
    }
}

/// Waits for an answer while the followers fetch.
async fn answered(cluster: &TestCluster, job: ProduceJob) -> ProduceResult {
    let mut answer = cluster.node(1).handle.produce(job).await;
    let mut done = None;
    cluster
        .replicate_until(|| {
            done = done.take().or_else(|| answer.try_recv().ok());
            done.is_some()
        })
        .await;
    done.expect("answered")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_minimum_it_is_neither_acknowledged_by_all_nor_called_unwritten() {
    let mut cluster = appended_without_an_answer(2).await;
    cluster.change(|partition| partition.in_sync = vec![1]);
    // Until the node has heard of the smaller set, the answer waits for a member that does not fetch.
    let below = |answer: &ProduceResult| matches!(answer, ProduceResult::Error(detail) if detail.reason() == Reason::NotEnoughInSync);
    while !below(&produce(cluster.node(1), short(Acks::All, batch(b"x"))).await) {}
    let before = log_end(&cluster, 1).await;
    for _ in 0..3 {
        let again = produce(cluster.node(1), job(1, Acks::All, sequenced(0, b"b"))).await;
        refused(again, Reason::NotEnoughInSync, Outcome::Unknown);
        let next = produce(cluster.node(1), job(1, Acks::All, sequenced(1, b"c"))).await;
        refused(next, Reason::NotEnoughInSync, Outcome::NotWritten);
    }
    assert_eq!(log_end(&cluster, 1).await, before);
    // The leader has it, and that is all that is asked.
    let by_leader = produce(cluster.node(1), job(1, Acks::Leader, sequenced(0, b"b"))).await;
    repeated(&by_leader, v1::AckMeaning::Leader);

    cluster.change(|partition| partition.in_sync = vec![1, 2]);
    let again = loop {
        let again = answered(&cluster, job(1, Acks::All, sequenced(0, b"b"))).await;
        if !below(&again) {
            break again;
        }
    };
    repeated(&again, v1::AckMeaning::Replicated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_it_is_acknowledged_once_every_member_has_it() {
    let mut cluster = appended_without_an_answer(1).await;
    fill(&cluster).await;
    // The controllers hear of it; from then on refusals come without a queue.
    let spu = cluster.image.spus.values_mut().next().expect("the node");
    spu.volumes[0].state = v1::VolumeState::WriteOffline.into();
    cluster.publish();
    let waiting = produce(cluster.node(1), short(Acks::All, sequenced(0, b"b"))).await;
    refused(waiting, Reason::TimedOut, Outcome::Unknown);
    let next = produce(cluster.node(1), job(1, Acks::All, sequenced(1, b"c"))).await;
    let next = refused(next, Reason::DiskFull, Outcome::NotWritten);
    assert!(next.disk.is_some_and(|disk| disk.needed_bytes > 0), "it says as much as any refusal");

    repeated(&answered(&cluster, job(1, Acks::All, sequenced(0, b"b"))).await, v1::AckMeaning::Replicated);
    // Committed by now: at once, and as often as it is asked.
    for _ in 0..3 {
        let again = produce(cluster.node(1), job(1, Acks::All, sequenced(0, b"b"))).await;
        repeated(&again, v1::AckMeaning::Replicated);
    }
    // What names the batch is damaged on its way: that it is there is not said of another one.
    let mut damaged = BytesMut::from(sequenced(0, b"b"));
    *damaged.last_mut().expect("bytes") ^= 1;
    let damaged = produce(cluster.node(1), job(1, Acks::All, damaged.freeze())).await;
    refused(damaged, Reason::DiskFull, Outcome::NotWritten);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_lead_in_that_epoch_says_unknown() {
    let cluster = appended_without_an_answer(1).await;
    let stale = |base| ProduceJob {
        leader_epoch: plimsoll_proto::ids::LeaderEpoch(9),
        ..job(1, Acks::All, sequenced(base, b"b"))
    };
    refused(produce(cluster.node(1), stale(0)).await, Reason::StaleLeaderEpoch, Outcome::Unknown);
    refused(produce(cluster.node(1), stale(1)).await, Reason::StaleLeaderEpoch, Outcome::NotWritten);

    let until = cluster.host.clock.now() + LIMIT;
    let to_follower = |base| job(1, Acks::All, sequenced(base, b"b"));
    refused(produce(cluster.node(2), to_follower(0)).await, Reason::NotLeader, Outcome::NotWritten);
    while log_end(&cluster, 2).await < 2 {
        assert!(cluster.host.clock.now() < until, "the follower copies");
        cluster.replicate_round().await;
    }
    let detail = refused(produce(cluster.node(2), to_follower(0)).await, Reason::NotLeader, Outcome::Unknown);
    assert_eq!(detail.leader.map(|leader| leader.spu_id), Some(1));
    refused(produce(cluster.node(2), to_follower(1)).await, Reason::NotLeader, Outcome::NotWritten);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_lease_it_is_not_acknowledged_however_well_it_is_kept() {
    let mut cluster = appended_without_an_answer(1).await;
    let until = cluster.host.clock.now() + LIMIT;
    while log_end(&cluster, 2).await < 2 {
        assert!(cluster.host.clock.now() < until, "the follower copies");
        cluster.replicate_round().await;
    }
    // A run that no controller has answered yet leads.
    let disk = cluster.node(1).disk.clone();
    cluster.node(1).handle.shut_down().await;
    cluster.nodes[0] = start(&cluster.host, 1, &disk).await;
    cluster.node(1).handle.set_incarnation(CLUSTER, Incarnation(11));
    cluster.image.spus.get_mut(&plimsoll_proto::ids::SpuId(1)).expect("there").incarnation = 11;
    cluster.change(|partition| {
        (partition.leader_epoch, partition.leader_incarnation) = (2, 11);
        partition.in_sync = vec![1];
    });
    let first = loop {
        // It has not heard that it leads.
        match produce(cluster.node(1), job(2, Acks::All, batch(b"c"))).await {
            ProduceResult::Error(detail) => assert_eq!(detail.outcome(), Outcome::NotWritten, "{detail:?}"),
            ProduceResult::Ack(ack) => break ack,
        }
    };
    assert_eq!(first.base_offset, 2, "acks=all goes by the epoch");
    for acks in [Acks::Leader, Acks::None] {
        let again = produce(cluster.node(1), job(2, acks, sequenced(0, b"b"))).await;
        refused(again, Reason::NoLeader, Outcome::Unknown);
        let next = produce(cluster.node(1), job(2, acks, sequenced(1, b"d"))).await;
        refused(next, Reason::NoLeader, Outcome::NotWritten);
    }
    cluster.node(1).disk.take_all_bytes();
    while !matches!(
        produce(cluster.node(1), job(2, Acks::All, batch(LARGE))).await,
        ProduceResult::Error(detail) if detail.reason() == Reason::DiskFull
    ) {
        assert!(cluster.host.clock.now() < until + LIMIT, "it is full");
    }
    for acks in [Acks::All, Acks::Leader] {
        let again = produce(cluster.node(1), job(2, acks, sequenced(0, b"b"))).await;
        refused(again, Reason::DiskFull, Outcome::Unknown);
    }
    cluster.node(1).handle.heartbeat_answered(cluster.host.clock.now());
    repeated(
        &produce(cluster.node(1), job(2, Acks::All, sequenced(0, b"b"))).await,
        v1::AckMeaning::Replicated,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_failed_device_it_is_unknown() {
    let flush = v1::TopicConfig { flush: v1::FlushPolicy::Ack.into(), ..config(1, 1) };
    let cluster = TestCluster::new(1, 64 << 20, flush).await;
    drop(produce_when_led(cluster.node(1), job(1, Acks::All, batch(b"a"))).await);
    cluster.node(1).disk.set_sync_fails(true);
    let lost = produce(cluster.node(1), job(1, Acks::All, sequenced(0, b"b"))).await;
    refused(lost, Reason::VolumeFailed, Outcome::Unknown);
    cluster.node(1).disk.set_sync_fails(false);
    for acks in [Acks::All, Acks::Leader] {
        let again = produce(cluster.node(1), job(1, acks, sequenced(0, b"b"))).await;
        refused(again, Reason::VolumeFailed, Outcome::Unknown);
        let next = produce(cluster.node(1), job(1, acks, sequenced(1, b"c"))).await;
        refused(next, Reason::VolumeFailed, Outcome::NotWritten);
    }
}
