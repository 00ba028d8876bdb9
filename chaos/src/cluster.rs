//! The cluster of a run: controllers and storage nodes as processes of their own, each node on disks of its own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use plimsoll_client::Client;
use plimsoll_host::Host;

use crate::nemesis::wall_clock::WallClock;
use crate::process::{self, Server};
use crate::rig::network::Lan;
use crate::rig::{Disk, DiskKind, Rig, VolumeSpec};

/// What a cluster consists of. There are always three controllers.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// The disks of each storage node.
    pub spus: Vec<Vec<VolumeSpec>>,
    /// A disk of its own for each controller; `None` is a plain folder.
    pub controller_disk: Option<VolumeSpec>,
    /// Each controller lies on the first disk of the storage node with the same number.
    pub controllers_with_spus: bool,
    /// Every server is a host of its own, on a network that can be cut.
    pub network: bool,
    /// The wall clock of every storage node can be set.
    pub clocks: bool,
    /// The logs of the storage nodes lie on their first disks.
    pub logs_on_disks: bool,
    /// Further arguments of every storage node.
    pub spu_arguments: Vec<&'static str>,
    /// Further arguments of every controller.
    pub controller_arguments: Vec<&'static str>,
}

impl Topology {
    /// Three storage nodes with one disk each.
    pub fn three_nodes(disk: VolumeSpec) -> Self {
        Self { spus: vec![vec![disk]; 3], ..Self::default() }
    }
}

/// Controllers of every cluster.
pub const CONTROLLERS: u32 = 3;
/// Last part of the addresses of controllers and storage nodes, less their ids.
const CONTROLLER_HOST: u8 = 10;
const SPU_HOST: u8 = 20;

/// The running cluster. Dropped, it kills the servers and then undoes the rig.
#[derive(Debug)]
pub struct Cluster {
    controllers: Vec<Server>,
    controller_disks: Vec<Disk>,
    spus: Vec<Server>,
    controller_addresses: Vec<String>,
    volumes: Vec<Vec<Disk>>,
    clocks: Vec<WallClock>,
    topology: Topology,
    logs: PathBuf,
    binary: PathBuf,
    lan: Option<Lan>,
    rig: Rig,
}

impl Cluster {
    /// Makes the disks and starts everything.
    ///
    /// # Errors
    /// When the binary is missing, or a process or a disk can't be made; [`crate::rig::Missing`] for what this machine
    /// does not have.
    pub fn start(rig: Rig, topology: &Topology) -> anyhow::Result<Self> {
        let mut cluster = Self {
            controllers: Vec::new(),
            controller_disks: Vec::new(),
            spus: Vec::new(),
            controller_addresses: Vec::new(),
            volumes: Vec::new(),
            clocks: Vec::new(),
            topology: topology.clone(),
            logs: rig.folder("logs")?,
            binary: process::find_binary()?,
            lan: if topology.network { Some(Lan::create()?) } else { None },
            rig,
        };
        let mut hosts = Vec::new();
        for id in 1..=CONTROLLERS {
            let (address, namespace) = cluster.host(CONTROLLER_HOST, id)?;
            cluster.controller_addresses.push(address);
            hosts.push(namespace);
        }
        // Disks of storage nodes first: controllers may lie on them.
        for (id, specs) in (1u32..).zip(&topology.spus) {
            cluster.make_disks(id, specs)?;
        }
        for (id, namespace) in (1u32..).zip(hosts) {
            cluster.make_controller(id, namespace)?;
        }
        for id in (1u32..).take(topology.spus.len()) {
            cluster.make_spu(id)?;
        }
        for server in cluster.controllers.iter_mut().chain(&mut cluster.spus) {
            server.start()?;
        }
        Ok(cluster)
    }

