//! The whole cluster from seeds: nothing acknowledged is lost, and a seed gives the same run twice.

use plimsoll_host::Random;
use plimsoll_tests::simulation::{Report, run};

fn whole(seed: u64) -> Report {
    let report = run(seed);
    assert!(
        report.violations.is_empty(),
        "seed {seed}: {:#?}\n{}\nreplay with: scripts/simulate --seeds 1 --seed {seed}",
        report.violations,
        report.lines.join("\n")
    );
    assert!(report.acked > 100, "seed {seed}: only {} acknowledged", report.acked);
    assert!(report.faults > 0);
    report
}

#[test]
fn one_seed_twice_is_the_same_run() {
    let (first, second) = (whole(1), whole(1));
    for (at, (a, b)) in first.lines.iter().zip(&second.lines).enumerate() {
        assert_eq!(a, b, "line {at} differs");
    }
    assert_eq!(first, second);
}

/// Seeds that found something. Each comment says what it was.
#[test]
fn seeds_that_failed_once() {
    for seed in [
        // A leader that never wrote in its epoch refused, as a follower again, the older records of its new leader
        // (STALE_LEADER_EPOCH inside): it never came back in sync.
        1014,
        // A power loss left the first segment empty and the second not: the log seemed trimmed up to the second,
        // the copy became in sync, and as a leader would have trimmed the others.
        2012,
    ] {
        whole(seed);
    }
}

/// A few that are always the same, with fresh ones beside them: see [`fresh`].
#[test]
fn fixed_seeds_lose_nothing() {
    for seed in 2..6 {
        whole(seed);
    }
}

/// Seeds that nobody ran before, printed so that a failure can be replayed.
fn fresh(count: u64) {
    let first = Random::from_system().next_u64() >> 24;
    println!("fresh seeds {first} to {}", first + count - 1);
    for seed in first..first + count {
        whole(seed);
    }
}

// In two halves, so that two processors share them.
#[test]
fn fresh_seeds_lose_nothing_first_half() {
    fresh(20);
}

#[test]
fn fresh_seeds_lose_nothing_second_half() {
    fresh(20);
}
