//! `plimsoll spu run`.

use std::path::PathBuf;

use clap::Args;
use plimsoll_host::Host;
use plimsoll_host::config::{ByteSize, Span};
use plimsoll_spu::{Spu, SpuSettings, StartError};

use super::LogArgs;
use super::settings::{Overlay, path_texts};
use super::signals::Signals;
use crate::exit::{Failure, Outcome};

/// Each key of the configuration file has a flag and an environment variable.
#[derive(Debug, Args)]
pub(crate) struct SpuRunArgs {
    /// Configuration file in TOML; flags and environment override it, unknown keys are errors
    #[arg(long, value_name = "FILE", env = "PLIMSOLL_CONFIG")]
    config: Option<PathBuf>,
    /// Number of this node in its cluster, from 1
    #[arg(long, env = "PLIMSOLL_ID")]
    id: Option<u32>,
    /// A data directory, one volume; repeat it for each disk
    #[arg(long = "data-dir", value_name = "DIR", env = "PLIMSOLL_DATA_DIR", value_delimiter = ',')]
    data_dirs: Vec<PathBuf>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", env = "PLIMSOLL_LISTEN")]
    listen: Option<String>,
    /// Where clients and other nodes reach this one
    #[arg(long, value_name = "HOST:PORT", env = "PLIMSOLL_ADVERTISE")]
    advertise: Option<String>,
    /// A controller; repeat it for each, the same list everywhere
    #[arg(
        long = "controller",
        value_name = "[ID@]HOST:PORT",
        env = "PLIMSOLL_CONTROLLER",
        value_delimiter = ','
    )]
    controllers: Vec<String>,
    /// Failure domain for placement, such as a rack
    #[arg(long, env = "PLIMSOLL_RACK")]
    rack: Option<String>,
    /// Bytes that each volume may use, whatever its filesystem has
    #[arg(long, env = "PLIMSOLL_BYTE_LIMIT")]
    byte_limit: Option<ByteSize>,
    /// Pause between two heartbeats
    #[arg(long, env = "PLIMSOLL_HEARTBEAT_INTERVAL")]
    heartbeat_interval: Option<Span>,
    /// A controller that answers no heartbeat for so long is left for the next
    #[arg(long, env = "PLIMSOLL_HEARTBEAT_ANSWER_WAIT_MAX")]
    heartbeat_answer_wait_max: Option<Span>,
    /// How long a stopping node may take to hand over what it leads
    #[arg(long, env = "PLIMSOLL_HAND_OVER_MAX")]
    hand_over_max: Option<Span>,
    /// Produce on its way through the node at most
    #[arg(long, env = "PLIMSOLL_PRODUCE_IN_FLIGHT_BYTES_MAX")]
    produce_in_flight_bytes_max: Option<ByteSize>,
    /// Produce on its way through one stream at most
    #[arg(long, env = "PLIMSOLL_STREAM_IN_FLIGHT_BYTES_MAX")]
    stream_in_flight_bytes_max: Option<ByteSize>,
    /// Batches in one message to a consumer at most
    #[arg(long, env = "PLIMSOLL_FETCH_BYTES_MAX")]
    fetch_bytes_max: Option<ByteSize>,
    /// Pause after which a consumer without new records hears something
    #[arg(long, env = "PLIMSOLL_FETCH_HEARTBEAT_INTERVAL")]
    fetch_heartbeat_interval: Option<Span>,
    #[command(flatten)]
    log: LogArgs,
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self { code: error.exit_code(), message: error.to_string() }
    }
}

impl SpuRunArgs {
    fn settings(&self) -> Result<SpuSettings, Failure> {
        let exact = |size: Option<ByteSize>| size.map(|size| size.0);
        let micros = |span: Option<Span>| span.map(|span| format!("{}us", span.0.as_micros()));
        Overlay::default()
            .number("id", self.id)
            .list("data_dirs", &path_texts(&self.data_dirs)?)
            .text("listen", self.listen.as_ref())
            .text("advertise", self.advertise.as_ref())
            .list("controllers", &self.controllers)
            .text("rack", self.rack.as_ref())
            .text("byte_limit", exact(self.byte_limit))
            .text("heartbeat_interval", micros(self.heartbeat_interval))
            .text("heartbeat_answer_wait_max", micros(self.heartbeat_answer_wait_max))
            .text("hand_over_max", micros(self.hand_over_max))
            .text("produce_in_flight_bytes_max", exact(self.produce_in_flight_bytes_max))
            .text("stream_in_flight_bytes_max", exact(self.stream_in_flight_bytes_max))
            .text("fetch_bytes_max", exact(self.fetch_bytes_max))
            .text("fetch_heartbeat_interval", micros(self.fetch_heartbeat_interval))
            .onto(self.config.as_deref())
    }
}

pub(crate) async fn run(args: SpuRunArgs, host: &Host) -> Outcome {
    args.log.init()?;
    let mut signals = Signals::install()?;
    let settings = args.settings()?;
    settings.validate()?;
    let disks = settings.open_disks()?;
    let spu = tokio::select! {
        started = Spu::start(host.clone(), settings, disks) => started?,
        // Nothing runs yet that would have to be stopped in order.
        () = signals.stop_asked() => return Ok(()),
    };
    let failed = tokio::select! {
        () = signals.stop_asked() => None,
        failed = spu.failed() => Some(failed),
    };
    spu.stop().await;
    failed.map_or(Ok(()), |error| Err(error.into()))
}
