//! The whole cluster from seeds: nothing acknowledged is lost, and a seed gives the same run twice.

use std::process::{Command, Output};

use plimsoll_host::Random;
use plimsoll_tests::simulation::{Report, run};

/// Runs without operators and groups, with flush=ack and without.
const QUIET_ACK: u64 = 9;
const QUIET_OS: u64 = 2;

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

fn simulate(arguments: &[&str]) -> Output {
    let simulate =
        Command::new(env!("CARGO_BIN_EXE_simulate")).args(arguments).env_remove("RUST_LOG").output();
    simulate.expect("the program was built with this test")
}

/// Compares everything that was recorded, digests of the checker's events and of the bytes on disks and network included.
/// The runs are seconds apart, and answers would carry the date: what they read of the machine's clocks would show.
fn twice(seed: u64) -> Report {
    let (first, second) = (whole(seed), whole(seed));
    for (at, (a, b)) in first.lines.iter().zip(&second.lines).enumerate() {
        assert_eq!(a, b, "seed {seed}: line {at} differs");
    }
    assert_eq!(first, second);
    first
}

/// A run with operators, relief and a consumer group, in this process and in another.
#[test]
fn one_seed_twice_is_the_same_run() {
    let here = twice(1);
    assert!(here.lines.iter().any(|line| line.contains("the group has read up to")), "no group is at work");
    let elsewhere = simulate(&["--seeds", "1", "--seed", "1"]);
    let told = String::from_utf8_lossy(&elsewhere.stdout);
    let digests = format!(
        "events {:016x}, disks {:016x}, network {:016x}",
        here.events_digest, here.disks_digest, here.network_digest
    );
    assert!(told.contains(&digests), "{digests} here, and elsewhere\n{told}");
}

#[test]
fn other_seeds_twice_are_the_same_runs() {
    for (seed, flush) in [(QUIET_ACK, "Ack"), (QUIET_OS, "Os")] {
        let run = twice(seed);
        let plan = &run.lines[0];
        assert!(plan.contains(&format!("flush: {flush}")) && plan.contains("operated: false"), "{plan}");
    }
}

/// A rule that is told nothing finds nothing.
#[test]
fn every_rule_of_the_checker_is_fed() {
    let judged = whole(QUIET_OS).judged;
    for kind in [
        "Sent",
        "Answered",
        "Seek",
        "Read",
        "Committed",
        "Led",
        "Held",
        "Healed",
        "Regained",
        "Refused",
        "Logged",
    ] {
        assert!(judged.contains_key(kind), "no {kind} in {judged:?}");
    }
}

/// What differs between runs shows in their digests.
#[test]
fn other_seeds_have_other_digests() {
    let (one, other) = (whole(QUIET_ACK), whole(QUIET_OS));
    assert_ne!(one.events_digest, other.events_digest);
    assert_ne!(one.disks_digest, other.disks_digest);
}

#[test]
fn a_panic_is_told_with_its_seed() {
    let ended = simulate(&["--panic", "--seeds", "2", "--seed", "3"]);
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(!ended.status.success(), "{told}");
    for wanted in
        ["seed 3: FAILED", "seed 4: FAILED", "panic: ", "planted", "--seeds 1 --seed 3", "--seeds 1 --seed 4"]
    {
        assert!(told.contains(wanted), "no {wanted:?} in\n{told}");
    }
    let last = told.lines().last().unwrap_or_default();
    assert!(last.starts_with("SIMULATION seeds=2 failed=2 steps="), "{last}");
}

#[test]
fn replicas_leave_volumes_short_of_room() {
    // Runs with relief, by their seeds; whether a disk is full for long enough, and another has room, is up to the faults.
    let moved = [10, 21, 64, 74, 97].into_iter().any(|seed| whole(seed).relieved > 0);
    assert!(moved, "no run moves a replica off a volume short of room");
    let called_off = [6, 32].into_iter().any(|seed| whole(seed).called_off > 0);
    assert!(called_off, "no run calls off such a move while it is under way");
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
        // With flush=ack, followers that started again on full disks kept unsynced batches that no append ever synced:
        // they never reached the high watermark, and no append came for lack of in-sync replicas.
        102_699_816_242,
        // A connection cut off without a word was noticed after 10 s, when producers should have gone on.
        233_686_391_854,
        // The leader lost its power unnoticed, a full member left, the last intact one was killed and left too: the
        // leader came back without its page cache and led all the same (docs/rfcs/0004-eligible-leaders.md).
        700_047,
        // A controller's sync failed, its process started again and took what it read from the page cache for synced; a
        // loss of power took it, and the controller refused its journal.
        1_032_510_354_356,
        // A coordinator whose note that a group has members was refused tried again without a pause: time stood still.
        45,
        // A coordinator moved, and answered none of the heartbeats that it held: their members learned it when their
        // sessions were over, and a commit that reached the new one meanwhile was refused for good.
        5_361_286,
        // A device whose syncs failed for seven seconds was tried again eight seconds after it worked.
        431_596_370_244,
        // All controllers lost their power: what they had applied was forgotten, by the checker only, until they had caught up.
        173_734_366_898,
    ] {
        whole(seed);
    }
}

/// Seeds that nobody has tried before, from `PLIMSOLL_SEED` on if it is set. In four parts, so that several processors share
/// them. A seed that fails is to be replayed, understood and kept above.
fn many(part: u64) {
    const SEEDS: u64 = 50;
    const BOUND: u64 = 1_000_000_000_000;
    let given = std::env::var("PLIMSOLL_SEED")
        .ok()
        .map(|seed| seed.parse::<u64>().expect("PLIMSOLL_SEED is a number"));
    let first = given.map_or_else(|| Random::from_system().below(BOUND), |first| first + part * SEEDS);
    println!("SIMULATION part={part} replay with: scripts/simulate --seeds {SEEDS} --seed {first}");
    for seed in first..first + SEEDS {
        // One that hangs would not name itself.
        eprintln!("seed {seed}");
        whole(seed);
    }
}

#[test]
fn many_seeds_lose_nothing_first_part() {
    many(0);
}

#[test]
fn many_seeds_lose_nothing_second_part() {
    many(1);
}

#[test]
fn many_seeds_lose_nothing_third_part() {
    many(2);
}

#[test]
fn many_seeds_lose_nothing_fourth_part() {
    many(3);
}
