//! A storage node as controllers reach it: it says who it is and where its replica stands, and does nothing else.

use plimsoll_host::ServerOptions;
use plimsoll_proto::v1::peer_server::{Peer, PeerServer};
use tonic::{Request, Response, Status, Streaming};

use super::*;

pub(super) struct FakeNode {
    pub(super) id: u32,
    /// What it says of its replica; nothing while it does not answer.
    pub(super) standing: watch::Receiver<Option<v1::StandingResponse>>,
}

impl FakeNode {
    /// One without a replica.
    pub(super) fn of(id: u32) -> Self {
        Self { id, standing: watch::channel(None).1 }
    }

    /// Serves on a free port; returns where, and the task that ends it when dropped.
    pub(super) async fn serve(self, host: &Host) -> (String, Task) {
        let listener = host.network.bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = plimsoll_host::server(&ServerOptions::default())
            .add_service(PeerServer::new(self))
            .serve_with_incoming(listener.into_incoming());
        (address, host.tasks.spawn("fake node", async move { drop(server.await) }))
    }
}

#[tonic::async_trait]
impl Peer for FakeNode {
    type ReplicateStream = futures::stream::Empty<Result<v1::ReplicateResponse, Status>>;

    async fn replicate(
        &self,
        _: Request<Streaming<v1::ReplicateRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        Err(Status::unimplemented("nobody follows here"))
    }

    async fn ping(&self, _: Request<v1::PingRequest>) -> Result<Response<v1::PingResponse>, Status> {
        Ok(Response::new(v1::PingResponse { spu_id: self.id, ..Default::default() }))
    }

    async fn standing(
        &self,
        _: Request<v1::StandingRequest>,
    ) -> Result<Response<v1::StandingResponse>, Status> {
        self.standing.borrow().map(Response::new).ok_or_else(|| Status::unavailable("stopped"))
    }
}
