//! Doing the faults of a plan to a simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_proto::v1::FlushPolicy;
use plimsoll_storage::fs::SpaceSample;
use plimsoll_storage::fs::memory::{MemoryDisk, PowerLoss, StatvfsFault};

use super::faults::{Fault, Lie, Node};
use super::told::Shared;

/// Usual longest time of a message on its way.
pub(super) const LATENCY_MAX: Duration = Duration::from_millis(5);

/// The disks, and what was done so far.
pub(super) struct Injector {
    pub(super) disks: BTreeMap<Node, MemoryDisk>,
    flush: FlushPolicy,
    told: Shared,
    down: BTreeSet<Node>,
    /// The storage node whose page cache was lost last, and its incarnation then.
    lost: Option<(Node, u64)>,
}

impl Injector {
    pub(super) fn new(flush: FlushPolicy, told: Shared) -> Self {
        Self { disks: BTreeMap::new(), flush, told, down: BTreeSet::new(), lost: None }
    }

    pub(super) fn inject(&mut self, sim: &mut turmoil::Sim<'_>, fault: Fault) {
        {
            let mut told = self.told.borrow_mut();
            told.line(sim.elapsed(), format!("fault {fault:?}"));
            // What a loss of power takes was committed all the same.
            told.partitions().for_each(|partition| told.look_at_committed(partition));
            if let Fault::PowerLoss(node, _) = fault {
                told.loses_power(node);
            }
            if let Some((what, begins)) = fault.disturbs() {
                told.disturbed_at = sim.elapsed();
                if begins {
                    told.disturbed.insert(what)
                } else {
                    told.disturbed.remove(&what)
                };
            }
        }
        match fault {
            Fault::Fill { node, greedy } => {
                self.disks[&node].take_all_bytes();
                if greedy {
                    self.disks[&node].set_greedy(true);
                }
            }
            Fault::FillFollower => {
                let leads = |node: &&Node| self.told.borrow().leaders.contains(*node);
                let follower =
                    *Node::SPUS.iter().find(|node| !leads(node)).expect("more nodes than partitions");
                self.told.borrow_mut().line(sim.elapsed(), format!("{follower} is full"));
                self.inject(sim, Fault::Fill { node: follower, greedy: true });
            }
            Fault::NoInodes(node) => {
                self.disks[&node].take_all_inodes();
            }
            Fault::Free(node) => self.free(node),
            Fault::SyncFails(node) => {
                if self.may_lose(node) {
                    self.told.borrow_mut().damaged.insert(node);
                    self.disks[&node].set_sync_fails(true);
                } else {
                    self.skipped(sim);
                }
            }
            Fault::SyncWorks(node) => {
                self.told.borrow_mut().damaged.remove(&node);
                self.disks[&node].set_sync_fails(false);
            }
            Fault::SpaceLies(node, lie) => {
                let disk = &self.disks[&node];
                disk.set_statvfs(StatvfsFault::Lies(sample(disk, lie)));
            }
            Fault::SpaceHangs(node) => self.disks[&node].set_statvfs(StatvfsFault::Hangs),
            Fault::SpaceHonest(node) => self.disks[&node].set_statvfs(StatvfsFault::Honest),
            Fault::Kill(node) => self.kill(sim, node),
            Fault::PowerLoss(node, seed) => {
                let allowed = self.may_lose(node);
                self.kill(sim, node);
                if allowed {
                    let loss = if seed.is_multiple_of(3) {
                        PowerLoss::LosesAllUnsynced
                    } else {
                        PowerLoss::Tears { seed }
                    };
                    self.disks[&node].power_loss(loss);
                } else {
                    self.skipped(sim);
                }
            }
            Fault::Start(node) => self.start(sim, node),
            Fault::Cut { from, to, both: true } => sim.partition(from.to_string(), to.to_string()),
            Fault::Cut { from, to, both: false } => sim.partition_oneway(from.to_string(), to.to_string()),
            Fault::Heal(from, to) => sim.repair(from.to_string(), to.to_string()),
            Fault::Isolate(node) => others(node).for_each(|other| sim.partition(node.to_string(), other)),
            Fault::Rejoin(node) => others(node).for_each(|other| sim.repair(node.to_string(), other)),
            Fault::Hold(node) => others(node).for_each(|other| sim.hold(node.to_string(), other)),
            Fault::Release(node) => others(node).for_each(|other| sim.release(node.to_string(), other)),
            Fault::Lossy(node, chance) => {
                for other in others(node) {
                    sim.set_link_fail_rate(node.to_string(), other, f64::from(chance) / 1000.0);
                }
            }
            Fault::Lossless(node) => lossless(sim, node),
            Fault::Slow(most_ms) => between_servers(sim, Duration::from_millis(most_ms)),
            Fault::Quick => between_servers(sim, LATENCY_MAX),
            Fault::DeleteTopic => self.told.borrow_mut().delete_topic = true,
            Fault::Reassign { .. }
            | Fault::Drain(_)
            | Fault::Serve(_)
            | Fault::Relieve
            | Fault::CallOffRelief => {
                self.told.borrow_mut().asked.push_back(fault);
            }
        }
    }

