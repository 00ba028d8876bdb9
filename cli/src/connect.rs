//! Which cluster a command talks to.

use std::time::Duration;

use plimsoll_client::{Client, ClientBuilder};
use plimsoll_host::Host;
use plimsoll_host::config::Span;

use crate::exit::Failure;

/// Controllers that a local cluster has when nothing else is said.
pub(crate) const CONTROLLERS_DEFAULT: &str = "127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003";
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Where nothing listens anywhere, waiting longer is of no use to somebody at a terminal.
const REFUSED_MAX: Duration = Duration::from_millis(1500);

/// `--controller` and `--timeout`, on every command that talks to a cluster.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    /// A controller; repeat it for each, all are tried at once
    #[arg(
        long = "controller",
        value_name = "[ID@]HOST:PORT",
        env = "PLIMSOLL_CONTROLLER",
        value_delimiter = ',',
        default_value = CONTROLLERS_DEFAULT
    )]
    pub(crate) controllers: Vec<String>,
    /// How long each call may take, retries included, such as 500ms or 30s
    #[arg(long, default_value = "30s", env = "PLIMSOLL_TIMEOUT")]
    pub(crate) timeout: Span,
}

impl ConnectArgs {
    pub(crate) fn builder(&self, host: &Host) -> ClientBuilder {
        Client::builder()
            .host(host.clone())
            .controllers(self.controllers.iter().cloned())
            .connect_timeout(self.timeout.0.min(CONNECT_MAX))
            .refused_timeout(REFUSED_MAX)
            .call_timeout(self.timeout.0)
    }

    pub(crate) async fn connect(&self, host: &Host) -> Result<Client, Failure> {
        Ok(self.builder(host).build().await?)
    }
}
