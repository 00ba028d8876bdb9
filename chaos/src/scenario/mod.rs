//! Scenarios: one way to break a cluster each, with what must hold afterwards.
//!
//! A scenario says its topology and plays on a [`Run`], which offers workloads, faults and figures. At the end every
//! run is judged the same way: everything is read back from every replica and by a consumer, the history checker
//! names what was lost, made up, doubled or reordered, and every server must still be there.

mod controllers;
mod inodes;
mod kills;
mod many_full;
mod one_full;
mod report;
mod run;
mod wear;

use std::pin::Pin;

use crate::cluster::Topology;
use crate::rig::{DiskKind, Rig, VolumeSpec};

pub use report::{Figure, Outcome, Totals, Verdict};
pub use run::{Run, Show};

type Played<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// One way to break a cluster.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// As it is named on the command line.
    pub name: &'static str,
    /// What happens, in one sentence.
    pub about: &'static str,
    /// Whether it belongs to the quick set.
    pub smoke: bool,
    topology: fn() -> Topology,
    play: for<'a> fn(&'a mut Run) -> Played<'a>,
}

const DISK_BYTES: u64 = 96 << 20;

fn three_nodes() -> Topology {
    Topology::three_nodes(VolumeSpec::of_bytes(DISK_BYTES))
}

/// All scenarios, in the order in which they run.
pub fn all() -> Vec<Scenario> {
    let scenario = |name, about, play: for<'a> fn(&'a mut Run) -> Played<'a>| Scenario {
        name,
        about,
        smoke: false,
        topology: three_nodes,
        play,
    };
    vec![
        Scenario {
            smoke: true,
            ..scenario("leader-full", "the disk of a leader is filled, then freed", |run| {
                Box::pin(one_full::leader_full(run))
            })
        },
        scenario("two-of-three-full", "two of three disks are full, min_in_sync is 2", |run| {
            Box::pin(many_full::two_of_three(run))
        }),
        Scenario {
            smoke: true,
            ..scenario("all-full-topic-deleted", "all disks are full, then one topic is deleted", |run| {
                Box::pin(many_full::all_then_topic_deleted(run))
            })
        },
        Scenario {
            topology: one_full::two_volumes_each,
            ..scenario("one-of-two-volumes-full", "one of a node's two disks is full", |run| {
                Box::pin(one_full::one_of_two_volumes(run))
            })
        },
        Scenario {
            smoke: true,
            ..scenario("kill-at-full", "kill -9 at 100 %, and a start with 0 bytes free", |run| {
                Box::pin(kills::at_full(run))
            })
        },
        Scenario {
            topology: inodes::few_inodes,
            ..scenario("kill-at-zero-inodes", "no inode left, kill -9, and a start without one", |run| {
                Box::pin(inodes::kill_at_zero(run))
            })
        },
        scenario("full-and-leader-killed", "one disk is full when another leader is killed", |run| {
            Box::pin(kills::full_and_leader_killed(run))
        }),
        scenario("rolling-restart-while-full", "each node restarts in turn while one disk is full", |run| {
            Box::pin(kills::rolling_restart(run))
        }),
        scenario(
            "follower-full-during-catch-up",
            "a node that was away fills up while it catches up",
            |run| Box::pin(kills::full_during_catch_up(run)),
        ),
        scenario("oscillation-at-the-mark", "free space crosses the mark ten times a second", |run| {
            Box::pin(wear::oscillation(run))
        }),
        scenario(
            "batch-larger-than-what-is-left",
            "producers of large records fill the disks themselves",
            |run| Box::pin(wear::large_batches(run)),
        ),
        scenario("reader-of-deleted-segments", "a slow reader is in segments that pressure deletes", |run| {
            Box::pin(wear::slow_reader(run))
        }),
        scenario("many-waiting-producers", "all disks are full and 100 producers wait", |run| {
            Box::pin(many_full::many_waiting(run))
        }),
        Scenario {
            topology: controllers::on_small_disks,
            ..scenario("controller-disk-full", "the disks of all controllers are full", |run| {
                Box::pin(controllers::disk_full(run))
            })
        },
    ]
}

impl Scenario {
    /// Plays it on a cluster of its own; everything is undone when this returns or is dropped.
    pub async fn run(&self, show: &Show) -> Outcome {
        let began = show.host.clock.now();
        let rig = match Rig::create(false, DiskKind::Tmpfs) {
            Ok(rig) => rig,
            Err(error) => return Outcome::failed(self.name, format!("{error:#}")),
        };
        let mut outcome = match Run::start(show, rig, &(self.topology)(), self.name).await {
            Err(error) => Outcome::failed(self.name, format!("{error:#}")),
            Ok(run) if run.disk_kind() == DiskKind::Simulated => {
                Outcome::skipped(self.name, "no filesystem of its own can be mounted here")
            }
            Ok(mut run) => {
                const LIMIT: std::time::Duration = std::time::Duration::from_secs(150);
                let played = match show.host.clock.timeout(LIMIT, (self.play)(&mut run)).await {
                    Ok(played) => played,
                    Err(_) => Err(anyhow::anyhow!("it did not end within {} s", LIMIT.as_secs())),
                };
                run.conclude(played).await
            }
        };
        outcome.seconds = show.host.clock.now().saturating_sub(began).as_secs();
        outcome
    }
}
