//! The state of the cluster as the leader sees it.

use std::time::Duration;

use plimsoll_proto::ids::VolumeId;
use plimsoll_proto::v1;

use super::shared::Shared;
use crate::placement;
use crate::raft_runtime::View;

pub(super) fn status(shared: &Shared, view: &View) -> v1::ClusterStatusResponse {
    let state = &view.state;
    let counts = state.counts();
    v1::ClusterStatusResponse {
        cluster_id: state.cluster_id().map(|id| id.to_bytes()).unwrap_or_default(),
        leader: view.leader.map_or(0, |leader| leader.0),
        term: view.term,
        applied_index: view.applied_index,
        controllers: view.peers.iter().map(|peer| controller(shared, view, peer)).collect(),
        spus: spus(shared, view),
        topics: u32::try_from(state.topics().len()).unwrap_or(u32::MAX),
        partitions: counts.partitions,
        partitions_without_leader: counts.without_leader,
        partitions_under_replicated: counts.under_replicated,
        partitions_below_min_in_sync: counts.below_min_in_sync,
        stale: false,
        no_quorum: false,
        answered_by: shared.id.0,
    }
}

/// What a controller that does not lead knows.
pub(super) fn stale(shared: &Shared, view: &View) -> v1::ClusterStatusResponse {
    v1::ClusterStatusResponse { stale: true, no_quorum: view.leader.is_none(), ..status(shared, view) }
}

fn controller(shared: &Shared, view: &View, peer: &crate::raft_runtime::PeerStatus) -> v1::ControllerStatus {
    let is_self = peer.id == shared.id;
    v1::ControllerStatus {
        controller_id: peer.id.0,
        address: peer.address.clone(),
        leader: view.leader == Some(peer.id),
        reachable: peer.reachable || is_self,
        applied_index: if is_self { view.applied_index } else { peer.matched.unwrap_or(0) },
        disk_full: peer.disk_full,
    }
}

fn spus(shared: &Shared, view: &View) -> Vec<v1::SpuStatus> {
    let now = shared.host.clock.now();
    let age = |at: Duration| u64::try_from(now.saturating_sub(at).as_millis()).unwrap_or(u64::MAX).max(1);
    let loads = placement::load(&view.state);
    view.state
        .spus()
        .iter()
        .map(|(id, spu)| {
            let heard = shared.facts.get(*id).filter(|heard| heard.incarnation == spu.incarnation);
            let heartbeat_age_ms = heard.as_ref().map_or(0, |heard| age(heard.at));
            let mut volumes = heard.map(|heard| heard.volumes).unwrap_or_default();
            for facts in &mut volumes {
                // As committed: what the node says of itself is up to a heartbeat old, or as old as its end.
                let load = VolumeId::from_slice(&facts.volume_id).ok().and_then(|v| loads.get(&(*id, v)));
                (facts.replicas, facts.leaders) = load.copied().unwrap_or_default();
            }
            v1::SpuStatus { info: Some(spu.to_info(*id)), heartbeat_age_ms, volumes }
        })
        .collect()
}
