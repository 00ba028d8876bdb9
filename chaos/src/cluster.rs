//! The cluster of a run: controllers and storage nodes as processes of their own, each node on disks of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use plimsoll_client::Client;
use plimsoll_host::Host;

use crate::process::{self, Server};
use crate::rig::{Disk, DiskKind, Rig, VolumeSpec};

/// What a cluster consists of. There are always three controllers.
#[derive(Clone, Debug)]
pub struct Topology {
    /// The disks of each storage node.
    pub spus: Vec<Vec<VolumeSpec>>,
    /// A disk of its own for each controller; `None` is a plain folder.
    pub controller_disk: Option<VolumeSpec>,
}

impl Topology {
    /// Three storage nodes with one disk each.
    pub fn three_nodes(disk: VolumeSpec) -> Self {
        Self { spus: vec![vec![disk]; 3], controller_disk: None }
    }
}

/// Controllers of every cluster.
pub const CONTROLLERS: u32 = 3;

/// The running cluster. Dropped, it kills the servers and then undoes the rig.
#[derive(Debug)]
pub struct Cluster {
    controllers: Vec<Server>,
    controller_disks: Vec<Disk>,
    spus: Vec<Server>,
    controller_addresses: Vec<String>,
    volumes: Vec<Vec<Disk>>,
    binary: PathBuf,
    rig: Rig,
}

impl Cluster {
    /// Makes the disks and starts everything.
    ///
    /// # Errors
    /// When the binary is missing, or a process or a disk can't be made.
    pub fn start(mut rig: Rig, topology: &Topology) -> anyhow::Result<Self> {
        let binary = process::find_binary()?;
        let logs = rig.folder("logs")?;
        let controller_addresses = addresses(usize::try_from(CONTROLLERS)?)?;
        let members: Vec<String> = (1u32..)
            .zip(&controller_addresses)
            .flat_map(|(id, address)| ["--controller".to_owned(), format!("{id}@{address}")])
            .collect();

        let mut controllers = Vec::new();
        let mut controller_disks = Vec::new();
        for (id, address) in (1u32..).zip(&controller_addresses) {
            let name = format!("controller-{id}");
            let data = match topology.controller_disk {
                Some(spec) => {
                    let disk = rig.volume(&name, spec)?;
                    let data = disk.data().to_owned();
                    controller_disks.push(disk);
                    data
                }
                None => rig.folder(&name)?,
            };
            let mut arguments = command(["controller", "run"], id, &[&data], address);
            arguments.extend(members.iter().cloned());
            arguments.push("--bootstrap".to_owned());
            controllers.push(Server::new(&name, &binary, arguments, logs.join(format!("{name}.log"))));
        }
        let mut volumes = Vec::new();
        let mut spus = Vec::new();
        let spu_addresses = addresses(topology.spus.len())?;
        for ((id, address), specs) in (1u32..).zip(&spu_addresses).zip(&topology.spus) {
            let name = format!("spu-{id}");
            let mut disks = Vec::new();
            for (number, spec) in (1u32..).zip(specs) {
                let name =
                    if specs.len() == 1 { format!("disk-{id}") } else { format!("disk-{id}-{number}") };
                disks.push(rig.volume(&name, *spec)?);
            }
            let data: Vec<&Path> = disks.iter().map(Disk::data).collect();
            let mut arguments = command(["spu", "run"], id, &data, address);
            arguments.extend(["--advertise".to_owned(), address.clone()]);
            arguments.extend(members.iter().cloned());
            if rig.kind() == DiskKind::Simulated {
                let limit = specs.iter().map(|spec| spec.bytes).min().unwrap_or(0);
                arguments.extend(["--byte-limit".to_owned(), limit.to_string()]);
            }
            spus.push(Server::new(&name, &binary, arguments, logs.join(format!("{name}.log"))));
            volumes.push(disks);
        }
        let mut cluster =
            Self { controllers, controller_disks, spus, controller_addresses, volumes, binary, rig };
        for server in cluster.controllers.iter_mut().chain(&mut cluster.spus) {
            server.start()?;
        }
        Ok(cluster)
    }

    /// Waits until every node is online.
    ///
    /// # Errors
    /// When that does not happen in time, with the end of a log.
    pub async fn connect(&mut self, host: &Host) -> anyhow::Result<Client> {
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
        let nodes = self.spus.len();
        let deadline = host.clock.now() + LIMIT;
        loop {
            let online = client.wait_metadata(Duration::from_millis(500), |image| {
                let online =
                    image.spus.values().filter(|spu| spu.state() == plimsoll_proto::v1::SpuState::Online);
                online.count() == nodes && image.controller_leader.is_some()
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
    ///
    /// # Errors
    /// The end of its log.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        self.controllers.iter_mut().chain(&mut self.spus).try_for_each(Server::check_alive)
    }

    /// A storage node; ids count from 1.
    pub fn spu(&mut self, id: u32) -> &mut Server {
        &mut self.spus[index(id)]
    }

    /// A controller; ids count from 1.
    pub fn controller(&mut self, id: u32) -> &mut Server {
        &mut self.controllers[index(id)]
    }

    /// The first disk of a storage node.
    pub fn disk(&self, id: u32) -> &Disk {
        &self.volumes[index(id)][0]
    }

    /// All disks of a storage node.
    pub fn disks(&self, id: u32) -> &[Disk] {
        &self.volumes[index(id)]
    }

    /// The disk of a controller, in a topology where it has one of its own.
    pub fn controller_disk(&self, id: u32) -> Option<&Disk> {
        self.controller_disks.get(index(id))
    }

    /// Ids of the storage nodes.
    pub fn spu_ids(&self) -> std::ops::RangeInclusive<u32> {
        1..=u32::try_from(self.spus.len()).unwrap_or(0)
    }

    /// Logs of the storage nodes, in order of id.
    pub fn spu_logs(&self) -> Vec<PathBuf> {
        self.spus.iter().map(|spu| spu.log().to_owned()).collect()
    }

    /// Folder of the run.
    pub fn root(&self) -> &Path {
        self.rig.root()
    }

    /// What the disks are.
    pub fn disk_kind(&self) -> DiskKind {
        self.rig.kind()
    }

    /// The binary that all servers run.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Runs one administrative command of the `plimsoll` binary; what it printed.
    ///
    /// # Errors
    /// When its status is not 0, with what it said.
    pub async fn command_line(&self, arguments: &[&str]) -> anyhow::Result<String> {
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

fn addresses(count: usize) -> anyhow::Result<Vec<String>> {
    let address = |_| Ok(format!("127.0.0.1:{}", process::free_port()?));
    (0..count).map(address).collect()
}

fn command(verbs: [&str; 2], id: u32, data: &[&Path], listen: &str) -> Vec<String> {
    let mut arguments: Vec<String> = verbs.iter().map(|verb| (*verb).to_owned()).collect();
    arguments.extend(["--id".to_owned(), id.to_string()]);
    for data in data {
        arguments.extend(["--data-dir".to_owned(), data.display().to_string()]);
    }
    arguments.extend(["--listen".to_owned(), listen.to_owned()]);
    arguments
}
