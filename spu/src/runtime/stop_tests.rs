//! A leader without committed records that a follower has: the follower keeps them, and says so.

use plimsoll_proto::v1::{self, Acks};

use super::testing::{
    LIMIT, PARTITION, TestCluster, TestNode, batch, config, job, produce_when_led, read, values,
};
use super::{FetchFrom, ProduceResult};

fn stops(node: &TestNode) -> u64 {
    node.handle.volume_facts().iter().map(|facts| facts.replica_stops_total).sum()
}

/// The replicas of a node that are stopped now, as its heartbeats name them.
fn stopped(node: &TestNode) -> Vec<v1::StoppedReplica> {
    let facts = node.handle.volume_facts();
    let named: Vec<_> = facts.iter().flat_map(|facts| facts.stopped_replicas.clone()).collect();
    let count: u32 = facts.iter().map(|facts| facts.replicas_stopped).sum();
    assert_eq!(usize::try_from(count), Ok(named.len()));
    named
}

async fn positions(node: &TestNode) -> Vec<v1::ReplicaPosition> {
    let mut positions = Vec::new();
    for following in node.handle.following() {
        positions.extend(node.handle.positions(&following).await.expect("the volume answers"));
    }
    positions
}

async fn held(node: &TestNode) -> Vec<String> {
    values(&read(node, FetchFrom::Earliest, true).await.expect("reads go on"))
}

/// Node 2 has what is committed, node 3 leads without it, and node 2 stops.
async fn stopped_cluster() -> TestCluster {
    let mut cluster = TestCluster::new(3, 64 << 20, config(3, 1)).await;
    cluster.change(|partition| partition.in_sync = vec![1, 2]);
    drop(produce_when_led(cluster.node(1), job(1, Acks::Leader, batch(b"a"))).await);
    let until = cluster.host.clock.now() + LIMIT;
    // Until the metadata has reached it, node 2 refuses to read.
    let knows = |read: Result<_, _>| read.is_ok_and(|read| values(&read) == ["a"]);
    while !knows(read(cluster.node(2), FetchFrom::Earliest, true).await) {
        assert!(cluster.host.clock.now() < until, "node 2 knows that it is committed");
        cluster.replicate_by(2).await;
    }
    assert_eq!((stops(cluster.node(2)), stopped(cluster.node(2))), (0, Vec::new()));

    // Node 3 has nothing, and leads without a committed word that records are lost.
    cluster.lead(3);
    let led = loop {
        match produce_when_led(cluster.node(3), job(2, Acks::Leader, batch(b"other"))).await {
            ProduceResult::Ack(ack) => break ack,
            ProduceResult::Error(detail) => {
                assert_eq!(detail.outcome(), v1::Outcome::NotWritten, "{detail:?}");
            }
        }
    };
    assert_eq!(led.base_offset, 0);
    while stopped(cluster.node(2)).is_empty() {
        assert!(cluster.host.clock.now() < until, "it stops, and its figures say so");
        cluster.replicate_by(2).await;
    }
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_below_the_high_watermark_stops_the_replica_until_the_next_epoch() {
    let mut cluster = stopped_cluster().await;
    let until = cluster.host.clock.now() + LIMIT;
    let named = stopped(cluster.node(2));
    let stopped_ms = named.first().expect("it is named").stopped_ms;
    let expected = v1::StoppedReplica {
        topic_id: PARTITION.topic_id.to_bytes(),
        partition: 0,
        stopped_ms,
        leader: 3,
        leader_epoch: 2,
        cut_to: 0,
        high_watermark: 1,
    };
    assert_eq!(named, [expected]);
    while stopped(cluster.node(2)).first().is_some_and(|now| now.stopped_ms == stopped_ms) {
        assert!(cluster.host.clock.now() < until, "since when is known");
        tokio::task::yield_now().await;
    }
    // It asks for nothing more, and nothing of what is committed went.
    assert_eq!(positions(cluster.node(2)).await, []);
    for _ in 0..3 {
        cluster.replicate_by(2).await;
    }
    assert_eq!((held(cluster.node(2)).await, stops(cluster.node(2))), (vec!["a".to_owned()], 1));

    // Somebody who has them leads: it follows again by itself.
    cluster.lead(1);
    while positions(cluster.node(2)).await.is_empty() {
        assert!(cluster.host.clock.now() < until, "it follows in the next epoch");
    }
    drop(produce_when_led(cluster.node(1), job(3, Acks::Leader, batch(b"b"))).await);
    while held(cluster.node(2)).await != ["a", "b"] {
        assert!(cluster.host.clock.now() < until, "it goes on where it stopped");
        cluster.replicate_by(2).await;
    }
    assert_eq!(stops(cluster.node(2)), 1);
    while !stopped(cluster.node(2)).is_empty() {
        assert!(cluster.host.clock.now() < until, "it is no longer told as stopped");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_replica_that_is_moved_away_or_deleted_is_not_told_any_more() {
    type Change = fn(&mut TestCluster);
    let away: Change = |cluster| {
        cluster.change(|partition| {
            partition.replicas.retain(|replica| replica.spu_id != 2);
            partition.in_sync = vec![3];
        });
    };
    let delete: Change = |cluster| {
        cluster.image.topics.clear();
        std::sync::Arc::make_mut(&mut cluster.image.deleted).push_back(PARTITION.topic_id);
        cluster.publish();
    };
    for (what, change) in [("moved", away), ("deleted", delete)] {
        let mut cluster = stopped_cluster().await;
        change(&mut cluster);
        let until = cluster.host.clock.now() + LIMIT;
        while !stopped(cluster.node(2)).is_empty() {
            assert!(cluster.host.clock.now() < until, "{what}, and still told");
            tokio::task::yield_now().await;
        }
    }
}
