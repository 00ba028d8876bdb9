//! `plimsoll standalone`: a controller and a storage node in one process.

use std::path::PathBuf;

use clap::Args;
use plimsoll_host::Host;
use plimsoll_host::config::ByteSize;
use plimsoll_spu::{Spu, SpuSettings};
use serde::Deserialize;

use super::LogArgs;
use super::controller::{ControllerFile, HAND_OVER_MAX, start};
use super::settings::{Overlay, path_text};
use super::signals::Signals;
use crate::exit::{Code, Failure, Outcome};

/// Each key of the configuration file has a flag and an environment variable.
#[derive(Debug, Args)]
pub(crate) struct StandaloneArgs {
    /// Configuration file in TOML; flags and environment override it, unknown keys are errors
    #[arg(long, value_name = "FILE", env = "PLIMSOLL_CONFIG")]
    config: Option<PathBuf>,
    /// The data directory [default: ~/.plimsoll/standalone]
    #[arg(long, value_name = "DIR", env = "PLIMSOLL_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where the controller listens [default: 127.0.0.1:7001]
    #[arg(long, value_name = "HOST:PORT", env = "PLIMSOLL_LISTEN")]
    listen: Option<String>,
    /// Where the storage node listens [default: 127.0.0.1:7011]
    #[arg(long, value_name = "HOST:PORT", env = "PLIMSOLL_SPU_LISTEN")]
    spu_listen: Option<String>,
    /// Where clients reach the storage node; where it listens, when not given
    #[arg(long, value_name = "HOST:PORT", env = "PLIMSOLL_SPU_ADVERTISE")]
    spu_advertise: Option<String>,
    /// Bytes that the volume may use, whatever its filesystem has
    #[arg(long, env = "PLIMSOLL_BYTE_LIMIT")]
    byte_limit: Option<ByteSize>,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StandaloneFile {
    /// The data directory; the controller and the storage node have a folder each in it.
    data_dir: PathBuf,
    /// Where the controller listens, and is reached. Default "127.0.0.1:7001".
    listen: String,
    /// Where the storage node listens. Default "127.0.0.1:7011".
    spu_listen: String,
    /// Where clients reach the storage node. Default `spu_listen`.
    spu_advertise: Option<String>,
    /// Bytes that the volume may use. Default none.
    byte_limit: Option<ByteSize>,
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

pub(crate) async fn run(args: StandaloneArgs, host: &Host) -> Outcome {
    args.log.init()?;
    let mut signals = Signals::install()?;
    let file: StandaloneFile = Overlay::default()
        .text("data_dir", args.data_dir.as_deref().map(path_text).transpose()?)
        .text("listen", args.listen)
        .text("spu_listen", args.spu_listen)
        .text("spu_advertise", args.spu_advertise)
        .text("byte_limit", args.byte_limit.map(|limit| limit.0))
        .onto(args.config.as_deref())?;
    for folder in ["controller", "spu"] {
        let path = file.data_dir.join(folder);
        std::fs::create_dir_all(&path)
            .map_err(|error| Failure::new(Code::Failed, format!("{}: {error}", path.display())))?;
    }
    let plan = ControllerFile {
        id: 1,
        data_dir: file.data_dir.join("controller"),
        listen: Some(file.listen.clone()),
        bootstrap: true,
        ..ControllerFile::default()
    }
    .plan()?;
    let settings = SpuSettings {
        id: 1,
        data_dirs: vec![file.data_dir.join("spu")],
        listen: file.spu_listen,
        advertise: file.spu_advertise,
        controllers: vec![file.listen],
        byte_limit: file.byte_limit,
        ..SpuSettings::default()
    };
    settings.validate()?;
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
