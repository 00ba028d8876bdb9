use super::*;
use crate::fs::FailureCause;

const MB: u64 = 1_000_000;

fn sample(available_bytes: u64) -> SpaceSample {
    SpaceSample { total_bytes: 100 * MB, available_bytes, total_inodes: 1000, available_inodes: 1000 }
}

fn own() -> OwnUse {
    OwnUse { used: 0, preallocated_unused: 0, written_total: 0, active_replicas: 1, reserves: true }
}

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn sensor(available: u64) -> Sensor {
    Sensor::open(SensorSettings::default(), sample(available), own(), at(0)).unwrap()
}

#[test]
fn free_counts_own_preallocation_and_respects_the_limit() {
    let cases = [
        (50 * MB, 10 * MB, 4 * MB, None, 54 * MB, DiskCause::Bytes),
        (50 * MB, 10 * MB, 4 * MB, Some(60 * MB), 54 * MB, DiskCause::Bytes),
        (50 * MB, 10 * MB, 4 * MB, Some(60 * MB - 1), 54 * MB - 1, DiskCause::Limit),
        (50 * MB, 70 * MB, 4 * MB, Some(60 * MB), 0, DiskCause::Limit),
    ];
    for (available, used, preallocated_unused, byte_limit, free, scarce) in cases {
        let settings = SensorSettings { byte_limit, ..SensorSettings::default() };
        let own = OwnUse { used, preallocated_unused, ..own() };
        let view = Sensor::open(settings, sample(available), own, at(0)).unwrap().view();
        assert_eq!((view.facts.free_bytes, view.facts.scarce), (free, scarce), "{byte_limit:?}");
    }
}

#[test]
fn sampling_is_faster_as_the_level_worsens() {
    let of = |total_mb: u64, available_mb: u64| {
        let sample = SpaceSample { total_bytes: total_mb * MB, ..sample(available_mb * MB) };
        Sensor::open(SensorSettings::default(), sample, own(), at(0)).unwrap().next_sample_in()
    };
    for (available, ms) in [(50_000, 1000), (14_000, 250), (9_000, 100), (4_000, 50)] {
        assert_eq!(of(100_000, available), at(ms), "{available}");
    }
    assert_eq!(of(100, 50), at(100), "a fast writer fills a small volume within a second");
    assert_eq!(of(100, 4), at(50));
    assert_eq!(of(4_000, 2_200), at(465));
}

#[test]
fn from_full_to_writable_within_two_samples() {
    let mut sensor = sensor(4 * MB);
    let commands = sensor.observe(Observation::Sample(sample(50 * MB)), own(), at(50));
    let canary = commands.iter().find_map(|command| match command {
        Command::RunCanary(canary) => Some(*canary),
        _ => None,
    });
    sensor.canary_done(canary.unwrap().attempt, &Ok(()), at(51));
    assert_eq!(sensor.view().level, DiskLevel::Normal);
}

#[test]
fn no_answer_and_three_impossible_samples_are_unknown() {
    let mut sensor = sensor(50 * MB);
    sensor.observe(Observation::NoAnswer, own(), at(2000));
    assert_eq!(sensor.view().level, DiskLevel::Reclaim);
    assert!(!sensor.view().known);
    sensor.observe(Observation::Sample(sample(50 * MB)), own(), at(3000));
    assert!(sensor.view().known);
    for n in 1..=3 {
        sensor.observe(Observation::Sample(sample(101 * MB)), own(), at(3000 + n));
        assert_eq!((sensor.view().known, sensor.dropped_samples()), (n < 3, n));
    }
}

#[test]
fn a_grown_filesystem_is_picked_up_live() {
    let mut sensor = sensor(9 * MB);
    assert_eq!(sensor.view().level, DiskLevel::Throttle);
    let grown = SpaceSample { total_bytes: 200 * MB, ..sample(109 * MB) };
    sensor.observe(Observation::Sample(grown), own(), at(100));
    assert_eq!((sensor.view().level, sensor.view().capacity_bytes), (DiskLevel::Normal, 200 * MB));
    let tiny = SpaceSample { total_bytes: 1000, available_bytes: 500, ..grown };
    sensor.observe(Observation::Sample(tiny), own(), at(200));
    assert_eq!((sensor.marks_refused(), sensor.view().level), (1, DiskLevel::ReadOnly));
}

