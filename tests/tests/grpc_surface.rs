//! What any gRPC client may ask of a running server: health, reflection, and messages over the limit.

use std::time::Duration;

use bytes::Bytes;
use plimsoll_chaos::plain::batch_of;
use plimsoll_client::{Client, Record, TopicConfig};
use plimsoll_host::{ChannelOptions, Host};
use plimsoll_proto::v1::spu_client::SpuClient;
use plimsoll_proto::v1::{self, produce_response};
use plimsoll_tests::{Layout, LocalCluster};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

const LIMIT: Duration = Duration::from_secs(20);
const LAYOUT: Layout = Layout { controllers: 1, spus: 1, disk_bytes: None };
/// More than a storage node takes in one message.
const OVER_LIMIT_BYTES: usize = 33 << 20;

async fn started() -> (LocalCluster, Client) {
    let mut cluster = LocalCluster::start(LAYOUT).expect("a cluster starts");
    let client = cluster.online().await.expect("online");
    (cluster, client)
}

fn channel(address: &str) -> Channel {
    Host::real().network.channel(address, &ChannelOptions::default()).expect("an address")
}

async fn ask(channel: Channel, request: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .expect("a stream")
        .into_inner();
    let ServerReflectionResponse { message_response, .. } =
        answers.message().await.expect("no error").expect("an answer");
    message_response.expect("a response")
}

#[tokio::test]
async fn reflection_names_every_service_and_describes_it() {
    let (cluster, _client) = started().await;
    let spu = (cluster.spu_address(1), "plimsoll.v1.Spu", "plimsoll.v1.ProduceRequest");
    let controller =
        (cluster.controller_addresses()[0].as_str(), "plimsoll.v1.Admin", "plimsoll.v1.CreateTopicRequest");
    for (address, service, message) in [spu, controller] {
        let listed = ask(channel(address), MessageRequest::ListServices(String::new())).await;
        let MessageResponse::ListServicesResponse(listed) = listed else { panic!("{address}: {listed:?}") };
        let names: Vec<_> = listed.service.iter().map(|service| service.name.as_str()).collect();
        for name in [service, "grpc.health.v1.Health"] {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
        for symbol in [service, message] {
            let found = ask(channel(address), MessageRequest::FileContainingSymbol(symbol.to_owned())).await;
            let MessageResponse::FileDescriptorResponse(files) = found else { panic!("{symbol}: {found:?}") };
            assert!(!files.file_descriptor_proto.is_empty(), "{symbol}");
        }
    }
}

#[tokio::test]
async fn health_has_a_service_for_producing_and_one_for_fetching() {
    let (cluster, _client) = started().await;
    let mut spu = HealthClient::new(channel(cluster.spu_address(1)));
    for service in ["", "plimsoll.produce", "plimsoll.fetch"] {
        let answer = spu.check(HealthCheckRequest { service: service.to_owned() }).await.expect("known");
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{service}");
    }
    let unknown = spu.check(HealthCheckRequest { service: "plimsoll.nonsense".to_owned() }).await;
    assert_eq!(unknown.expect_err("unknown").code(), Code::NotFound);
}

#[tokio::test]
async fn a_message_over_the_limit_ends_its_own_stream_only() {
    let (mut cluster, client) = started().await;
    let config = TopicConfig { partitions: 1, replicas: 1, min_in_sync: 1, ..TopicConfig::default() };
    client.admin().create_topic("t", config).await.expect("created");
    // The node knows that it leads: the SDK goes on until it does.
    let producer = client.producer("t").build().await.expect("a producer");
    let delivery = producer.send(Record::new("first")).await.expect("room");
    delivery.await.expect("delivered");
    let topic = client.admin().describe_topic("t").await.expect("described");
    let request = |batch: Bytes| v1::ProduceRequest {
        request_id: 1,
        topic_id: topic.topic_id.clone(),
        partition: 0,
        leader_epoch: topic.partitions[0].leader_epoch,
        acks: v1::Acks::All.into(),
        timeout_ms: 5000,
        batch,
    };
    let good = || request(batch_of(b"value", 1).expect("a batch"));

    // Both streams share one connection.
    let mut spu = SpuClient::new(channel(cluster.spu_address(1)));
    let (requests, outgoing) = mpsc::channel(1);
    requests.send(good()).await.expect("room");
    let mut answers = spu.produce(ReceiverStream::new(outgoing)).await.expect("a stream").into_inner();
    let acked = |answer: Option<v1::ProduceResponse>| match answer.and_then(|answer| answer.result) {
        Some(produce_response::Result::Ack(ack)) => ack.base_offset,
        other => panic!("not acknowledged: {other:?}"),
    };
    assert_eq!(acked(answers.message().await.expect("answered")), 1);

    let too_long = request(vec![0; OVER_LIMIT_BYTES].into());
    let refused = match spu.clone().produce(tokio_stream::iter([too_long])).await {
        Ok(answers) => answers.into_inner().message().await.expect_err("over the limit"),
        Err(status) => status,
    };
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");

    requests.send(good()).await.expect("the other stream is open");
    let answer = Host::real().clock.timeout(LIMIT, answers.message()).await.expect("in time");
    assert_eq!(acked(answer.expect("the other stream goes on")), 2, "nothing of the long one was appended");
    cluster.check_alive().expect("alive");
}
