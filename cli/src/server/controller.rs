//! `plimsoll controller run`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use plimsoll_controller::raft_runtime::journal::JournalSettings;
use plimsoll_controller::raft_runtime::{DataDirError, StartError};
use plimsoll_controller::{Controller, ControllerError, ControllerSettings};
use plimsoll_host::config::{ByteSize, Secret, Span};
use plimsoll_host::{BindError, Host};
use plimsoll_proto::ids::{ControllerId, SpuId};
use serde::{Deserialize, Serialize};

use super::LogArgs;
use super::keys::{Key, KeyArgs, Keys, Kind, key};
use super::signals::Signals;
use super::store_process::store_program;
use crate::exit::{Code, Failure, Outcome};

/// How long a stopping controller may take to hand leadership over.
pub(super) const HAND_OVER_MAX: Duration = Duration::from_secs(5);
const LISTEN_DEFAULT: &str = "127.0.0.1:7001";

/// Flags of a controller.
#[derive(Debug, Args)]
pub(crate) struct ControllerRunArgs {
    #[command(flatten)]
    keys: KeyArgs<ControllerFile>,
    #[command(flatten)]
    log: LogArgs,
}

/// The configuration file of a controller; [`KEYS`] says what each key means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ControllerFile {
    pub(super) id: u64,
    pub(super) data_dir: PathBuf,
    pub(super) listen: Option<String>,
    pub(super) advertise: Option<String>,
    pub(super) controllers: Vec<String>,
    pub(super) bootstrap: bool,
    pub(super) join: bool,
    pub(super) join_token: Option<Secret>,
    pub(super) spus: BTreeSet<u32>,
    pub(super) peer_token: Option<Secret>,
    pub(super) journal_bytes: ByteSize,
    pub(super) disk_full_bytes: ByteSize,
    pub(super) tick: Span,
    pub(super) election_tick: usize,
    pub(super) heartbeat_tick: usize,
    pub(super) propose_timeout: Span,
    pub(super) read_timeout: Span,
    pub(super) placement_wait: Span,
    pub(super) leader_move_interval: Span,
    pub(super) replica_moves_max: u32,
    pub(super) relief_after: Span,
    pub(super) suspect_after: Span,
    pub(super) confirm: Span,
    pub(super) mass_hold: Span,
    pub(super) mass_window: Span,
    pub(super) join_age: Span,
    pub(super) volume_stalled_after: Span,
    pub(super) node_stalled_after: Span,
    pub(super) stall_hold: Span,
    pub(super) stall_hold_max: Span,
}

