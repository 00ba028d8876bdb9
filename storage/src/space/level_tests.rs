use super::super::changes::{CHANGES_MAX, WINDOW};
use super::super::marks::{MarkSettings, VolumeShape};
use super::*;
use proptest::prelude::*;

/// Marks: Reclaim 15/20, Throttle 10/15, ReadOnly 5/10 MB of 100 MB; inodes 150/200, 100/150, 50/100 of 1000.
fn marks() -> Marks {
    let shape =
        VolumeShape { capacity_bytes: 100_000_000, total_inodes: 1000, active_replicas: 1, reserves: true };
    Marks::new(&MarkSettings::default(), shape).unwrap()
}

fn facts(free_bytes: u64) -> Facts {
    Facts { free_bytes, scarce: DiskCause::Bytes, free_inodes: Some(1000), time_to_full: None }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn machine(free: u64) -> LevelMachine {
    LevelMachine::new(facts(free), &marks(), s(0))
}

fn sample(machine: &mut LevelMachine, free: u64, now: Duration) -> Vec<Command> {
    machine.handle(Event::Sample(facts(free)), &marks(), now)
}

fn canary(commands: &[Command]) -> Option<Canary> {
    commands.iter().find_map(|command| match command {
        Command::RunCanary(canary) => Some(*canary),
        _ => None,
    })
}

const ALLOCATE: Repeat = Repeat::Allocate { bytes: 1 << 20 };
const FULL: u64 = 4_999_999;
const ROOM: u64 = 50_000_000;

/// Full, then room; passes the canary. Returns how long the hold was.
fn full_and_back(machine: &mut LevelMachine, now: &mut Duration) -> Duration {
    let from = *now;
    sample(machine, FULL, *now);
    assert_eq!(machine.level(), DiskLevel::ReadOnly);
    loop {
        let commands = sample(machine, ROOM, *now);
        if let Some(canary) = canary(&commands) {
            machine.handle(Event::CanaryPassed { attempt: canary.attempt }, &marks(), *now);
            assert_eq!(machine.level(), DiskLevel::Normal);
            return *now - from;
        }
        *now = machine.view(&marks()).hold_until.expect("held, or a canary runs");
    }
}

#[test]
fn levels_are_entered_and_left_at_their_marks_to_the_byte() {
    use DiskLevel::{Normal, Reclaim, Throttle};
    let cases = [
        (Normal, 15_000_000, Normal),
        (Normal, 14_999_999, Reclaim),
        (Reclaim, 19_999_999, Reclaim),
        (Reclaim, 20_000_000, Normal),
        (Reclaim, 10_000_000, Reclaim),
        (Reclaim, 9_999_999, Throttle),
        (Throttle, 14_999_999, Throttle),
        (Throttle, 15_000_000, Reclaim),
        (Throttle, 20_000_000, Normal),
        (Normal, 9_999_999, Throttle),
        (Normal, 5_000_000, Throttle),
        (Normal, 4_999_999, DiskLevel::ReadOnly),
    ];
    for (from, free, to) in cases {
        let start = match from {
            Normal => ROOM,
            Reclaim => 14_000_000,
            _ => 9_000_000,
        };
        let mut machine = machine(start);
        assert_eq!(machine.level(), from);
        sample(&mut machine, free, s(1));
        assert_eq!(machine.level(), to, "{from} at {free}");
    }
}

#[test]
fn inodes_have_the_same_levels() {
    for (free, level, cause) in [
        (150, DiskLevel::Normal, None),
        (149, DiskLevel::Reclaim, Some(DiskCause::Inodes)),
        (99, DiskLevel::Throttle, Some(DiskCause::Inodes)),
        (49, DiskLevel::ReadOnly, Some(DiskCause::Inodes)),
    ] {
        let mut machine = machine(ROOM);
        let few = Facts { free_inodes: Some(free), ..facts(ROOM) };
        machine.handle(Event::Sample(few), &marks(), s(1));
        assert_eq!(machine.level(), level, "{free}");
        assert_eq!(machine.view(&marks()).cause, cause.map(LevelCause::Disk));
    }
}

#[test]
fn filling_fast_enters_early_and_leaves_at_twice_the_time() {
    let mut machine = machine(ROOM);
    let mut at = |free, seconds: u64, now| {
        let soon = Facts { time_to_full: Some(s(seconds)), ..facts(free) };
        machine.handle(Event::Sample(soon), &marks(), s(now));
        machine.level()
    };
    assert_eq!(at(29_999_999, 599, 1), DiskLevel::Reclaim);
    assert_eq!(at(29_999_999, 1199, 2), DiskLevel::Reclaim);
    assert_eq!(at(29_999_999, 1200, 3), DiskLevel::Normal);
    assert_eq!(at(19_999_999, 59, 4), DiskLevel::Throttle);
}

#[test]
fn filling_fast_counts_to_the_byte_and_to_the_second() {
    for (free, seconds, level) in [
        (30_000_000, 599, DiskLevel::Normal),
        (29_999_999, 600, DiskLevel::Normal),
        (29_999_999, 599, DiskLevel::Reclaim),
        (20_000_000, 59, DiskLevel::Reclaim),
        (19_999_999, 60, DiskLevel::Reclaim),
        (19_999_999, 59, DiskLevel::Throttle),
    ] {
        let mut machine = machine(ROOM);
        let soon = Facts { time_to_full: Some(s(seconds)), ..facts(free) };
        machine.handle(Event::Sample(soon), &marks(), s(1));
        assert_eq!(machine.level(), level, "{free} bytes, {seconds} s");
    }
}

#[test]
fn inodes_enter_and_leave_to_the_inode() {
    use DiskLevel::{Normal, Reclaim, Throttle};
    for (from, free, to) in [
        (1000, 150, Normal),
        (149, 199, Reclaim),
        (149, 200, Normal),
        (149, 100, Reclaim),
        (149, 99, Throttle),
        (99, 149, Throttle),
        (99, 150, Reclaim),
        (99, 50, Throttle),
        (99, 49, DiskLevel::ReadOnly),
    ] {
        let mut machine = machine(ROOM);
        for (free, now) in [(from, 1), (free, 2)] {
            let few = Facts { free_inodes: Some(free), ..facts(ROOM) };
            machine.handle(Event::Sample(few), &marks(), s(now));
        }
        assert_eq!(machine.level(), to, "from {from} to {free}");
    }
}

#[test]
fn a_real_no_space_is_read_only_at_once_whatever_the_figures_say() {
    let mut machine = machine(ROOM);
    let event = Event::NoSpace { cause: DiskCause::Quota, repeat: ALLOCATE };
    let commands = machine.handle(event, &marks(), s(1));
    let Some(Command::Changed(change)) = commands.first() else { panic!("{commands:?}") };
    assert_eq!((change.from, change.to), (DiskLevel::Normal, DiskLevel::ReadOnly));
    assert_eq!(change.cause, Some(LevelCause::Disk(DiskCause::Quota)));
    assert!(commands.contains(&Command::GiveBackPreallocation) && commands.contains(&Command::MoveLeaders));
    // The figures are fine, so the canary repeats what failed until it works, with growing pauses.
    let mut now = s(1);
    for pause_ms in [100, 200, 400, 800, 1000, 1000] {
        let found = canary(&sample(&mut machine, ROOM, now)).expect("a canary runs");
        assert_eq!(found.repeat, ALLOCATE);
        let failed = Event::CanaryFailed { attempt: found.attempt, cause: Some(DiskCause::Quota) };
        machine.handle(failed, &marks(), now);
        assert_eq!(machine.level(), DiskLevel::ReadOnly);
        now += Duration::from_millis(pause_ms - 1);
        assert_eq!(canary(&sample(&mut machine, ROOM, now)), None);
        now += Duration::from_millis(1);
    }
    let found = canary(&sample(&mut machine, ROOM, now)).expect("a canary runs");
    machine.handle(Event::CanaryPassed { attempt: found.attempt }, &marks(), now);
    assert_eq!(machine.level(), DiskLevel::Normal);
}

#[test]
fn read_only_is_left_at_its_exit_mark_by_a_canary_only() {
    let mut machine = machine(FULL);
    assert_eq!(canary(&sample(&mut machine, 9_999_999, s(1))), None);
    let found = canary(&sample(&mut machine, 10_000_000, s(2))).expect("room at the exit mark");
    assert_eq!(machine.level(), DiskLevel::ReadOnly);
    let late = Event::CanaryPassed { attempt: found.attempt };
    sample(&mut machine, FULL, s(3));
    machine.handle(late, &marks(), s(3));
    assert_eq!(machine.level(), DiskLevel::ReadOnly, "space went away while it ran");
    let found = canary(&sample(&mut machine, 14_999_999, s(4))).unwrap();
    machine.handle(late, &marks(), s(4));
    assert_eq!(machine.level(), DiskLevel::ReadOnly, "an answer to an older attempt");
    machine.handle(Event::CanaryPassed { attempt: found.attempt }, &marks(), s(4));
    assert_eq!(machine.level(), DiskLevel::Throttle, "hysteresis of the levels above");
}

#[test]
fn a_write_that_fails_while_the_canary_runs_spoils_it() {
    let mut machine = machine(FULL);
    let found = canary(&sample(&mut machine, ROOM, s(1))).unwrap();
    machine.handle(Event::NoSpace { cause: DiskCause::Bytes, repeat: ALLOCATE }, &marks(), s(1));
    machine.handle(Event::CanaryPassed { attempt: found.attempt }, &marks(), s(1));
    assert_eq!(machine.level(), DiskLevel::ReadOnly);
}

#[test]
fn a_canary_without_an_answer_is_tried_again() {
    let mut machine = machine(FULL);
    let first = canary(&sample(&mut machine, ROOM, s(1))).unwrap();
    assert_eq!(canary(&sample(&mut machine, ROOM, s(6))), None);
    let second = canary(&sample(&mut machine, ROOM, s(7))).unwrap();
    assert!(second.attempt > first.attempt);
}

#[test]
fn two_recoveries_are_immediate_and_later_ones_are_held_and_say_so() {
    let mut machine = machine(ROOM);
    let mut now = s(1);
    assert_eq!(full_and_back(&mut machine, &mut now), s(0));
    now += s(1);
    assert_eq!(full_and_back(&mut machine, &mut now), s(0));
    now += s(1);
    sample(&mut machine, FULL, now);
    sample(&mut machine, ROOM, now);
    let view = machine.view(&marks());
    assert_eq!(view.cause, Some(LevelCause::Disk(DiskCause::Hold)));
    assert_eq!(view.retry_after(now), s(10));
    sample(&mut machine, FULL, now + s(5));
    assert_eq!(machine.view(&marks()).cause, Some(LevelCause::Disk(DiskCause::Bytes)));
    assert_eq!(machine.view(&marks()).retry_after(now), s(5));
    assert_eq!(full_and_back(&mut machine, &mut now), s(10));
    assert_eq!(full_and_back(&mut machine, &mut now), s(20));
    now += WINDOW;
    assert_eq!(full_and_back(&mut machine, &mut now), s(0), "forgotten");
}

#[test]
fn unknown_is_never_plenty() {
    let mut machine = machine(ROOM);
    machine.handle(Event::SensorUnknown, &marks(), s(1));
    assert_eq!(machine.level(), DiskLevel::Reclaim);
    assert!(!machine.view(&marks()).known);
    sample(&mut machine, ROOM, s(2));
    assert_eq!(machine.level(), DiskLevel::Normal);
    sample(&mut machine, FULL, s(3));
    let found = canary(&sample(&mut machine, ROOM, s(4))).unwrap();
    machine.handle(Event::SensorUnknown, &marks(), s(5));
    machine.handle(Event::CanaryPassed { attempt: found.attempt }, &marks(), s(5));
    assert_eq!(machine.level(), DiskLevel::ReadOnly);
}

#[test]
fn failed_is_final_and_three_unclassified_failures_in_a_row_lead_there() {
    let mut machine = machine(ROOM);
    machine.handle(Event::Unclassified, &marks(), s(1));
    machine.handle(Event::Unclassified, &marks(), s(1));
    machine.operation_worked();
    machine.handle(Event::Unclassified, &marks(), s(1));
    machine.handle(Event::Unclassified, &marks(), s(1));
    assert_eq!(machine.level(), DiskLevel::Normal);
    machine.handle(Event::Unclassified, &marks(), s(1));
    assert_eq!(machine.level(), DiskLevel::Failed);
    assert_eq!(machine.view(&marks()).cause, Some(LevelCause::Failure(FailureCause::AppendErrors)));
    assert_eq!(sample(&mut machine, ROOM, s(1000)), []);
    assert_eq!(machine.level(), DiskLevel::Failed);
}

#[test]
fn reclaim_is_asked_for_while_short_and_bounded_in_pace() {
    let mut machine = machine(ROOM);
    let commands = sample(&mut machine, 14_000_000, s(1));
    assert!(commands.contains(&Command::Reclaim { bytes: 6_000_000, inodes: 0 }));
    assert_eq!(sample(&mut machine, 14_500_000, s(1) + Duration::from_millis(199)), []);
    let again = sample(&mut machine, 15_000_000, s(1) + Duration::from_millis(200));
    assert_eq!(again, [Command::Reclaim { bytes: 5_000_000, inodes: 0 }]);
    assert!(sample(&mut machine, ROOM, s(2)).contains(&Command::StopReclaim));
}

#[test]
fn canaries_ask_for_no_more_than_the_exit_mark_can_give() {
    let mut machine = machine(ROOM);
    let huge = Repeat::Allocate { bytes: u64::MAX };
    machine.handle(Event::NoSpace { cause: DiskCause::Bytes, repeat: huge }, &marks(), s(1));
    let found = canary(&sample(&mut machine, ROOM, s(1))).unwrap();
    assert_eq!(found.repeat, Repeat::Allocate { bytes: 5_000_000 });
}

#[derive(Clone, Debug)]
enum Input {
    Free(u64, Option<u64>),
    Unknown,
    NoSpace,
    AnswerCanary(bool),
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        6 => (0_u64..40_000_000, proptest::option::of(0_u64..1500)).prop_map(|(f, t)| Input::Free(f, t)),
        1 => Just(Input::Unknown),
        1 => Just(Input::NoSpace),
        3 => any::<bool>().prop_map(Input::AnswerCanary),
    ]
}

