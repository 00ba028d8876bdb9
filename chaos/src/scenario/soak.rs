//! Hours of faults that a seed chooses, in rounds of some minutes with a cluster each. A round that fails is repeated
//! by its seed alone.

use std::time::Duration;

use plimsoll_host::Random;

use super::bars::{Bar, EVERY_PARTITION, Without};
use super::run::{Run, TOPIC};
use super::{Outcome, Scenario, Show};
use crate::cluster::Topology;
use crate::filler::Filler;
use crate::nemesis::inodes::InodeFiller;
use crate::rig::VolumeSpec;

/// How long, and with which seed.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// No round begins after this time.
    pub lasts: Duration,
    /// Of the first round; each next one has the next.
    pub seed: u64,
}

const BY_CHANCE: Without = &[
    (Bar::Detect, "faults overlap; see the scenarios"),
    (Bar::Reroute, "faults overlap; see the scenarios"),
    (Bar::Recover, "faults overlap; see the scenarios"),
    (Bar::LogLines, "faults overlap; see the scenarios"),
    (Bar::RefusedWhileWaiting, "waits end and begin with the faults"),
    (Bar::RefusalP99, "nodes that are stopped answer late"),
    EVERY_PARTITION,
];
const FAULTS: u32 = 12;

/// Plays rounds until the time is over; `each` hears of every one. At least one is played.
pub async fn rounds(soak: Soak, show: &Show, mut each: impl FnMut(&Outcome)) -> Vec<Outcome> {
    let scenario = Scenario::new("soak", "faults chosen by a seed", |run| Box::pin(round(run)))
        .on(|| Topology::three_nodes(VolumeSpec::of_bytes(96 << 20).with_inodes(600)))
        .without(BY_CHANCE)
        .within(Duration::from_secs(600));
    let end = show.host.clock.now() + soak.lasts;
    let mut outcomes = Vec::new();
    let mut seed = soak.seed;
    while outcomes.is_empty() || show.host.clock.now() < end {
        let show = Show {
            host: show.host.clone(),
            screen: std::sync::Arc::clone(&show.screen),
            seed,
            times_max: show.times_max,
            no_network: show.no_network.clone(),
        };
        let outcome = scenario.run(&show).await;
        each(&outcome);
        outcomes.push(outcome);
        seed = seed.wrapping_add(1);
    }
    outcomes
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Full,
    AllFull,
    NearTheMark,
    NoInodes,
    Kill,
    Stop,
    RestartInOrder,
}

fn choose(random: &Random) -> (Fault, u32, f64) {
    const ALL: [Fault; 7] = [
        Fault::Full,
        Fault::AllFull,
        Fault::NearTheMark,
        Fault::NoInodes,
        Fault::Kill,
        Fault::Stop,
        Fault::RestartInOrder,
    ];
    let fault = ALL[usize::try_from(random.below(7)).unwrap_or(0)];
    let spu = u32::try_from(random.below(3)).unwrap_or(0) + 1;
    let tenths = u32::try_from(random.below(40)).unwrap_or(0);
    (fault, spu, f64::from(tenths) / 10.0 + 0.5)
}

async fn round(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(4, 400, 512).await?;
    for number in 1..=FAULTS {
        let (fault, spu, seconds) = choose(&run.random);
        run.say(&format!("fault {number} of {FAULTS}: {fault:?} of spu {spu} for {seconds} s"));
        play(run, fault, spu, seconds).await?;
        // Some faults begin before the one before is over and done with.
        let rest = run.random.below(30);
        run.pause(f64::from(u32::try_from(rest).unwrap_or(0)) / 10.0).await;
        run.cluster.check_alive()?;
    }
    let calm = run.now();
    for spu in 1..=3 {
        let in_sync = run.in_sync_ms(spu, calm).await;
        run.expect(in_sync.is_some(), || format!("spu {spu} is not in sync 40 s after the last fault"));
    }
    let again = run.until(Duration::from_secs(30), |run| run.first_ack(calm, |_| true).is_some()).await;
    run.expect(again.is_some(), || format!("{TOPIC} takes nothing after the last fault"));
    Ok(())
}

async fn play(run: &mut Run, fault: Fault, spu: u32, seconds: f64) -> anyhow::Result<()> {
    let disk = run.cluster.disk(spu).clone();
    match fault {
        Fault::Full => {
            let mut filler = Filler::create(&disk)?;
            while !filler.take(16 << 20)? {}
            run.pause(seconds).await;
        }
        Fault::AllFull => {
            let mut fillers = Vec::new();
            for spu in 1..=3 {
                let mut filler = Filler::create(run.cluster.disk(spu))?;
                while !filler.take(16 << 20)? {}
                fillers.push(filler);
            }
            run.pause(seconds).await;
        }
        Fault::NearTheMark => {
            let mut filler = Filler::create(&disk)?;
            filler.take(disk.space()?.free_bytes.saturating_sub(disk.bytes() / 20))?;
            run.pause(seconds).await;
        }
        Fault::NoInodes => {
            let _filler = InodeFiller::fill(&disk)?;
            run.pause(seconds).await;
        }
        Fault::Kill => {
            run.kill(spu);
            run.pause(seconds).await;
            run.start_again(spu)?;
        }
        Fault::Stop => {
            run.silence(spu);
            run.cluster.spu(spu).pause();
            run.pause(seconds).await;
            run.cluster.spu(spu).go_on();
        }
        Fault::RestartInOrder => {
            run.silence(spu);
            run.cluster.spu(spu).terminate();
            let ended = run.wait_ended(spu).await?;
            run.expect(ended == Some(0), || format!("spu {spu} ended with {ended:?} after SIGTERM"));
            run.pause(seconds).await;
            run.start_again(spu)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_chooses_the_same_faults_again() {
        let faults = |seed| {
            let random = Random::seeded(seed);
            (0..FAULTS).map(|_| format!("{:?}", choose(&random))).collect::<Vec<_>>()
        };
        assert_eq!(faults(7), faults(7));
        assert_ne!(faults(7), faults(8));
    }
}