const KEYS: &[Key] = &[
    key("id", Kind::Number, "1; required", "Number of this controller"),
    key("data_dir", Kind::Dir, "required", "The data directory"),
    key("listen", Kind::Address, "", "Where to listen")
        .absent("where the list of controllers has this one, else 127.0.0.1:7001"),
    key("advertise", Kind::Address, "", "Where others reach this one")
        .absent("as in the list of controllers, else listen"),
    key(
        "controllers",
        Kind::Controllers,
        "",
        "A controller, this one included; repeat it for each, the same list everywhere",
    )
    .flag("controller")
    .absent("this one alone"),
    key(
        "bootstrap",
        Kind::Switch,
        "",
        "Makes an empty data directory into one of a new cluster; needed at the first start, ignored later",
    ),
    key(
        "join",
        Kind::Switch,
        "",
        "Makes an empty data directory into one of a controller that joins a cluster, by `controller add`; ignored later",
    ),
    key("join_token", Kind::Text, "", "What storage nodes must know to register")
        .absent("none: every node may"),
    key(
        "spus",
        Kind::Numbers,
        "",
        "A storage node that may register; repeat it for each, the same list on every controller",
    )
    .flag("spu")
    .absent("none: every node may"),
    key("peer_token", Kind::Text, "", "What controllers must know to be believed; the same on each")
        .absent("none"),
    key(
        "journal_bytes",
        Kind::Size,
        "1MiB; at most 1GiB",
        "Size of each of the two journal files, which bounds the metadata; fixed when the data directory is made",
    ),
    key(
        "disk_full_bytes",
        Kind::Size,
        "1MiB",
        "Free bytes of the disk below which topics are neither created nor altered; left at twice as much",
    ),
    key("tick", Kind::Span, "10ms", "The step of time of elections"),
    key(
        "election_tick",
        Kind::Number,
        "2 x heartbeat_tick; at most suspect_after / 4 in ticks",
        "Ticks without a leader before an election, up to twice as many by chance",
    ),
    key("heartbeat_tick", Kind::Number, "1", "Ticks between two heartbeats of the leading controller"),
    key("propose_timeout", Kind::Span, "1s", "How long a change may take before its outcome is unknown"),
    key("read_timeout", Kind::Span, "100ms", "How long a read waits for a majority to confirm the leader"),
    key(
        "placement_wait",
        Kind::Span,
        "100ms; at most 10s",
        "How long creating a topic waits for nodes to join",
    ),
    key("leader_move_interval", Kind::Span, "50ms", "Pause between two leaderships that are moved back"),
    key(
        "replica_moves_max",
        Kind::Number,
        "0, which moves none unasked",
        "Partitions that move at once off drained nodes and volumes short of room",
    ),
    key(
        "relief_after",
        Kind::Span,
        "1s",
        "How long a volume must be at throttle or worse before replicas leave it",
    ),
    key("suspect_after", Kind::Span, "6s", "Silence after which a storage node is suspect"),
    key("confirm", Kind::Span, "3s", "How long a suspect is asked before it is offline"),
    key("mass_hold", Kind::Span, "0s", "How much longer a verdict waits while many nodes are silent"),
    key(
        "mass_window",
        Kind::Span,
        "suspect_after + confirm",
        "Within which time nodes count as silent together",
    ),
    key("join_age", Kind::Span, "below suspect_after", "How long a joining node must have sent heartbeats"),
    key("volume_stalled_after", Kind::Span, "1s", "A data path that does not move for so long is stalled"),
    key(
        "node_stalled_after",
        Kind::Span,
        "above volume_stalled_after",
        "A node whose every data path does not move for so long is offline",
    ),
    key(
        "stall_hold",
        Kind::Span,
        "100ms",
        "How long a stalled volume must move again; doubles with each stall",
    ),
    key("stall_hold_max", Kind::Span, "stall_hold", "The longest such time"),
];

impl Keys for ControllerFile {
    const KEYS: &'static [Key] = KEYS;
}

impl Default for ControllerFile {
    fn default() -> Self {
        let ControllerSettings { raft, session, journal, .. } =
            ControllerSettings::new(ControllerId(0), BTreeMap::new());
        let liveness = session.liveness;
        Self {
            id: 0,
            data_dir: PathBuf::new(),
            listen: None,
            advertise: None,
            controllers: Vec::new(),
            bootstrap: false,
            join: false,
            join_token: None,
            spus: BTreeSet::new(),
            peer_token: None,
            journal_bytes: ByteSize(journal.file_bytes),
            disk_full_bytes: ByteSize(raft.disk_full_bytes),
            tick: Span(raft.tick),
            election_tick: raft.election_tick,
            heartbeat_tick: raft.heartbeat_tick,
            propose_timeout: Span(session.propose_timeout),
            read_timeout: Span(session.read_timeout),
            placement_wait: Span(session.placement_wait),
            leader_move_interval: Span(session.leader_move_interval),
            replica_moves_max: session.replica_moves_max,
            relief_after: Span(session.relief_after),
            suspect_after: Span(liveness.suspect_after),
            confirm: Span(liveness.confirm),
            mass_hold: Span(liveness.mass_hold),
            mass_window: Span(liveness.mass_window),
            join_age: Span(liveness.join_age),
            volume_stalled_after: Span(liveness.volume_stalled_after),
            node_stalled_after: Span(liveness.node_stalled_after),
            stall_hold: Span(liveness.stall_hold),
            stall_hold_max: Span(liveness.stall_hold_max),
        }
    }
}

/// What a controller needs to start.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) settings: ControllerSettings,
    pub(super) data_dir: PathBuf,
    pub(super) listen: String,
}

