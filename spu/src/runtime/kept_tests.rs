//! What is on disk goes only by an applied entry that says so, never because the metadata does not know it.

use std::sync::Arc;

use plimsoll_proto::ids::{MetadataVersion, TopicId};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1::{self, Acks};

use super::testing::{
    LIMIT, PARTITION, TestCluster, TestNode, batch, config, job, produce_when_led, read, values,
};
use super::{FetchFrom, ProduceResult};

/// Node 1 with a record in its only replica.
async fn with_a_record() -> TestCluster {
    let cluster = TestCluster::new(1, 64 << 20, config(1, 1)).await;
    let answer = produce_when_led(cluster.node(1), job(1, Acks::All, batch(b"a"))).await;
    assert!(matches!(answer, ProduceResult::Ack(_)), "{answer:?}");
    cluster
}

/// Gives the image as the next version and returns when the volume has looked at it.
async fn look_at(cluster: &mut TestCluster, mut image: MetadataImage) {
    cluster.image.version.0 += 1;
    image.version = cluster.image.version;
    let node = cluster.node(1);
    let mut looked = node.handle.following_changes();
    looked.mark_unchanged();
    node.handle.apply_metadata(Arc::new(image));
    cluster.host.clock.timeout(LIMIT, looked.changed()).await.expect("in time").expect("the node is there");
}

/// How many replicas a start finds on the disk.
async fn restart(cluster: &mut TestCluster) -> usize {
    cluster.node(1).handle.shut_down().await;
    let (handle, report) =
        super::testing::open_on(&cluster.host, &[&cluster.node(1).disk.clone()]).await.expect("it opens");
    let requests = handle.control_requests().expect("taken once");
    let TestNode { disk, volume, .. } = cluster.nodes.remove(0);
    cluster.nodes.push(TestNode { handle, disk, requests, volume });
    report.volumes[0].replicas
}

fn register(cluster: &mut TestCluster) {
    let incarnation = plimsoll_proto::ids::Incarnation(cluster.image.version.0);
    for spu in cluster.image.spus.values_mut() {
        spu.incarnation = incarnation.0;
    }
    cluster.node(1).handle.set_incarnation(super::testing::CLUSTER, incarnation);
    cluster.node(1).handle.heartbeat_answered(cluster.host.clock.now());
}

type Change = fn(&mut MetadataImage);

fn partition_of(image: &mut MetadataImage) -> &mut v1::PartitionInfo {
    &mut image.topics.get_mut(&PARTITION.topic_id).expect("there").partitions[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_metadata_does_not_know_stays_on_disk() {
    let ignorant: [(&str, Change); 5] = [
        ("nothing at all", |image| image.topics.clear()),
        ("nothing, and names another topic as deleted", |image| {
            image.topics.clear();
            image.deleted = Arc::new([TopicId([1; 16])].into());
        }),
        ("only another topic", |image| {
            let mut other = image.topics.remove(&PARTITION.topic_id).expect("there");
            other.partitions[0].replicas[0].spu_id = 9;
            image.topics.insert(TopicId([1; 16]), other);
        }),
        ("the topic before it had this partition", |image| {
            image.topics.get_mut(&PARTITION.topic_id).expect("there").partitions.clear();
        }),
        ("the partition on another node, as it was in an older epoch", |image| {
            let partition = partition_of(image);
            partition.leader_epoch = 0;
            partition.replicas[0].spu_id = 9;
        }),
    ];
    for restarted in [false, true] {
        let mut cluster = with_a_record().await;
        for (what, change) in &ignorant {
            if restarted {
                assert_eq!(restart(&mut cluster).await, 1, "before: {what}");
                register(&mut cluster);
            }
            let mut image = cluster.image.clone();
            change(&mut image);
            look_at(&mut cluster, image).await;
            let refused = read(cluster.node(1), FetchFrom::Earliest, true).await;
            assert!(refused.is_err(), "the cluster does not know it: {what}");
        }
        assert_eq!(restart(&mut cluster).await, 1);
        register(&mut cluster);
        // With metadata that know it, it is as it was.
        let incarnation = cluster.image.version.0;
        cluster.change(|partition| {
            partition.leader_epoch += 1;
            partition.leader_incarnation = incarnation;
        });
        let next = produce_when_led(cluster.node(1), job(2, Acks::All, batch(b"b"))).await;
        assert!(matches!(next, ProduceResult::Ack(ref ack) if ack.base_offset == 1), "{next:?}");
        let held = read(cluster.node(1), FetchFrom::Earliest, false).await.expect("records");
        assert_eq!(values(&held), ["a", "b"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_applied_entry_took_away_is_deleted_also_when_it_is_heard_of_after_a_restart() {
    let taken: [(&str, Change); 2] = [
        ("the topic is deleted", |image| {
            image.topics.clear();
            image.deleted = Arc::new([TopicId([1; 16]), PARTITION.topic_id].into());
        }),
        ("the partition has moved", |image| partition_of(image).replicas[0].spu_id = 9),
    ];
    for restarted in [false, true] {
        for (what, change) in &taken {
            let mut cluster = with_a_record().await;
            if restarted {
                assert_eq!(restart(&mut cluster).await, 1);
                // By metadata older than its registration a run deletes nothing.
                let mut old = cluster.image.clone();
                change(&mut old);
                let now = cluster.image.version;
                register(&mut cluster);
                old.version = MetadataVersion(now.0 - 1);
                cluster.node(1).handle.apply_metadata(Arc::new(old));
                assert_eq!(restart(&mut cluster).await, 1, "{what}");
                register(&mut cluster);
            }
            let mut image = cluster.image.clone();
            change(&mut image);
            look_at(&mut cluster, image).await;
            assert_eq!(restart(&mut cluster).await, 0, "{what}");
        }
    }
}
