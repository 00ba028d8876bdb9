//! A host of its own for each server: network namespaces on one bridge, in which links are cut.
//!
//! ```text
//!   this program 10.77.0.1 ---+-- bridge --+--------------+---
//!                             |            |              |
//!                       controller-1    spu-1   ...    spu-3
//!                        10.77.0.11   10.77.0.21
//! ```
//!
//! Nothing of it can be seen outside: the program itself moves into a namespace first, and every namespace ends with
//! the process that holds it.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use rustix::thread::UnshareFlags;

use super::missing::Missing;
use super::program::{run, run_if_able};

/// Where this program is on the bridge.
pub const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const BRIDGE: &str = "chaos";

/// Leaves the network of the machine for one that holds nothing but a loopback interface. To be called first thing,
/// before threads are started: those would stay behind.
///
/// # Errors
/// [`Missing`] where that is not allowed; nothing has changed then.
pub fn leave_the_machines_network() -> anyhow::Result<()> {
    // SAFETY: only the network namespace is left; descriptors, memory and folders stay shared as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .map_err(|errno| Missing::because(format!("no network namespace: {errno}")))?;
    run("ip", &["link", "set", "lo", "up"]).map(drop)
}

/// The bridge and the hosts on it.
#[derive(Debug)]
pub struct Lan {
    hosts: Vec<LanHost>,
}

/// One host: a network namespace, held open by a process that does nothing.
#[derive(Debug)]
pub struct LanHost {
    /// Its address.
    pub address: Ipv4Addr,
    holder: Child,
}

impl LanHost {
    /// The namespace, to be entered by a process that starts.
    pub fn namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()))
    }

    fn inside(&self, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let namespace = format!("--net={}", self.namespace().display());
        let mut all = vec![namespace.as_str(), program];
        all.extend(arguments);
        run("nsenter", &all).map(drop)
    }
}

impl Drop for LanHost {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

impl Lan {
    /// Makes the bridge.
    ///
    /// # Errors
    /// [`Missing`] where this machine does not let us.
    pub fn create() -> anyhow::Result<Self> {
        // Left from a cluster before this one.
        drop(run("ip", &["link", "del", BRIDGE]));
        run_if_able("ip", &["link", "add", BRIDGE, "type", "bridge"])?;
        run_if_able("ip", &["addr", "add", &format!("{OWN_ADDRESS}/24"), "dev", BRIDGE])?;
        run_if_able("ip", &["link", "set", BRIDGE, "up"])?;
        Ok(Self { hosts: Vec::new() })
    }

    /// Adds a host; its number is the last part of its address.
    ///
    /// # Errors
    /// [`Missing`] where this machine does not let us.
    pub fn add(&mut self, number: u8) -> anyhow::Result<&LanHost> {
        let mut command = Command::new("sleep");
        command.arg("infinity").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: between fork and exec only prctl(2) and unshare(2) are called; both are async-signal-safe and
        // allocate nothing.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
                rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)?;
                Ok(())
            });
        }
        // It has its namespace when this returns: the parent waits for the exec.
        let holder = command.spawn().map_err(|error| Missing::because(format!("no namespace: {error}")))?;
        let address = Ipv4Addr::new(10, 77, 0, number);
        let host = LanHost { address, holder };
        let (link, pid) = (format!("chaos{number}"), host.holder.id().to_string());
        // The kernel takes its time to undo the namespace of a host before this one.
        drop(run("ip", &["link", "del", &link]));
        run_if_able("ip", &["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
        run_if_able("ip", &["link", "set", &link, "master", BRIDGE, "up"])?;
        host.inside("ip", &["link", "set", "lo", "up"])?;
        host.inside("ip", &["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        host.inside("ip", &["link", "set", "eth0", "up"])?;
        self.hosts.push(host);
        self.hosts.last().context("a host was just added")
    }

    fn host(&self, address: Ipv4Addr) -> anyhow::Result<&LanHost> {
        self.hosts.iter().find(|host| host.address == address).context("no host has this address")
    }

    /// From now on nothing that `from` sends arrives at `to`. This program can be `from`, not `to`.
    ///
    /// # Errors
    /// [`Missing`] without iptables.
    pub fn cut(&self, from: Ipv4Addr, to: Ipv4Addr) -> anyhow::Result<()> {
        let arguments = ["-w", "-A", "INPUT", "-s", &from.to_string(), "-j", "DROP"];
        self.host(to)?.inside("iptables", &arguments).map_err(|error| Missing::because(format!("{error:#}")))
    }

    /// Nothing that `host` sends arrives at any of `others`.
    ///
    /// # Errors
    /// As [`Lan::cut`].
    pub fn mute(&self, host: Ipv4Addr, others: &[Ipv4Addr]) -> anyhow::Result<()> {
        for other in others {
            // What would arrive here is dropped where it is sent.
            if *other == OWN_ADDRESS {
                let arguments = ["-w", "-A", "OUTPUT", "-d", &other.to_string(), "-j", "DROP"];
                let cut = self.host(host)?.inside("iptables", &arguments);
                cut.map_err(|error| Missing::because(format!("{error:#}")))?;
            } else {
                self.cut(host, *other)?;
            }
        }
        Ok(())
    }

    /// Cuts both directions between each of `one` and each of `other`.
    ///
    /// # Errors
    /// As [`Lan::cut`].
    pub fn separate(&self, one: &[Ipv4Addr], other: &[Ipv4Addr]) -> anyhow::Result<()> {
        for left in one {
            self.mute(*left, other)?;
            for right in other {
                self.cut(*right, *left)?;
            }
        }
        Ok(())
    }

    /// Limits what `host` sends to a number of kilobits a second.
    ///
    /// # Errors
    /// [`Missing`] without tc or its token bucket.
    pub fn slow_down(&self, host: Ipv4Addr, kbit_per_s: u32) -> anyhow::Result<()> {
        let rate = format!("{kbit_per_s}kbit");
        let arguments = ["qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", &rate];
        let arguments = [&arguments[..], &["burst", "32kbit", "latency", "400ms"]].concat();
        self.host(host)?.inside("tc", &arguments).map_err(|error| Missing::because(format!("{error:#}")))
    }

    /// Takes everything back.
    ///
    /// # Errors
    /// What iptables and tc say.
    pub fn heal(&self) -> anyhow::Result<()> {
        for host in &self.hosts {
            for chain in ["INPUT", "OUTPUT"] {
                host.inside("iptables", &["-w", "-F", chain])?;
            }
            // There is nothing to delete where nothing was slowed down.
            drop(host.inside("tc", &["qdisc", "del", "dev", "eth0", "root"]));
        }
        Ok(())
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.hosts.clear();
        drop(run("ip", &["link", "del", BRIDGE]));
    }
}
