//! A leader without committed records that a follower has: the follower keeps them, and says so.

use plimsoll_proto::v1::{self, Acks};

use super::testing::{LIMIT, TestCluster, TestNode, batch, config, job, produce_when_led, read, values};
use super::{FetchFrom, ProduceResult};

fn stops(node: &TestNode) -> u64 {
    node.handle.volume_facts().iter().map(|facts| facts.replica_stops_total).sum()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_below_the_high_watermark_stops_the_replica_until_the_next_epoch() {
    let mut cluster = TestCluster::new(3, 64 << 20, config(3, 1)).await;
    cluster.change(|partition| partition.in_sync = vec![1, 2]);
    drop(produce_when_led(cluster.node(1), job(1, Acks::Leader, batch(b"a"))).await);
    let until = cluster.host.clock.now() + LIMIT;
    while held(cluster.node(2)).await != ["a"] {
        assert!(cluster.host.clock.now() < until, "node 2 knows that it is committed");
        cluster.replicate_by(2).await;
    }
    assert_eq!(stops(cluster.node(2)), 0);

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
    while stops(cluster.node(2)) == 0 {
        assert!(cluster.host.clock.now() < until, "it stops, and its figures say so");
        cluster.replicate_by(2).await;
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
}
