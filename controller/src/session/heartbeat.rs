//! The heartbeat stream of one node.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::ids::{Incarnation, SpuId};
use plimsoll_proto::v1::{self, ErrorDetail};
use tonic::{Status, Streaming};

use super::facts::Heard;
use super::shared::Shared;
use super::{answer, request};
use crate::liveness::Event;
use crate::raft_runtime::View;

/// A stream under way. When it ends, however it does, the judge is told.
pub(super) struct HeartbeatStream {
    shared: Shared,
    requests: Streaming<v1::HeartbeatRequest>,
    sender: Option<(SpuId, Incarnation)>,
    ended: bool,
}

impl HeartbeatStream {
    pub(super) fn new(shared: Shared, requests: Streaming<v1::HeartbeatRequest>) -> Self {
        Self { shared, requests, sender: None, ended: false }
    }

    /// The answer to the next heartbeat; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<Result<v1::HeartbeatResponse, Status>> {
        if self.ended {
            return None;
        }
        let message = tokio::select! {
            biased;
            () = self.shared.stopped() => Ok(None),
            message = self.requests.message() => message,
        };
        // Stamped here, before anything may queue.
        let at = self.shared.host.clock.now();
        match message {
            Ok(Some(heartbeat)) => Some(Ok(self.answer(at, heartbeat))),
            Ok(None) | Err(_) => None,
        }
    }

    fn answer(&mut self, at: Duration, heartbeat: v1::HeartbeatRequest) -> v1::HeartbeatResponse {
        let view = self.shared.raft.view();
        let error = self.accept(at, &view, &heartbeat).err();
        self.ended = error.is_some();
        v1::HeartbeatResponse {
            sequence: heartbeat.sequence,
            error,
            controller_term: view.term,
            cluster_time_ms: self.shared.host.clock.wall_ms(),
        }
    }

    fn accept(
        &mut self,
        at: Duration,
        view: &Arc<View>,
        heartbeat: &v1::HeartbeatRequest,
    ) -> Result<(), ErrorDetail> {
        if !view.is_leader {
            return Err(answer::not_leading_now(view));
        }
        request::cluster(&view.state, &heartbeat.cluster_id)?;
        request::volumes(&heartbeat.volumes)?;
        let (spu, incarnation) = request::sender(&view.state, heartbeat.spu_id, heartbeat.incarnation)?;
        self.sender = Some((spu, incarnation));
        self.shared.facts.put(spu, Heard { incarnation, at, volumes: heartbeat.volumes.clone() });
        let data_paths = request::data_paths(&heartbeat.volumes);
        self.shared.tell(at, Event::Heartbeat { spu, incarnation, data_paths });
        Ok(())
    }
}

impl Drop for HeartbeatStream {
    fn drop(&mut self) {
        if let Some((spu, incarnation)) = self.sender {
            let at = self.shared.host.clock.now();
            self.shared.tell(at, Event::StreamClosed { spu, incarnation });
        }
    }
}
