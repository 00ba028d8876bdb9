//! Requests that are wrong: each gets its typed error and changes nothing; streams and processes live on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use plimsoll_chaos::plain::batch_of;
use plimsoll_client::{Client, Reason, TopicConfig};
use plimsoll_host::{ChannelOptions, Host};
use plimsoll_proto::v1::spu_client::SpuClient;
use plimsoll_proto::v1::{self, ErrorDetail, Outcome, produce_response};
use plimsoll_tests::{Layout, LocalCluster};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

const LIMIT: Duration = Duration::from_secs(20);
const TOPIC: &str = "t";

async fn cluster_with_topic(layout: Layout) -> (LocalCluster, Client, v1::TopicInfo) {
    let mut cluster = LocalCluster::start(layout).expect("a cluster starts");
    let client = cluster.online().await.expect("online");
    let config = TopicConfig {
        partitions: 1,
        replicas: layout.spus,
        min_in_sync: 1,
        batch_bytes_max: 64 << 10,
        ..TopicConfig::default()
    };
    let created = client.admin().create_topic(TOPIC, config).await;
    assert!(created.is_ok(), "{created:?}\n{}", cluster.logs());
    let led = client.wait_metadata(LIMIT, |image| {
        image.topic_by_name(TOPIC).is_some_and(|topic| topic.partitions[0].leader != 0)
    });
    assert!(led.await, "the partition has a leader");
    let topic = client.admin().describe_topic(TOPIC).await.expect("described");
    (cluster, client, topic)
}

fn spu(cluster: &LocalCluster, id: u32) -> SpuClient<Channel> {
    let channel = Host::real().network.channel(cluster.spu_address(id), &ChannelOptions::default());
    SpuClient::new(channel.expect("an address"))
}

fn request(topic: &v1::TopicInfo, batch: Bytes) -> v1::ProduceRequest {
    v1::ProduceRequest {
        request_id: 0,
        topic_id: topic.topic_id.clone(),
        partition: 0,
        leader_epoch: topic.partitions[0].leader_epoch,
        acks: v1::Acks::All.into(),
        timeout_ms: 5000,
        batch,
    }
}

/// Sends all requests on one stream; the results by request id.
async fn produce(
    spu: &mut SpuClient<Channel>,
    requests: Vec<v1::ProduceRequest>,
) -> Vec<produce_response::Result> {
    let count = requests.len();
    let (out, outgoing) = mpsc::channel(count.max(1));
    for (id, request) in (0u64..).zip(requests) {
        out.send(v1::ProduceRequest { request_id: id, ..request }).await.expect("room for all");
    }
    let mut answers = spu.produce(ReceiverStream::new(outgoing)).await.expect("a stream").into_inner();
    let mut results = vec![None; count];
    for _ in 0..count {
        let answer = Host::real().clock.timeout(LIMIT, answers.message()).await.expect("in time");
        let answer = answer.expect("the stream goes on").expect("an answer for each request");
        let at = usize::try_from(answer.request_id).expect("one of ours");
        assert!(results[at].replace(answer.result.expect("a result")).is_none(), "{at} was answered twice");
    }
    results.into_iter().map(|result| result.expect("every request was answered")).collect()
}

fn refusal(result: &produce_response::Result) -> &ErrorDetail {
    match result {
        produce_response::Result::Error(detail) => detail,
        produce_response::Result::Ack(ack) => panic!("acknowledged: {ack:?}"),
    }
}

fn changed(at: usize, byte: u8) -> Bytes {
    let mut batch = batch_of(b"value", 1).expect("a batch").to_vec();
    batch[at] = byte;
    batch.into()
}

#[tokio::test]
async fn every_bad_produce_has_its_reason_and_the_stream_goes_on() {
    let layout = Layout { controllers: 1, spus: 1, disk_bytes: None };
    let (mut cluster, _client, topic) = cluster_with_topic(layout).await;
    let good = || request(&topic, batch_of(b"value", 1).expect("a batch"));
    let epoch = topic.partitions[0].leader_epoch;
    let bad: Vec<(v1::ProduceRequest, &[Reason])> = vec![
        (v1::ProduceRequest { topic_id: Bytes::from_static(&[7; 16]), ..good() }, &[Reason::UnknownTopic]),
        (v1::ProduceRequest { topic_id: Bytes::from_static(b"x"), ..good() }, &[Reason::InvalidArgument]),
        (v1::ProduceRequest { partition: 99, ..good() }, &[Reason::UnknownPartition]),
        (v1::ProduceRequest { batch: Bytes::new(), ..good() }, &[Reason::InvalidArgument]),
        (request(&topic, batch_of(&[1; 70_000], 1).expect("a batch")), &[Reason::RecordTooLarge]),
        (request(&topic, changed(17, 0xaa)), &[Reason::CorruptBatch]),
        (request(&topic, changed(16, 1)), &[Reason::CorruptBatch]),
        (request(&topic, Bytes::from_static(&[0xff; 200])), &[Reason::CorruptBatch, Reason::InvalidArgument]),
        (v1::ProduceRequest { acks: 42, ..good() }, &[Reason::InvalidArgument]),
        (v1::ProduceRequest { timeout_ms: u32::MAX, ..good() }, &[Reason::InvalidArgument]),
        (
            v1::ProduceRequest { leader_epoch: epoch + 7, ..good() },
            &[Reason::StaleLeaderEpoch, Reason::NotLeader],
        ),
    ];
    let mut requests: Vec<_> = bad.iter().map(|(request, _)| request.clone()).collect();
    requests.push(good());
    let mut spu = spu(&cluster, 1);
    let results = produce(&mut spu, requests).await;
    for ((request, reasons), result) in bad.iter().zip(&results) {
        let detail = refusal(result);
        assert!(reasons.contains(&detail.reason()), "{request:?}: {detail:?}");
        assert_eq!(detail.outcome(), Outcome::NotWritten, "{detail:?}");
        assert!(!detail.message.is_empty());
    }
    match results.last() {
        Some(produce_response::Result::Ack(ack)) => {
            assert_eq!(ack.base_offset, 0, "nothing bad was appended")
        }
        other => panic!("the good one behind the bad ones: {other:?}"),
    }
    cluster.check_alive().expect("alive");
}