    /// Every fault is undone, whatever the plan left.
    pub(super) fn heal(&mut self, sim: &mut turmoil::Sim<'_>) {
        {
            let mut told = self.told.borrow_mut();
            told.line(sim.elapsed(), "heal");
            told.disturbed.clear();
            told.disturbed_at = sim.elapsed();
        }
        between_servers(sim, LATENCY_MAX);
        for node in Node::ALL {
            lossless(sim, node);
            for other in others(node) {
                sim.release(node.to_string(), other.clone());
                sim.repair(node.to_string(), other);
            }
        }
        for node in Node::SERVERS {
            self.free(node);
            self.disks[&node].set_statvfs(StatvfsFault::Honest);
            let restart = {
                let told = self.told.borrow();
                told.damaged.contains(&node) || told.ended.contains(&node)
            };
            if restart {
                self.kill(sim, node);
            }
            self.start(sim, node);
        }
    }

    fn free(&self, node: Node) {
        let disk = &self.disks[&node];
        disk.set_greedy(false);
        disk.release();
    }

    fn kill(&mut self, sim: &mut turmoil::Sim<'_>, node: Node) {
        if self.down.insert(node) {
            self.told.borrow_mut().nodes.remove(&node);
            sim.crash(node.to_string());
        }
    }

    fn start(&mut self, sim: &mut turmoil::Sim<'_>, node: Node) {
        if !self.down.remove(&node) {
            return;
        }
        self.disks[&node].set_sync_fails(false);
        {
            let mut told = self.told.borrow_mut();
            told.damaged.remove(&node);
            told.ended.remove(&node);
        }
        sim.bounce(node.to_string());
    }

    /// Whether this machine may lose what it did not sync. A controller always: it syncs before it answers. With
    /// `flush = ack` any number of storage nodes; else one, until all copies are known to be in sync again: that
    /// is what G1 asks for.
    fn may_lose(&mut self, node: Node) -> bool {
        if self.flush == FlushPolicy::Ack || Node::CONTROLLERS.contains(&node) {
            return true;
        }
        let told = self.told.borrow();
        let known = told.incarnations.get(&node).copied().unwrap_or(0);
        let recovered = self.lost.is_none_or(|(last, incarnation)| {
            told.incarnations.get(&last).is_some_and(|now| *now > incarnation)
        });
        let allowed = told.whole && recovered && told.damaged.is_empty();
        if allowed {
            self.lost = Some((node, known));
        }
        allowed
    }

    fn skipped(&self, sim: &turmoil::Sim<'_>) {
        self.told.borrow_mut().line(sim.elapsed(), "  without losing anything: not all copies are in sync");
    }
}

fn others(node: Node) -> impl Iterator<Item = String> {
    Node::ALL.into_iter().filter(move |other| *other != node).map(|other| other.to_string())
}

fn lossless(sim: &mut turmoil::Sim<'_>, node: Node) {
    for other in others(node) {
        sim.set_link_fail_rate(node.to_string(), other.clone(), 0.0);
        sim.repair(node.to_string(), other);
    }
}

fn between_servers(sim: &turmoil::Sim<'_>, most: Duration) {
    for (at, a) in Node::SERVERS.iter().enumerate() {
        for b in &Node::SERVERS[at + 1..] {
            sim.set_link_max_message_latency(a.to_string(), b.to_string(), most);
        }
    }
}

fn sample(disk: &MemoryDisk, lie: Lie) -> SpaceSample {
    let total_bytes = super::servers::disk_bytes();
    let available_bytes = match lie {
        Lie::Plenty => total_bytes / 2,
        Lie::Nothing => 0,
        Lie::Impossible => total_bytes * 3,
    };
    SpaceSample {
        total_bytes,
        available_bytes,
        total_inodes: 10_000,
        available_inodes: disk.available_inodes(),
    }
}
