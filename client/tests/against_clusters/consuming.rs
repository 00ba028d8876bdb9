use futures::{FutureExt, StreamExt};
use plimsoll_client::{ConsumeError, Offset, Record, StartAt, partition_of_key};
use plimsoll_host::Host;

use super::{LIMIT, TOPIC, cluster, fill, next, text};

#[tokio::test]
async fn a_consumer_starts_where_it_is_told() {
    let Some((_cluster, client)) = cluster(1, 1).await else { return };
    fill(&client, 0, 100).await;
    let at = |offset| StartAt::Offset(Offset::new(offset).expect("a small offset"));
    for (start, first, count) in [
        (StartAt::Earliest, "v0", 100),
        (at(60), "v60", 40),
        (StartAt::Last(7), "v93", 7),
        (StartAt::Last(1_000_000), "v0", 100),
        (StartAt::Last(0), "", 0),
        (StartAt::TimestampMs(-5), "v0", 100),
        (StartAt::TimestampMs(10_000 + 41_001), "v42", 58),
        (StartAt::TimestampMs(i64::MAX), "", 0),
        (StartAt::Latest, "", 0),
    ] {
        let mut consumer = client.consumer(TOPIC).start(start).until_end().build().await.expect("built");
        let mut values = Vec::new();
        while let Some(record) = consumer.next().await {
            values.push(text(&record.expect("no error")));
        }
        assert_eq!(values.len(), count, "{start:?}");
        assert_eq!(values.first().map_or("", String::as_str), first, "{start:?}");
        assert_eq!(consumer.trimmed_records(), 0);
    }
}

#[tokio::test]
async fn a_caller_seeks_pauses_and_goes_on_without_loss_or_repetition() {
    let Some((_cluster, client)) = cluster(1, 2).await else { return };
    fill(&client, 0, 50).await;
    fill(&client, 1, 50).await;
    let mut consumer = client.consumer(TOPIC).unassigned().build().await.expect("built");
    assert!(consumer.next().now_or_never().is_none(), "nothing is assigned, and it has not ended");
    let unknown = consumer.assign(2, StartAt::Earliest);
    assert!(matches!(unknown, Err(ConsumeError::UnknownPartition { partition: 2, partitions: 2 })));
    assert!(consumer.seek(0, StartAt::Earliest).is_err(), "it is not read");

    consumer.assign(0, StartAt::Earliest).expect("there is one");
    for number in 0..10 {
        assert_eq!(next(&mut consumer).await, format!("v{number}"));
    }
    assert_eq!(consumer.position(0), Offset::new(10).ok());
    consumer.seek(0, StartAt::Last(5)).expect("it is read");
    assert_eq!(next(&mut consumer).await, "v45");

    // Paused with records at hand: the other partition only, until the end of the pause.
    consumer.pause(0);
    consumer.assign(1, StartAt::Earliest).expect("there is one");
    for number in 0..50 {
        assert_eq!(next(&mut consumer).await, format!("v{number}"));
    }
    assert!(consumer.next().now_or_never().is_none());
    assert_eq!((consumer.assigned(), consumer.position(0)), (vec![0, 1], Offset::new(46).ok()));
    consumer.resume(0);
    for number in 46..50 {
        assert_eq!(next(&mut consumer).await, format!("v{number}"));
    }
    assert_eq!(consumer.revoke(0), Offset::new(50).ok());
    assert_eq!(consumer.revoke(0), None);
    assert_eq!(consumer.assigned(), [1]);
}

#[tokio::test]
async fn a_dropped_future_loses_no_record() {
    let Some((_cluster, client)) = cluster(1, 1).await else { return };
    fill(&client, 0, 2000).await;
    let mut consumer = client.consumer(TOPIC).prefetch_bytes(0).build().await.expect("built");
    let mut expected = 0;
    while expected < 2000 {
        // Every other future is dropped before it is ready, if it is not at once.
        let polled = consumer.next().now_or_never();
        let record = match polled {
            Some(record) => record,
            None => StreamExt::next(&mut consumer).await,
        };
        assert_eq!(text(&record.expect("more to come").expect("no error")), format!("v{expected}"));
        expected += 1;
    }
}

#[tokio::test]
async fn partitions_that_a_topic_gets_later_are_written_and_read_from_their_beginning() {
    let Some((_cluster, client)) = cluster(1, 1).await else { return };
    let producer = client.producer(TOPIC).build().await.expect("a producer");
    let mut consumer = client.consumer(TOPIC).start(StartAt::Latest).build().await.expect("built");
    assert!(consumer.next().now_or_never().is_none());
    client.admin().add_partitions(TOPIC, 3).await.expect("added");
    let grown = client.wait_metadata(LIMIT, |image| {
        let topic = image.topic_by_name(TOPIC).expect("it is there");
        topic.partitions.len() == 3 && topic.partitions.iter().all(|partition| partition.leader != 0)
    });
    assert!(grown.await);
    let clock = Host::real().clock;
    let until = clock.now() + LIMIT;
    while producer.partitions() < 3 {
        assert!(clock.now() < until, "the producer follows the metadata");
        clock.sleep(std::time::Duration::from_millis(5)).await;
    }
    // The producer from before, by key over all of them.
    let key =
        (0..).map(|n| format!("k{n}")).find(|key| partition_of_key(key.as_bytes(), 3) == 2).expect("some");
    for number in 0..3 {
        let record = Record::new(format!("v{number}")).key(key.clone());
        let delivered = producer.send(record).await.expect("accepted").await.expect("acknowledged");
        assert_eq!(delivered.partition, 2);
    }
    for number in 0..3 {
        assert_eq!(next(&mut consumer).await, format!("v{number}"));
    }
    assert_eq!(consumer.assigned(), [0, 1, 2]);
}

#[tokio::test]
async fn the_end_of_a_topic_ends_its_consumers() {
    let Some((_cluster, client)) = cluster(1, 1).await else { return };
    let mut consumer = client.consumer(TOPIC).build().await.expect("built");
    client.admin().delete_topic(TOPIC).await.expect("deleted");
    let end = Host::real().clock.timeout(LIMIT, consumer.next()).await.expect("in time");
    assert!(matches!(end, Some(Err(ConsumeError::UnknownTopic(_)))), "{end:?}");
    assert!(consumer.next().await.is_none());
}
