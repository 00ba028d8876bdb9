//! A follower far behind in one partition, and live traffic in another, on one volume and one stream of fetches.

use bytes::Bytes;
use plimsoll_proto::batch::iter_batches;
use plimsoll_proto::ids::PartitionId;
use plimsoll_proto::v1::{self, Acks, replica_batches};
use tokio::sync::oneshot;

use super::testing::{CLUSTER, LIMIT, PARTITION, TestCluster, batch, config, job, partition};
use super::{ProduceJob, ProduceResult};

/// The follower is far behind in this one, and not in its set.
const BEHIND: PartitionId = PARTITION;
const BATCH_BYTES: usize = 32 << 10;
/// What a fetch asks for.
const ANSWER_BYTES: usize = 1 << 20;
/// A batch with its header.
const ONE_BATCH: usize = BATCH_BYTES + 200;

fn live() -> PartitionId {
    partition(1)
}

/// Two nodes; node 2 follows in both partitions and counts in the second only.
async fn two_partitions() -> TestCluster {
    let mut cluster = TestCluster::new(2, 256 << 20, config(2, 1)).await;
    let topic = cluster.image.topics.get_mut(&PARTITION.topic_id).expect("the topic is there");
    let second = v1::PartitionInfo { index: 1, ..topic.partitions[0].clone() };
    topic.partitions.push(second);
    cluster.change(|partition| partition.in_sync = vec![1]);
    cluster
}

/// Produces one batch, and again while the leadership has not been heard of.
async fn append(cluster: &TestCluster, to: PartitionId, acks: Acks) -> oneshot::Receiver<ProduceResult> {
    let value = vec![b'x'; BATCH_BYTES];
    let job = ProduceJob { partition: to, ..job(1, acks, batch(&value)) };
    let leader = &cluster.node(1).handle;
    let before = log_end(cluster, 1, to).await;
    let mut answer = leader.produce(job.clone()).await;
    while log_end(cluster, 1, to).await == before {
        match answer.try_recv() {
            Ok(ProduceResult::Error(_)) => answer = leader.produce(job.clone()).await,
            Ok(acknowledged) => {
                let (again, told) = oneshot::channel();
                again.send(acknowledged).expect("nobody has gone");
                return told;
            }
            Err(_) => {}
        }
    }
    answer
}

async fn log_end(cluster: &TestCluster, node: usize, of: PartitionId) -> u64 {
    cluster.node(node).handle.standing(&of).await.expect("the volume answers").log_end
}

/// Bytes for the partition that is behind and for the live one, after a check that they are whole batches.
async fn fetch(cluster: &TestCluster) -> (usize, usize) {
    let follower = &cluster.node(2).handle;
    let following = follower.following().remove(0);
    let positions = follower.positions(&following).await.expect("the volume answers");
    assert_eq!(positions.len(), 2);
    let (spu, incarnation) = follower.identity();
    let request = v1::ReplicateRequest {
        cluster_id: CLUSTER.to_bytes(),
        fetch_id: 1,
        spu_id: spu.0,
        incarnation: incarnation.0,
        wait_ms_max: 0,
        bytes_max: u32::try_from(ANSWER_BYTES).expect("small"),
        positions: positions.clone(),
    };
    let response = cluster.node(1).handle.replicate(request).await;
    assert_eq!(response.error, None);
    let bytes = |of: PartitionId| {
        let answer = response.partitions.iter().find(|answer| answer.partition == of.index);
        match answer.and_then(|answer| answer.result.clone()) {
            Some(replica_batches::Result::Batches(batches)) => whole(&batches),
            other => panic!("{other:?}"),
        }
    };
    let bytes = (bytes(BEHIND), bytes(live()));
    follower.replicated(&following, positions, response.partitions).await;
    bytes
}

fn whole(batches: &Bytes) -> usize {
    let lengths = iter_batches(batches).map(|item| item.expect("a whole batch").1.len());
    let sum = lengths.sum::<usize>();
    assert_eq!(sum, batches.len(), "nothing is cut");
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_throttled_and_never_holds_up_live_records() {
    let cluster = two_partitions().await;
    for _ in 0..200 {
        drop(append(&cluster, BEHIND, Acks::Leader).await);
    }
    let end = log_end(&cluster, 1, BEHIND).await;
    let mut fetches = 0;
    while log_end(&cluster, 2, BEHIND).await < end {
        fetches += 1;
        assert!(fetches < 60, "the backlog goes on as well");
        let answer = append(&cluster, live(), Acks::All).await;
        let (behind, live_bytes) = fetch(&cluster).await;
        assert!((1..=ONE_BATCH).contains(&live_bytes), "the live record comes with the first answer");
        assert!(behind <= ANSWER_BYTES / 4 + ONE_BATCH, "{behind} bytes of backlog in one answer");
        // With the next fetch the leader knows that it arrived: nothing else is needed for the acknowledgement.
        fetch(&cluster).await;
        let answer = cluster.host.clock.timeout(LIMIT, answer).await.expect("in time").expect("answered");
        assert!(matches!(answer, ProduceResult::Ack(ref ack) if ack.copies == 2), "{answer:?}");
    }
    assert!(fetches > 5, "it was a long way: {fetches}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_records_without_end_leave_a_backlog_its_share() {
    let cluster = two_partitions().await;
    for _ in 0..120 {
        drop(append(&cluster, BEHIND, Acks::Leader).await);
        drop(append(&cluster, live(), Acks::Leader).await);
    }
    let end = log_end(&cluster, 1, BEHIND).await;
    while log_end(&cluster, 2, BEHIND).await < end {
        let more = log_end(&cluster, 2, live()).await < log_end(&cluster, 1, live()).await;
        let (behind, live_bytes) = fetch(&cluster).await;
        assert!(behind > 0 && (live_bytes > 0 || !more), "both go on: {behind} and {live_bytes}");
        assert!(live_bytes <= ANSWER_BYTES * 3 / 4 + ONE_BATCH, "{live_bytes} live bytes in one answer");
    }
}
