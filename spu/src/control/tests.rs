//! Asking controllers that lead, don't lead, are silent or gone; over real sockets of the loopback.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use plimsoll_host::{Host, ServerOptions, Task};
use plimsoll_proto::ids::ClusterId;
use plimsoll_proto::v1::control_server::{Control, ControlServer};
use plimsoll_proto::v1::metadata_server::{Metadata, MetadataServer};
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use tonic::{Request, Response, Status, Streaming};

use super::controllers::{CallError, Controllers};
use super::discover_cluster;

const LIMIT: Duration = Duration::from_secs(10);

/// What a fake controller does with a question.
#[derive(Clone)]
enum Does {
    Lead,
    Point(String),
    Refuse(Reason),
    Hang,
}

#[derive(Clone)]
struct Fake(Does);

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Fake {
    async fn act<T: Default>(&self) -> Result<Response<T>, Status> {
        match &self.0 {
            Does::Lead => Ok(Response::new(T::default())),
            Does::Point(address) => {
                let mut detail = ErrorDetail::not_written(Reason::NotControllerLeader, "not me");
                detail.controller_address = address.clone();
                Err(detail.into())
            }
            Does::Refuse(reason) => Err(ErrorDetail::not_written(*reason, "refused").into()),
            Does::Hang => std::future::pending().await,
        }
    }
}

#[tonic::async_trait]
impl Control for Fake {
    type HeartbeatStream = Boxed<v1::HeartbeatResponse>;

    async fn register(
        &self,
        _: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        self.act().await
    }

    async fn heartbeat(
        &self,
        _: Request<Streaming<v1::HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        Ok(Response::new(stream::pending().boxed()))
    }

    async fn change_in_sync(
        &self,
        _: Request<v1::ChangeInSyncRequest>,
    ) -> Result<Response<v1::ChangeInSyncResponse>, Status> {
        self.act().await
    }

    async fn change_volume(
        &self,
        _: Request<v1::ChangeVolumeRequest>,
    ) -> Result<Response<v1::ChangeVolumeResponse>, Status> {
        self.act().await
    }

    async fn hand_over(
        &self,
        _: Request<v1::HandOverRequest>,
    ) -> Result<Response<v1::HandOverResponse>, Status> {
        self.act().await
    }
}

#[tonic::async_trait]
impl Metadata for Fake {
    type WatchStream = Boxed<v1::MetadataUpdate>;

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let mut update = self.act::<v1::MetadataUpdate>().await?.into_inner();
        update.cluster_id = ClusterId([9; 16]).to_bytes();
        Ok(Response::new(stream::iter([Ok(update)]).boxed()))
    }
}

async fn start(host: &Host, does: Does) -> (String, Task) {
    let listener = host.network.bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let fake = Fake(does);
    let server = plimsoll_host::server(&ServerOptions::default())
        .add_service(ControlServer::new(fake.clone()))
        .add_service(MetadataServer::new(fake))
        .serve_with_incoming(listener.into_incoming());
    let task = host.tasks.spawn("fake controller", async move { drop(server.await) });
    (address, task)
}

/// An address where nothing listens.
async fn nobody(host: &Host) -> String {
    let listener = host.network.bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

async fn register(controllers: &Controllers) -> Result<v1::RegisterResponse, CallError> {
    controllers
        .call(LIMIT, |mut client| async move { client.register(v1::RegisterRequest::default()).await })
        .await
}

#[tokio::test]
async fn the_leader_is_found_behind_every_kind_of_neighbour() {
    let host = Host::real();
    let (leader, _leader) = start(&host, Does::Lead).await;
    let (pointing, _pointing) = start(&host, Does::Point(leader.clone())).await;
    let (lost, _lost) = start(&host, Does::Point(String::new())).await;
    let (hanging, _hanging) = start(&host, Does::Hang).await;
    let (electing, _electing) = start(&host, Does::Refuse(Reason::NoQuorum)).await;
    let gone = nobody(&host).await;
    for configured in [
        vec![leader.clone()],
        // Only by the address that it is told.
        vec![pointing.clone()],
        vec![gone.clone(), leader.clone()],
        vec![hanging.clone(), leader.clone()],
        vec![lost, electing, gone, hanging, pointing],
    ] {
        let controllers = Controllers::new(host.clone(), configured.clone());
        assert!(register(&controllers).await.is_ok(), "{configured:?}");
        assert_eq!(controllers.in_order().first(), Some(&leader), "{configured:?}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_leader_is_final() {
    let host = Host::real();
    let (address, _task) = start(&host, Does::Refuse(Reason::WrongCluster)).await;
    match register(&Controllers::new(host, vec![address])).await {
        Err(CallError::Refused(detail)) => assert_eq!(detail.reason(), Reason::WrongCluster),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn without_a_leader_every_answer_is_told() {
    let host = Host::real();
    let (lost, _lost) = start(&host, Does::Point(String::new())).await;
    let gone = nobody(&host).await;
    match register(&Controllers::new(host, vec![lost.clone(), gone.clone()])).await {
        Err(CallError::NoLeader { why }) => {
            assert!(why.contains(&format!("{lost}: does not lead")), "{why}");
            assert!(why.contains(&format!("{gone}: ")) && why.contains("refused"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn controllers_that_point_at_each_other_end_the_call() {
    let host = Host::real();
    let nobody = nobody(&host).await;
    let (one, _one) = start(&host, Does::Point(nobody.clone())).await;
    let (other, _other) = start(&host, Does::Point(one.clone())).await;
    let controllers = Controllers::new(host, vec![one, other]);
    assert!(matches!(register(&controllers).await, Err(CallError::NoLeader { .. })));
}

#[tokio::test]
async fn a_fresh_node_learns_its_cluster_from_whoever_answers() {
    let host = Host::real();
    let (address, _task) = start(&host, Does::Lead).await;
    let controllers = Controllers::new(host.clone(), vec![nobody(&host).await, address]);
    assert_eq!(discover_cluster(&controllers).await, ClusterId([9; 16]));
}