#[tokio::test]
async fn bad_fetches_end_their_stream_with_a_reason() {
    let layout = Layout { controllers: 1, spus: 1, disk_bytes: None };
    let (mut cluster, _client, topic) = cluster_with_topic(layout).await;
    let good = v1::FetchOpen {
        topic_id: topic.topic_id.clone(),
        start_at: v1::StartAt::Earliest.into(),
        credit_bytes: 1000,
        ..v1::FetchOpen::default()
    };
    let at = |offset| v1::FetchOpen { start_at: v1::StartAt::Offset.into(), offset, ..good.clone() };
    let cases = [
        (v1::FetchOpen { topic_id: Bytes::from_static(&[7; 16]), ..good.clone() }, Reason::UnknownTopic),
        (v1::FetchOpen { partition: 99, ..good.clone() }, Reason::UnknownPartition),
        (v1::FetchOpen { start_at: 0, ..good.clone() }, Reason::InvalidArgument),
        (at(u64::MAX), Reason::InvalidArgument),
    ];
    let mut spu = spu(&cluster, 1);
    for (open, reason) in cases {
        let first = v1::FetchRequest { request: Some(v1::fetch_request::Request::Open(open.clone())) };
        let mut answers = spu.fetch(tokio_stream::iter([first])).await.expect("a stream").into_inner();
        match answers.message().await.expect("an answer").and_then(|answer| answer.result) {
            Some(v1::fetch_response::Result::Error(detail)) => {
                assert_eq!(detail.reason(), reason, "{open:?}")
            }
            other => panic!("{open:?}: {other:?}"),
        }
        assert!(answers.message().await.expect("the end").is_none(), "the refusal is the last message");
    }
    cluster.check_alive().expect("alive");
}

#[tokio::test]
async fn bad_topic_names_are_refused() {
    let layout = Layout { controllers: 1, spus: 1, disk_bytes: None };
    let (mut cluster, client, _topic) = cluster_with_topic(layout).await;
    let config = TopicConfig { partitions: 1, replicas: 1, min_in_sync: 1, ..TopicConfig::default() };
    let long = "x".repeat(201);
    for name in ["", ".", "..", "a..b", "a/b", "a\0b", "a b", &long] {
        let error = client.admin().create_topic(name, config).await.expect_err(name);
        assert_eq!(error.reason(), Some(Reason::InvalidTopic), "{name}: {error}");
    }
    let error = client.admin().create_topic(TOPIC, config).await.expect_err("it is there");
    assert_eq!(error.reason(), Some(Reason::TopicExists));
    let error = client.admin().describe_topic("nowhere").await.expect_err("it is not there");
    assert_eq!(error.reason(), Some(Reason::UnknownTopic));
    assert_eq!(client.admin().list_topics().await.expect("listed").len(), 1);
    cluster.check_alive().expect("alive");
}

#[tokio::test]
async fn garbage_on_a_port_harms_nobody() {
    let layout = Layout { controllers: 1, spus: 1, disk_bytes: None };
    let (mut cluster, client, _topic) = cluster_with_topic(layout).await;
    let ports = [cluster.spu_address(1).to_owned(), cluster.controller_addresses()[0].clone()];
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let random: Vec<u8> = (0u32..4096).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for port in &ports {
        for start in [Vec::new(), preface.clone()] {
            let mut socket = TcpStream::connect(port).expect("it listens");
            // It may hang up in the middle of it.
            drop(socket.write_all(&[start, random.clone()].concat()));
            drop(socket.shutdown(std::net::Shutdown::Write));
            drop(socket.set_read_timeout(Some(Duration::from_secs(5))));
            let mut answer = Vec::new();
            drop(socket.read_to_end(&mut answer));
        }
    }
    cluster.check_alive().expect("alive");
    assert_eq!(client.admin().list_topics().await.expect("listed").len(), 1);
}

#[tokio::test]
async fn one_controller_of_three_down_changes_nothing_for_clients() {
    let layout = Layout { controllers: 3, spus: 1, disk_bytes: None };
    let (mut cluster, client, _topic) = cluster_with_topic(layout).await;
    let (leader, _) = client.metadata().controller_leader.clone().expect("a leader");
    let leader = u32::try_from(leader.0).expect("1 to 3");
    for down in [leader % 3 + 1, leader] {
        cluster.controller(down).kill();
        let listed = plimsoll_tests::eventually(LIMIT, "topics are listed", || async {
            Ok(client.admin().list_topics().await?)
        });
        assert_eq!(listed.await.expect("with one controller down").len(), 1);
        let ended = cluster.command(&["topic", "list"]).await.expect("it ends");
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        cluster.controller(down).start().expect("started again");
    }
    let config = TopicConfig { partitions: 1, replicas: 1, min_in_sync: 1, ..TopicConfig::default() };
    let created = plimsoll_tests::eventually(LIMIT, "a topic is created", || async {
        match client.admin().create_topic("later", config).await {
            Err(error) if error.reason() == Some(Reason::TopicExists) => Ok(()),
            other => Ok(other.map(|_| ())?),
        }
    });
    created.await.expect("the controllers decide again");
}
