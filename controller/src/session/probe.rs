//! Asking whether a node lives: on a new connection of our own, and through two others.
//!
//! Others are storage nodes that were heard of lately and, where there are not enough of them, the other controllers. Who
//! can't be asked has seen nothing, and does not count.

use plimsoll_proto::ids::{ControllerId, Incarnation, SpuId};

use super::shared::Shared;
use crate::liveness::{Event, Sight};
use crate::raft_runtime::{Run, View};

/// How many others are asked.
const OTHERS: usize = 2;

/// One round; the judge gets what was seen.
pub(super) async fn round(shared: Shared, spu: SpuId, incarnation: Incarnation) {
    let started = shared.host.clock.now();
    let view = shared.raft.view();
    let Some(record) = view.state.spu(spu) else { return };
    let run = Run { cluster_id: view.state.cluster_id(), spu, incarnation };
    let since = started.saturating_sub(shared.settings.facts_fresh);
    let others = others(&view, shared.id, spu, &shared.facts.heard_since(since));
    let asked = others.into_iter().map(|other| through(&shared, run, other, &record.address));
    let direct = shared.vantage.look(run, &record.address, shared.settings.probe_timeout);
    let (direct, through) = futures::future::join(direct, futures::future::join_all(asked)).await;
    let through = through.into_iter().flatten().collect();
    shared.tell(shared.host.clock.now(), Event::Probed { spu, incarnation, started, direct, through });
}

/// Somebody else who looks, by address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Other<'a> {
    Spu(&'a str),
    Controller(&'a str),
}

/// Whom to ask about `suspect`: the storage nodes `heard`, in this order, then controllers that can be reached.
fn others<'a>(view: &'a View, own: ControllerId, suspect: SpuId, heard: &[SpuId]) -> Vec<Other<'a>> {
    let spus = heard.iter().filter(|spu| **spu != suspect).filter_map(|spu| view.state.spu(*spu));
    let spus = spus.filter(|record| record.state.is_live()).map(|record| Other::Spu(&record.address));
    let controllers = view.peers.iter().filter(|peer| peer.id != own && peer.reachable);
    spus.chain(controllers.map(|peer| Other::Controller(&peer.address))).take(OTHERS).collect()
}

/// What another one sees; `None` when it can't be asked.
async fn through(shared: &Shared, run: Run, other: Other<'_>, address: &str) -> Option<Sight> {
    let limit = shared.settings.probe_timeout.saturating_mul(2);
    let ask = match other {
        Other::Controller(ask) => return shared.vantage.ask(run, ask, limit).await,
        Other::Spu(ask) => ask,
    };
    let answer = shared.vantage.ping(run.cluster_id, ask, address, limit).await?;
    Some(match (answer.probe_reached, answer.probe_refused) {
        (true, _) => Sight::Answered,
        (false, true) => Sight::Refused,
        (false, false) => Sight::Silent,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use plimsoll_proto::v1;

    use super::*;
    use crate::cluster::testing::Cluster;
    use crate::raft_runtime::{DiskRoom, JournalState, PeerStatus};

    const OWN: ControllerId = ControllerId(1);

    /// What controller 1 of three sees of these nodes; the third controller can't be reached when `alone`.
    fn view(cluster: &Cluster, alone: bool) -> View {
        let peer = |id| PeerStatus {
            id: ControllerId(id),
            address: format!("c{id}:1"),
            reachable: id != 2 || !alone,
            matched: None,
            disk_full: false,
        };
        View {
            state: Arc::new(cluster.state.clone()),
            cluster_id: cluster.state.cluster_id(),
            applied_index: 1,
            term: 1,
            leader: Some(OWN),
            is_leader: true,
            leader_since: Some(Duration::ZERO),
            peers: [1, 2, 3].map(peer).to_vec(),
            journal: JournalState::Healthy,
            disk: DiskRoom::Ample,
        }
    }

    fn asked(cluster: &Cluster, suspect: u32, heard: &[u32], alone: bool) -> Vec<String> {
        let heard: Vec<SpuId> = heard.iter().copied().map(SpuId).collect();
        let of_spu = |address: &str| {
            let known = cluster.state.spus().iter().find(|(_, record)| record.address == address);
            known.map(|(id, _)| format!("s{id}")).expect("a node's address")
        };
        let named = |other: &Other<'_>| match other {
            Other::Spu(address) => of_spu(address),
            Other::Controller(address) => (*address).to_owned(),
        };
        others(&view(cluster, alone), OWN, SpuId(suspect), &heard).iter().map(named).collect()
    }

    #[test]
    fn two_others_are_asked_and_controllers_where_storage_nodes_are_missing() {
        let cluster = Cluster::of(4);
        for (suspect, heard, alone, expected) in [
            (1, &[3, 2, 4][..], false, &["s3", "s2"][..]),
            // One that was heard a moment ago is no witness of itself.
            (1, &[1, 4, 2], false, &["s4", "s2"]),
            (1, &[2], false, &["s2", "c2:1"]),
            (1, &[1], false, &["c2:1", "c3:1"]),
            (1, &[], false, &["c2:1", "c3:1"]),
            // Not reached, not asked; and never the one that asks.
            (1, &[], true, &["c3:1"]),
            (1, &[3], true, &["s3", "c3:1"]),
            // Not registered.
            (1, &[9], false, &["c2:1", "c3:1"]),
        ] {
            assert_eq!(asked(&cluster, suspect, heard, alone), expected, "{suspect} {heard:?} {alone}");
        }
    }

    #[test]
    fn one_that_is_offline_is_not_asked() {
        let mut cluster = Cluster::of(2);
        cluster.done(cluster.spu_state(2, v1::SpuState::Online, v1::SpuState::Offline));
        assert_eq!(asked(&cluster, 1, &[2], false), ["c2:1", "c3:1"]);
    }
}
