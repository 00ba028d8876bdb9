//! The handle through which sessions propose, read and watch.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::Host;
use plimsoll_proto::ids::{ClusterId, ControllerId};
use plimsoll_proto::v1::{self, entry::Change};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot, watch};

use super::disk_room::DiskRoom;
use crate::cluster::{ClusterState, Outcome};

/// What became of a proposal that was committed and applied here.
#[derive(Clone, Debug)]
pub struct Proposed {
    /// Raft index of the entry.
    pub index: u64,
    /// What applying it did; an entry whose expectations did not hold is a no-op.
    pub applied: Outcome,
}

/// Why a proposal or a read was not done, by what the caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another controller leads, or none is known. Nothing was proposed: ask the leader.
    #[error("this controller does not lead")]
    NotLeader {
        /// Who leads and where, when known.
        leader: Option<(ControllerId, String)>,
    },
    /// No majority of controllers answers, or the cluster has no identity yet. Nothing was proposed: back off.
    #[error("no majority of controllers answers")]
    NoQuorum,
    /// The journal has no room for another entry, or its volume failed. Nothing was proposed.
    #[error("the controller's disk takes no more entries")]
    Disk {
        /// Upper bound of the wait before the journal is tried again.
        retry_after: Duration,
    },
    /// The disks of the controllers have too little room for what makes the cluster larger; everything else goes on.
    /// Nothing was proposed: make room.
    #[error("the controllers take no new or altered topics: {why}")]
    NoRoomToGrow {
        /// Which disk, for people.
        why: String,
    },
    /// More is waiting to be committed than the lane accepts. Nothing was proposed: back off.
    #[error("too many proposals are waiting")]
    Overloaded,
    /// The entry is larger than a journal entry may be. Nothing was proposed: make it smaller.
    #[error("entry of {bytes} bytes is larger than {limit}")]
    TooLarge {
        /// Encoded size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The outcome is not known: the entry may still be committed, or already is.
    #[error("the outcome of the proposal is not known")]
    TimedOut,
    /// The controller stops. Nothing was proposed.
    #[error("the controller is shutting down")]
    ShuttingDown,
}

impl ProposeError {
    /// Whether the same entry may be proposed again later, here or at the leader.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::ShuttingDown)
    }

    /// Whether the proposal may have had, or may yet have, an effect.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::TimedOut)
    }
}

/// What this controller knows of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub id: ControllerId,
    /// Where it is dialled.
    pub address: String,
    /// Whether anything was heard from it within the last two seconds; always true for this controller.
    pub reachable: bool,
    /// Highest entry known to be on its disk; only a leader knows, otherwise `None`.
    pub matched: Option<u64>,
    /// Whether its disk has too little room for more topics, as it said last.
    pub disk_full: bool,
}

/// Health of the journal as far as sessions care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalState {
    /// Entries and votes are stored.
    Healthy,
    /// The journal is out of room; this controller neither leads nor votes and tries again by itself.
    OutOfRoom,
    /// The volume failed, or this controller's data is behind what it acknowledged before. It takes no part in
    /// consensus any more until it is started again; the text is for people.
    Failed(String),
}

/// A consistent picture after some applied entry.
#[derive(Clone, Debug)]
pub struct View {
    /// State after `applied_index`.
    pub state: Arc<ClusterState>,
    /// The cluster, as applied or as noted in the data directory; `None` until the first leader bootstrapped it.
    pub cluster_id: Option<ClusterId>,
    /// Index of the last applied entry.
    pub applied_index: u64,
    /// Current term.
    pub term: u64,
    /// Who leads, as far as this controller knows.
    pub leader: Option<ControllerId>,
    /// Whether this controller leads, has applied every entry of former terms, and may propose.
    pub is_leader: bool,
    /// Clock time at which it became so; `None` when it does not lead.
    pub leader_since: Option<Duration>,
    /// All voters in order of id, this controller included.
    pub peers: Vec<PeerStatus>,
    /// Whether this controller's journal takes entries.
    pub journal: JournalState,
    /// Whether this controller's disk has room for more topics.
    pub disk: DiskRoom,
}

