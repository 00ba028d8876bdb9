use futures::{SinkExt, StreamExt, stream};
use plimsoll_client::{
    AckMeaning, Acks, FlushPolicy, ProduceErrorKind, Record, StartAt, TopicConfig, TraceContext,
    partition_of_key,
};

use super::{LIMIT, TOPIC, cluster, cluster_with, next};

#[tokio::test]
async fn a_stream_is_forwarded_into_a_sink_and_all_of_it_is_safe() {
    let Some((_cluster, client)) = cluster(1, 3).await else { return };
    let producer = client.producer(TOPIC).build().await.expect("a producer");
    let records = stream::iter(0..5000).map(|number| Ok(Record::new(format!("v{number}"))));
    records.forward(producer.clone().into_sink()).await.expect("acknowledged");
    assert_eq!(producer.stats().acked_records, 5000);
    assert!(matches!(
        producer.send(Record::new("late")).await.expect_err("closed").kind,
        ProduceErrorKind::Closed
    ));

    // A record that fails is an error of the sink, with the record in it, and not its end.
    let producer = client.producer(TOPIC).build().await.expect("a producer");
    let mut sink = producer.into_sink();
    sink.feed(Record::new("nowhere").partition(9)).await.expect("taken in");
    let error = sink.flush().await.expect_err("there is no partition 9");
    assert_eq!(error.into_record(), Some(Record::new("nowhere").partition(9)));
    sink.send(Record::new("somewhere")).await.expect("acknowledged");
}

#[tokio::test]
async fn partitions_are_chosen_by_name_by_the_caller_and_by_key() {
    let Some((_cluster, client)) = cluster(1, 5).await else { return };
    let choose = |record: &Record, partitions: u32| {
        assert_eq!(partitions, 5);
        (record.value.as_deref() == Some(b"urgent")).then_some(4)
    };
    let producer = client.producer(TOPIC).partitioner(choose).build().await.expect("a producer");
    for (record, partition) in [
        (Record::new("urgent"), 4),
        (Record::new("urgent").partition(2), 2),
        (Record::new("any").key("foobar"), partition_of_key(b"foobar", 5)),
        (Record::new("any").key("21"), partition_of_key(b"21", 5)),
    ] {
        let delivered = producer.send(record).await.expect("accepted").await.expect("acknowledged");
        assert_eq!(delivered.partition, partition);
    }
}

#[tokio::test]
async fn a_trace_reaches_the_consumer() {
    let Some((_cluster, client)) = cluster(1, 1).await else { return };
    let current = TraceContext::new([1; 16], [2; 8], true).expect("not zero").state("vendor=x");
    let own: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00".parse().expect("good");
    let hook = current.clone();
    let producer =
        client.producer(TOPIC).trace_with(move || Some(hook.clone())).build().await.expect("built");
    for record in [Record::new("a"), Record::new("b").trace(&own)] {
        drop(producer.send(record).await.expect("accepted"));
    }
    producer.close().await;
    let mut consumer = client.consumer(TOPIC).start(StartAt::Earliest).build().await.expect("built");
    for (value, trace) in [("a", &current), ("b", &own)] {
        let record = consumer.next().await.expect("more to come").expect("no error");
        assert_eq!((super::text(&record).as_str(), record.trace().as_ref()), (value, Some(trace)));
    }
}

#[tokio::test]
async fn every_compression_headers_and_times_come_back_as_they_went() {
    use plimsoll_client::Compression;
    let Some((_cluster, client)) = cluster(1, 1).await else { return };
    let kinds =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for compression in kinds {
        let producer = client.producer(TOPIC).compression(compression).build().await.expect("a producer");
        let record =
            Record::new("x".repeat(5000)).key("k").header("h", "1").header("h", "2").timestamp_ms(77);
        producer.send(record).await.expect("accepted").await.expect("acknowledged");
    }
    let mut consumer = client.consumer(TOPIC).until_end().build().await.expect("built");
    for compression in kinds {
        let record = consumer.next().await.expect("more to come").expect("no error");
        assert_eq!((record.timestamp_ms, record.key.as_deref()), (77, Some(&b"k"[..])), "{compression:?}");
        assert_eq!(record.headers.len(), 2);
        assert_eq!(record.value.map(|value| value.len()), Some(5000));
    }
    assert!(consumer.next().await.is_none());
}

#[tokio::test]
async fn flush_does_not_wait_for_company_and_close_leaves_nothing() {
    let Some((_cluster, client)) = cluster(1, 1).await else { return };
    let hour = std::time::Duration::from_secs(3600);
    let producer = client.producer(TOPIC).linger(hour).build().await.expect("a producer");
    let first = producer.send(Record::new("first")).await.expect("accepted");
    producer.flush().await;
    first.await.expect("acknowledged by the flush");
    let second = producer.send(Record::new("second")).await.expect("accepted");
    producer.close().await;
    second.await.expect("acknowledged by the close");
    let mut consumer = client.consumer(TOPIC).build().await.expect("built");
    assert_eq!(
        (next(&mut consumer).await, next(&mut consumer).await),
        ("first".to_owned(), "second".to_owned())
    );
}

#[tokio::test]
async fn an_acknowledgement_says_what_it_means() {
    for (flush, all, leader) in [
        (FlushPolicy::Os, AckMeaning::Replicated(3), AckMeaning::Leader),
        (FlushPolicy::Ack, AckMeaning::Synced(3), AckMeaning::Synced(1)),
    ] {
        let config = TopicConfig {
            partitions: 1,
            replicas: 3,
            min_in_sync: 2,
            flush: flush.into(),
            ..Default::default()
        };
        let Some((_cluster, client)) = cluster_with(1, 3, config).await else { return };
        let in_sync = client.wait_metadata(LIMIT, |image| {
            image.topic_by_name(TOPIC).is_some_and(|topic| topic.partitions[0].in_sync.len() == 3)
        });
        assert!(in_sync.await, "all copies are in sync");
        for (acks, meaning) in [(Acks::All, all), (Acks::Leader, leader), (Acks::None, AckMeaning::Sent)] {
            let producer =
                client.producer(TOPIC).acks(acks).idempotent(acks == Acks::All).build().await.expect("built");
            let delivered =
                producer.send(Record::new("x")).await.expect("accepted").await.expect("acknowledged");
            assert_eq!(delivered.meaning, meaning, "{flush:?} {acks:?}");
        }
    }
}
