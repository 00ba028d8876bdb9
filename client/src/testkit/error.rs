//! What can go wrong with a test cluster.

use std::io;
use std::path::Path;
use std::time::Duration;

/// Why a [`TestCluster`](super::TestCluster) is not as asked.
///
/// ```
/// use plimsoll_client::testkit::{TestCluster, TestkitError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let none = TestCluster::builder().spus(0).start().await;
/// assert!(matches!(none, Err(TestkitError::Settings)));
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum TestkitError {
    /// Such a cluster can't be.
    #[error(
        "a cluster has 1, 3 or 5 controllers, at least one storage node, and a byte limit of 16 MiB or more"
    )]
    Settings,
    /// There is no binary.
    #[error(
        "there is no binary plimsoll: build it with `cargo build -p plimsoll-cli`, or name it with PLIMSOLL_BINARY"
    )]
    NoBinary,
    /// Another process took a port that was free a moment ago, again and again.
    #[error("no ports stay free on the loopback interface")]
    PortTaken,
    /// A server ended by itself.
    #[error("{name} ended ({status}); its log ends:\n{log}")]
    Ended {
        /// Such as `spu-1`.
        name: String,
        /// How.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// Not every node came online in time.
    #[error("not online within {} s; the logs end:\n{}", waited.as_secs(), logs.join("\n"))]
    NotOnline {
        /// How long was waited.
        waited: Duration,
        /// The end of each log.
        logs: Vec<String>,
    },
    /// The machine refused.
    #[error("cannot {what} {path}: {why}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: String,
        /// What the system said.
        why: String,
    },
}

impl TestkitError {
    pub(super) fn host(what: &'static str, path: &Path, error: &io::Error) -> Self {
        Self::Host { what, path: path.display().to_string(), why: error.to_string() }
    }
}