impl View {
    /// Whether topics may be created and altered: this controller's own disk has room, and those of a majority.
    ///
    /// # Errors
    /// Which disks have not, for people.
    pub fn room_to_grow(&self) -> Result<(), String> {
        match self.disk {
            DiskRoom::Ample => {}
            DiskRoom::Full { free_bytes, free_inodes } => {
                return Err(format!(
                    "the disk of the leading controller is full ({free_bytes} bytes and {free_inodes} inodes free)"
                ));
            }
            DiskRoom::Unknown => return Err("the disk of the leading controller does not answer".to_owned()),
        }
        let full: Vec<String> =
            self.peers.iter().filter(|peer| peer.disk_full).map(|peer| peer.id.to_string()).collect();
        if full.len() * 2 >= self.peers.len() && !full.is_empty() {
            return Err(format!(
                "the disks of controllers {} are full, which leaves no majority",
                full.join(", ")
            ));
        }
        Ok(())
    }

    /// Who leads and where.
    pub fn leader_address(&self) -> Option<(ControllerId, String)> {
        let leader = self.leader?;
        let peer = self.peers.iter().find(|peer| peer.id == leader)?;
        Some((leader, peer.address.clone()))
    }
}

/// Least time that [`RaftHandle::stop`] gives the lane to close its files.
const CLOSING: Duration = Duration::from_secs(6);

/// How long one peer may take to take over from a controller that stops.
const HEIR: Duration = Duration::from_secs(2);

pub(super) type Answer<T> = oneshot::Sender<Result<T, ProposeError>>;

/// What an entry needs beyond being appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Plain,
    /// It makes the cluster larger: room on the disks.
    Grows,
    /// It goes with a change of the consensus library's own configuration.
    Members { controller: u64, joins: bool },
}

impl Kind {
    fn of(entry: &v1::Entry) -> Self {
        match &entry.change {
            Some(Change::CreateTopic(_) | Change::AlterTopic(_) | Change::AddPartitions(_)) => Self::Grows,
            Some(Change::SetControllers(change)) => Self::of_members(change),
            _ => Self::Plain,
        }
    }

    /// An entry that changes more or less than one controller is a no-op when it is applied, and needs nothing.
    fn of_members(change: &v1::SetControllers) -> Self {
        let before: BTreeSet<u64> = change.expected.iter().copied().collect();
        let after: BTreeSet<u64> = change.controllers.iter().map(|member| member.controller_id).collect();
        let mut different = before.symmetric_difference(&after).copied();
        match (different.next(), different.next()) {
            (Some(controller), None) => Self::Members { controller, joins: after.contains(&controller) },
            _ => Self::Plain,
        }
    }
}

/// What handles ask of the lane.
pub(super) enum Command {
    Propose { kind: Kind, proposal_id: [u8; 16], data: Vec<u8>, deadline: Duration, answer: Answer<Proposed> },
    ReadBarrier { deadline: Duration, answer: Answer<u64> },
    TransferLeader { to: ControllerId },
    Stop,
}

/// Handle of the Raft lane; clones share it. All methods are cancel safe: dropping the future forgets the answer,
/// not the proposal.
#[derive(Clone)]
pub struct RaftHandle {
    pub(super) host: Host,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) view: watch::Receiver<Arc<View>>,
    pub(super) entry_bytes_max: u64,
}

impl std::fmt::Debug for RaftHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftHandle")
            .field("applied_index", &self.view.borrow().applied_index)
            .finish_non_exhaustive()
    }
}

impl RaftHandle {
    /// Proposes an entry and resolves when it was committed by a majority and applied *here*. An empty
    /// `proposal_id` is filled in; a given one must be 16 bytes, unused before.
    ///
    /// # Errors
    /// See [`ProposeError`]; only `TimedOut` leaves the outcome open.
    pub async fn propose(&self, mut entry: v1::Entry, timeout: Duration) -> Result<Proposed, ProposeError> {
        if entry.proposal_id.len() != 16 {
            entry.proposal_id = self.host.random.id16().to_vec().into();
        }
        let mut proposal_id = [0u8; 16];
        proposal_id.copy_from_slice(&entry.proposal_id);
        let kind = Kind::of(&entry);
        let data = entry.encode_to_vec();
        let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
        if bytes > self.entry_bytes_max {
            return Err(ProposeError::TooLarge { bytes, limit: self.entry_bytes_max });
        }
        let deadline = self.host.clock.now().saturating_add(timeout);
        let (answer, answered) = oneshot::channel();
        self.submit(Command::Propose { kind, proposal_id, data, deadline, answer })?;
        self.answer(answered, timeout).await
    }