#[test]
fn errors_of_operations_reach_the_level() {
    let step = Repeat::Allocate { bytes: 65536 };
    let mut full = sensor(50 * MB);
    let error = DiskError::OutOfSpace { cause: DiskCause::Quota, operation: "write", written: 0 };
    full.operation_failed(&error, step, at(1));
    assert_eq!((full.view().level, full.view().disk_cause()), (DiskLevel::ReadOnly, DiskCause::Quota));
    let mut failed = sensor(50 * MB);
    let error = DiskError::VolumeFailed { cause: FailureCause::SyncFailed, operation: "sync" };
    failed.operation_failed(&error, step, at(1));
    assert_eq!(failed.view().level, DiskLevel::Failed);
    let mut vanished = sensor(50 * MB);
    vanished.observe(Observation::Failed(error), own(), at(1));
    assert_eq!(vanished.view().level, DiskLevel::Failed);
    let mut fine = sensor(50 * MB);
    fine.operation_failed(&DiskError::Exhausted { errno: 24, operation: "open" }, step, at(1));
    assert_eq!(fine.view().level, DiskLevel::Normal);
}

#[test]
fn it_never_opens_as_plenty_on_an_impossible_sample() {
    let sensor = Sensor::open(SensorSettings::default(), sample(101 * MB), own(), at(0)).unwrap();
    assert_eq!(sensor.view().level, DiskLevel::Reclaim);
}

#[test]
fn a_drill_walks_the_levels_there_and_back_and_deletes_nothing() {
    let mut sensor = sensor(80 * MB);
    let until = at(5000);
    sensor.drill(Some(Drill { free_bytes: 2 * MB, until }));
    let commands = sensor.observe(Observation::Sample(sample(80 * MB)), own(), at(1000));
    assert!(commands.iter().any(|command| matches!(command, Command::Changed(_))), "{commands:?}");
    assert!(!commands.iter().any(|command| matches!(command, Command::Reclaim { .. })), "{commands:?}");
    assert_eq!((sensor.view().level, sensor.view().facts.free_bytes), (DiskLevel::ReadOnly, 2 * MB));
    // It ends by itself, and the volume recovers the way it always does.
    let commands = sensor.observe(Observation::Sample(sample(80 * MB)), own(), until);
    let attempt = commands.iter().find_map(|command| match command {
        Command::RunCanary(canary) => Some(canary.attempt),
        _ => None,
    });
    sensor.canary_done(attempt.unwrap(), &Ok(()), until + at(1));
    assert_eq!((sensor.view().level, sensor.running()), (DiskLevel::Normal, None));
}

#[test]
fn a_drill_ends_when_it_becomes_earnest() {
    let mut sensor = sensor(80 * MB);
    sensor.drill(Some(Drill { free_bytes: 13 * MB, until: at(60_000) }));
    sensor.observe(Observation::Sample(sample(80 * MB)), own(), at(1000));
    assert_eq!(sensor.view().level, DiskLevel::Reclaim);
    let commands = sensor.observe(Observation::Sample(sample(12 * MB)), own(), at(2000));
    assert!(commands.iter().any(|command| matches!(command, Command::Reclaim { .. })), "{commands:?}");
    assert_eq!(sensor.running(), None);
    assert_eq!(sensor.view().facts.free_bytes, 12 * MB);
}

#[test]
fn a_borrowed_mark_comes_back_by_itself() {
    let mut sensor = sensor(80 * MB);
    sensor.borrow(Some(Borrowed { bytes: 3 * MB, until: at(10_000) }));
    assert_eq!(sensor.marks().bytes(DiskLevel::ReadOnly).enter, 2 * MB);
    sensor.observe(Observation::Sample(sample(3 * MB)), own(), at(1000));
    assert_eq!(sensor.view().level, DiskLevel::Throttle, "writable below the configured mark");
    // A change of the volume's shape keeps what is lent.
    sensor.observe(Observation::Sample(sample(3 * MB)), OwnUse { active_replicas: 2, ..own() }, at(1100));
    assert_eq!(sensor.marks().bytes(DiskLevel::ReadOnly).enter, 2 * MB);
    sensor.observe(Observation::Sample(sample(3 * MB)), own(), at(10_000));
    assert_eq!(sensor.marks().bytes(DiskLevel::ReadOnly).enter, 5 * MB);
    assert_eq!((sensor.view().level, sensor.borrowed()), (DiskLevel::ReadOnly, None));
}
