//! One controller process: its Raft lane, its decisions and its doors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::{Host, Listener, ServerOptions, Task, server};
use plimsoll_proto::ids::{ClusterId, ControllerId};
use plimsoll_proto::v1::{
    self,
    raft_peer_server::{RaftPeer, RaftPeerServer},
};
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::fs::real::RealDisk;
use tokio::sync::watch;

use crate::health;
use crate::raft_runtime::journal::{Journal, JournalSettings};
use crate::raft_runtime::metadata::{ChildStore, MetadataStore, RocksSettings, RocksStore, StoreProgram};
use crate::raft_runtime::{DataDir, DataDirError, Identity, RaftHandle, RaftSettings, StartError, start};
use crate::session::{AdminService, ControlService, MetadataService, SessionSettings, Shared, decide};

/// How long streams may take to end when the controller stops.
const DRAIN: Duration = Duration::from_secs(1);

/// What an operator says about a controller. [`ControllerSettings::new`] fills in the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerSettings {
    /// Makes an empty data directory into one of a new controller; without effect on a ready one.
    pub bootstrap: bool,
    /// Makes an empty data directory into one of a controller that joins a cluster; without effect on a ready one.
    pub join: bool,
    /// Consensus, this controller's id and the addresses of all controllers.
    pub raft: RaftSettings,
    /// The journal on preallocated files.
    pub journal: JournalSettings,
    /// The metadata store.
    pub metadata: RocksSettings,
    /// Keeps the metadata store in a process of this program, which RocksDB may abort. Default none: in this process.
    pub store_program: Option<StoreProgram>,
    /// Sessions and decisions.
    pub session: SessionSettings,
}

impl ControllerSettings {
    /// Settings with every default. `peers` holds every controller, this one included.
    pub fn new(id: ControllerId, peers: BTreeMap<ControllerId, String>) -> Self {
        Self {
            bootstrap: false,
            join: false,
            raft: RaftSettings::new(id, peers),
            journal: JournalSettings::default(),
            metadata: RocksSettings::default(),
            store_program: None,
            session: SessionSettings::default(),
        }
    }

    /// Checks what must agree.
    ///
    /// # Errors
    /// A sentence for people that names the settings that don't.
    pub fn check(&self) -> Result<(), String> {
        self.raft.check()?;
        self.session.check()?;
        if self.bootstrap && self.join {
            return Err("give one of bootstrap and join, not both".to_owned());
        }
        // A judge that is elected must have time left to hear the nodes before they are suspect.
        let (election, suspect_after) =
            (self.raft.election_timeout_max(), self.session.liveness.suspect_after);
        if election > suspect_after / 2 {
            return Err(format!(
                "an election may take {election:?} to begin (2 x election_tick x tick), it must be at most half of \
                 suspect_after ({suspect_after:?})"
            ));
        }
        Ok(())
    }

    /// The door to the data directory `root`, for [`Controller::start`]; makes the directory if it is missing.
    ///
    /// # Errors
    /// `DataDir` with what the disk says.
    pub fn open_disk(root: &Path) -> Result<SharedDisk, ControllerError> {
        match RealDisk::open(root) {
            Ok(disk) => Ok(Arc::new(disk)),
            Err(error) => Err(DataDirError::Disk { dir: root.display().to_string(), error }.into()),
        }
    }
}

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// Settings that don't agree. Exit code 7.
    #[error("{0}")]
    Settings(String),
    /// The data directory can't be used; see its variants for the exit code.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The Raft runtime does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The listener has no address.
    #[error("the listener is not usable: {0}")]
    Listener(std::io::Error),
}

/// The parts of a controller that a simulation replaces.
pub struct Parts {
    /// Remembers the cluster.
    pub identity: Box<dyn Identity>,
    /// Votes and entries.
    pub journal: Box<dyn Journal>,
    /// Applied state.
    pub store: Box<dyn MetadataStore>,
    /// The disk whose room decides about new topics.
    pub disk: Option<SharedDisk>,
}

/// A running controller. Dropping it ends its sessions, but only [`Controller::stop`] ends its Raft lane.
#[derive(Debug)]
pub struct Controller {
    host: Host,
    raft: RaftHandle,
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    tasks: Vec<Task>,
}

