//! Three controllers and three storage nodes, each node on a disk of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use plimsoll_client::Client;
use plimsoll_host::Host;

use crate::process::{self, Server};
use crate::rig::{DiskKind, Rig};

/// Size of each node's disk.
pub(super) const DISK_BYTES: u64 = 256 << 20;
/// Nodes of each kind.
pub(super) const NODES: u32 = 3;

/// The running cluster. Dropped, it kills the servers and then undoes the rig.
pub(super) struct Cluster {
    controllers: Vec<Server>,
    spus: Vec<Server>,
    controller_addresses: Vec<String>,
    volumes: Vec<PathBuf>,
    binary: PathBuf,
    rig: Rig,
}

impl Cluster {
    /// Makes the disks and starts everything.
    pub(super) fn start(keep: bool) -> anyhow::Result<Self> {
        let binary = process::find_binary()?;
        let mut rig = Rig::create(keep)?;
        let logs = rig.folder("logs")?;
        let ports = (0..2 * NODES).map(|_| process::free_port()).collect::<anyhow::Result<Vec<_>>>()?;
        let (controller_ports, spu_ports) = ports.split_at(3);
        let controller_addresses: Vec<String> =
            controller_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let members: Vec<String> = (1u32..)
            .zip(&controller_addresses)
            .flat_map(|(id, address)| ["--controller".to_owned(), format!("{id}@{address}")])
            .collect();

        let mut controllers = Vec::new();
        for (id, address) in (1u32..).zip(&controller_addresses) {
            let name = format!("controller-{id}");
            let data = rig.folder(&name)?;
            let mut arguments = command(["controller", "run"], id, &data, address);
            arguments.extend(members.iter().cloned());
            arguments.push("--bootstrap".to_owned());
            controllers.push(Server::new(&name, &binary, arguments, logs.join(format!("{name}.log"))));
        }
        let mut volumes = Vec::new();
        let mut spus = Vec::new();
        for (id, port) in (1u32..).zip(spu_ports) {
            let name = format!("spu-{id}");
            let volume = rig.volume(&format!("disk-{id}"), DISK_BYTES)?;
            let data = rig.folder(&format!("disk-{id}/data"))?;
            let address = format!("127.0.0.1:{port}");
            let mut arguments = command(["spu", "run"], id, &data, &address);
            arguments.extend(["--advertise".to_owned(), address]);
            arguments.extend(members.iter().cloned());
            if rig.kind() == DiskKind::Simulated {
                bail!(
                    "no filesystem of its own could be mounted for {name}: run as root, or allow `unshare -Urm`"
                );
            }
            spus.push(Server::new(&name, &binary, arguments, logs.join(format!("{name}.log"))));
            volumes.push(volume);
        }
        let mut cluster = Self { controllers, spus, controller_addresses, volumes, binary, rig };
        for server in cluster.controllers.iter_mut().chain(&mut cluster.spus) {
            server.start()?;
        }
        Ok(cluster)
    }

    /// Waits until every node is online.
    pub(super) async fn connect(&mut self, host: &Host) -> anyhow::Result<Client> {
        const LIMIT: Duration = Duration::from_secs(40);
        let connecting = Client::builder()
            .host(host.clone())
            .controllers(self.controller_addresses.iter().cloned())
            .connect_timeout(LIMIT)
            .build();
        let client = match connecting.await {
            Ok(client) => client,
            Err(error) => {
                self.check_alive()?;
                bail!("the controllers do not answer: {error}\n{}", self.controller(1).last_lines(15));
            }
        };
        let deadline = host.clock.now() + LIMIT;
        loop {
            let online = client.wait_metadata(Duration::from_millis(500), |image| {
                let online =
                    image.spus.values().filter(|spu| spu.state() == plimsoll_proto::v1::SpuState::Online);
                online.count() == 3 && image.controller_leader.is_some()
            });
            if online.await {
                return Ok(client);
            }
            self.check_alive()?;
            if host.clock.now() > deadline {
                bail!(
                    "the storage nodes are not online after {} s:\n{}",
                    LIMIT.as_secs(),
                    self.spu(1).last_lines(15)
                );
            }
        }
    }

    /// Fails when a server has ended by itself.
    pub(super) fn check_alive(&mut self) -> anyhow::Result<()> {
        self.controllers.iter_mut().chain(&mut self.spus).try_for_each(Server::check_alive)
    }

    /// A storage node; ids count from 1.
    pub(super) fn spu(&mut self, id: u32) -> &mut Server {
        &mut self.spus[index(id)]
    }

    /// A controller; ids count from 1.
    pub(super) fn controller(&mut self, id: u32) -> &mut Server {
        &mut self.controllers[index(id)]
    }

    /// Where the disk of a storage node is mounted.
    pub(super) fn volume(&self, id: u32) -> &Path {
        &self.volumes[index(id)]
    }

    /// Logs of the storage nodes, in order of id.
    pub(super) fn spu_logs(&self) -> Vec<PathBuf> {
        self.spus.iter().map(|spu| spu.log().to_owned()).collect()
    }

    /// Folder of the run.
    pub(super) fn root(&self) -> &Path {
        self.rig.root()
    }

    /// What the disks are.
    pub(super) fn disk_kind(&self) -> DiskKind {
        self.rig.kind()
    }

    /// The binary that all servers run.
    pub(super) fn binary(&self) -> &Path {
        &self.binary
    }

    /// Runs one administrative command of the `plimsoll` binary; what it printed.
    pub(super) async fn command_line(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(&self.binary);
        command.args(arguments).kill_on_drop(true).stdin(std::process::Stdio::null());
        for address in &self.controller_addresses {
            command.args(["--controller", address]);
        }
        let output =
            command.output().await.with_context(|| format!("run plimsoll {}", arguments.join(" ")))?;
        if !output.status.success() {
            bail!(
                "plimsoll {} ended with {}: {}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn index(id: u32) -> usize {
    usize::try_from(id).unwrap_or(0).saturating_sub(1)
}

fn command(verbs: [&str; 2], id: u32, data: &Path, listen: &str) -> Vec<String> {
    let mut arguments: Vec<String> = verbs.iter().map(|verb| (*verb).to_owned()).collect();
    arguments.extend(["--id".to_owned(), id.to_string()]);
    arguments.extend(["--data-dir".to_owned(), data.display().to_string()]);
    arguments.extend(["--listen".to_owned(), listen.to_owned()]);
    arguments
}
