//! One Raft peer: the consensus library, the journal, and the state that committed entries make.
//!
//! Everything here happens on the lane, one event at a time; the loop around it is in `lane.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::Host;
use plimsoll_proto::ids::ControllerId;
use plimsoll_proto::v1;
use prost::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{RawNode, Ready, SnapshotStatus, StateRole};
use tokio::sync::{mpsc, watch};

use super::disk_room::{DiskRoom, RoomSense};
use super::election::ElectionTimeout;
use super::handle::Proposed;
use super::handle::{JournalState, View};
use super::identity::Identity;
use super::journal::JournalError;
use super::log_store::LogStore;
use super::members::Linker;
use super::metadata::feed::MetadataFeed;
use super::peers::{Outgoing, PeerEvent};
use super::pending::Pending;
use super::service::Incoming;
use super::settings::RaftSettings;
use super::wire::{self, LocalLog, Refused};
use crate::cluster::{ClusterState, Outcome, RULES_VERSION};

/// How long what needs no sync may wait for one.
const SETTLE_INTERVAL: Duration = Duration::from_secs(1);

/// What a peer is known by on the lane.
pub(super) struct PeerLink {
    pub(super) address: String,
    pub(super) outgoing: mpsc::Sender<Outgoing>,
    pub(super) last_heard: Option<Duration>,
    /// Its disk has too little room for more topics, as it said last.
    pub(super) disk_full: bool,
}

/// Whether the journal lets this peer take part.
pub(super) enum Health {
    Healthy,
    /// The journal has no room for what `ready` asks for. Nothing is stepped, ticked or sent until it has: this peer
    /// neither votes nor leads.
    Frozen {
        ready: Box<Ready>,
        retry_at: Duration,
    },
    /// For good.
    Failed(String),
}

/// See the module.
pub(super) struct Node {
    pub(super) host: Host,
    pub(super) settings: RaftSettings,
    pub(super) raw: RawNode<LogStore>,
    pub(super) identity: Box<dyn Identity>,
    pub(super) feed: MetadataFeed,
    pub(super) pending: Pending,
    pub(super) peers: BTreeMap<ControllerId, PeerLink>,
    pub(super) election: ElectionTimeout,
    pub(super) health: Health,
    pub(super) state: ClusterState,
    /// Index and term of the last applied entry.
    pub(super) applied: (u64, u64),
    pub(super) state_changed: bool,
    pub(super) leader_since: Option<Duration>,
    pub(super) bootstrap_proposed_in: u64,
    pub(super) compact_at: Duration,
    /// When the journal is settled next.
    pub(super) settle_at: Duration,
    pub(super) used_after_compaction: u64,
    pub(super) view: watch::Sender<Arc<View>>,
    /// Asks the disk; `None` where there is none to ask.
    pub(super) room_sense: Option<RoomSense>,
    pub(super) room: DiskRoom,
    pub(super) linker: Linker,
}

impl Node {
    pub(super) fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    pub(super) fn journal_state(&self) -> JournalState {
        match &self.health {
            Health::Healthy => JournalState::Healthy,
            Health::Frozen { .. } => JournalState::OutOfRoom,
            Health::Failed(why) => JournalState::Failed(why.clone()),
        }
    }

    /// One tick of the library's clock. Time that this process was paused for does not count: a late tick is one
    /// tick.
    pub(super) fn tick(&mut self, now: Duration) {
        self.pending.expire(now);
        self.look_at_disk(now);
        match &self.health {
            Health::Healthy => {
                self.election.set(&mut self.raw);
                self.raw.tick();
                for context in self.pending.unanswered_reads(now) {
                    self.raw.read_index(context);
                }
                self.note_cluster_id();
                if now >= self.settle_at {
                    self.settle_at = now.saturating_add(SETTLE_INTERVAL);
                    self.settle();
                }
            }
            Health::Frozen { retry_at, .. } if now >= *retry_at => self.thaw(now),
            Health::Frozen { .. } | Health::Failed(_) => {}
        }
        self.feed.tend(&self.state, self.applied, now);
    }

