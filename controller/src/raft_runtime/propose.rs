//! What sessions ask of a node: proposals, read barriers, a handover. And the node's own: bootstrap, compaction.

use std::time::Duration;

use plimsoll_proto::ids::{ClusterId, ControllerId};
use plimsoll_proto::v1::{self, entry::Change};
use prost::Message as _;

use super::handle::{Command, Kind, ProposeError};
use super::journal::JournalError;
use super::node::{Health, Node};
use crate::cluster::{Controllers, RULES_VERSION};

/// Part of the journal that entries which make the cluster larger leave to all others: one in so many.
const KEPT_FROM_GROWTH: u64 = 4;

impl Node {
    /// False when the lane is to stop.
    pub(super) fn command(&mut self, command: Command, now: Duration) -> bool {
        match command {
            Command::Propose { kind, proposal_id, data, deadline, answer } => {
                match self.propose(kind, data, now) {
                    Ok(()) => self.pending.add_proposal(proposal_id, deadline, answer),
                    Err(error) => drop(answer.send(Err(error))),
                }
                true
            }
            Command::ReadBarrier { deadline, answer } => {
                match self.check_reads() {
                    Ok(()) => {
                        let context = self.pending.add_read(deadline, now, answer);
                        self.raw.read_index(context);
                    }
                    Err(error) => drop(answer.send(Err(error))),
                }
                true
            }
            Command::TransferLeader { to } => {
                if self.leads() && matches!(self.health, Health::Healthy) {
                    self.raw.transfer_leader(to.0);
                }
                true
            }
            Command::Stop => false,
        }
    }

    fn check_health(&self) -> Result<(), ProposeError> {
        match &self.health {
            Health::Healthy => Ok(()),
            Health::Frozen { .. } | Health::Failed(_) => {
                Err(ProposeError::Disk { retry_after: self.settings.disk_retry })
            }
        }
    }

    fn check_reads(&self) -> Result<(), ProposeError> {
        self.check_health()?;
        if self.raw.raft.leader_id == 0 {
            return Err(ProposeError::NoQuorum);
        }
        if self.pending.has_room() { Ok(()) } else { Err(ProposeError::Overloaded) }
    }

    fn propose(&mut self, kind: Kind, data: Vec<u8>, now: Duration) -> Result<(), ProposeError> {
        self.check_health()?;
        if !self.leads() {
            let leader = ControllerId(self.raw.raft.leader_id);
            let known = self.peers.get(&leader).map(|peer| (leader, peer.address.clone()));
            return Err(
                known.map_or(ProposeError::NoQuorum, |known| ProposeError::NotLeader { leader: Some(known) })
            );
        }
        if self.state.cluster_id().is_none() || self.raw.raft.lead_transferee.is_some() {
            return Err(ProposeError::NoQuorum);
        }
        if !self.pending.has_room() {
            return Err(ProposeError::Overloaded);
        }
        match kind {
            Kind::Plain => {
                self.make_room(data.len(), 0, now).inspect_err(|_| self.step_aside())?;
                self.raw.propose(Vec::new(), data).map_err(|_| ProposeError::Overloaded)
            }
            Kind::Grows => {
                let view = self.view.borrow().clone();
                view.room_to_grow().map_err(|why| ProposeError::NoRoomToGrow { why })?;
                let kept = self.raw.store().journal().fill().capacity / KEPT_FROM_GROWTH;
                self.make_room(data.len(), kept, now).map_err(|_| ProposeError::NoRoomToGrow {
                    why: "the journal of the leading controller is too small for more".to_owned(),
                })?;
                self.raw.propose(Vec::new(), data).map_err(|_| ProposeError::Overloaded)
            }
            Kind::Members { controller, joins } => {
                self.make_room(data.len(), 0, now)?;
                self.propose_members(controller, joins, data)
            }
        }
    }

    /// A leader whose journal takes nothing more is of no use: another one may have a larger one.
    fn step_aside(&mut self) {
        let heir = self.peers.iter().find(|(id, peer)| **id != self.settings.id && peer.last_heard.is_some());
        if let Some((id, _)) = heir
            && self.raw.raft.lead_transferee.is_none()
        {
            self.raw.transfer_leader(id.0);
        }
    }