impl ControllerFile {
    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        let wrong = |why: String| Failure::new(Code::Configuration, format!("configuration: {why}"));
        if self.id == 0 {
            return Err(wrong("id must be given, from 1 (--id)".to_owned()));
        }
        if self.data_dir.as_os_str().is_empty() {
            return Err(wrong("data_dir must be given (--data-dir)".to_owned()));
        }
        let id = ControllerId(self.id);
        let mut peers = BTreeMap::new();
        for text in &self.controllers {
            let (peer, address) = member(text, self.controllers.len() == 1, id).map_err(wrong)?;
            if peers.insert(peer, address).is_some() {
                return Err(wrong(format!("controllers names {peer} twice")));
            }
        }
        let own = peers.get(&id).cloned();
        if own.is_none() && !peers.is_empty() {
            return Err(wrong(format!(
                "controllers does not name this controller; add --controller {id}@HOST:PORT, the same list on every node"
            )));
        }
        let listen = self.listen.clone().or_else(|| own.clone()).unwrap_or_else(|| LISTEN_DEFAULT.to_owned());
        let address = match (&self.advertise, own) {
            (Some(advertise), Some(own)) if *advertise != own => {
                return Err(wrong(format!(
                    "advertise is {advertise}, but controllers has {id}@{own}; say the same in both"
                )));
            }
            (Some(advertise), _) => advertise.clone(),
            (None, Some(own)) => own,
            (None, None) => listen.clone(),
        };
        if !is_host_port(&listen) {
            return Err(wrong(format!("listen '{listen}' is not HOST:PORT")));
        }
        if !is_host_port(&address) || ["0.0.0.0:", "[::]:"].iter().any(|any| address.starts_with(any)) {
            let why = format!(
                "{address} is not a HOST:PORT that others can reach; give --advertise or --controller {id}@HOST:PORT"
            );
            return Err(wrong(why));
        }
        peers.insert(id, address);
        let mut settings = ControllerSettings::new(id, peers);
        settings.bootstrap = self.bootstrap;
        settings.join = self.join;
        settings.store_program = Some(store_program());
        let journal = JournalSettings::FILE_BYTES_MIN..=JournalSettings::FILE_BYTES_MAX;
        if !journal.contains(&self.journal_bytes.0) || self.disk_full_bytes.0 < 1 << 20 {
            let why = "journal_bytes must be from 1MiB to 1GiB, and disk_full_bytes at least 1MiB";
            return Err(wrong(why.to_owned()));
        }
        settings.journal.file_bytes = self.journal_bytes.0;
        settings.raft.disk_full_bytes = self.disk_full_bytes.0;
        settings.raft.peer_token.clone_from(&self.peer_token);
        settings.session.join_token.clone_from(&self.join_token);
        settings.session.spus = self.spus.iter().copied().map(SpuId).collect();
        self.timings(&mut settings).map_err(wrong)?;
        Ok(Plan { settings, data_dir: self.data_dir.clone(), listen })
    }

    fn timings(&self, settings: &mut ControllerSettings) -> Result<(), String> {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        for (key, given, min, max) in [
            ("tick", self.tick, ms(10), s(10)),
            ("propose_timeout", self.propose_timeout, s(1), s(60)),
            ("read_timeout", self.read_timeout, ms(100), s(60)),
            // The SDK waits a little longer for the answer.
            ("placement_wait", self.placement_wait, ms(100), s(10)),
            ("leader_move_interval", self.leader_move_interval, ms(50), s(60)),
            ("relief_after", self.relief_after, s(1), s(86_400)),
            // A storage node believes in its lease for 9 s: nobody may be elected in its place sooner.
            ("suspect_after", self.suspect_after, s(6), s(3600)),
            ("confirm", self.confirm, s(3), s(3600)),
            ("mass_hold", self.mass_hold, s(0), s(3600)),
            ("mass_window", self.mass_window, s(1), s(3600)),
            ("volume_stalled_after", self.volume_stalled_after, s(1), s(3600)),
            ("stall_hold", self.stall_hold, ms(100), s(3600)),
        ] {
            if !(min..=max).contains(&given.0) {
                return Err(format!("{key} is {given}, it must be from {} to {}", Span(min), Span(max)));
            }
        }
        settings.raft.tick = self.tick.0;
        settings.raft.election_tick = self.election_tick;
        settings.raft.heartbeat_tick = self.heartbeat_tick;
        let session = &mut settings.session;
        session.propose_timeout = self.propose_timeout.0;
        session.read_timeout = self.read_timeout.0;
        session.placement_wait = self.placement_wait.0;
        session.leader_move_interval = self.leader_move_interval.0;
        session.replica_moves_max = self.replica_moves_max;
        session.relief_after = self.relief_after.0;
        let liveness = &mut session.liveness;
        liveness.suspect_after = self.suspect_after.0;
        liveness.confirm = self.confirm.0;
        liveness.mass_hold = self.mass_hold.0;
        liveness.mass_window = self.mass_window.0;
        liveness.join_age = self.join_age.0;
        liveness.volume_stalled_after = self.volume_stalled_after.0;
        liveness.node_stalled_after = self.node_stalled_after.0;
        liveness.stall_hold = self.stall_hold.0;
        liveness.stall_hold_max = self.stall_hold_max.0;
        settings.check()
    }
}