    /// Commit indexes are written without a sync. A journal at rest has it, so that the next start vouches for all of it.
    pub(super) fn settle(&mut self) {
        if !matches!(self.health, Health::Healthy) {
            return;
        }
        match self.raw.mut_store().settle() {
            Ok(()) => {}
            Err(error) if error.is_retryable() => tracing::debug!(%error, "the journal was not settled"),
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn look_at_disk(&mut self, now: Duration) {
        let Some(sense) = &mut self.room_sense else { return };
        let room = sense.look(now);
        match (self.room, room) {
            (DiskRoom::Ample, DiskRoom::Full { free_bytes, free_inodes }) => tracing::warn!(
                free_bytes,
                free_inodes,
                "the controller's disk is full: topics are neither created nor altered while it leads"
            ),
            (DiskRoom::Ample, DiskRoom::Unknown) => tracing::warn!("the controller's disk does not answer"),
            (DiskRoom::Full { .. } | DiskRoom::Unknown, DiskRoom::Ample) => {
                tracing::info!("the controller's disk has room again")
            }
            _ => {}
        }
        self.room = room;
    }

    /// A message of a peer, checked by `wire::decode`.
    pub(super) fn step(&mut self, incoming: Incoming, now: Duration) {
        let Incoming { message, disk_full } = incoming;
        if let Some(peer) = self.peers.get_mut(&ControllerId(message.from)) {
            peer.last_heard = Some(now);
            peer.disk_full = disk_full;
        }
        if !matches!(self.health, Health::Healthy) {
            return;
        }
        match wire::check_against(&message, self) {
            Ok(()) => {
                // Errors of the library say that it ignored the message.
                drop(self.raw.step(message));
            }
            Err(Refused::LostData) => self.fail(
                "the leader knows of entries that this controller had stored and has no more: its data directory was \
                 rolled back or replaced; return as a new controller under a new --id"
                    .to_owned(),
            ),
            Err(why) => tracing::debug!(from = message.from, %why, "dropped a message of a peer"),
        }
    }

    pub(super) fn peer_event(&mut self, event: PeerEvent) {
        if !matches!(self.health, Health::Healthy) {
            return;
        }
        match event {
            PeerEvent::Unreachable(id) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.last_heard = None;
                }
                self.raw.report_unreachable(id.0);
            }
            PeerEvent::Snapshot { to, sent } => {
                let status = if sent { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.raw.report_snapshot(to.0, status);
            }
        }
    }

    /// Does everything the library has become ready for, then publishes and answers.
    pub(super) fn drive(&mut self, now: Duration) {
        self.drain_ready(now);
        if self.propose_bootstrap() {
            self.drain_ready(now);
        }
        self.relink();
        self.compact_when_due(now);
        self.publish(now);
        self.pending.answer(self.applied.0);
    }

    fn drain_ready(&mut self, now: Duration) {
        while matches!(self.health, Health::Healthy) && self.raw.has_ready() {
            let mut ready = self.raw.ready();
            // Only a leader has these; they may go out while its own copy is written (Raft thesis, 10.2.1).
            let early = ready.take_messages();
            self.send(early);
            for read in ready.take_read_states() {
                self.pending.confirmed(&read.request_ctx, read.index);
            }
            self.finish_ready(ready, now);
        }
    }

    /// Persists, then does what depends on it.
    fn finish_ready(&mut self, mut ready: Ready, now: Duration) {
        if let Err(error) = self.persist(&ready) {
            self.freeze(ready, &error, now);
            return;
        }
        if !ready.snapshot().is_empty() {
            let metadata = ready.snapshot().get_metadata();
            let position = (metadata.index, metadata.term);
            match ClusterState::decode_snapshot(&ready.snapshot().data) {
                Ok(state) => self.restore(state, position),
                Err(error) => return self.fail(format!("a stored snapshot is unreadable: {error}")),
            }
        }
        let dependent = ready.take_persisted_messages();
        self.send(dependent);
        self.apply(&ready.take_committed_entries());
        let mut light = self.raw.advance_append(ready);
        if let Some(commit) = light.commit_index()
            && let Err(error) = self.raw.mut_store().note_commit(commit)
            && !error.is_retryable()
        {
            self.fail(error.to_string());
        }
        let messages = light.take_messages();
        self.send(messages);
        self.apply(&light.take_committed_entries());
        self.raw.advance_apply();
    }

    fn persist(&mut self, ready: &Ready) -> Result<(), JournalError> {
        let store = self.raw.mut_store();
        match store.persist(ready.snapshot(), ready.entries(), ready.hs(), ready.must_sync()) {
            Err(JournalError::OutOfRoom { .. }) if ready.snapshot().is_empty() => {}
            other => return other,
        }
        self.compact(0)?;
        self.raw.mut_store().persist(ready.snapshot(), ready.entries(), ready.hs(), ready.must_sync())
    }

    fn freeze(&mut self, ready: Ready, error: &JournalError, now: Duration) {
        if !error.is_retryable() {
            return self.fail(error.to_string());
        }
        let retry_at = now.saturating_add(self.settings.disk_retry);
        self.health = Health::Frozen { ready: Box::new(ready), retry_at };
        let frozen_already = self.view.borrow().journal == JournalState::OutOfRoom;
        if !frozen_already {
            tracing::error!(%error, journal = self.raw.store().journal().label(),
                "the journal takes nothing more: this controller neither votes nor leads until it does");
        }
    }

    fn thaw(&mut self, now: Duration) {
        if let Health::Frozen { ready, .. } = std::mem::replace(&mut self.health, Health::Healthy) {
            self.finish_ready(*ready, now);
        }
        if matches!(self.health, Health::Healthy) {
            tracing::info!("the journal takes entries again");
        }
    }

    pub(super) fn fail(&mut self, why: String) {
        tracing::error!(
            why,
            "this controller takes no part in consensus any more; it serves reads of what it has applied"
        );
        self.health = Health::Failed(why);
    }

    fn restore(&mut self, state: ClusterState, position: (u64, u64)) {
        self.state = state;
        self.applied = position;
        self.state_changed = true;
        self.feed.replaced();
    }

    /// Applies up to the first entry that this build can't apply as the others do: there it ends for good.
    fn apply(&mut self, entries: &[Entry]) {
        for entry in entries {
            if !matches!(self.health, Health::Healthy) {
                return;
            }
            let applied = match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => Ok(()),
                EntryType::EntryNormal => self.apply_entry(entry.index, &entry.data).map(drop),
                EntryType::EntryConfChange => self.apply_members(entry),
                EntryType::EntryConfChangeV2 => {
                    Err("an entry of a kind that no build writes; the log is of another program".to_owned())
                }
            };
            if let Err(why) = applied {
                return self.fail(why);
            }
            self.applied = (entry.index, entry.term);
            self.check_own_membership();
        }
    }

