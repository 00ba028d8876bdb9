//! Asking whether a node lives: on a new connection of our own, and through two others.

use std::time::Duration;

use bytes::Bytes;
use plimsoll_host::{ChannelOptions, Probe};
use plimsoll_proto::ids::{Incarnation, SpuId};
use plimsoll_proto::v1::{self, peer_client::PeerClient};

use super::shared::Shared;
use crate::liveness::{Event, Sight};
use crate::raft_runtime::View;

/// How many others are asked.
const OTHERS: usize = 2;

/// One round; the judge gets what was seen.
pub(super) async fn round(shared: Shared, spu: SpuId, incarnation: Incarnation) {
    let started = shared.host.clock.now();
    let view = shared.raft.view();
    let Some(record) = view.state.spu(spu) else { return };
    let address = record.address.clone();
    let since = started.saturating_sub(shared.settings.facts_fresh);
    let others = shared.facts.heard_since(since).into_iter().filter(|other| *other != spu).take(OTHERS);
    let asked = others.map(|other| through(&shared, &view, other, &address));
    let (direct, through) =
        futures::future::join(direct(&shared, &view, spu, &address), futures::future::join_all(asked)).await;
    let through = through.into_iter().flatten().collect();
    shared.tell(shared.host.clock.now(), Event::Probed { spu, incarnation, started, direct, through });
}

async fn direct(shared: &Shared, view: &View, spu: SpuId, address: &str) -> Sight {
    let limit = shared.settings.probe_timeout;
    let (answer, port) = futures::future::join(
        ping(shared, view, address, "", limit),
        shared.host.network.probe(address, limit),
    )
    .await;
    match (answer, port) {
        (Some(answer), _) if answer.spu_id == spu.0 => Sight::Answered,
        (_, Probe::Refused) => Sight::Refused,
        (_, Probe::Reached | Probe::Silent) => Sight::Silent,
    }
}

/// What another node sees; `None` when it can't be asked.
async fn through(shared: &Shared, view: &View, other: SpuId, address: &str) -> Option<Sight> {
    let ask = &view.state.spu(other)?.address;
    let limit = shared.settings.probe_timeout.saturating_mul(2);
    let answer = ping(shared, view, ask, address, limit).await?;
    Some(match (answer.probe_reached, answer.probe_refused) {
        (true, _) => Sight::Answered,
        (false, true) => Sight::Refused,
        (false, false) => Sight::Silent,
    })
}

async fn ping(
    shared: &Shared,
    view: &View,
    address: &str,
    probe_address: &str,
    limit: Duration,
) -> Option<v1::PingResponse> {
    let channel = shared.host.network.channel(address, &ChannelOptions::default()).ok()?;
    let request = v1::PingRequest {
        cluster_id: view.state.cluster_id().map_or_else(Bytes::new, |id| id.to_bytes()),
        probe_address: probe_address.to_owned(),
    };
    let mut client = PeerClient::new(channel);
    let answer = shared.host.clock.timeout(limit, client.ping(request)).await;
    answer.ok()?.ok().map(tonic::Response::into_inner)
}
