//! `plimsoll standalone`: a controller and a storage node in one process.

use std::path::PathBuf;

use clap::Args;
use plimsoll_host::Host;
use plimsoll_host::config::ByteSize;
use plimsoll_spu::{Spu, SpuSettings};
use serde::{Deserialize, Serialize};

use super::LogArgs;
use super::controller::{ControllerFile, HAND_OVER_MAX, Plan, start};
use super::keys::{Key, KeyArgs, Keys, Kind, key};
use super::signals::Signals;
use crate::exit::{Code, Failure, Outcome};

/// Flags of a server that is both.
#[derive(Debug, Args)]
pub(crate) struct StandaloneArgs {
    #[command(flatten)]
    keys: KeyArgs<StandaloneFile>,
    #[command(flatten)]
    log: LogArgs,
}

/// The configuration file; [`KEYS`] says what each key means.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StandaloneFile {
    data_dir: PathBuf,
    listen: String,
    spu_listen: String,
    spu_advertise: Option<String>,
    byte_limit: Option<ByteSize>,
}

const KEYS: &[Key] = &[
    key(
        "data_dir",
        Kind::Dir,
        "",
        "The data directory; controller and storage node have a folder each in it",
    )
    .absent("~/.plimsoll/standalone"),
    key("listen", Kind::Address, "", "Where the controller listens, and is reached"),
    key("spu_listen", Kind::Address, "", "Where the storage node listens"),
    key("spu_advertise", Kind::Address, "", "Where clients reach the storage node").absent("spu_listen"),
    key("byte_limit", Kind::Size, "16MiB", "Bytes that the volume may use, whatever its filesystem has")
        .absent("none"),
];

impl Keys for StandaloneFile {
    const KEYS: &'static [Key] = KEYS;
}

impl Default for StandaloneFile {
    fn default() -> Self {
        let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
        Self {
            data_dir: home.join(".plimsoll").join("standalone"),
            listen: "127.0.0.1:7001".to_owned(),
            spu_listen: "127.0.0.1:7011".to_owned(),
            spu_advertise: None,
            byte_limit: None,
        }
    }
}

impl StandaloneFile {
    /// Checks what a start would check before it touches anything.
    pub(super) fn check(&self) -> Outcome {
        self.parts().map(drop)
    }

    fn parts(&self) -> Result<(Plan, SpuSettings), Failure> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(Failure::new(
                Code::Configuration,
                "configuration: data_dir must be given (--data-dir)",
            ));
        }
        let plan = ControllerFile {
            id: 1,
            data_dir: self.data_dir.join("controller"),
            listen: Some(self.listen.clone()),
            bootstrap: true,
            ..ControllerFile::default()
        }
        .plan()?;
        let settings = SpuSettings {
            id: 1,
            data_dirs: vec![self.data_dir.join("spu")],
            listen: self.spu_listen.clone(),
            advertise: self.spu_advertise.clone(),
            controllers: vec![self.listen.clone()],
            byte_limit: self.byte_limit,
            ..SpuSettings::default()
        };
        settings.validate()?;
        Ok((plan, settings))
    }
}

pub(crate) async fn run(args: StandaloneArgs, host: &Host) -> Outcome {
    args.log.init()?;
    let mut signals = Signals::install()?;
    let file: StandaloneFile = args.keys.settings()?;
    let (plan, settings) = file.parts()?;
    for folder in ["controller", "spu"] {
        let path = file.data_dir.join(folder);
        std::fs::create_dir_all(&path)
            .map_err(|error| Failure::new(Code::Failed, format!("{}: {error}", path.display())))?;
    }
    let disks = settings.open_disks()?;
    let controller = start(plan, host).await?;
    let spu = tokio::select! {
        started = Spu::start(host.clone(), settings, disks) => started,
        () = signals.stop_asked() => {
            controller.stop(HAND_OVER_MAX).await;
            return Ok(());
        }
    };
    let ended = match spu {
        Ok(spu) => {
            let failed = tokio::select! {
                () = signals.stop_asked() => None,
                failed = spu.failed() => Some(failed),
            };
            // The storage node first: it hands over and says goodbye through the controller.
            spu.stop().await;
            failed.map_or(Ok(()), |error| Err(error.into()))
        }
        Err(error) => Err(error.into()),
    };
    controller.stop(HAND_OVER_MAX).await;
    ended
}
