//! A small real disk that fills: expired records go within a few turns, no more goes than was needed, and logs are
//! treated alike.

#![allow(dead_code, reason = "scenes are shared with the benches")]

#[path = "../benches/figures/figure.rs"]
mod figure;
#[path = "../benches/figures/lab.rs"]
mod lab;
#[path = "../benches/figures/pressure.rs"]
mod pressure;
mod rig;

use rig::Rig;

fn disk(name: &str) -> Option<Rig> {
    match Rig::image(256, &["mkfs.ext4", "-qF", "-N", "8192"], "loop") {
        Ok(rig) => Some(rig),
        Err(reason) => {
            println!("SKIPPED pressure-{name}: {reason}");
            None
        }
    }
}

#[test]
fn expired_records_of_many_logs_go_within_a_few_turns() {
    let Some(rig) = disk("expired") else { return };
    // 50 ms each: 100 logs are more than one turn takes.
    let freed = pressure::expired(&rig.path(), 100);
    assert!((2..=10).contains(&freed.turns), "{} turns", freed.turns);
}

#[test]
fn pressure_deletes_little_more_than_was_short() {
    // Of the second, more logs give way than are trimmed in one turn.
    for (partitions, segment_bytes) in [(20, 1 << 20), (100, 128 << 10)] {
        let Some(rig) = disk("over-reclaim") else { return };
        let found = pressure::over_reclaimed(&rig.path(), partitions, segment_bytes);
        assert!(found.freed >= found.wanted, "room was made");
        let (freed, wanted) = (found.freed, found.wanted);
        assert!(
            found.share_of_allowed() <= 1.0,
            "{freed} bytes went, {wanted} were short, {partitions} logs"
        );
    }
}

#[test]
fn a_hot_log_takes_no_more_than_its_share() {
    let Some(rig) = disk("fairness") else { return };
    let retained = pressure::retained_with_one_hot(&rig.path());
    assert!(pressure::jain(&retained) >= 0.95, "{retained:?}");
}
