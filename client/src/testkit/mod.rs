//! A real cluster for tests of applications: child processes of the `plimsoll` binary on this machine.
//!
//! Controllers and storage nodes listen on free ports of the loopback interface and keep their data in a folder of
//! their own below the temporary folder. Everything is killed and removed when the [`TestCluster`] is dropped; when
//! the test process itself is killed, its servers die with it.
//!
//! The binary is the one named by the variable `PLIMSOLL_BINARY`, else a file `plimsoll` beside the test program or in
//! the folder above it, else the first in `PATH`.
//!
//! A disk becomes full when you say so: [`TestCluster::set_byte_limit`] changes what a node may use while it runs, from
//! within a second, up and down.
//!
//! ```no_run
//! use plimsoll_client::testkit::TestCluster;
//! use plimsoll_client::{Record, TopicConfig};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut cluster = TestCluster::builder().spus(3).start().await?;
//! let client = cluster.client().clone();
//! let config = TopicConfig { partitions: 3, replicas: 3, min_in_sync: 2, ..Default::default() };
//! client.admin().create_topic("flights", config).await?;
//!
//! let producer = client.producer("flights").build().await?;
//! cluster.set_byte_limit(1, 16 << 20)?; // the disk of node 1 is small from now on
//! cluster.spu(2).kill(); // and node 2 is gone
//! cluster.spu(2).start()?; // and back
//! producer.send(Record::new("on time")).await?.await?;
//! # Ok(())
//! # }
//! ```
//!
//! Only with the feature `testkit`, meant for `dev-dependencies`.

mod error;
mod ports;
mod server;
mod spawn;

use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll_host::Host;
use plimsoll_proto::v1::SpuState;

use crate::client::Client;

pub use self::error::TestkitError;
pub use self::server::TestServer;

/// Smallest byte limit that a storage node takes.
pub const BYTE_LIMIT_MIN: u64 = 16 << 20;
/// Attempts to find ports that stay free until the servers listen.
const STARTS_MAX: u32 = 3;

/// What a [`TestCluster`] consists of.
///
/// ```
/// let small = plimsoll_client::testkit::TestCluster::builder().controllers(1).spus(1).byte_limit(64 << 20);
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is started before start()"]
pub struct TestClusterBuilder {
    controllers: u32,
    spus: u32,
    byte_limit: u64,
    limit: Duration,
    binary: Option<PathBuf>,
    name: String,
}

/// A running cluster; see [the module](self). Ids of servers count from 1.
#[derive(Debug)]
pub struct TestCluster {
    controllers: Vec<TestServer>,
    spus: Vec<TestServer>,
    client: Client,
    // Last, so that processes are gone before their folders.
    folder: Folder,
}

impl TestClusterBuilder {
    /// How many controllers: 1, 3 or 5. Default 1.
    pub fn controllers(mut self, count: u32) -> Self {
        self.controllers = count;
        self
    }

    /// How many storage nodes, with one volume each. Default 1.
    pub fn spus(mut self, count: u32) -> Self {
        self.spus = count;
        self
    }

    /// Bytes that each storage node may use at first, whatever the disk below has. Default 256 MiB, at least
    /// [`BYTE_LIMIT_MIN`].
    pub fn byte_limit(mut self, bytes: u64) -> Self {
        self.byte_limit = bytes;
        self
    }

    /// How long every node may take to come online. Default 40 s.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Name under which the servers are reached, in place of `127.0.0.1`, where they listen: to test what names do.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The `plimsoll` binary to run, in place of the one that is found.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Starts the servers and waits until every node is online.
    ///
    /// # Errors
    /// [`TestkitError`]; nothing is left running.
    pub async fn start(self) -> Result<TestCluster, TestkitError> {
        if !matches!(self.controllers, 1 | 3 | 5) || self.spus == 0 || self.byte_limit < BYTE_LIMIT_MIN {
            return Err(TestkitError::Settings);
        }
        let binary = match &self.binary {
            Some(path) => path.clone(),
            None => spawn::find_binary().ok_or(TestkitError::NoBinary)?,
        };
        let mut starts = 1;
        loop {
            match self.start_once(&binary).await {
                Err(TestkitError::PortTaken) if starts < STARTS_MAX => starts += 1,
                result => return result,
            }
        }
    }

    async fn start_once(&self, binary: &Path) -> Result<TestCluster, TestkitError> {
        let folder = Folder::new()?;
        let ports = spawn::free_ports(self.controllers + self.spus)?;
        let addresses: Vec<String> = ports.iter().map(|port| format!("{}:{port}", self.name)).collect();
        let (controller_addresses, spu_addresses) =
            addresses.split_at(usize::try_from(self.controllers).unwrap_or(1));
        let members: Vec<String> = (1..)
            .zip(controller_addresses)
            .flat_map(|(id, address)| ["--controller".to_owned(), format!("{id}@{address}")])
            .collect();
        let server = |kind: &str, id: u32, address: &str, more: &[&str]| {
            let mut arguments = members.clone();
            arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
            TestServer::start_new(kind, id, address, binary, &folder.path, arguments)
        };
        let byte_limit = self.byte_limit.to_string();
        let controllers = (1..).zip(controller_addresses);
        let mut controllers = controllers
            .map(|(id, address)| server("controller", id, address, &["--bootstrap"]))
            .collect::<Result<Vec<_>, _>>()?;
        let spus = (1..).zip(spu_addresses);
        let mut spus = spus
            .map(|(id, address)| {
                server("spu", id, address, &["--byte-limit", &byte_limit, "--advertise", address])
            })
            .collect::<Result<Vec<_>, _>>()?;
        let client = self.online(controller_addresses, &mut controllers, &mut spus).await?;
        Ok(TestCluster { controllers, spus, client, folder })
    }

