//! A node with two volumes, of which one is full, fails, or can't be opened.

use std::time::Duration;

use plimsoll_host::Host;
use plimsoll_proto::v1::{self, Acks, Outcome, Reason, VolumeState};
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings};

use super::testing::{
    LIMIT, PARTITION, TestCluster, TwoVolumes, batch, config, job, open_on, read, start, values,
};
use super::{ControlRequest, FetchFrom, FetchJob, NodeError, ProduceResult};

fn refused(answer: &ProduceResult, reason: Reason) -> bool {
    matches!(answer, ProduceResult::Error(detail) if detail.reason() == reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_full_volume_refuses_and_the_other_goes_on() {
    let node = TwoVolumes::new(config(1, 1)).await;
    for index in [0, 1] {
        assert!(matches!(node.produce(index, b"a").await, ProduceResult::Ack(_)));
    }
    node.disks[0].take_all_bytes();
    while !refused(&node.produce(0, &[b'x'; 4000]).await, Reason::DiskFull) {}
    for _ in 0..200 {
        assert!(matches!(node.produce(1, &[b'y'; 4000]).await, ProduceResult::Ack(_)));
        assert!(refused(&node.produce(0, b"x").await, Reason::DiskFull));
    }
    assert!(*node.handle.produce_serving().borrow(), "one volume takes produce");
    let facts = node.handle.volume_facts();
    let refused_of = |volume: usize| {
        facts
            .iter()
            .find(|facts| facts.volume_id == node.volumes[volume].to_bytes())
            .map(|facts| facts.refused_total)
    };
    assert!(refused_of(0) >= Some(200));
    assert_eq!(refused_of(1), Some(0));
    node.disks[0].release();
    let back = async { while !matches!(node.produce(0, b"z").await, ProduceResult::Ack(_)) {} };
    node.host.clock.timeout(LIMIT, back).await.expect("it comes back by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_is_of_its_volume_only() {
    for flush in [v1::FlushPolicy::Ack, v1::FlushPolicy::Interval] {
        let config = v1::TopicConfig { flush: flush.into(), flush_interval_ms: 10, ..config(1, 1) };
        let mut node = TwoVolumes::new(config).await;
        for index in [0, 1] {
            assert!(matches!(node.produce(index, b"a").await, ProduceResult::Ack(_)));
        }
        node.disks[0].set_sync_fails(true);
        let broken = async {
            loop {
                match node.produce(0, b"b").await {
                    // With an interval it is the log that is acknowledged, not the device.
                    ProduceResult::Ack(ack) => assert_ne!(ack.meaning(), v1::AckMeaning::Synced),
                    ProduceResult::Error(detail) => return detail,
                }
            }
        };
        let broken = node.host.clock.timeout(LIMIT, broken).await.expect("the sync fails");
        assert_eq!(broken.reason(), Reason::VolumeFailed);
        node.disks[0].set_sync_fails(false);
        let ControlRequest::ChangeVolume(asked) = node.requests.recv().await.expect("a wish") else {
            panic!("not about a volume");
        };
        assert_eq!((asked.volume, asked.wanted), (node.volumes[0], VolumeState::Failed));
        for _ in 0..50 {
            let ProduceResult::Error(detail) = node.produce(0, b"c").await else { panic!("acknowledged") };
            assert_eq!((detail.reason(), detail.outcome()), (Reason::VolumeFailed, Outcome::NotWritten));
            assert!(matches!(node.produce(1, b"d").await, ProduceResult::Ack(_)));
        }
        // Another set changes nothing: what is above the durable end is never committed here.
        let end = |fetched: super::Fetched| fetched.high_watermark;
        let look = FetchJob {
            partition: PARTITION,
            from: FetchFrom::Earliest,
            bytes_max: 1 << 20,
            any_replica: true,
            leader_epoch: None,
            wait_max: Duration::ZERO,
        };
        let before = node.handle.fetch(look).await.map(end).expect("reads go on");
        node.image.version.0 += 1;
        node.image.topics.get_mut(&PARTITION.topic_id).expect("there").partitions[0].partition_epoch += 1;
        node.handle.apply_metadata(std::sync::Arc::new(node.image.clone()));
        let after = node.handle.fetch(look).await.map(end).expect("reads go on");
        assert_eq!(before, after);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_on_a_failed_device_counts_for_nothing_and_starts_again_as_after_a_lost_cache() {
    let mut cluster = TestCluster::new(2, 64 << 20, config(2, 1)).await;
    let first = super::testing::produce_when_led(cluster.node(1), job(1, Acks::Leader, batch(b"a"))).await;
    assert!(matches!(first, ProduceResult::Ack(_)));
    let held = || cluster.node(2).handle.replica_reports().iter().any(|report| report.log_end == 1);
    cluster.replicate_until(held).await;
    // The checkpoint of its log is the first to be synced there.
    cluster.node(2).disk.set_sync_fails(true);
    let failed = || {
        let facts = cluster.node(2).handle.volume_facts();
        !facts[0].failure.is_empty()
    };
    cluster.replicate_until(failed).await;
    for following in cluster.node(2).handle.following() {
        assert_eq!(cluster.node(2).handle.positions(&following).await, Ok(Vec::new()), "it asks for nothing");
    }
    cluster.node(2).handle.shut_down().await;
    cluster.node(2).disk.set_sync_fails(false);
    let again = start(&cluster.host, 2, &cluster.node(2).disk).await;
    let reports = again.handle.replica_reports();
    assert_eq!((reports.len(), reports[0].cache_lost), (1, true), "the controllers take it out of its sets");
    cluster.nodes[1] = again;
    cluster.image.spus.get_mut(&plimsoll_proto::ids::SpuId(2)).expect("there").incarnation = 21;
    cluster.nodes[1].handle.set_incarnation(super::testing::CLUSTER, plimsoll_proto::ids::Incarnation(21));
    cluster.change(|partition| partition.in_sync = vec![1]);
    let caught_up = || cluster.node(2).handle.replica_reports().iter().all(|report| !report.cache_lost);
    cluster.replicate_until(caught_up).await;
    let copy = read(cluster.node(2), FetchFrom::Earliest, true).await.expect("records");
    assert_eq!(values(&copy), ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_without_the_volume_that_does_not_open() {
    let host = Host::real();
    let disk = || MemoryDisk::new(MemoryDiskSettings::plain(64 << 20));
    let (good, bad) = (disk(), disk());
    bad.set_vanished(true);
    let (handle, report) = open_on(&host, &[&bad, &good]).await.expect("one opens");
    assert_eq!((report.volumes.len(), report.failed.len(), handle.volume_facts().len()), (1, 1, 1));
    // The directory of somebody else is no broken device.
    bad.set_vanished(false);
    let locked = open_on(&host, &[&good, &bad]).await;
    assert!(matches!(locked, Err(NodeError::Volume(plimsoll_storage::volume::OpenError::Locked { .. }))));
    handle.shut_down().await;
    for disk in [&good, &bad] {
        disk.set_vanished(true);
    }
    assert!(matches!(open_on(&host, &[&good, &bad]).await, Err(NodeError::Volume(_))), "none opens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_volume_comes_back_in_the_same_process_when_the_cluster_has_let_go_of_it() {
    let mut cluster = TestCluster::new(2, 64 << 20, config(2, 1)).await;
    let first = super::testing::produce_when_led(cluster.node(1), job(1, Acks::Leader, batch(b"a"))).await;
    assert!(matches!(first, ProduceResult::Ack(_)));
    let held = || cluster.node(2).handle.replica_reports().iter().any(|report| report.log_end == 1);
    cluster.replicate_until(held).await;
    cluster.node(2).disk.set_sync_fails(true);
    let failed = || !cluster.node(2).handle.volume_facts()[0].failure.is_empty();
    cluster.replicate_until(failed).await;
    cluster.node(2).disk.set_sync_fails(false);

    // The entry is committed: out of the set, and the volume failed.
    let me = plimsoll_proto::ids::SpuId(2);
    cluster.image.spus.get_mut(&me).expect("there").volumes[0].state = VolumeState::Failed.into();
    cluster.change(|partition| partition.in_sync = vec![1]);
    let asked = async {
        loop {
            match cluster.nodes[1].requests.recv().await.expect("the node runs") {
                ControlRequest::RegisterAgain(spent) => return spent,
                ControlRequest::ChangeVolume(wish) => assert_eq!(wish.wanted, VolumeState::Failed),
                ControlRequest::ChangeInSync(_) => panic!("it follows"),
            }
        }
    };
    let spent = cluster.host.clock.timeout(LIMIT, asked).await.expect("it comes back");
    assert_eq!(spent, plimsoll_proto::ids::Incarnation(20));
    let node = cluster.node(2);
    assert!(node.handle.volume_facts()[0].failure.is_empty());
    assert!(node.handle.replica_reports().iter().all(|report| report.cache_lost), "nobody trusts it yet");
    for following in node.handle.following() {
        let positions = node.handle.positions(&following).await;
        assert_eq!(positions, Ok(Vec::new()), "nothing follows under the registration that is spent");
    }

    cluster.image.spus.get_mut(&me).expect("there").incarnation = 21;
    cluster.node(2).handle.set_incarnation(super::testing::CLUSTER, plimsoll_proto::ids::Incarnation(21));
    cluster.publish();
    let caught_up = || cluster.node(2).handle.replica_reports().iter().all(|report| !report.cache_lost);
    cluster.replicate_until(caught_up).await;
    let copy = read(cluster.node(2), FetchFrom::Earliest, true).await.expect("records");
    assert_eq!(values(&copy), ["a"]);
    let wish = cluster.host.clock.timeout(LIMIT, cluster.nodes[1].requests.recv()).await;
    let Ok(Some(ControlRequest::ChangeVolume(wish))) = wish else { panic!("{wish:?}") };
    assert_eq!((wish.expected, wish.wanted), (VolumeState::Failed, VolumeState::Writable));
}
