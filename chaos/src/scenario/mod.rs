//! Scenarios: one way to break a cluster each, with what must hold afterwards.
//!
//! A scenario says its topology and plays on a [`Run`], which offers workloads, faults and figures. At the end every
//! run is judged the same way: everything is read back from every replica and by a consumer, the history checker
//! names what was lost, made up, doubled or reordered, and every server must still be there.

mod bars;
mod controllers;
mod drill;
mod failures;
mod full_start;
mod groups;
mod hosts;
mod inodes;
mod kills;
pub mod liveness;
mod loads;
mod many_full;
mod moves;
mod networks;
mod one_full;
mod pinned;
mod real_disks;
mod recorder;
mod report;
mod report_page;
mod retention;
mod run;
mod scale;
mod soak;
mod space;
mod timeline;
mod wear;

use std::pin::Pin;
use std::time::Duration;

use crate::cluster::Topology;
use crate::rig::{DiskKind, Missing, Rig, VolumeSpec};

pub use drill::{Order, drill};
pub use report::{Figure, NotApplicable, Outcome, Totals, Verdict};
pub use report_page::page;
pub use run::{Run, Show};
pub use soak::{Soak, rounds};
pub use timeline::{Moment, Sample, Timeline, Volume};

use self::bars::Without;
use self::run::Whole;

type Played<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;
type Play = for<'a> fn(&'a mut Run) -> Played<'a>;

/// One way to break a cluster.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// As it is named on the command line.
    pub name: &'static str,
    /// What happens, in one sentence.
    pub about: &'static str,
    /// Whether it belongs to the quick set.
    pub smoke: bool,
    /// Bars that cannot apply.
    without: Without,
    whole: Whole,
    limit: Duration,
    topology: fn() -> Topology,
    play: Play,
}

const DISK_BYTES: u64 = 96 << 20;
/// What a scenario may take, less the start and the reading back.
const LIMIT: Duration = Duration::from_secs(150);

fn three_nodes() -> Topology {
    Topology::three_nodes(VolumeSpec::of_bytes(DISK_BYTES))
}

/// All scenarios, in the order in which they run.
pub fn all() -> Vec<Scenario> {
    [
        one_full::scenarios(),
        real_disks::scenarios(),
        many_full::scenarios(),
        space::scenarios(),
        retention::scenarios(),
        full_start::scenarios(),
        kills::scenarios(),
        inodes::scenarios(),
        wear::scenarios(),
        loads::scenarios(),
        failures::scenarios(),
        networks::scenarios(),
        hosts::scenarios(),
        controllers::scenarios(),
        scale::scenarios(),
        moves::scenarios(),
        groups::scenarios(),
        pinned::scenarios(),
    ]
    .concat()
}

impl Scenario {
    /// On three nodes with one disk each, held against every bar.
    const fn new(name: &'static str, about: &'static str, play: Play) -> Self {
        Self {
            name,
            about,
            smoke: false,
            without: &[],
            whole: Whole::InTime,
            limit: LIMIT,
            topology: three_nodes,
            play,
        }
    }

    /// Part of the quick set.
    const fn smoke(self) -> Self {
        Self { smoke: true, ..self }
    }

    /// On other nodes or disks.
    const fn on(self, topology: fn() -> Topology) -> Self {
        Self { topology, ..self }
    }

    /// Without these bars.
    const fn without(self, without: Without) -> Self {
        Self { without, ..self }
    }

    /// It comes back later than others, or never.
    const fn whole(self, whole: Whole) -> Self {
        Self { whole, ..self }
    }

    /// It takes longer than others.
    const fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Plays it on a cluster of its own; everything is undone when this returns or is dropped.
    pub async fn run(&self, show: &Show) -> Outcome {
        let began = show.host.clock.now();
        let mut outcome = self.run_untimed(show).await;
        show.screen.end();
        outcome.seconds = show.host.clock.now().saturating_sub(began).as_secs();
        outcome
    }

    async fn run_untimed(&self, show: &Show) -> Outcome {
        if let Some(why) = show.no_network.as_ref().filter(|_| (self.topology)().network) {
            return Outcome::skipped(self.name, why);
        }
        let rig = match Rig::create(false, DiskKind::Tmpfs) {
            Ok(rig) => rig,
            Err(error) => return Outcome::failed(self.name, format!("{error:#}")),
        };
        match Run::start(show, rig, self).await {
            Err(error) => match Missing::of(&error) {
                Some(missing) => Outcome::skipped(self.name, &missing),
                None => Outcome::failed(self.name, format!("{error:#}")),
            },
            Ok(run) if run.disk_kind() == DiskKind::Simulated => {
                Outcome::skipped(self.name, "no filesystem of its own can be mounted here")
            }
            Ok(mut run) => {
                let played = match show.host.clock.timeout(self.limit, (self.play)(&mut run)).await {
                    Ok(played) => played,
                    Err(_) => Err(anyhow::anyhow!("it did not end within {} s", self.limit.as_secs())),
                };
                run.conclude(self, played).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::bars::Bar;
    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own_and_says_what_happens() {
        let scenarios = all();
        let names: std::collections::BTreeSet<_> = scenarios.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), scenarios.len());
        assert!(scenarios.iter().all(|scenario| !scenario.about.is_empty()));
        assert!(scenarios.iter().any(|scenario| scenario.smoke));
        for scenario in &scenarios {
            let bars: std::collections::BTreeSet<Bar> =
                scenario.without.iter().map(|(bar, _)| *bar).collect();
            assert_eq!(bars.len(), scenario.without.len(), "{} strikes a bar out twice", scenario.name);
            assert!(scenario.without.iter().all(|(_, why)| !why.is_empty()), "{}", scenario.name);
            if let Whole::AfterHolds(why) | Whole::Never(why) = scenario.whole {
                assert!(!why.is_empty(), "{}", scenario.name);
            }
        }
    }
}