    /// Waits until every node is online, or one has ended.
    async fn online(
        &self,
        addresses: &[String],
        controllers: &mut [TestServer],
        spus: &mut [TestServer],
    ) -> Result<Client, TestkitError> {
        let clock = Host::real().clock;
        let deadline = clock.now().saturating_add(self.limit);
        let slice = Duration::from_millis(250);
        let mut connected: Option<Client> = None;
        loop {
            controllers.iter_mut().chain(spus.iter_mut()).try_for_each(TestServer::check)?;
            match &connected {
                None => {
                    let building = Client::builder().controllers(addresses.iter().cloned());
                    connected = building.connect_timeout(slice).build().await.ok();
                }
                Some(client) => {
                    let all = client.wait_metadata(slice, |image| {
                        let online = image.spus.values().filter(|spu| spu.state() == SpuState::Online);
                        online.count() == spus.len() && image.controller_leader.is_some()
                    });
                    if all.await {
                        return Ok(client.clone());
                    }
                }
            }
            if clock.now() >= deadline {
                let logs = controllers.iter().chain(spus.iter()).map(|server| server.log_end(8)).collect();
                return Err(TestkitError::NotOnline { waited: self.limit, logs });
            }
        }
    }
}

impl TestCluster {
    /// One controller and one storage node, unless said otherwise.
    pub fn builder() -> TestClusterBuilder {
        TestClusterBuilder {
            controllers: 1,
            spus: 1,
            byte_limit: 256 << 20,
            limit: Duration::from_secs(40),
            binary: None,
            name: "127.0.0.1".to_owned(),
        }
    }

    /// A client of the cluster, connected.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where the controllers listen, for clients of your own.
    pub fn controller_addresses(&self) -> Vec<String> {
        self.controllers.iter().map(|server| server.address().to_owned()).collect()
    }

    /// A controller.
    ///
    /// # Panics
    /// When there is no such controller.
    pub fn controller(&mut self, id: u32) -> &mut TestServer {
        nth(&mut self.controllers, id)
    }

    /// A storage node.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn spu(&mut self, id: u32) -> &mut TestServer {
        nth(&mut self.spus, id)
    }

    /// Sets how many bytes a storage node may use from now on, within a second; less than it uses already makes it
    /// full. Stays over restarts.
    ///
    /// # Errors
    /// [`TestkitError::Settings`] below [`BYTE_LIMIT_MIN`]; [`TestkitError::Host`] when the file can't be written.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn set_byte_limit(&mut self, spu: u32, bytes: u64) -> Result<(), TestkitError> {
        if bytes < BYTE_LIMIT_MIN {
            return Err(TestkitError::Settings);
        }
        spawn::replace_file(self.spu(spu).data_dir(), "byte-limit", &format!("{bytes}\n"))
    }

    /// The folder of the cluster, with a data directory and a log for each server.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }
}

fn nth(servers: &mut [TestServer], id: u32) -> &mut TestServer {
    let count = servers.len();
    let at = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
    at.and_then(|at| servers.get_mut(at))
        .unwrap_or_else(|| panic!("there are servers 1 to {count}, not {id}"))
}

/// Removed when dropped.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new() -> Result<Self, TestkitError> {
        let unique = Host::real().random.next_u64();
        let path = std::env::temp_dir().join(format!("plimsoll-test-{}-{unique:016x}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| TestkitError::host("make a folder", &path, &error))?;
        Ok(Self { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What can't be removed is left to the system's cleaning of temporary files.
        drop(std::fs::remove_dir_all(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_work_is_told_before_anything_is_started() {
        let wrong = [
            TestCluster::builder().controllers(2),
            TestCluster::builder().spus(0),
            TestCluster::builder().byte_limit(1),
        ];
        for builder in wrong {
            assert!(matches!(builder.start().await, Err(TestkitError::Settings)));
        }
        let nothing = TestCluster::builder().binary("/nonexistent/plimsoll").start().await;
        assert!(matches!(nothing, Err(TestkitError::Host { .. })), "{nothing:?}");
    }

    #[tokio::test]
    async fn a_server_that_ends_is_told_with_its_last_words() {
        // Not our binary: it ends at once, whatever the arguments.
        let ended = TestCluster::builder().binary("/bin/false").start().await;
        assert!(matches!(ended, Err(TestkitError::Ended { .. })), "{ended:?}");
    }
}