    /// Confirms with a majority that nothing newer than the returned index was committed before the call, and
    /// that this controller has applied that much: reads of [`RaftHandle::watch`] after it are linearizable.
    ///
    /// # Errors
    /// `TimedOut` and `NoQuorum` mean that no majority confirmed; nothing was changed in any case.
    pub async fn read_barrier(&self, timeout: Duration) -> Result<u64, ProposeError> {
        let deadline = self.host.clock.now().saturating_add(timeout);
        let (answer, answered) = oneshot::channel();
        self.submit(Command::ReadBarrier { deadline, answer })?;
        self.answer(answered, timeout).await
    }

    /// The picture as it changes; updated after each batch of applied entries and each change of role.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// The picture as it is now.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Asks the leader to hand over to `to`, and waits until this controller sees another leader or `timeout` has
    /// passed. Returns whether leadership moved away from this controller. Best effort.
    pub async fn transfer_leader(&self, to: ControllerId, timeout: Duration) -> bool {
        if self.submit(Command::TransferLeader { to }).is_err() {
            return false;
        }
        let mut view = self.view.clone();
        // The library gives up by itself when the heir does not answer; nobody waits for one that is gone.
        let settled = view.wait_for(move |view| {
            let gone = view.peers.iter().all(|peer| peer.id != to || !peer.reachable);
            view.leader == Some(to) || gone
        });
        match self.host.clock.timeout(timeout, settled).await {
            Ok(Ok(view)) => view.leader == Some(to),
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Hands leadership over when a reachable peer exists (at most `timeout`), then stops the lane; what was
    /// acknowledged is on disk already. Further calls answer `ShuttingDown`. To be awaited before the process ends:
    /// RocksDB, closed here, does not survive the end of `main` while its threads run.
    pub async fn stop(&self, timeout: Duration) {
        let until = self.host.clock.now().saturating_add(timeout);
        let mut asked = BTreeSet::new();
        while let Some(heir) = self.heir(&asked) {
            asked.insert(heir);
            let left = until.saturating_sub(self.host.clock.now()).min(HEIR);
            if left.is_zero() || self.transfer_leader(heir, left).await {
                break;
            }
        }
        // The queue may be full for a moment; the lane drains it.
        if self.commands.send(Command::Stop).await.is_ok() {
            let closed = self.commands.closed();
            if self.host.clock.timeout(timeout.max(CLOSING), closed).await.is_err() {
                tracing::warn!("the raft lane did not stop in time");
            }
        }
    }

    /// The peer that has most and was not asked yet, while this controller leads.
    fn heir(&self, asked: &BTreeSet<ControllerId>) -> Option<ControllerId> {
        let view = self.view();
        let may =
            |peer: &&PeerStatus| Some(peer.id) != view.leader && peer.reachable && !asked.contains(&peer.id);
        let heir = view.peers.iter().filter(may).max_by_key(|peer| peer.matched);
        heir.filter(|_| view.is_leader).map(|peer| peer.id)
    }

    fn submit(&self, command: Command) -> Result<(), ProposeError> {
        self.commands.try_send(command).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ProposeError::ShuttingDown,
        })
    }

    async fn answer<T>(
        &self,
        answered: oneshot::Receiver<Result<T, ProposeError>>,
        timeout: Duration,
    ) -> Result<T, ProposeError> {
        match self.host.clock.timeout(timeout, answered).await {
            Ok(Ok(result)) => result,
            // The lane ended, or the time did, with the command in its hands: nobody knows.
            Ok(Err(_)) | Err(_) => Err(ProposeError::TimedOut),
        }
    }
}
