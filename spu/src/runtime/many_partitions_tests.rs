//! A follower of many partitions: what one fetch may cost, and what waiting for data leaves behind.

use std::sync::Arc;

use plimsoll_proto::v1::{self, Acks, replica_batches};
use tokio::sync::{Notify, oneshot};

use super::testing::{CLUSTER, LIMIT, PARTITION, TestCluster, batch, config, job, partition};
use super::work::{ReplicateAnswer, ReplicateWork, Work};
use super::{ProduceJob, ProduceResult};

/// Most bytes in an answer, whatever a follower asks for.
const ANSWER_MAX: usize = 16 << 20;
const BATCH_BYTES: usize = 20 << 10;

/// Two nodes; node 1 leads so many partitions and node 2 follows in all.
async fn partitions(count: u32) -> TestCluster {
    let mut cluster = TestCluster::new(2, 8 << 30, config(2, 1)).await;
    let topic = cluster.image.topics.get_mut(&PARTITION.topic_id).expect("the topic is there");
    let one = topic.partitions[0].clone();
    topic.partitions = (0..count).map(|index| v1::PartitionInfo { index, ..one.clone() }).collect();
    cluster.publish();
    cluster
}

async fn append(cluster: &TestCluster, index: u32, value: &[u8]) {
    loop {
        let job = ProduceJob { partition: partition(index), ..job(1, Acks::Leader, batch(value)) };
        match cluster.node(1).handle.produce(job).await.await.expect("every produce is answered") {
            ProduceResult::Error(detail) => assert_eq!(detail.outcome(), v1::Outcome::NotWritten),
            ProduceResult::Ack(_) => return,
        }
    }
}

fn request(bytes_max: u32, ends: &[u64]) -> v1::ReplicateRequest {
    let position = |(partition, log_end): (u32, &u64)| v1::ReplicaPosition {
        topic_id: PARTITION.topic_id.to_bytes(),
        partition,
        leader_epoch: 1,
        log_end: *log_end,
        durable_end: 0,
        last_epoch: u32::from(*log_end > 0),
        ..v1::ReplicaPosition::default()
    };
    v1::ReplicateRequest {
        cluster_id: CLUSTER.to_bytes(),
        fetch_id: 1,
        spu_id: 2,
        incarnation: 20,
        wait_ms_max: 0,
        bytes_max,
        positions: (0..).zip(ends).map(position).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_bounded_whatever_the_number_of_partitions_and_serves_all_in_turn() {
    const PARTITIONS: u32 = 1_000;
    let cluster = partitions(PARTITIONS).await;
    let value = vec![b'x'; BATCH_BYTES];
    for index in 0..PARTITIONS {
        append(&cluster, index, &value).await;
    }
    let one_batch = BATCH_BYTES + 200;
    let mut ends = vec![0; 1_000];
    let mut bytes_max = u32::MAX;
    let mut answers = 0;
    while ends.contains(&0) {
        let response = cluster.node(1).handle.replicate(request(bytes_max, &ends)).await;
        assert_eq!((response.error, response.partitions.len()), (None, 1_000));
        let mut sum = 0;
        for answer in response.partitions {
            let Some(replica_batches::Result::Batches(batches)) = answer.result else {
                panic!("{:?}", answer.result);
            };
            sum += batches.len();
            ends[answer.partition as usize] += u64::from(!batches.is_empty());
        }
        let most = (bytes_max as usize).min(ANSWER_MAX) + 2 * one_batch;
        assert!(sum > 0 && sum <= most, "{sum} bytes in an answer to one that takes {bytes_max}");
        bytes_max = 1 << 20;
        answers += 1;
    }
    assert!((2..=8).contains(&answers), "nobody is served twice while others wait: {answers} answers");
}

async fn ask(cluster: &TestCluster, count: u32, grown: &Arc<Notify>) -> ReplicateAnswer {
    let leader = cluster.node(1);
    let (reply, answer) = oneshot::channel();
    let positions = request(0, &vec![0; count as usize]).positions;
    let work = Work::Replicate(ReplicateWork {
        spu: plimsoll_proto::ids::SpuId(2),
        incarnation: plimsoll_proto::ids::Incarnation(20),
        positions: (0..count).map(partition).zip(positions).collect(),
        bytes_max: 1 << 20,
        grown: grown.clone(),
        reply,
    });
    leader.handle.doors()[&leader.volume].work.send(work).await.expect("the worker is there");
    answer.await.expect("answered")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_data_keeps_one_waiter_for_each_replica_however_often_nothing_comes() {
    const PARTITIONS: u32 = 20;
    let cluster = partitions(PARTITIONS).await;
    let led = async { while ask(&cluster, PARTITIONS, &Arc::new(Notify::new())).await.ready {} };
    cluster.host.clock.timeout(LIMIT, led).await.expect("all are led, and none has data");
    let fetches: Vec<Arc<Notify>> = (0..50).map(|_| Arc::new(Notify::new())).collect();
    for grown in &fetches {
        assert!(!ask(&cluster, PARTITIONS, grown).await.ready, "there is nothing");
    }
    let (latest, former) = fetches.split_last().expect("some");
    // One here, the rest at the leader.
    assert!(
        former.iter().all(|grown| Arc::strong_count(grown) == 1),
        "of a fetch that is over nothing is kept"
    );
    // And one that the worker lets go of as its turn ends.
    assert!(Arc::strong_count(latest) <= 2 + PARTITIONS as usize);
    append(&cluster, 7, b"a").await;
    cluster.host.clock.timeout(LIMIT, latest.notified()).await.expect("the fetch that waits is told");
}