    /// Adds and starts another storage node with these disks; its id.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn add_spu(&mut self, disks: &[VolumeSpec]) -> anyhow::Result<u32> {
        let id = u32::try_from(self.spus.len())? + 1;
        self.make_disks(id, disks)?;
        self.make_spu(id)?;
        self.spu(id).start()?;
        Ok(id)
    }

    fn make_disks(&mut self, id: u32, specs: &[VolumeSpec]) -> anyhow::Result<()> {
        let mut disks = Vec::new();
        for (number, spec) in (1u32..).zip(specs) {
            let name = if specs.len() == 1 { format!("disk-{id}") } else { format!("disk-{id}-{number}") };
            disks.push(self.rig.volume(&name, *spec)?);
        }
        self.volumes.push(disks);
        Ok(())
    }

    fn make_controller(&mut self, id: u32, namespace: Option<PathBuf>) -> anyhow::Result<()> {
        let name = format!("controller-{id}");
        let data = match self.topology.controller_disk {
            _ if self.topology.controllers_with_spus => {
                let data = self.disk(id).folder().join(&name);
                std::fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
                data
            }
            Some(spec) => {
                let disk = self.rig.volume(&name, spec)?;
                let data = disk.data().to_owned();
                self.controller_disks.push(disk);
                data
            }
            None => self.rig.folder(&name)?,
        };
        let address = &self.controller_addresses[index(id)];
        let mut arguments = command(["controller", "run"], id, &[&data], address);
        arguments.extend(self.members());
        arguments.push("--bootstrap".to_owned());
        arguments.extend(self.topology.controller_arguments.iter().map(|argument| (*argument).to_owned()));
        let log = self.logs.join(format!("{name}.log"));
        let server = Server::new(&name, &self.binary, arguments, log).in_namespace(namespace);
        self.controllers.push(server);
        Ok(())
    }

    fn make_spu(&mut self, id: u32) -> anyhow::Result<()> {
        let name = format!("spu-{id}");
        let (address, namespace) = self.host(SPU_HOST, id)?;
        let data: Vec<&Path> = self.disks(id).iter().map(Disk::data).collect();
        let mut arguments = command(["spu", "run"], id, &data, &address);
        arguments.extend(["--advertise".to_owned(), address]);
        arguments.extend(self.members());
        arguments.extend(self.topology.spu_arguments.iter().map(|argument| (*argument).to_owned()));
        if self.rig.kind() == DiskKind::Simulated {
            let limit = self.disks(id).iter().map(Disk::bytes).min().unwrap_or(0);
            arguments.extend(["--byte-limit".to_owned(), limit.to_string()]);
        }
        let logs = if self.topology.logs_on_disks { self.disk(id).folder() } else { &self.logs };
        let log = logs.join(format!("{name}.log"));
        let mut server = Server::new(&name, &self.binary, arguments, log).in_namespace(namespace);
        if self.topology.clocks {
            let clock = WallClock::create(self.rig.root().join(format!("{name}.clock")))?;
            server = server.with_environment(clock.environment());
            self.clocks.push(clock);
        }
        self.spus.push(server);
        Ok(())
    }

    /// Where a server listens, and its namespace where it has one.
    fn host(&mut self, first: u8, id: u32) -> anyhow::Result<(String, Option<PathBuf>)> {
        match &mut self.lan {
            None => Ok((format!("127.0.0.1:{}", process::free_port()?), None)),
            Some(lan) => {
                let host = lan.add(first + u8::try_from(id)?)?;
                Ok((format!("{}:7000", host.address), Some(host.namespace())))
            }
        }
    }

    fn members(&self) -> Vec<String> {
        (1u32..)
            .zip(&self.controller_addresses)
            .flat_map(|(id, address)| ["--controller".to_owned(), format!("{id}@{address}")])
            .collect()
    }

    /// The network, in a topology that has one.
    ///
    /// # Errors
    /// When it has none.
    pub fn lan(&self) -> anyhow::Result<&Lan> {
        self.lan.as_ref().context("this cluster has no network of its own")
    }

    /// Address of a storage node on that network.
    pub fn spu_host(id: u32) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, SPU_HOST.saturating_add(u8::try_from(id).unwrap_or(0)))
    }

    /// Address of a controller on that network.
    pub fn controller_host(id: u32) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, CONTROLLER_HOST.saturating_add(u8::try_from(id).unwrap_or(0)))
    }

    /// The wall clock of a storage node, in a topology where it can be set.
    ///
    /// # Errors
    /// When it can't.
    pub fn wall_clock(&self, id: u32) -> anyhow::Result<&WallClock> {
        self.clocks.get(index(id)).context("the clocks of this cluster are right")
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

    /// Where the controllers listen.
    pub fn controller_addresses(&self) -> &[String] {
        &self.controller_addresses
    }

    /// A client with connections of its own.
    ///
    /// # Errors
    /// When no controller answers.
    pub async fn another_client(&self, host: &Host) -> anyhow::Result<Client> {
        let client =
            Client::builder().host(host.clone()).controllers(self.controller_addresses.iter().cloned());
        client.build().await.context("another client")
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

    /// `kill -9` of a controller that is not waited for, while others are at work; [`Server::kill`] takes it away.
    pub fn strike_controller(&self, id: u32) {
        self.controllers[index(id)].strike();
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

    /// Starts a command of the `plimsoll` binary whose output nobody reads; killed when dropped.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start_command(&self, arguments: &[&str]) -> anyhow::Result<tokio::process::Child> {
        let mut command = self.command(arguments);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
        command.spawn().with_context(|| format!("start plimsoll {}", arguments.join(" ")))
    }

    fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.binary);
        command.args(arguments).kill_on_drop(true).stdin(std::process::Stdio::null());
        for address in &self.controller_addresses {
            command.args(["--controller", address]);
        }
        command
    }

    /// Runs one administrative command of the `plimsoll` binary; what it printed.
    ///
    /// # Errors
    /// When its status is not 0, with what it said.
    pub async fn command_line(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self
            .command(arguments)
            .output()
            .await
            .with_context(|| format!("run plimsoll {}", arguments.join(" ")))?;
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

fn command(verbs: [&str; 2], id: u32, data: &[&Path], listen: &str) -> Vec<String> {
    let mut arguments: Vec<String> = verbs.iter().map(|verb| (*verb).to_owned()).collect();
    arguments.extend(["--id".to_owned(), id.to_string()]);
    for data in data {
        arguments.extend(["--data-dir".to_owned(), data.display().to_string()]);
    }
    arguments.extend(["--listen".to_owned(), listen.to_owned()]);
    arguments
}
