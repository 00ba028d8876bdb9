//! A follower whose disk is full costs the others nothing: measured in simulated time, so the figures are exact.

use std::time::Duration;

use plimsoll_tests::simulation::{Report, run_with_full_follower};

/// Of the topic that is produced to.
const PARTITIONS: usize = 2;
/// With those of the other topic, which has as many.
const ALL_PARTITIONS: usize = 2 * PARTITIONS;
/// From the disk that filled to a set without its node: until then records may wait for it.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);
/// Records that are waited for when the node leaves are acknowledged with it.
const SETTLED: Duration = Duration::from_millis(200);

/// The simulated time of a line.
fn time(line: &str) -> Duration {
    let micros = line.trim_start().split(' ').next().expect("a line begins with its time");
    Duration::from_micros(micros.parse().expect("a number"))
}

/// Index of the entry, partition, and the set that it leaves, of every change of an in-sync set.
fn set_changes(report: &Report) -> Vec<(u64, u32, String)> {
    let mut changes = Vec::new();
    for line in report.lines.iter().filter(|line| line.contains(" in_sync_changed ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |word: &str| {
            let at = words.iter().position(|found| *found == word).expect("a word of every change");
            words[at + 1].trim_end_matches(':')
        };
        let index = after("entry").split('.').next().expect("ENTRY.ORDINAL").parse().expect("a number");
        changes.push((index, after("partition").parse().expect("a number"), after("->").to_owned()));
    }
    changes
}

/// So many hundredths of the acknowledgements took no longer.
fn percentile_us(took: &mut [Duration], hundredths: usize) -> u128 {
    assert!(took.len() > 100, "only {} acknowledgements", took.len());
    took.sort_unstable();
    took[took.len() * hundredths / 100].as_micros()
}

#[test]
fn a_full_follower_alone_costs_the_others_nothing() {
    for seed in [1, 2, 3] {
        let report = run_with_full_follower(seed);
        assert!(report.violations.is_empty(), "{:#?}\n{}", report.violations, report.lines.join("\n"));
        let line = |wanted: &dyn Fn(&str) -> bool| {
            report.lines.iter().find(|line| wanted(line)).unwrap_or_else(|| panic!("{:#?}", report.lines))
        };
        let full_line = line(&|line| line.ends_with(" is full"));
        let full = time(full_line);
        let node = full_line.split_whitespace().nth(2).expect("who is full").trim_start_matches('s');
        let members: Vec<&str> = ["1", "2", "3"].into_iter().filter(|spu| *spu != node).collect();
        let without = format!("in sync [{}]", members.join(", "));
        let left_line = line(&|line| line.matches(&without).count() == PARTITIONS && time(line) >= full);
        let left = time(left_line);
        assert!(left - full < LEAVES_WITHIN, "seed {seed}: it left after {:?}", left - full);

        // One step for all partitions, and one way back each.
        let changes = set_changes(&report);
        let set = members.join(",");
        let leaving: Vec<_> =
            changes.iter().filter(|(_, _, to)| to.replace(['[', ']', ' '], "") == set).collect();
        assert_eq!(leaving.len(), ALL_PARTITIONS, "seed {seed}: {changes:?}");
        assert!(leaving.iter().all(|(index, ..)| *index == leaving[0].0), "seed {seed}: {leaving:?}");
        assert_eq!(changes.len(), 2 * ALL_PARTITIONS, "seed {seed}: {changes:?}");

        // Nobody is refused, so nobody tries again.
        assert!(report.refused.is_empty() && report.unknown == 0, "seed {seed}: {:?}", report.refused);
        assert_eq!(report.judged.get("Refused"), None, "seed {seed}");

        // As fast as before, and as much.
        let span = |from: Duration, to: Duration| -> Vec<Duration> {
            report.took.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, took)| *took).collect()
        };
        let long = Duration::from_secs(8);
        let (mut before, mut after) = (span(full - long, full), span(left + SETTLED, left + SETTLED + long));
        assert!(after.len() * 100 >= before.len() * 97, "seed {seed}: {} then {}", before.len(), after.len());
        for hundredths in [50, 99] {
            let (before, after) =
                (percentile_us(&mut before, hundredths), percentile_us(&mut after, hundredths));
            let left_ms = (left - full).as_millis();
            println!(
                "FULL FOLLOWER seed={seed} left_ms={left_ms} p{hundredths}_us before={before} after={after}"
            );
            assert!(
                after * 2 <= before * 3,
                "seed {seed}: p{hundredths} {before} us before, {after} us after"
            );
        }
    }
}
