//! A cluster that says what a test wants: a controller that serves metadata, and one storage node.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use plimsoll_host::{Host, ServerOptions, Task};
use plimsoll_proto::ids::TopicId;
use plimsoll_proto::v1::fetch_response::Result as Answer;
use plimsoll_proto::v1::metadata_server::{Metadata, MetadataServer};
use plimsoll_proto::v1::spu_server::{Spu, SpuServer};
use plimsoll_proto::v1::{self, ErrorDetail};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use crate::client::Client;

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// See the module. It serves as long as it lives.
pub(crate) struct MockCluster {
    pub(crate) client: Client,
    updates: watch::Sender<v1::MetadataUpdate>,
    script: Arc<Script>,
    _servers: Vec<Task>,
}

/// What the storage node answers, in order; when nothing is left, the last again.
#[derive(Default)]
struct Script {
    fetches: Mutex<VecDeque<Answer>>,
    ends: Mutex<VecDeque<Result<v1::ListOffsetsResponse, ErrorDetail>>>,
}

fn next<T: Clone>(answers: &Mutex<VecDeque<T>>) -> Option<T> {
    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
}

impl MockCluster {
    /// Topics by name, with one partition each. It knows neither administrative calls nor groups.
    pub(crate) async fn start(topics: &[&str]) -> Self {
        let host = Host::real();
        let script = Arc::<Script>::default();
        let listener = host.network.bind("127.0.0.1:0").await.expect("a free port");
        let node_address = listener.local_addr().expect("bound").to_string();
        let node = plimsoll_host::server(&ServerOptions::default())
            .add_service(SpuServer::new(MockNode(Arc::clone(&script))))
            .serve_with_incoming(listener.into_incoming());
        let spu = v1::SpuInfo {
            spu_id: 1,
            incarnation: 1,
            state: v1::SpuState::Online.into(),
            address: node_address,
            ..Default::default()
        };
        let topics = (1..).zip(topics).map(|(id, name)| topic(id, name, 1)).collect();
        let updates = watch::Sender::new(v1::MetadataUpdate {
            cluster_id: vec![7; 16].into(),
            version: 1,
            full: true,
            spus: vec![spu],
            topics,
            ..Default::default()
        });
        let listener = host.network.bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let controller = plimsoll_host::server(&ServerOptions::default())
            .add_service(MetadataServer::new(MockController(updates.clone())))
            .serve_with_incoming(listener.into_incoming());
        let servers = vec![
            host.tasks.spawn("mock node", async move { drop(node.await) }),
            host.tasks.spawn("mock controller", async move { drop(controller.await) }),
        ];
        let client = Client::builder().controllers([address]).call_timeout(Duration::from_secs(20));
        let client = client.build().await.expect("it answers");
        Self { client, updates, script, _servers: servers }
    }

    /// What fetch streams answer: one message each, and the end of the stream after an error.
    pub(crate) fn fetches(&self, answers: impl IntoIterator<Item = Answer>) {
        *self.script.fetches.lock().unwrap_or_else(PoisonError::into_inner) = answers.into_iter().collect();
    }

    /// What is answered to who asks for the ends of a partition.
    pub(crate) fn ends(
        &self,
        answers: impl IntoIterator<Item = Result<v1::ListOffsetsResponse, ErrorDetail>>,
    ) {
        *self.script.ends.lock().unwrap_or_else(PoisonError::into_inner) = answers.into_iter().collect();
    }

    /// No partition has a leader any more.
    pub(crate) fn lead_nothing(&self) {
        self.updates.send_modify(|update| {
            update.version += 1;
            for partition in update.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                partition.leader = 0;
            }
        });
    }

    /// The first topic has so many partitions from now on.
    pub(crate) fn grow(&self, partitions: u32) {
        self.updates.send_modify(|update| {
            update.version += 1;
            if let Some(first) = update.topics.first_mut() {
                *first = topic(1, &first.name, partitions);
            }
        });
    }
}

fn topic(id: u8, name: &str, partitions: u32) -> v1::TopicInfo {
    let partition = |index| v1::PartitionInfo {
        index,
        replicas: vec![v1::ReplicaAssignment { spu_id: 1, volume_id: vec![1; 16].into() }],
        in_sync: vec![1],
        leader: 1,
        leader_epoch: 1,
        partition_epoch: 1,
        leader_incarnation: 1,
        ..Default::default()
    };
    v1::TopicInfo {
        topic_id: TopicId([id; 16]).to_bytes(),
        name: name.to_owned(),
        config: Some(v1::TopicConfig { partitions, replicas: 1, min_in_sync: 1, ..Default::default() }),
        partitions: (0..partitions).map(partition).collect(),
        ..Default::default()
    }
}

struct MockController(watch::Sender<v1::MetadataUpdate>);

#[tonic::async_trait]
impl Metadata for MockController {
    type WatchStream = Boxed<v1::MetadataUpdate>;

    async fn watch(
        &self,
        _request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let updates = tokio_stream::wrappers::WatchStream::new(self.0.subscribe());
        Ok(Response::new(Box::pin(updates.map(Ok))))
    }
}

struct MockNode(Arc<Script>);

#[tonic::async_trait]
impl Spu for MockNode {
    type ProduceStream = Boxed<v1::ProduceResponse>;
    type FetchStream = Boxed<v1::FetchResponse>;

    /// Every batch is acknowledged.
    async fn produce(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let acknowledge = |request: Result<v1::ProduceRequest, Status>| {
            let ack = v1::ProduceAck { meaning: v1::AckMeaning::Leader.into(), ..Default::default() };
            Ok(v1::ProduceResponse {
                request_id: request?.request_id,
                spu_id: 1,
                leader_epoch: 1,
                result: Some(v1::produce_response::Result::Ack(ack)),
                ..Default::default()
            })
        };
        Ok(Response::new(Box::pin(request.into_inner().map(acknowledge))))
    }

    async fn fetch(
        &self,
        _request: Request<Streaming<v1::FetchRequest>>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let result = next(&self.0.fetches);
        let ends = matches!(result, Some(Answer::Error(_)));
        let response = v1::FetchResponse { result, spu_id: 1, incarnation: 1, leader_epoch: 1 };
        let first = futures::stream::iter([Ok(response)]);
        Ok(Response::new(if ends {
            Box::pin(first)
        } else {
            Box::pin(first.chain(futures::stream::pending()))
        }))
    }

    async fn list_offsets(
        &self,
        _request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let answer = next(&self.0.ends).unwrap_or_else(|| Ok(v1::ListOffsetsResponse::default()));
        Ok(Response::new(answer?))
    }
}