impl Controller {
    /// Opens the data directory `root`, whose door is `disk`, and serves on `listener`. Needs no space on a disk
    /// that is ready. Returns when what is on disk was read and the doors are open; it may be that nobody leads
    /// yet.
    ///
    /// # Errors
    /// See [`ControllerError`]; every message names the remedy.
    pub async fn start(
        host: Host,
        settings: ControllerSettings,
        disk: SharedDisk,
        root: &Path,
        listener: Listener,
    ) -> Result<Self, ControllerError> {
        settings.check().map_err(ControllerError::Settings)?;
        // Who joins does not know who votes; it is told by a snapshot.
        let voters: Vec<_> =
            if settings.join { Vec::new() } else { settings.raft.peers.keys().copied().collect() };
        let fresh = settings.bootstrap || settings.join;
        let (identity, journal) = DataDir::open(&disk, settings.raft.id, fresh, voters, &settings.journal)?;
        let store: Box<dyn MetadataStore> = match settings.store_program {
            Some(program) => Box::new(ChildStore::new(&host, program, root, &settings.metadata)),
            None => Box::new(RocksStore::new(disk.clone(), root, settings.metadata)),
        };
        let parts =
            Parts { identity: Box::new(identity), journal: Box::new(journal), store, disk: Some(disk) };
        Self::start_with(host, settings.raft, settings.session, parts, listener).await
    }

    /// The same over given parts.
    ///
    /// # Errors
    /// `Settings`, `Start` and `Listener` of [`ControllerError`].
    pub async fn start_with(
        host: Host,
        raft_settings: RaftSettings,
        session_settings: SessionSettings,
        parts: Parts,
        listener: Listener,
    ) -> Result<Self, ControllerError> {
        session_settings.check().map_err(ControllerError::Settings)?;
        let address = listener.local_addr().map_err(ControllerError::Listener)?;
        let id = raft_settings.id;
        let (raft, peer_service) =
            start(&host, raft_settings, parts.identity, parts.journal, parts.store, parts.disk).await?;
        let (stopping, stopped) = watch::channel(false);
        let vantage = peer_service.vantage(&host);
        let (shared, queue) =
            Shared::new(host.clone(), id, session_settings, raft.clone(), vantage.clone(), stopped.clone());
        let (health, health_task) = health::service(&host, id, raft.watch());
        let serve = serve(shared.clone(), peer_service.into_server(vantage), health, listener, stopped);
        let tasks = vec![
            health_task,
            host.tasks.spawn("decide", decide(shared, queue)),
            host.tasks.spawn("serve controller", serve),
        ];
        Ok(Self { host, raft, address, stopping, tasks })
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The Raft runtime: for status lines and tests.
    pub fn raft(&self) -> &RaftHandle {
        &self.raft
    }

    /// The cluster, once known.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        let view = self.raft.view();
        view.state.cluster_id().or(view.cluster_id)
    }

    /// Hands leadership over if it has it (at most `timeout`), ends streams and sessions, and stops the lane.
    /// Everything acknowledged is on disk before as after. Needs no space.
    pub async fn stop(mut self, timeout: Duration) {
        self.raft.stop(timeout).await;
        self.stopping.send_replace(true);
        if let Some(mut serving) = self.tasks.pop() {
            // Connections that do not end in time are cut when the task is dropped.
            let ended = self.host.clock.timeout(DRAIN, serving.finished()).await;
            tracing::debug!(in_time = ended.is_ok(), "sessions ended");
        }
    }
}

async fn serve(
    shared: Shared,
    peers: RaftPeerServer<impl RaftPeer>,
    health: health::HealthService,
    listener: Listener,
    mut stopped: watch::Receiver<bool>,
) {
    let mut router = server(&ServerOptions::default())
        .add_service(v1::control_server::ControlServer::new(ControlService::new(shared.clone())))
        .add_service(v1::metadata_server::MetadataServer::new(MetadataService::new(shared.clone())))
        .add_service(v1::admin_server::AdminServer::new(AdminService::new(shared)))
        .add_service(peers)
        .add_service(health);
    match health::reflection() {
        Ok(reflection) => router = router.add_service(reflection),
        Err(error) => tracing::warn!(%error, "reflection is not served"),
    }
    let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
    if let Err(error) = router.serve_with_incoming_shutdown(listener.into_incoming(), stop).await {
        tracing::error!(%error, "the controller no longer serves");
    }
}

#[cfg(test)]
mod tests;
