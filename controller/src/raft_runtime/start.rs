//! From settings and what is on disk to a running lane.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::Host;
use plimsoll_proto::ids::ClusterId;
use plimsoll_storage::fs::SharedDisk;
use raft::{Config, RawNode, ReadOnlyOption};
use tokio::sync::{mpsc, oneshot, watch};

use super::disk_room::{DiskRoom, RoomSense};
use super::election::ElectionTimeout;
use super::handle::{JournalState, RaftHandle, View};
use super::identity::Identity;
use super::journal::{Journal, JournalError, Recovered};
use super::lane::{self, Events};
use super::log_store::LogStore;
use super::members::Linker;
use super::metadata::feed::MetadataFeed;
use super::metadata::{MetadataError, MetadataStore, Stored};
use super::node::{Health, Node};
use super::parts::Bench;
use super::pending::Pending;
use super::service::{self, PeerService};
use super::settings::RaftSettings;
use crate::cluster::ClusterState;

/// Commands of handles that wait for the lane at most; beyond it proposals are refused.
const COMMANDS: usize = 1024;

/// Why a controller does not start; every message names what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Settings that don't agree. Exit code 7.
    #[error("{0}")]
    Settings(String),
    /// The journal is missing, damaged or on a failed volume.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// The journal was made for other voters.
    #[error(
        "the list of controllers names {configured:?}, this cluster was made with {stored:?}; use the same list everywhere"
    )]
    OtherVoters {
        /// As configured.
        configured: Vec<u64>,
        /// As stored.
        stored: Vec<u64>,
    },
    /// The controller was removed from its cluster. Exit code 7.
    #[error("controller {id} was removed from its cluster; return as a new controller under a new --id")]
    Removed {
        /// Its id.
        id: u64,
    },
    /// The journal's snapshot can't be read.
    #[error(
        "the snapshot in journal {journal} is unreadable: {why}; restore the data directory, or return as a new controller under a new --id"
    )]
    Snapshot {
        /// Which journal.
        journal: String,
        /// What is wrong.
        why: String,
    },
    /// Entries that had been applied are not in the journal any more.
    #[error(
        "journal {journal} ends at entry {last}, but entry {applied} had been applied: the journal was rolled back; restore the data directory, or return as a new controller under a new --id"
    )]
    JournalBehind {
        /// Which journal.
        journal: String,
        /// Its last entry.
        last: u64,
        /// What the metadata store had seen.
        applied: u64,
    },
    /// The consensus library refused its configuration.
    #[error("raft: {0}")]
    Raft(String),
    /// The lane ended before it had started.
    #[error("the raft lane ended at its start; see the log")]
    LaneEnded,
}

/// Starts the lane and the senders to the peers (these on the current runtime), and waits until what is on disk has
/// been read and applied. Needs no space on the disk. The handle answers `NotLeader` or `NoQuorum` until somebody
/// leads; serve [`PeerService`] on this controller's address in `settings.peers`.
///
/// # Errors
/// See [`StartError`].
pub async fn start(
    host: &Host,
    settings: RaftSettings,
    identity: Box<dyn Identity>,
    journal: Box<dyn Journal>,
    store: Box<dyn MetadataStore>,
    disk: Option<SharedDisk>,
) -> Result<(RaftHandle, PeerService), StartError> {
    settings.check().map_err(StartError::Settings)?;
    let (commands, command_queue) = mpsc::channel(COMMANDS);
    let (inbox, message_queue) = mpsc::channel(service::INBOX);
    let (peer_events, peer_queue) = mpsc::channel(service::INBOX);
    let (view_sender, view) = watch::channel(Arc::new(blank_view(identity.cluster_id())));
    let handle = RaftHandle {
        host: host.clone(),
        commands,
        view: view.clone(),
        entry_bytes_max: settings.entry_bytes_max,
    };
    let service = PeerService {
        own: settings.id,
        peers: Arc::new(settings.peers.clone()),
        token: settings.peer_token.clone(),
        bench: Bench::new(journal.fill().capacity),
        inbox,
        view: view.clone(),
    };
    let linker = Linker::start(host, peer_events, view);
    let room_sense = disk.map(|disk| RoomSense::start(host, disk, settings.disk_full_bytes));
    let (started, waiting) = oneshot::channel();
    let parts = Parts {
        host: host.clone(),
        settings,
        identity,
        journal,
        store,
        linker,
        room_sense,
        view: view_sender,
    };
    let events = Events { commands: command_queue, messages: message_queue, peers: peer_queue };
    host.tasks.spawn_lane("raft", move || {
        Box::pin(async move {
            match build(parts) {
                Ok(node) => {
                    drop(started.send(Ok(())));
                    lane::run(*node, events).await;
                }
                Err(error) => drop(started.send(Err(error))),
            }
        })
    });
    waiting.await.map_err(|_| StartError::LaneEnded)??;
    Ok((handle, service))
}

struct Parts {
    host: Host,
    settings: RaftSettings,
    identity: Box<dyn Identity>,
    journal: Box<dyn Journal>,
    store: Box<dyn MetadataStore>,
    linker: Linker,
    room_sense: Option<RoomSense>,
    view: watch::Sender<Arc<View>>,
}

