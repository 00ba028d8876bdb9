//! A cluster of real processes on this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use plimsoll_chaos::process::{self, Server};
use plimsoll_client::Client;
use plimsoll_proto::v1::SpuState;

use crate::one_shot::{Ended, run_to_end};
use crate::scratch::Scratch;
use crate::waiting::eventually;

/// How long a cluster may take until every node is online.
const ONLINE_LIMIT: Duration = Duration::from_secs(40);

/// What a volume without a filesystem of its own may use.
const FOLDER_LIMIT: &str = "256MiB";

/// What a cluster consists of.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Controllers: 1, 3 or 5.
    pub controllers: u32,
    /// Storage nodes, with one volume each.
    pub spus: u32,
    /// Size of a tmpfs for each volume; `None` uses plain folders with a byte limit of 256 MiB.
    pub disk_bytes: Option<u64>,
}

/// Running controllers and storage nodes. Dropping it kills them and removes what they left.
#[derive(Debug)]
pub struct LocalCluster {
    controllers: Vec<Server>,
    spus: Vec<Server>,
    controller_addresses: Vec<String>,
    spu_addresses: Vec<String>,
    data: Vec<PathBuf>,
    // Last, so that processes are gone before their folders.
    scratch: Scratch,
}

impl LocalCluster {
    /// Starts every process; see [`LocalCluster::online`].
    ///
    /// # Errors
    /// When the binary is missing, a folder or mount can't be made, or a process can't be started.
    pub fn start(layout: Layout) -> anyhow::Result<Self> {
        Self::start_with(layout, &[], &[])
    }

    /// The same, with further arguments for each controller and each storage node.
    ///
    /// # Errors
    /// As [`LocalCluster::start`].
    pub fn start_with(layout: Layout, for_controllers: &[&str], for_spus: &[&str]) -> anyhow::Result<Self> {
        let binary = process::find_binary()?;
        let mut scratch = Scratch::new()?;
        let logs = scratch.folder("logs")?;
        let address = || Ok(format!("127.0.0.1:{}", process::free_port()?));
        let controller_addresses =
            (0..layout.controllers).map(|_| address()).collect::<anyhow::Result<Vec<_>>>()?;
        let spu_addresses = (0..layout.spus).map(|_| address()).collect::<anyhow::Result<Vec<_>>>()?;
        let members = members(&controller_addresses);

        let mut controllers = Vec::new();
        for (id, address) in (1u32..).zip(&controller_addresses) {
            let name = format!("controller-{id}");
            let mut arguments = server("controller", id, &scratch.folder(&name)?, address);
            arguments.extend(members.iter().cloned());
            arguments.push("--bootstrap".to_owned());
            arguments.extend(for_controllers.iter().map(|argument| (*argument).to_owned()));
            controllers.push(Server::new(&name, &binary, arguments, logs.join(format!("{name}.log"))));
        }
        let (mut spus, mut data) = (Vec::new(), Vec::new());
        for (id, address) in (1u32..).zip(&spu_addresses) {
            let name = format!("spu-{id}");
            let folder = match layout.disk_bytes {
                Some(bytes) => scratch.tmpfs(&name, bytes)?,
                None => scratch.folder(&name)?,
            };
            let mut arguments = server("spu", id, &folder, address);
            arguments.extend(members.iter().cloned());
            if layout.disk_bytes.is_none() {
                // How full this machine is must not decide what a test sees.
                arguments.extend(["--byte-limit".to_owned(), FOLDER_LIMIT.to_owned()]);
            }
            arguments.extend(for_spus.iter().map(|argument| (*argument).to_owned()));
            spus.push(Server::new(&name, &binary, arguments, logs.join(format!("{name}.log"))));
            data.push(folder);
        }
        let mut cluster = Self { controllers, spus, controller_addresses, spu_addresses, data, scratch };
        for server in cluster.controllers.iter_mut().chain(&mut cluster.spus) {
            server.start()?;
        }
        Ok(cluster)
    }