/// `ID@HOST:PORT`; the only one may leave its id out.
fn member(text: &str, only: bool, own: ControllerId) -> Result<(ControllerId, String), String> {
    let (id, address) = match text.rsplit_once('@') {
        Some((id, address)) => {
            let id = id.parse().ok().filter(|id| *id > 0);
            (
                id.map(ControllerId)
                    .ok_or_else(|| format!("controllers: '{text}' has no number from 1 before '@'"))?,
                address,
            )
        }
        None if only => (own, text),
        None => return Err(format!("controllers: '{text}' must be ID@HOST:PORT, so that each has its id")),
    };
    if is_host_port(address) {
        Ok((id, address.to_owned()))
    } else {
        Err(format!("controllers: '{text}' is not ID@HOST:PORT"))
    }
}

fn is_host_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        match error {
            BindError::AddressInUse { .. } => {
                Self::new(Code::PortInUse, format!("{error}; stop it or give another --listen"))
            }
            BindError::Unusable { .. } => {
                Self::new(Code::Configuration, format!("{error}; give another --listen"))
            }
        }
    }
}

impl From<ControllerError> for Failure {
    fn from(error: ControllerError) -> Self {
        let code = match &error {
            ControllerError::Settings(_) => Code::Configuration,
            ControllerError::DataDir(
                DataDirError::Locked { .. }
                | DataDirError::ForeignIdentity { .. }
                | DataDirError::NotEmpty { .. },
            ) => Code::DirectoryTaken,
            ControllerError::DataDir(DataDirError::NotBootstrapped { .. })
            | ControllerError::DataDir(DataDirError::ControllerCount { .. })
            | ControllerError::Start(
                StartError::Settings(_) | StartError::OtherVoters { .. } | StartError::Removed { .. },
            ) => Code::Configuration,
            ControllerError::DataDir(_) | ControllerError::Start(_) | ControllerError::Listener(_) => {
                Code::Failed
            }
        };
        Self::new(code, error.to_string())
    }
}

pub(crate) async fn run(args: ControllerRunArgs, host: &Host) -> Outcome {
    args.log.init()?;
    let mut signals = Signals::install()?;
    let file: ControllerFile = args.keys.settings()?;
    let controller = start(file.plan()?, host).await?;
    signals.stop_asked().await;
    controller.stop(HAND_OVER_MAX).await;
    tracing::info!("stopped");
    Ok(())
}

/// Starts a controller and says so in one line.
pub(super) async fn start(plan: Plan, host: &Host) -> Result<Controller, Failure> {
    let Plan { settings, data_dir, listen } = plan;
    let listener = host.network.bind(&listen).await?;
    let disk = ControllerSettings::open_disk(&data_dir)?;
    let (id, peers) = (settings.raft.id, settings.raft.peers.clone());
    let controller = Controller::start(host.clone(), settings, disk, Path::new(&data_dir), listener).await?;
    let peers: Vec<String> = peers.iter().map(|(id, address)| format!("{id}@{address}")).collect();
    tracing::info!(
        "controller {id} of cluster {} listens at {}, data in {}; controllers: {}",
        controller.cluster_id().map_or_else(|| "yet to be made".to_owned(), |cluster| cluster.short()),
        controller.address(),
        data_dir.display(),
        peers.join(", ")
    );
    Ok(controller)
}

#[cfg(test)]
mod tests;
