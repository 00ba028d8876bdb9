//! The proof that silence is not death, and that what is dead is replaced in time: repetitions of one fault each, held
//! against what is promised of it.

mod cut_off;
mod frozen;
mod killed;
mod proof;
mod scale_out;
mod stopped;
mod write_offline;

use std::time::Duration;

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION, Without};
use super::run::Run;

pub use proof::Proof;

/// One part of the proof: a scenario, and on how many clusters it is played.
#[derive(Clone, Copy)]
pub struct Part {
    /// What is played.
    pub scenario: Scenario,
    /// On how many clusters, one after the other.
    pub clusters: u32,
}

const SEE_CHAOS: &str = "held against the scenarios of chaos";

/// What is shown of every run all the same, and judged elsewhere.
const SEEN_ELSEWHERE: Without = &[
    (Bar::Detect, SEE_CHAOS),
    (Bar::Reroute, SEE_CHAOS),
    (Bar::Recover, SEE_CHAOS),
    (Bar::LogLines, SEE_CHAOS),
    (Bar::RefusalP99, SEE_CHAOS),
    (Bar::RefusedWhileWaiting, SEE_CHAOS),
    (Bar::LevelChanges, SEE_CHAOS),
    (Bar::OpenFiles, SEE_CHAOS),
    (Bar::OtherDescriptors, SEE_CHAOS),
    EVERY_PARTITION,
];

/// All parts, with all their repetitions.
pub fn parts() -> Vec<Part> {
    [
        stopped::parts(),
        frozen::parts(),
        cut_off::parts(),
        write_offline::parts(),
        killed::parts(),
        scale_out::parts(),
    ]
    .concat()
}

/// What a test has time for: one cluster, a few faults once each.
pub fn quick() -> Part {
    part("quick", "a stop, a node killed, a controller killed, and one while a disk fills", 1, |run| {
        Box::pin(once_each(run))
    })
}

fn part(name: &'static str, about: &'static str, clusters: u32, play: super::Play) -> Part {
    let scenario =
        Scenario::new(name, about, play).without(SEEN_ELSEWHERE).within(Duration::from_secs(1_800));
    Part { scenario, clusters }
}

impl Part {
    fn on(self, topology: fn() -> crate::cluster::Topology) -> Self {
        Self { scenario: self.scenario.on(topology), ..self }
    }
}

async fn once_each(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 150, 256).await?;
    stopped::for_less_than_the_deadline(run, 1).await?;
    write_offline::controller_killed(run, 1).await?;
    killed::controller(run, 1).await?;
    killed::node(run, 1).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_names_of_their_own_and_no_scenario_has_them() {
        let parts = parts();
        let mut names: std::collections::BTreeSet<_> = parts.iter().map(|part| part.scenario.name).collect();
        assert_eq!(names.len(), parts.len());
        names.extend(super::super::all().iter().map(|scenario| scenario.name));
        assert_eq!(names.len(), parts.len() + super::super::all().len());
        assert!(parts.iter().all(|part| part.clusters > 0));
    }
}
