//! Running servers: settings from file, environment and flags; signals; a stop in order.

mod controller;
mod keys;
mod settings;
mod show;
mod signals;
mod spu;
mod standalone;
mod store_process;

pub(crate) use controller::ControllerRunArgs;
pub(crate) use spu::SpuRunArgs;
pub(crate) use standalone::StandaloneArgs;
pub(crate) use store_process::serve_store_if_asked;

pub(crate) use show::{ConfigCommand, run as run_config};

pub(crate) use controller::run as run_controller;
pub(crate) use spu::run as run_spu;
pub(crate) use standalone::run as run_standalone;

use clap::{Args, ValueEnum};
use plimsoll_host::logging;

use crate::exit::Outcome;

/// Flags for logs, on every server. Logs go to standard error and never block the server.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogArgs {
    /// What is logged, such as info or plimsoll_spu=debug; PLIMSOLL_LOG overrides it
    #[arg(long = "log", value_name = "FILTER", default_value = "info")]
    filter: String,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, env = "PLIMSOLL_LOG_FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

impl LogArgs {
    fn init(&self) -> Outcome {
        let format = match self.log_format {
            LogFormat::Text => logging::Format::Text,
            LogFormat::Json => logging::Format::Json,
        };
        Ok(logging::init(&self.filter, format)?)
    }
}
