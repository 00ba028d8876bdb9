use plimsoll_client::testkit::{BYTE_LIMIT_MIN, TestkitError};
use plimsoll_client::{Record, StartAt};

use super::{LIMIT, TOPIC, all_led, cluster, next};

#[tokio::test]
async fn servers_are_killed_frozen_stopped_and_started_and_nothing_is_lost() {
    let Some((mut cluster, client)) = cluster(3, 3).await else { return };
    let producer = client.producer(TOPIC).deadline(2 * LIMIT).build().await.expect("a producer");
    let mut consumer = client.consumer(TOPIC).start(StartAt::Earliest).build().await.expect("built");
    let folder = cluster.folder().to_owned();
    for round in 0..4u32 {
        match round {
            0 => {}
            1 => cluster.spu(1).kill(),
            2 => cluster.spu(2).pause(),
            _ => assert!(cluster.spu(3).stop(LIMIT).await, "it stops in order"),
        }
        for partition in 0..3 {
            let record = Record::new(format!("{round}/{partition}")).partition(partition);
            producer.send(record).await.expect("accepted").await.expect("acknowledged");
        }
        cluster.spu(2).resume();
        cluster.spu(1).start().expect("started");
        cluster.spu(3).start().expect("started");
        let back = client.wait_metadata(LIMIT, |image| {
            let topic = image.topic_by_name(TOPIC).expect("it is there");
            topic.partitions.iter().all(|partition| partition.leader != 0 && partition.in_sync.len() == 3)
        });
        assert!(back.await, "round {round}: {}", cluster.spu(1).log_end(10));
    }
    let mut values = Vec::new();
    for _ in 0..12 {
        values.push(next(&mut consumer).await);
    }
    values.sort();
    let all: Vec<_> = (0..4).flat_map(|r| (0..3).map(move |p| format!("{r}/{p}"))).collect();
    assert_eq!(values, all);

    assert!(matches!(cluster.set_byte_limit(1, BYTE_LIMIT_MIN - 1), Err(TestkitError::Settings)));
    let pid = cluster.controller(1).pid().expect("it runs");
    drop(cluster);
    assert!(!folder.exists() && !std::path::Path::new(&format!("/proc/{pid}")).exists(), "nothing is left");
}

#[tokio::test]
async fn clients_outlive_their_controller() {
    let Some((mut cluster, client)) = cluster(1, 1).await else { return };
    cluster.controller(1).kill();
    let producer = client.producer(TOPIC).idempotent(false).build().await.expect("no controller is needed");
    producer.send(Record::new("meanwhile")).await.expect("accepted").await.expect("acknowledged");
    cluster.controller(1).start().expect("started");
    client.admin().list_topics().await.expect("it answers again");
    assert!(all_led(&client).await);
}