/// Reads the disk and makes the node. Blocks; on the lane.
fn build(parts: Parts) -> Result<Box<Node>, StartError> {
    let Parts { host, settings, identity, mut journal, mut store, linker, room_sense, view } = parts;
    let mut recovered = journal.load()?;
    let loaded = load_state(&recovered, store.as_mut(), &journal.label())?;
    let voters = check_voters(&recovered, &loaded.state, &settings)?;
    recovered.hard_state.commit = recovered.hard_state.commit.max(loaded.applied.0);
    let config = config(&settings, loaded.applied.0);
    let log = LogStore::new(journal, recovered, voters);
    let single = log.voters() == [settings.id.0];
    let quiet = slog::Logger::root(slog::Discard, slog::o!());
    let mut raw = RawNode::new(&config, log, &quiet).map_err(|error| StartError::Raft(error.to_string()))?;
    if single {
        // Nobody else could have been elected.
        raw.campaign().map_err(|error| StartError::Raft(error.to_string()))?;
    }
    let feed = MetadataFeed::start(&host, store, loaded.stored, settings.metadata_interval);
    let now = host.clock.now();
    let mut node = Box::new(Node {
        election: ElectionTimeout::new(host.random.clone(), settings.election_tick),
        raw,
        identity,
        feed,
        pending: Pending::default(),
        peers: BTreeMap::new(),
        health: Health::Healthy,
        state: loaded.state,
        applied: loaded.applied,
        state_changed: true,
        leader_since: None,
        bootstrap_proposed_in: 0,
        compact_at: Duration::ZERO,
        settle_at: Duration::ZERO,
        used_after_compaction: 0,
        view,
        host,
        settings,
        room_sense,
        room: DiskRoom::Ample,
        linker,
    });
    node.relink();
    node.drive(now);
    Ok(node)
}

fn config(settings: &RaftSettings, applied: u64) -> Config {
    Config {
        id: settings.id.0,
        election_tick: settings.election_tick,
        heartbeat_tick: settings.heartbeat_tick,
        applied,
        max_size_per_msg: settings.message_bytes_max,
        max_inflight_msgs: 64,
        check_quorum: true,
        pre_vote: true,
        read_only_option: ReadOnlyOption::Safe,
        max_uncommitted_size: settings.uncommitted_bytes_max,
        max_committed_size_per_ready: 4 * 1024 * 1024,
        ..Config::default()
    }
}

/// Who votes after the last applied entry, where the applied state knows better than the stored snapshot. Until
/// controllers have joined or left, the configured list must be the one that the cluster was made with.
fn check_voters(
    recovered: &Recovered,
    state: &ClusterState,
    settings: &RaftSettings,
) -> Result<Option<Vec<u64>>, StartError> {
    let agreed = state.controllers();
    if agreed.since_index > 0 {
        if agreed.former.contains(&settings.id) {
            return Err(StartError::Removed { id: settings.id.0 });
        }
        return Ok(Some(agreed.members.keys().map(|id| id.0).collect()));
    }
    let mut stored = recovered.snapshot.get_metadata().get_conf_state().voters.clone();
    stored.sort_unstable();
    let configured: Vec<u64> = settings.peers.keys().map(|id| id.0).collect();
    // Nothing is stored by one that is to join and did not yet.
    if stored.is_empty() || stored == configured {
        Ok(None)
    } else {
        Err(StartError::OtherVoters { configured, stored })
    }
}

struct Loaded {
    state: ClusterState,
    applied: (u64, u64),
    /// The metadata store holds just this.
    stored: bool,
}

/// The applied state to begin with: the metadata store's when it fits the journal, else the journal's snapshot.
fn load_state(
    recovered: &Recovered,
    store: &mut dyn MetadataStore,
    journal: &str,
) -> Result<Loaded, StartError> {
    match store.load() {
        Ok(Some(stored)) => {
            let last = recovered.last_index();
            if stored.applied_index > last {
                let (journal, applied) = (journal.to_owned(), stored.applied_index);
                return Err(StartError::JournalBehind { journal, last, applied });
            }
            if let Some(loaded) = take_stored(recovered, stored) {
                return Ok(loaded);
            }
        }
        Ok(None) => {}
        Err(MetadataError::NoRoom) => {
            tracing::warn!(
                "too little room to open the metadata store; the state is rebuilt from the journal"
            );
        }
        Err(MetadataError::Unusable(why) | MetadataError::Interrupted(why)) => {
            tracing::warn!(why, "the metadata store can't be read; the state is rebuilt from the journal");
        }
    }
    let metadata = recovered.snapshot.get_metadata();
    let applied = (metadata.index, metadata.term);
    if metadata.index == 0 {
        return Ok(Loaded { state: ClusterState::empty(), applied, stored: false });
    }
    let state = ClusterState::decode_snapshot(&recovered.snapshot.data)
        .map_err(|error| StartError::Snapshot { journal: journal.to_owned(), why: error.to_string() })?;
    Ok(Loaded { state, applied, stored: false })
}

/// `None` when the store is older than the snapshot, of another history, or unreadable.
fn take_stored(recovered: &Recovered, stored: Stored) -> Option<Loaded> {
    let applied = (stored.applied_index, stored.applied_term);
    let metadata = recovered.snapshot.get_metadata();
    if applied.0 < metadata.index {
        return None;
    }
    let term = if applied.0 == metadata.index {
        metadata.term
    } else {
        recovered.entries.iter().find(|entry| entry.index == applied.0)?.term
    };
    if term != applied.1 {
        return None;
    }
    let state = ClusterState::from_records(stored.records).ok()?;
    Some(Loaded { state, applied, stored: true })
}

fn blank_view(cluster_id: Option<ClusterId>) -> View {
    View {
        state: Arc::new(ClusterState::empty()),
        cluster_id,
        applied_index: 0,
        term: 0,
        leader: None,
        is_leader: false,
        leader_since: None,
        peers: Vec::new(),
        journal: JournalState::Healthy,
        disk: DiskRoom::Ample,
    }
}
