//! `plimsoll controller run`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use plimsoll_controller::raft_runtime::{DataDirError, StartError};
use plimsoll_controller::{Controller, ControllerError, ControllerSettings};
use plimsoll_host::{BindError, Host};
use plimsoll_proto::ids::ControllerId;
use serde::Deserialize;

use super::LogArgs;
use super::settings::{Overlay, path_text};
use super::signals::Signals;
use crate::exit::{Code, Failure, Outcome};

/// How long a stopping controller may take to hand leadership over.
pub(super) const HAND_OVER_MAX: Duration = Duration::from_secs(5);
const LISTEN_DEFAULT: &str = "127.0.0.1:7001";

/// Each key of the configuration file has a flag and an environment variable.
#[derive(Debug, Args)]
pub(crate) struct ControllerRunArgs {
    /// Configuration file in TOML; flags and environment override it, unknown keys are errors
    #[arg(long, value_name = "FILE", env = "PLIMSOLL_CONFIG")]
    config: Option<PathBuf>,
    /// Number of this controller, from 1
    #[arg(long, env = "PLIMSOLL_ID")]
    id: Option<u32>,
    /// The data directory
    #[arg(long, value_name = "DIR", env = "PLIMSOLL_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen; where the list of controllers has this one, when not given
    #[arg(long, value_name = "HOST:PORT", env = "PLIMSOLL_LISTEN")]
    listen: Option<String>,
    /// Where others reach this one; as in the list of controllers, when not given
    #[arg(long, value_name = "HOST:PORT", env = "PLIMSOLL_ADVERTISE")]
    advertise: Option<String>,
    /// A controller, this one included; repeat it for each, the same list everywhere
    #[arg(
        long = "controller",
        value_name = "ID@HOST:PORT",
        env = "PLIMSOLL_CONTROLLER",
        value_delimiter = ','
    )]
    controllers: Vec<String>,
    /// Makes an empty data directory into one of a new cluster; needed at the first start, ignored later
    #[arg(long, env = "PLIMSOLL_BOOTSTRAP")]
    bootstrap: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// The configuration file of a controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ControllerFile {
    /// Number of this controller. Minimum 1. Required.
    pub(super) id: u64,
    /// The data directory. Required.
    pub(super) data_dir: PathBuf,
    /// Where it listens. Default: as in `controllers`, else "127.0.0.1:7001".
    pub(super) listen: Option<String>,
    /// Where others reach it. Default: as in `controllers`, else `listen`.
    pub(super) advertise: Option<String>,
    /// Every controller as "ID@HOST:PORT". Default: this one alone.
    pub(super) controllers: Vec<String>,
    /// Makes an empty data directory into one of a new cluster. Default false.
    pub(super) bootstrap: bool,
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
        Ok(Plan { settings, data_dir: self.data_dir.clone(), listen })
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
            | ControllerError::Start(StartError::Settings(_) | StartError::OtherVoters { .. }) => {
                Code::Configuration
            }
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
    let file: ControllerFile = Overlay::default()
        .number("id", args.id)
        .text("data_dir", args.data_dir.as_deref().map(path_text).transpose()?)
        .text("listen", args.listen)
        .text("advertise", args.advertise)
        .list("controllers", &args.controllers)
        .flag("bootstrap", args.bootstrap)
        .onto(args.config.as_deref())?;
    let controller = start(file.plan()?, host).await?;
    signals.stop_asked().await;
    controller.stop(HAND_OVER_MAX).await;
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
mod tests {
    use super::*;

    fn file(controllers: &[&str]) -> ControllerFile {
        ControllerFile {
            id: 1,
            data_dir: "/d".into(),
            controllers: controllers.iter().map(|text| (*text).to_owned()).collect(),
            ..ControllerFile::default()
        }
    }

    #[test]
    fn the_own_address_comes_from_the_list() {
        let plan = file(&["1@a:7001", "2@b:7001", "3@c:7001"]).plan().expect("a good list");
        assert_eq!(plan.listen, "a:7001");
        assert_eq!(plan.settings.raft.peers.len(), 3);
        let alone = file(&[]).plan().expect("a controller alone");
        assert_eq!(alone.listen, LISTEN_DEFAULT);
        let single = file(&["a:7001"]).plan().expect("the only one needs no id");
        assert_eq!(single.settings.raft.peers.get(&ControllerId(1)).map(String::as_str), Some("a:7001"));
    }

    #[test]
    fn what_does_not_agree_is_named() {
        let cases: [(ControllerFile, &str); 8] = [
            (ControllerFile { id: 0, ..file(&[]) }, "--id"),
            (ControllerFile { data_dir: PathBuf::new(), ..file(&[]) }, "--data-dir"),
            (file(&["2@b:1", "3@c:1"]), "--controller 1@HOST:PORT"),
            (file(&["1@a:1", "b:1"]), "b:1"),
            (file(&["1@a:1", "1@b:1"]), "twice"),
            (file(&["x@a:1"]), "x@a:1"),
            (ControllerFile { advertise: Some("z:1".into()), ..file(&["1@a:1"]) }, "say the same"),
            (ControllerFile { listen: Some("0.0.0.0:1".into()), ..file(&[]) }, "--advertise"),
        ];
        for (file, named) in cases {
            let failure = file.plan().expect_err(named);
            assert_eq!(failure.code, 7);
            assert!(failure.message.contains(named), "{named}: {}", failure.message);
        }
    }
}
