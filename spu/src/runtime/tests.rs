use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId};
use plimsoll_proto::v1::{self, Acks, DiskCause, Outcome, Reason, VolumeState};

use super::testing::{
    LIMIT, PARTITION, TestCluster, batch, config, job, produce, produce_when_led, read, sequenced, start,
    values,
};
use super::{ControlRequest, FetchFrom, FetchJob, ProduceResult};

fn ack(answer: &ProduceResult) -> &v1::ProduceAck {
    match answer {
        ProduceResult::Ack(ack) => ack,
        ProduceResult::Error(detail) => panic!("refused: {detail:?}"),
    }
}

fn refusal(answer: ProduceResult) -> v1::ErrorDetail {
    match answer {
        ProduceResult::Error(detail) => detail,
        ProduceResult::Ack(ack) => panic!("acknowledged: {ack:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_appends_acknowledges_and_serves() {
    let cluster = TestCluster::new(1, 64 << 20, config(1, 1)).await;
    let node = cluster.node(1);
    let first = produce_when_led(node, job(1, Acks::All, batch(b"a"))).await;
    assert_eq!((ack(&first).base_offset, ack(&first).copies), (0, 1));

    // Who waits at the end is woken by the next record.
    let job_at_end = FetchJob {
        partition: PARTITION,
        from: FetchFrom::Latest,
        bytes_max: 1 << 20,
        any_replica: false,
        leader_epoch: Some(LeaderEpoch(1)),
        wait_max: LIMIT,
    };
    let (waiting, second) =
        tokio::join!(node.handle.fetch(job_at_end), produce(node, job(1, Acks::All, batch(b"b"))));
    assert_eq!(ack(&second).base_offset, 1);
    assert!(matches!(values(&waiting.expect("a record")).as_slice(), [one] if one == "b"));
    let all = read(node, FetchFrom::Earliest, false).await.expect("records");
    assert_eq!(values(&all), ["a", "b"]);
    assert_eq!((all.next_offset.get(), all.high_watermark.get()), (2, 2));

    let stale = refusal(produce(node, job(9, Acks::All, batch(b"x"))).await);
    assert_eq!((stale.reason(), stale.outcome()), (Reason::StaleLeaderEpoch, Outcome::NotWritten));
    let mut elsewhere = job(1, Acks::All, batch(b"x"));
    elsewhere.partition = PartitionId { index: 5, ..PARTITION };
    assert_eq!(refusal(produce(node, elsewhere.clone()).await).reason(), Reason::UnknownPartition);
    elsewhere.partition.topic_id = plimsoll_proto::ids::TopicId([1; 16]);
    assert_eq!(refusal(produce(node, elsewhere).await).reason(), Reason::UnknownTopic);
    let corrupt = refusal(produce(node, job(1, Acks::All, bytes::Bytes::from_static(b"junk"))).await);
    assert_eq!(corrupt.reason(), Reason::CorruptBatch);
    let beyond = read(node, FetchFrom::Offset(Offset::new(9).expect("small")), false).await;
    assert_eq!(beyond.expect_err("not written").reason(), Reason::OffsetNotAvailable);
    node.handle.shut_down().await;
    let stopped = refusal(produce(node, job(1, Acks::All, batch(b"x"))).await);
    assert_eq!(stopped.reason(), Reason::ShuttingDown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_means_every_member_and_consumers_see_nothing_before() {
    let cluster = TestCluster::new(3, 64 << 20, config(3, 2)).await;
    let node = cluster.node(1);
    assert_eq!(
        ack(&produce_when_led(node, job(1, Acks::Leader, batch(b"a"))).await).meaning(),
        v1::AckMeaning::Leader
    );
    let mut answer = node.handle.produce(job(1, Acks::All, batch(b"b"))).await;
    let before = read(node, FetchFrom::Earliest, false).await.expect("the start is there");
    assert_eq!((before.batches.len(), before.high_watermark.get()), (0, 0));
    assert!(answer.try_recv().is_err(), "nobody has it yet");

    let mut answered = None;
    cluster
        .replicate_until(|| {
            answered = answered.take().or_else(|| answer.try_recv().ok());
            answered.is_some()
        })
        .await;
    let answered = answered.expect("it was answered");
    assert_eq!((ack(&answered).base_offset, ack(&answered).copies), (1, 3));
    cluster.replicate_round().await;
    for id in 1..=3 {
        let all = read(cluster.node(id), FetchFrom::Earliest, true).await.expect("records");
        assert_eq!(values(&all), ["a", "b"], "node {id}");
    }
    let elsewhere = refusal(produce(cluster.node(2), job(1, Acks::All, batch(b"x"))).await);
    assert_eq!(elsewhere.reason(), Reason::NotLeader);
    assert_eq!(elsewhere.leader.map(|leader| leader.spu_id), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_takes_over_and_the_old_tail_is_cut() {
    let mut cluster = TestCluster::new(3, 64 << 20, config(3, 2)).await;
    drop(produce_when_led(cluster.node(1), job(1, Acks::Leader, batch(b"a"))).await);
    let mut first = cluster.node(1).handle.produce(job(1, Acks::All, batch(b"b"))).await;
    let mut done = None;
    cluster
        .replicate_until(|| {
            done = done.take().or_else(|| first.try_recv().ok());
            done.is_some()
        })
        .await;
    let base = ack(&done.expect("answered")).base_offset;

    // Written here only, then the leadership moves.
    let orphan = cluster.node(1).handle.produce(job(1, Acks::All, batch(b"lost"))).await;
    read(cluster.node(1), FetchFrom::Earliest, false).await.expect("the queue is worked off in order");
    cluster.lead(2);
    let orphan = refusal(orphan.await.expect("answered"));
    assert_eq!((orphan.reason(), orphan.outcome()), (Reason::NotLeader, Outcome::Unknown));

    let mut next = None;
    while next.is_none() {
        match produce_when_led(cluster.node(2), job(2, Acks::Leader, batch(b"c"))).await {
            ProduceResult::Ack(ack) => next = Some(ack),
            ProduceResult::Error(detail) => assert_eq!(detail.reason(), Reason::NotLeader),
        }
    }
    assert_eq!(next.expect("acknowledged").base_offset, base + 1);
    let mut all = cluster.node(2).handle.produce(job(2, Acks::All, batch(b"d"))).await;
    let mut done = None;
    cluster
        .replicate_until(|| {
            done = done.take().or_else(|| all.try_recv().ok());
            done.is_some()
        })
        .await;
    assert_eq!(ack(&done.expect("answered")).copies, 3);
    cluster.replicate_round().await;
    let leader = values(&read(cluster.node(2), FetchFrom::Earliest, true).await.expect("records"));
    assert_eq!(leader.last().map(String::as_str), Some("d"));
    for id in [1, 3] {
        let copy = values(&read(cluster.node(id), FetchFrom::Earliest, true).await.expect("records"));
        assert_eq!(copy, leader, "node {id}");
        assert!(!copy.contains(&"lost".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_reads_on_and_comes_back_by_itself() {
    let mut cluster = TestCluster::new(1, 64 << 20, config(1, 1)).await;
    assert_eq!(ack(&produce_when_led(cluster.node(1), job(1, Acks::All, batch(b"a"))).await).base_offset, 0);
    cluster.node(1).disk.take_all_bytes();
    let full = loop {
        if let ProduceResult::Error(detail) =
            produce(cluster.node(1), job(1, Acks::All, batch(&[b'x'; 4000]))).await
            && detail.reason() == Reason::DiskFull
        {
            break detail;
        }
    };
    assert_eq!(full.outcome(), Outcome::NotWritten);
    assert!(full.retry_after_ms > 0 && full.retry_after_ms <= 5000, "{full:?}");
    let disk = full.disk.expect("which disk");
    assert_eq!((disk.spu_id, disk.cause()), (1, DiskCause::Bytes));
    assert!(disk.capacity_bytes > 0 && disk.needed_bytes > 4000, "{disk:?}");

    // Asked of the controller until the metadata shows it; refused without a queue by then.
    let ControlRequest::ChangeVolume(asked) = cluster.nodes[0].requests.recv().await.expect("a wish") else {
        panic!("not about a volume");
    };
    assert_eq!((asked.expected, asked.wanted), (VolumeState::Writable, VolumeState::WriteOffline));
    let spu = cluster.image.spus.values_mut().next().expect("the node");
    spu.volumes[0].state = VolumeState::WriteOffline.into();
    cluster.publish();
    for _ in 0..1000 {
        let again = refusal(produce(cluster.node(1), job(1, Acks::All, batch(&[b'x'; 4000]))).await);
        assert_eq!(again.reason(), Reason::DiskFull);
    }
    let facts = cluster.node(1).handle.volume_facts();
    assert!(facts[0].refused_total >= 1000, "{facts:?}");
    let mut serving = cluster.node(1).handle.produce_serving();
    cluster
        .host
        .clock
        .timeout(LIMIT, serving.wait_for(|serving| !*serving))
        .await
        .expect("health says so too")
        .expect("the node is there");
    let held = read(cluster.node(1), FetchFrom::Earliest, false).await.expect("reads go on");
    assert_eq!(values(&held)[0], "a");

    cluster.node(1).disk.release();
    cluster
        .host
        .clock
        .timeout(LIMIT, serving.wait_for(|serving| *serving))
        .await
        .expect("it comes back")
        .expect("the node is there");
    let back = ack(&produce_when_led(cluster.node(1), job(1, Acks::All, batch(b"z"))).await).base_offset;
    assert!(back > 0);
    loop {
        let wish = cluster.nodes[0].requests.recv().await.expect("a wish");
        if matches!(&wish, ControlRequest::ChangeVolume(wish) if wish.wanted == VolumeState::Writable) {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_is_unknown_and_final() {
    let flush = v1::TopicConfig { flush: v1::FlushPolicy::Ack.into(), ..config(1, 1) };
    let mut cluster = TestCluster::new(1, 64 << 20, flush).await;
    let first = produce_when_led(cluster.node(1), job(1, Acks::All, batch(b"a"))).await;
    assert_eq!(ack(&first).meaning(), v1::AckMeaning::Synced);
    cluster.node(1).disk.set_sync_fails(true);
    let lost = refusal(produce(cluster.node(1), job(1, Acks::All, batch(b"b"))).await);
    assert_eq!((lost.reason(), lost.outcome()), (Reason::VolumeFailed, Outcome::Unknown));
    cluster.node(1).disk.set_sync_fails(false);
    let refused = refusal(produce(cluster.node(1), job(1, Acks::All, batch(b"c"))).await);
    assert_eq!((refused.reason(), refused.outcome()), (Reason::VolumeFailed, Outcome::NotWritten));
    let ControlRequest::ChangeVolume(asked) = cluster.nodes[0].requests.recv().await.expect("a wish") else {
        panic!("not about a volume");
    };
    assert_eq!(asked.wanted, VolumeState::Failed);
    let committed = read(cluster.node(1), FetchFrom::Earliest, false).await.expect("reads go on");
    assert_eq!(values(&committed), ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_minimum_a_refusal_appends_nothing_and_consumes_no_sequence() {
    let mut cluster = TestCluster::new(2, 64 << 20, config(2, 2)).await;
    let first = produce_when_led(cluster.node(1), job(1, Acks::Leader, batch(b"a"))).await;
    assert_eq!(ack(&first).base_offset, 0);
    cluster.change(|partition| partition.in_sync = vec![1]);
    let short = || super::ProduceJob {
        timeout: std::time::Duration::from_millis(10),
        ..job(1, Acks::All, batch(b"b"))
    };
    // Until the node has heard of the smaller set, the answer waits for a member that does not fetch.
    while refusal(produce(cluster.node(1), short()).await).reason() != Reason::NotEnoughInSync {}
    let end = || cluster.node(1).handle.standing(&super::testing::PARTITION);
    let before = end().await.expect("it stands").log_end;
    for _ in 0..3 {
        let refused = refusal(produce(cluster.node(1), job(1, Acks::All, sequenced(0, b"c"))).await);
        assert_eq!((refused.reason(), refused.outcome()), (Reason::NotEnoughInSync, Outcome::NotWritten));
    }
    assert_eq!(end().await.expect("it stands").log_end, before, "a refused record is nowhere");
    assert_eq!(end().await.expect("it stands").high_watermark, 0, "a set below its minimum commits nothing");

    cluster.change(|partition| partition.in_sync = vec![1, 2]);
    let mut answered = None;
    let mut answer = cluster.node(1).handle.produce(job(1, Acks::All, sequenced(0, b"c"))).await;
    while answered.is_none() {
        cluster.replicate_round().await;
        answered = match answer.try_recv() {
            Ok(ProduceResult::Error(detail)) if detail.reason() == Reason::NotEnoughInSync => {
                answer = cluster.node(1).handle.produce(job(1, Acks::All, sequenced(0, b"c"))).await;
                None
            }
            other => other.ok(),
        };
    }
    let answered = answered.expect("answered");
    assert_eq!((ack(&answered).base_offset, ack(&answered).duplicate), (before, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_sent_again_to_the_next_leader_is_there_once_at_its_old_offset() {
    let mut cluster = TestCluster::new(3, 64 << 20, config(3, 2)).await;
    drop(produce_when_led(cluster.node(1), job(1, Acks::Leader, batch(b"a"))).await);
    // The answer of the first leader is lost with it: it appended, the others copied.
    drop(cluster.node(1).handle.produce(job(1, Acks::All, sequenced(0, b"b"))).await);
    let copied = |node: usize| cluster.node(node).handle.standing(&PARTITION);
    let until = cluster.host.clock.now() + LIMIT;
    while copied(2).await.expect("it stands").log_end < 2 || copied(3).await.expect("it stands").log_end < 2 {
        assert!(cluster.host.clock.now() < until, "the followers copy");
        cluster.replicate_round().await;
    }
    cluster.lead(2);
    let next = cluster.node(2);
    let mut answer = next.handle.produce(job(2, Acks::All, sequenced(0, b"b"))).await;
    let answered = loop {
        cluster.replicate_round().await;
        match answer.try_recv() {
            // It has not heard yet that it leads, or not been heard of; it has the batch all the same.
            Ok(ProduceResult::Error(detail)) => {
                assert!(matches!(detail.reason(), Reason::NoLeader | Reason::NotLeader), "{detail:?}");
                assert_eq!(detail.outcome(), Outcome::Unknown);
                answer = next.handle.produce(job(2, Acks::All, sequenced(0, b"b"))).await;
            }
            Ok(answered) => break answered,
            Err(_) => assert!(cluster.host.clock.now() < until, "it is acknowledged"),
        }
    };
    assert_eq!((ack(&answered).base_offset, ack(&answered).duplicate), (1, true));
    cluster.replicate_round().await;
    for id in 1..=3 {
        let held = read(cluster.node(id), FetchFrom::Earliest, true).await.expect("records");
        assert_eq!(values(&held), ["a", "b"], "node {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_follower_is_proposed_for_removal_and_back() {
    let mut cluster = TestCluster::new(2, 64 << 20, config(2, 1)).await;
    let first = produce_when_led(cluster.node(1), job(1, Acks::Leader, batch(b"a"))).await;
    assert_eq!(ack(&first).base_offset, 0);
    let waiting = cluster.node(1).handle.produce(job(1, Acks::All, batch(b"b"))).await;
    let ControlRequest::ChangeInSync(shrink) = cluster.nodes[0].requests.recv().await.expect("a proposal")
    else {
        panic!("not about a set");
    };
    assert_eq!(shrink.in_sync, [(plimsoll_proto::ids::SpuId(1), plimsoll_proto::ids::Incarnation(10))]);
    let _ = shrink.answer.send(v1::ChangeInSyncResponse { applied: true, version: 1, partition_epoch: 9 });
    cluster.change(|partition| partition.in_sync = vec![1]);
    assert_eq!(ack(&waiting.await.expect("answered")).base_offset, 1);

    let clock = cluster.host.clock.clone();
    clock
        .timeout(LIMIT, async {
            loop {
                cluster.replicate_round().await;
                if let Ok(ControlRequest::ChangeInSync(expand)) = cluster.nodes[0].requests.try_recv() {
                    return expand;
                }
            }
        })
        .await
        .map(|expand| assert_eq!(expand.in_sync.len(), 2))
        .expect("who has caught up is proposed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_serves_reads_and_leads_only_in_a_new_epoch() {
    let cluster = TestCluster::new(1, 64 << 20, config(1, 1)).await;
    let first = produce_when_led(cluster.node(1), job(1, Acks::All, batch(b"a"))).await;
    assert_eq!(ack(&first).base_offset, 0);
    cluster.node(1).handle.shut_down().await;
    let again = start(&cluster.host, 1, &cluster.node(1).disk).await;
    let held = read(&again, FetchFrom::Earliest, true).await.expect("reads need no controller");
    assert_eq!(values(&held), ["a"]);
    let reports = again.handle.replica_reports();
    assert_eq!((reports.len(), reports[0].log_end, reports[0].cache_lost), (1, 1, false));
    let refused = refusal(produce(&again, job(1, Acks::All, batch(b"b"))).await);
    assert_eq!(refused.reason(), Reason::NoLeader);

    // The metadata still names the run before this one.
    again.handle.set_incarnation(super::testing::CLUSTER, plimsoll_proto::ids::Incarnation(20));
    again.handle.apply_metadata(std::sync::Arc::new(cluster.image.clone()));
    let refused = refusal(produce(&again, job(1, Acks::All, batch(b"b"))).await);
    assert_eq!(refused.reason(), Reason::NoLeader);
    again.handle.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_none_promises_nothing_and_hides_no_refusal() {
    let mut cluster = TestCluster::new(2, 64 << 20, config(2, 2)).await;
    let node = cluster.node(1);
    let first = produce_when_led(node, job(1, Acks::None, batch(b"a"))).await;
    // The follower has never fetched: the answer counts no copy, and does not wait for one.
    assert_eq!(
        (ack(&first).meaning(), ack(&first).copies, ack(&first).base_offset),
        (v1::AckMeaning::None, 0, 0)
    );
    let stale = refusal(produce(node, job(9, Acks::None, batch(b"x"))).await);
    assert_eq!((stale.reason(), stale.outcome()), (Reason::StaleLeaderEpoch, Outcome::NotWritten));
    let junk = refusal(produce(node, job(1, Acks::None, bytes::Bytes::from_static(b"junk"))).await);
    assert_eq!((junk.reason(), junk.outcome()), (Reason::CorruptBatch, Outcome::NotWritten));
    let elsewhere = refusal(produce(cluster.node(2), job(1, Acks::None, batch(b"x"))).await);
    assert_eq!((elsewhere.reason(), elsewhere.outcome()), (Reason::NotLeader, Outcome::NotWritten));
    node.disk.take_all_bytes();
    let full = loop {
        if let ProduceResult::Error(detail) = produce(node, job(1, Acks::None, batch(&[b'x'; 4000]))).await {
            break detail;
        }
    };
    assert_eq!((full.reason(), full.outcome()), (Reason::DiskFull, Outcome::NotWritten));
    node.disk.release();

    // A run that no controller has answered yet leads as far as the followers confirm it, and no further.
    let answered = || cluster.node(2).handle.replica_reports().iter().any(|report| report.log_end > 0);
    cluster.replicate_until(answered).await;
    let disk = cluster.node(1).disk.clone();
    cluster.node(1).handle.shut_down().await;
    cluster.nodes[0] = start(&cluster.host, 1, &disk).await;
    cluster.node(1).handle.set_incarnation(super::testing::CLUSTER, plimsoll_proto::ids::Incarnation(11));
    cluster.image.spus.get_mut(&plimsoll_proto::ids::SpuId(1)).expect("there").incarnation = 11;
    cluster.change(|partition| (partition.leader_epoch, partition.leader_incarnation) = (2, 11));
    let mut all = cluster.node(1).handle.produce(job(2, Acks::All, batch(b"c"))).await;
    let mut done = None;
    while done.is_none() {
        cluster.replicate_round().await;
        done = match all.try_recv() {
            Ok(ProduceResult::Error(detail)) if detail.reason() == Reason::NoLeader => {
                all = cluster.node(1).handle.produce(job(2, Acks::All, batch(b"c"))).await;
                None
            }
            other => other.ok(),
        };
    }
    assert_eq!(ack(&done.expect("answered")).copies, 2);
    let end = || cluster.node(1).handle.standing(&PARTITION);
    let before = end().await.expect("it stands").log_end;
    for acks in [Acks::None, Acks::Leader] {
        let fenced = refusal(produce(cluster.node(1), job(2, acks, batch(b"x"))).await);
        assert_eq!((fenced.reason(), fenced.outcome()), (Reason::NoLeader, Outcome::NotWritten));
    }
    assert_eq!(end().await.expect("it stands").log_end, before, "a refused record is nowhere");
    cluster.node(1).handle.heartbeat_answered(cluster.host.clock.now());
    let again = produce(cluster.node(1), job(2, Acks::None, batch(b"d"))).await;
    assert_eq!((ack(&again).meaning(), ack(&again).base_offset), (v1::AckMeaning::None, before));
}
