//! A consumer against a node that says what a test wants.

use std::time::Duration;

use bytes::Bytes;
use plimsoll_host::Host;
use plimsoll_proto::batch::{BatchBuilder, Compression, NewRecord, stamp};
use plimsoll_proto::ids::{LeaderEpoch, Offset};
use plimsoll_proto::v1::fetch_response::Result as Answer;
use plimsoll_proto::v1::{self, ErrorDetail, Reason};

use super::{Consumer, ConsumerEvent, OnTrimmed, StartAt};
use crate::error::ConsumeError;
use crate::mock::MockCluster;

const LIMIT: Duration = Duration::from_secs(60);

/// Records `v{base}` on.
fn batches(base: u64, count: u64) -> Answer {
    let mut builder = BatchBuilder::new(Compression::None);
    for offset in base..base + count {
        let value = format!("v{offset}");
        let record = NewRecord { value: Some(value.as_bytes()), ..Default::default() };
        builder.push(&record).expect("a small record fits");
    }
    let mut bytes = builder.build().expect("a batch with records can be built").to_vec();
    stamp(&mut bytes, Offset::new(base).expect("small"), LeaderEpoch(1)).expect("a whole header");
    Answer::Batches(v1::FetchBatches {
        batches: Bytes::from(bytes),
        high_watermark: base + count,
        log_start: 0,
        next_offset: base + count,
    })
}

/// As a leader says that was just elected: its log has the offset, but it does not know yet what is committed.
fn not_available(log_end: u64) -> ErrorDetail {
    let mut detail = ErrorDetail::not_written(Reason::OffsetNotAvailable, "not confirmed yet")
        .retry_after(Duration::from_millis(200));
    (detail.requested_offset, detail.log_end) = (3, log_end);
    detail
}

async fn values(consumer: &mut Consumer, count: u64) -> Vec<String> {
    let mut values = Vec::new();
    for _ in 0..count {
        let next = Host::real().clock.timeout(LIMIT, consumer.next()).await.expect("in time");
        let record = next.expect("more to come").expect("no error");
        values.push(String::from_utf8(record.value.expect("a value").to_vec()).expect("text"));
    }
    values
}

#[tokio::test]
async fn a_leader_that_does_not_know_yet_what_is_committed_is_asked_again() {
    let cluster = MockCluster::start(&["t"]).await;
    // A change of leader after the first batch.
    let refused = || Answer::Error(not_available(9));
    cluster.fetches([
        Answer::Error(not_available(9)),
        batches(0, 3),
        refused(),
        refused(),
        refused(),
        batches(3, 2),
    ]);
    let builder = cluster.client.consumer("t").start(StartAt::Offset(Offset::ZERO));
    // Also one that would end at once if records had gone.
    let mut consumer = builder.on_trimmed(OnTrimmed::Fail).build().await.expect("built");
    assert_eq!(values(&mut consumer, 3).await, ["v0", "v1", "v2"]);
    // The stream of the former leader is open still; the seek stands for its end.
    consumer.seek(0, StartAt::Offset(Offset::new(3).expect("small"))).expect("it is read");
    assert_eq!(values(&mut consumer, 2).await, ["v3", "v4"]);
    assert_eq!(consumer.trimmed_records(), 0);
}

#[tokio::test]
async fn ends_that_are_not_confirmed_yet_are_asked_for_again() {
    let cluster = MockCluster::start(&["t"]).await;
    let ends = || v1::ListOffsetsResponse { high_watermark: 5, log_end: 5, ..Default::default() };
    let refused = || Err(not_available(5));
    for start in [StartAt::Last(2), StartAt::Earliest] {
        let first = if start == StartAt::Earliest { batches(0, 5) } else { batches(3, 2) };
        cluster.fetches([first]);
        // The end to stop at, then where to start.
        cluster.ends([refused(), refused(), Ok(ends()), refused(), Ok(ends())]);
        let builder = cluster.client.consumer("t").start(start).until_end();
        let mut consumer = builder.build().await.expect("built");
        let expected = if start == StartAt::Earliest { 5 } else { 2 };
        assert_eq!(values(&mut consumer, expected).await.last().map(String::as_str), Some("v4"));
        assert!(consumer.next().await.is_none());
    }
}

#[tokio::test]
async fn trimmed_records_are_told_whatever_the_policy() {
    let mut trimmed = ErrorDetail::not_written(Reason::OffsetTrimmed, "trimmed");
    (trimmed.log_start, trimmed.log_end) = (5, 9);
    let offset = |offset| Offset::new(offset).expect("small");
    for (policy, next) in
        [(OnTrimmed::Earliest, Some(5)), (OnTrimmed::Latest, Some(9)), (OnTrimmed::Fail, None)]
    {
        let cluster = MockCluster::start(&["t"]).await;
        cluster.fetches([Answer::Error(trimmed.clone()), batches(next.unwrap_or(5), 2)]);
        let builder = cluster.client.consumer("t").start(StartAt::Offset(Offset::ZERO));
        let mut consumer = builder.on_trimmed(policy).build().await.expect("built");
        let mut events = consumer.events();
        match next {
            Some(next) => {
                assert_eq!(values(&mut consumer, 1).await, [format!("v{next}")], "{policy:?}");
                assert_eq!(consumer.trimmed_records(), next);
                let told = std::iter::from_fn(|| events.try_recv().ok());
                let lost = ConsumerEvent::Trimmed { partition: 0, from: Offset::ZERO, to: offset(next) };
                assert!(told.into_iter().any(|event| event == lost), "{policy:?}");
            }
            None => {
                let ended = Host::real().clock.timeout(LIMIT, consumer.next()).await.expect("in time");
                let error = ended.expect("an error").expect_err("records are missing");
                let told = matches!(error, ConsumeError::Trimmed { partition: 0, requested, log_start }
                    if (requested, log_start) == (Offset::ZERO, offset(5)));
                assert!(told, "{error}");
                assert!(consumer.next().await.is_none());
            }
        }
    }
}