    /// Connects, and waits until every node is online.
    ///
    /// # Errors
    /// With the end of a server's log when one ended or they are not online in time.
    pub async fn online(&mut self) -> anyhow::Result<Client> {
        let connecting = Client::builder()
            .controllers(self.controller_addresses.iter().cloned())
            .connect_timeout(ONLINE_LIMIT)
            .build();
        let client = match connecting.await {
            Ok(client) => client,
            Err(error) => {
                self.check_alive()?;
                bail!("the controllers do not answer: {error}\n{}", self.controllers[0].last_lines(15));
            }
        };
        let all = self.spus.len();
        let online = client.wait_metadata(ONLINE_LIMIT, |image| {
            let online = image.spus.values().filter(|spu| spu.state() == SpuState::Online).count();
            online == all && image.controller_leader.is_some()
        });
        if !online.await {
            self.check_alive()?;
            bail!("the storage nodes are not online:\n{}", self.spus[0].last_lines(15));
        }
        Ok(client)
    }

    /// Fails when a server has ended by itself.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        self.controllers.iter_mut().chain(&mut self.spus).try_for_each(Server::check_alive)
    }

    /// The end of every server's log, for the message of a failed test.
    pub fn logs(&self) -> String {
        let end = |server: &Server| format!("--- {}\n{}\n", server.name, server.last_lines(25));
        self.controllers.iter().chain(&self.spus).map(end).collect()
    }

    /// Waits until the log of a storage node has `words` in it.
    ///
    /// # Errors
    /// After 20 s, with the end of the log.
    pub async fn spu_says(&self, id: u32, words: &str) -> anyhow::Result<()> {
        let spu = &self.spus[index(id)];
        eventually(Duration::from_secs(20), words, || async {
            let log = std::fs::read_to_string(spu.log())?;
            if log.contains(words) { Ok(()) } else { bail!("the log ends:\n{}", spu.last_lines(10)) }
        })
        .await
    }

    /// A storage node; ids count from 1.
    pub fn spu(&mut self, id: u32) -> &mut Server {
        &mut self.spus[index(id)]
    }

    /// A controller; ids count from 1.
    pub fn controller(&mut self, id: u32) -> &mut Server {
        &mut self.controllers[index(id)]
    }

    /// Where a storage node listens.
    pub fn spu_address(&self, id: u32) -> &str {
        &self.spu_addresses[index(id)]
    }

    /// The data directory of a storage node.
    pub fn data(&self, id: u32) -> &Path {
        &self.data[index(id)]
    }

    /// Where the controllers listen.
    pub fn controller_addresses(&self) -> &[String] {
        &self.controller_addresses
    }

    /// `--controller ID@HOST:PORT` for every controller.
    pub fn members(&self) -> Vec<String> {
        members(&self.controller_addresses)
    }

    /// Starts a controller that joins, with the next number; it is to be added by `controller add`.
    ///
    /// # Errors
    /// When no folder can be made or the process can't be started.
    pub fn start_joining_controller(&mut self) -> anyhow::Result<String> {
        let id = u32::try_from(self.controllers.len())? + 1;
        let address = format!("127.0.0.1:{}", process::free_port()?);
        let name = format!("controller-{id}");
        let mut arguments = server("controller", id, &self.scratch.folder(&name)?, &address);
        self.controller_addresses.push(address.clone());
        arguments.extend(self.members());
        arguments.push("--join".to_owned());
        let log = self.scratch.root().join("logs").join(format!("{name}.log"));
        let mut joining = Server::new(&name, &process::find_binary()?, arguments, log);
        joining.start()?;
        self.controllers.push(joining);
        Ok(format!("{id}@{address}"))
    }

    /// The folder of this test.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Runs a command of the binary against this cluster.
    ///
    /// # Errors
    /// When it can't be started or does not end.
    pub async fn command(&self, arguments: &[&str]) -> anyhow::Result<Ended> {
        let members = self.members();
        let all: Vec<&str> = arguments.iter().copied().chain(members.iter().map(String::as_str)).collect();
        run_to_end(&all, "").await
    }
}

fn index(id: u32) -> usize {
    usize::try_from(id).unwrap_or(0).saturating_sub(1)
}

fn members(addresses: &[String]) -> Vec<String> {
    (1u32..)
        .zip(addresses)
        .flat_map(|(id, address)| ["--controller".to_owned(), format!("{id}@{address}")])
        .collect()
}

fn server(kind: &str, id: u32, data: &Path, listen: &str) -> Vec<String> {
    let id = id.to_string();
    let data = data.display().to_string();
    [kind, "run", "--id", &id, "--data-dir", &data, "--listen", listen].map(str::to_owned).to_vec()
}