proptest! {
    #[test]
    fn never_more_than_twenty_changes_in_ten_minutes(
        inputs in proptest::collection::vec((input(), 0_u64..20_000), 1..400)
    ) {
        let marks = marks();
        let mut machine = machine(ROOM);
        let mut now = Duration::ZERO;
        let mut changes: Vec<Duration> = Vec::new();
        let mut attempt = 0;
        for (input, elapsed_ms) in inputs {
            now += Duration::from_millis(elapsed_ms);
            let before = machine.level();
            let event = match input {
                Input::Free(free, seconds) => Event::Sample(Facts { time_to_full: seconds.map(s), ..facts(free) }),
                Input::Unknown => Event::SensorUnknown,
                Input::NoSpace => Event::NoSpace { cause: DiskCause::Bytes, repeat: ALLOCATE },
                Input::AnswerCanary(true) => Event::CanaryPassed { attempt },
                Input::AnswerCanary(false) => Event::CanaryFailed { attempt, cause: None },
            };
            if let Input::Free(free, _) = input && free < 5_000_000 {
                let commands = machine.handle(event, &marks, now);
                prop_assert_eq!(machine.level(), DiskLevel::ReadOnly, "worsening is immediate");
                attempt = canary(&commands).map_or(attempt, |c| c.attempt);
            } else {
                let commands = machine.handle(event, &marks, now);
                attempt = canary(&commands).map_or(attempt, |c| c.attempt);
            }
            if machine.level() != before {
                changes.push(now);
            }
            let recent = changes.iter().filter(|at| **at + WINDOW > now).count();
            prop_assert!(recent <= CHANGES_MAX, "{} changes", recent);
        }
    }
}