    /// Refuses before anything is appended rather than freezing after. `kept` bytes are to be left.
    fn make_room(&mut self, data: usize, kept: u64, now: Duration) -> Result<(), ProposeError> {
        let unstable: usize =
            self.raw.raft.raft_log.unstable_entries().iter().map(|entry| entry.data.len()).sum();
        let count = self.raw.raft.raft_log.unstable_entries().len() + 1;
        let (count, bytes) = (u64::try_from(count), u64::try_from(data + unstable));
        let journal = self.raw.store().journal();
        let needed = journal.cost(count.unwrap_or(u64::MAX), bytes.unwrap_or(u64::MAX)).saturating_add(kept);
        if needed <= journal.fill().room() {
            return Ok(());
        }
        let refused = ProposeError::Disk { retry_after: self.settings.disk_retry };
        if now < self.compact_at {
            return Err(refused);
        }
        self.compact_at = now.saturating_add(self.settings.disk_retry);
        match self.compact(0) {
            Ok(()) if needed <= self.raw.store().journal().fill().room() => Ok(()),
            Ok(()) => Err(refused),
            Err(error) => {
                if !error.is_retryable() {
                    self.fail(error.to_string());
                }
                Err(refused)
            }
        }
    }

    /// The first leader gives the cluster its identity; of two, the first applied entry wins.
    pub(super) fn propose_bootstrap(&mut self) -> bool {
        let term = self.raw.raft.term;
        let due = self.leads()
            && matches!(self.health, Health::Healthy)
            && self.applied.1 == term
            && self.state.cluster_id().is_none()
            && self.bootstrap_proposed_in != term;
        if !due {
            return false;
        }
        self.bootstrap_proposed_in = term;
        let cluster_id = self.identity.cluster_id().unwrap_or_else(|| ClusterId(self.host.random.id16()));
        let entry = v1::Entry {
            rules: RULES_VERSION,
            proposal_id: self.host.random.id16().to_vec().into(),
            time_ms: self.host.clock.wall_ms(),
            change: Some(Change::Bootstrap(v1::BootstrapCluster {
                cluster_id: cluster_id.to_bytes(),
                controllers: Controllers { members: self.settings.peers.clone(), ..Controllers::default() }
                    .to_wire(),
            })),
        };
        self.raw.propose(Vec::new(), entry.encode_to_vec()).is_ok()
    }

    /// Notes the cluster's identity in the data directory once it is applied; again at the next tick when the disk
    /// refuses.
    pub(super) fn note_cluster_id(&mut self) {
        let Some(applied) = self.state.cluster_id() else { return };
        match self.identity.cluster_id() {
            Some(noted) if noted == applied => {}
            Some(noted) => {
                self.fail(format!("the data directory belongs to cluster {noted}, the log to {applied}"))
            }
            None => match self.identity.set_cluster_id(applied) {
                Ok(()) => tracing::info!(cluster = %applied, "member of the cluster"),
                Err(error) => tracing::debug!(%error, "the cluster id is not noted yet"),
            },
        }
    }

    /// Compacts when entries or bytes ask for it, or a peer needs a snapshot that does not exist yet.
    pub(super) fn compact_when_due(&mut self, now: Duration) {
        let store = self.raw.store();
        let snapshot = store.contents().snapshot.get_metadata().index;
        let behind = self.applied.0.saturating_sub(snapshot);
        // One that joins must not find the beginning of the log, which does not say who belonged to the cluster then.
        let whole_log = store.contents().truncated.0 < self.state.controllers().since_index;
        let nothing = behind == 0 && !whole_log;
        if nothing || now < self.compact_at || !matches!(self.health, Health::Healthy) {
            return;
        }
        let fill = store.journal().fill();
        let mark = fill.capacity / 100 * self.settings.compact_fill_percent;
        let full = fill.used > mark.max(self.used_after_compaction.saturating_add(fill.capacity / 8));
        let wanted = store.snapshot_wanted().is_some_and(|index| self.applied.0 >= index);
        if !full && !wanted && !whole_log && behind < self.settings.compact_entries {
            return;
        }
        let keep = if whole_log { 0 } else { self.settings.keep_entries };
        if let Err(error) = self.compact(keep) {
            self.compact_at = now.saturating_add(self.settings.disk_retry);
            if error.is_retryable() {
                tracing::debug!(%error, "the journal was not compacted");
            } else {
                self.fail(error.to_string());
            }
        }
    }

    /// Puts a snapshot of the applied state into the journal.
    pub(super) fn compact(&mut self, keep_entries: u64) -> Result<(), JournalError> {
        if self.applied.0 == 0 {
            return Ok(());
        }
        let data = self.state.encode_snapshot();
        let store = self.raw.mut_store();
        store.compact(self.applied.0, data, keep_entries, self.settings.keep_bytes)?;
        self.used_after_compaction = store.journal().fill().used;
        Ok(())
    }
}
