//! The whole cluster from seeds: nothing acknowledged is lost, and a seed gives the same run twice.

use plimsoll_tests::simulation::{Report, run};

fn whole(seed: u64) -> Report {
    let report = run(seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert!(
        report.violations.is_empty(),
        "seed {seed}: {:#?}\n{}",
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

#[test]
fn seeds_lose_nothing() {
    for seed in 2..6 {
        whole(seed);
    }
}