    /// Applies what an entry holds; whether it had an effect.
    pub(super) fn apply_entry(&mut self, index: u64, data: &[u8]) -> Result<bool, String> {
        let change = match v1::Entry::decode(data) {
            Ok(change) => change,
            Err(error) => {
                // The same on every controller: the entry has no effect anywhere.
                tracing::error!(index, %error, "a committed entry does not parse");
                return Ok(false);
            }
        };
        if change.rules > RULES_VERSION {
            return Err(format!(
                "entry {index} is of rules version {}, this build knows {RULES_VERSION}: upgrade this controller; \
                 its data directory can stay",
                change.rules
            ));
        }
        let applied = self.state.apply(index, &change);
        self.state_changed = true;
        self.feed.changed(&self.state, &applied.touched);
        let changed = matches!(applied.outcome, Outcome::Changed(_));
        self.pending.applied(&change.proposal_id, || Proposed { index, applied: applied.outcome });
        Ok(changed)
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let to = ControllerId(message.to);
            let snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
            let Some(peer) = self.peers.get(&to) else { continue };
            let outgoing = Outgoing { message: wire::encode(&message), snapshot };
            // A full queue loses the message, which Raft allows; a snapshot is reported by whoever loses it.
            if peer.outgoing.try_send(outgoing).is_err() && snapshot {
                self.raw.report_snapshot(to.0, SnapshotStatus::Failure);
            }
        }
    }
}

impl LocalLog for Node {
    fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    fn term(&self, index: u64) -> Option<u64> {
        self.raw.raft.raft_log.term(index).ok().filter(|term| *term > 0)
    }

    fn is_leader(&self) -> bool {
        self.leads()
    }

    fn current_term(&self) -> u64 {
        self.raw.raft.term
    }

    fn is_joining(&self) -> bool {
        self.raw.store().voters().is_empty()
    }
}
