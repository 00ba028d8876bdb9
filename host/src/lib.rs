//! What every process needs from its host, each behind a seam: time, tasks, randomness, network; and the
//! log budget, retries and configuration.
//!
//! What it does not do: it knows nothing of topics, partitions or disks.
//!
//! Start at [`Host`]. A real process takes [`Host::real`]; a simulation builds the parts itself, so that a
//! whole cluster runs in one thread and the same seed gives the same run.

pub mod clock;
pub mod config;
pub mod log_budget;
pub mod logging;
pub mod net;
pub mod random;
pub mod retry;
pub mod tasks;

pub use clock::{Clock, Elapsed};
pub use net::{BindError, ChannelOptions, Listener, Network, Probe, ServerOptions, server};
pub use random::Random;
pub use tasks::{Lane, Task, Tasks};

/// The seams of one process, passed in at its start. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Host {
    /// Time.
    pub clock: Clock,
    /// Tasks and threads.
    pub tasks: Tasks,
    /// Randomness.
    pub random: Random,
    /// Connections and listeners.
    pub network: Network,
}

impl Host {
    /// The operating system's time, threads, randomness and network.
    pub fn real() -> Self {
        let random = Random::from_system();
        Self { clock: Clock::real(), tasks: Tasks::threads(), network: Network::real(), random }
    }
}
