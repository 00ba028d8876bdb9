//! Who belongs to the controllers, as applied entries say, and the connections that follow from it.
//!
//! A controller joins or leaves by an entry of the consensus library, whose context is ours: the library's part takes
//! effect only when ours had one, so that both always agree, on every controller.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_host::Host;
use plimsoll_proto::ids::ControllerId;
use prost_raft::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, Entry};
use tokio::sync::{mpsc, watch};

use super::handle::{ProposeError, View};
use super::node::{Health, Node, PeerLink};
use super::peers::{self, PeerEvent, PeerSender};
use super::settings::RaftSettings;
use crate::cluster::ClusterState;

/// Senders that wait to be started at most: more than there may be controllers.
const STARTING_MAX: usize = 64;

/// Makes connections to peers. Their senders run beside the lane, which blocks at times.
pub(super) struct Linker {
    host: Host,
    starting: mpsc::Sender<PeerSender>,
    events: mpsc::Sender<PeerEvent>,
    view: watch::Receiver<Arc<View>>,
}

impl Linker {
    /// To be called on the runtime where senders are to run.
    pub(super) fn start(
        host: &Host,
        events: mpsc::Sender<PeerEvent>,
        view: watch::Receiver<Arc<View>>,
    ) -> Self {
        let (starting, mut waiting) = mpsc::channel::<PeerSender>(STARTING_MAX);
        let tasks = host.tasks.clone();
        // It ends with the lane, which holds the other end of its queue; so does each sender.
        let started = async move {
            while let Some(sender) = waiting.recv().await {
                tasks.spawn("raft peer", sender.run()).detach();
            }
        };
        host.tasks.spawn("raft peers", started).detach();
        Self { host: host.clone(), starting, events, view }
    }

    pub(super) fn link(
        &self,
        settings: &RaftSettings,
        own_address: &str,
        id: ControllerId,
        address: &str,
    ) -> PeerLink {
        let (outgoing, queue) = mpsc::channel(peers::QUEUE);
        if id != settings.id {
            let sender = PeerSender {
                host: self.host.clone(),
                own: (settings.id, own_address.to_owned()),
                peer: (id, address.to_owned()),
                queue,
                events: self.events.clone(),
                view: self.view.clone(),
                token: settings.peer_token.clone(),
                snapshot: None,
            };
            if self.starting.try_send(sender).is_err() {
                tracing::error!(peer = %id, "no connection to a controller was begun");
            }
        }
        PeerLink { address: address.to_owned(), outgoing, last_heard: None, disk_full: false }
    }
}

/// The controllers by what was agreed on; addresses of this controller's own configuration come first.
pub(super) fn members(settings: &RaftSettings, state: &ClusterState) -> BTreeMap<ControllerId, String> {
    let agreed = state.controllers();
    if agreed.since_index == 0 {
        return settings.peers.clone();
    }
    let address = |id, address: &String| settings.peers.get(id).unwrap_or(address).clone();
    agreed.members.iter().map(|(id, agreed)| (*id, address(id, agreed))).collect()
}

impl Node {
    /// Connections to just the members.
    pub(super) fn relink(&mut self) {
        let members = members(&self.settings, &self.state);
        if self.peers.len() == members.len() && self.peers.keys().eq(members.keys()) {
            return;
        }
        self.peers.retain(|id, _| members.contains_key(id));
        let own = members.get(&self.settings.id).cloned().unwrap_or_default();
        for (id, address) in &members {
            if !self.peers.contains_key(id) {
                let link = self.linker.link(&self.settings, &own, *id, address);
                self.peers.insert(*id, link);
            }
        }
    }

    /// Proposes the library's entry with ours in its context.
    pub(super) fn propose_members(
        &mut self,
        controller: u64,
        joins: bool,
        data: Vec<u8>,
    ) -> Result<(), ProposeError> {
        if self.raw.raft.has_pending_conf() {
            return Err(ProposeError::Overloaded);
        }
        let mut change = ConfChange { node_id: controller, ..ConfChange::default() };
        change.set_change_type(if joins { ConfChangeType::AddNode } else { ConfChangeType::RemoveNode });
        self.raw.propose_conf_change(data, change).map_err(|_| ProposeError::Overloaded)
    }

    /// Applies ours, and the library's when ours had an effect.
    pub(super) fn apply_members(&mut self, entry: &Entry) -> Result<(), String> {
        if !self.apply_entry(entry.index, &entry.context)? {
            return Ok(());
        }
        let change = ConfChange::decode(entry.data.as_slice())
            .map_err(|error| format!("entry {} does not parse: {error}", entry.index))?;
        let conf_state = self
            .raw
            .apply_conf_change(&change)
            .map_err(|error| format!("entry {} can't be applied: {error}", entry.index))?;
        let agreed = self.state.controllers().members.keys().map(|id| id.0);
        let mut voters = conf_state.voters.clone();
        voters.sort_unstable();
        if !voters.iter().copied().eq(agreed) {
            return Err(format!("after entry {} the library counts other controllers", entry.index));
        }
        self.raw.mut_store().set_conf_state(conf_state);
        tracing::info!(controllers = ?voters, "controllers changed");
        Ok(())
    }

    /// One that was removed takes no part any more.
    pub(super) fn check_own_membership(&mut self) {
        let former = self.state.controllers().former.contains(&self.settings.id);
        if former && matches!(self.health, Health::Healthy) {
            self.fail("this controller was removed from the cluster; stop it".to_owned());
        }
    }
}
