//! What can be seen of the cluster from here: controllers, storage nodes, their health.

use std::time::Duration;

use plimsoll_client::Client;
use plimsoll_host::{Host, Probe};
use plimsoll_proto::v1::SpuState;
use serde::Serialize;
use serde_json::Value;

use super::Check;
use crate::connect::ConnectArgs;
use crate::health;
use crate::words;

/// How long a port may take.
const PROBE_MAX: Duration = Duration::from_secs(3);
/// How long the controllers may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A clock that differs by more makes ages of records wrong by as much.
const CLOCK_MS: u64 = 5_000;

pub(super) struct Remote {
    pub(super) checks: Vec<Check>,
    /// For the bundle.
    pub(super) evidence: Vec<(&'static str, Value)>,
}

pub(super) async fn checks(connect: &ConnectArgs, host: &Host) -> Remote {
    let mut remote = Remote { checks: Vec::new(), evidence: Vec::new() };
    let target = match connect.target() {
        Ok(target) => target,
        Err(failure) => {
            let remedy = "name the controllers with --controller HOST:PORT";
            remote.checks.push(Check::fail("which cluster", failure.message, remedy));
            return remote;
        }
    };
    let origin = target.controllers.origin.clone();
    remote
        .checks
        .push(Check::pass("which cluster", format!("{} ({origin})", target.controllers.value.join(","))));
    for text in &target.controllers.value {
        let address = text.rsplit_once('@').map_or(text.as_str(), |(_, address)| address);
        remote.checks.push(port(host, &format!("controller {address}"), address).await);
    }
    match connect.connect_within(host, CONNECT_MAX).await {
        Ok(client) => remote.cluster(&client, host).await,
        Err(failure) => {
            let remedy = "start the controllers, or name others with --controller";
            let found = failure.message.lines().next().unwrap_or_default().to_owned();
            remote.checks.push(Check::fail("metadata", found, remedy));
        }
    }
    remote
}

async fn port(host: &Host, name: &str, address: &str) -> Check {
    match host.network.probe(address, PROBE_MAX).await {
        Probe::Reached => Check::pass(name, "the port is open"),
        Probe::Refused => Check::fail(name, "nothing listens there", "start it, or correct its address"),
        Probe::Silent => {
            Check::fail(name, "no answer within 3 s", "look at the name, the host, the network and firewalls")
        }
    }
}

impl Remote {
    async fn cluster(&mut self, client: &Client, host: &Host) {
        let looked = match health::look(client, host).await {
            Ok(looked) => looked,
            Err(error) => {
                let remedy = "see `plimsoll cluster status`";
                self.checks.push(Check::fail("status", error.to_string(), remedy));
                return;
            }
        };
        let status = &looked.status;
        let id = words::hex(&status.cluster_id);
        self.checks.push(Check::pass("cluster", format!("{id}, entry {} applied", status.applied_index)));
        for spu in &status.spus {
            let info = spu.info.clone().unwrap_or_default();
            if info.state() == SpuState::Online {
                let name = format!("spu {} {}", info.spu_id, info.address);
                self.checks.push(port(host, &name, &info.address).await);
            }
        }
        for finding in &looked.findings {
            let (name, found) = (finding.code.to_owned(), finding.summary.clone());
            let remedy = format!("{}; `plimsoll health explain {}`", finding.next, finding.code);
            self.checks.push(match health::verdict(std::slice::from_ref(finding)) {
                health::Verdict::Ok => Check::pass(name, found),
                health::Verdict::Degraded => Check::warn(name, found, remedy),
                health::Verdict::Critical => Check::fail(name, found, remedy),
            });
        }
        if looked.findings.is_empty() {
            self.checks.push(Check::pass("health", "nothing is wrong"));
        }
        self.clock(host, &looked.events);
        self.keep("findings", &looked.findings);
        self.keep("status", &crate::cluster::Status::from(looked.status));
        let topics: Vec<crate::topic::Topic> =
            client.metadata().topics.values().cloned().map(Into::into).collect();
        self.keep("topics", &topics);
        let events: Vec<crate::events::Event> = looked.events.into_iter().map(Into::into).collect();
        self.keep("events", &events);
    }

    /// An event of the future tells that one of the clocks is wrong.
    fn clock(&mut self, host: &Host, events: &[plimsoll_client::ClusterEvent]) {
        let newest = events.iter().map(|event| event.time_ms).max();
        let Some(ahead) = newest.map(|newest| newest.saturating_sub(host.clock.wall_ms())) else { return };
        let name = "clock of this machine";
        self.checks.push(if ahead > CLOCK_MS {
            let found = format!("{} behind the newest event", words::span(ahead));
            Check::warn(name, found, "synchronise the clocks (chrony, systemd-timesyncd)")
        } else {
            Check::pass(name, "not behind the cluster")
        });
    }

    fn keep<T: Serialize>(&mut self, name: &'static str, value: &T) {
        if let Ok(value) = serde_json::to_value(value) {
            self.evidence.push((name, value));
        }
    }
}
