//! `plimsoll cluster`.

mod local;
mod metrics;
mod start;
mod status;
mod stop;

use clap::Subcommand;
use plimsoll_host::Host;

use crate::exit::Outcome;

pub(crate) use status::{Status, status_of};

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Starts a cluster of processes on this machine, in the background
    Start(start::StartArgs),
    /// Stops it, leaders handed over and data synced
    Stop(stop::StopArgs),
    /// Says how the cluster is: a verdict, what is wrong, and what to do
    Health(crate::health::HealthArgs),
    /// Prints counters and alerts of the whole cluster, in the text format of Prometheus
    Metrics(metrics::MetricsArgs),
    /// Shows controllers, storage nodes and partitions
    Status(status::StatusArgs),
}

pub(crate) async fn run(command: ClusterCommand, host: &Host) -> Outcome {
    match command {
        ClusterCommand::Start(args) => start::run(args, host).await,
        ClusterCommand::Stop(args) => stop::run(args, host).await,
        ClusterCommand::Health(args) => crate::health::cluster_health(args, host).await,
        ClusterCommand::Metrics(args) => metrics::run(args, host).await,
        ClusterCommand::Status(args) => status::run(args, host).await,
    }
}
