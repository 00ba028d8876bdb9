//! The picture that sessions see.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::ids::ControllerId;

use super::disk_room::DiskRoom;
use super::handle::{PeerStatus, View};
use super::node::{Health, Node};

/// A peer heard from within this time counts as reachable.
const REACHABLE_WITHIN: Duration = Duration::from_secs(2);

impl Node {
    /// Publishes when something changed.
    pub(super) fn publish(&mut self, now: Duration) {
        let view = self.picture(now);
        let changed = {
            let last = self.view.borrow();
            self.state_changed || differs(&last, &view)
        };
        self.state_changed = false;
        if changed {
            self.view.send_replace(Arc::new(view));
        }
    }

    fn picture(&mut self, now: Duration) -> View {
        let raft = &self.raw.raft;
        let healthy = matches!(self.health, Health::Healthy);
        // Entries of former terms are applied once an entry of this term is.
        let is_leader =
            healthy && self.leads() && self.applied.1 == raft.term && self.state.cluster_id().is_some();
        self.leader_since = is_leader.then(|| self.leader_since.unwrap_or(now));
        let leader = Some(raft.leader_id).filter(|id| *id != 0).map(ControllerId);
        let state =
            if self.state_changed { Arc::new(self.state.clone()) } else { self.view.borrow().state.clone() };
        View {
            state,
            cluster_id: self.state.cluster_id().or_else(|| self.identity.cluster_id()),
            applied_index: self.applied.0,
            term: raft.term,
            // One that takes no part hears neither of another leader nor of its entries: who follows it is to go
            // elsewhere.
            leader: leader.filter(|_| healthy),
            is_leader,
            leader_since: self.leader_since,
            peers: self.peer_statuses(now),
            journal: self.journal_state(),
            disk: self.room,
        }
    }

    fn peer_statuses(&self, now: Duration) -> Vec<PeerStatus> {
        let leads = self.leads();
        let status = |(id, peer): (&ControllerId, &super::node::PeerLink)| {
            let heard = peer.last_heard.is_some_and(|heard| now.saturating_sub(heard) <= REACHABLE_WITHIN);
            let progress = self.raw.raft.prs().get(id.0).filter(|_| leads);
            PeerStatus {
                id: *id,
                address: peer.address.clone(),
                reachable: heard || *id == self.settings.id,
                matched: progress.map(|progress| progress.matched),
                disk_full: if *id == self.settings.id {
                    self.room != DiskRoom::Ample
                } else {
                    peer.disk_full
                },
            }
        };
        self.peers.iter().map(status).collect()
    }
}

fn differs(last: &View, next: &View) -> bool {
    last.applied_index != next.applied_index
        || last.term != next.term
        || last.leader != next.leader
        || last.is_leader != next.is_leader
        || last.cluster_id != next.cluster_id
        || last.journal != next.journal
        || !same_room(last.disk, next.disk)
        || last.peers != next.peers
}

/// Figures that change while the disk is full are no news.
fn same_room(a: DiskRoom, b: DiskRoom) -> bool {
    std::mem::discriminant(&a) == std::mem::discriminant(&b)
}
