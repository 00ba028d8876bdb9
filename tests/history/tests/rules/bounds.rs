//! Rules about how long something takes, and how much it is.

use std::time::Duration;

use plimsoll_history::{Event, LIVE_WITHIN, Regained, Violation};

use super::{Case, P};

pub(super) fn healed(at_s: u64) -> Event {
    Event::Healed { partition: P, at: Duration::from_secs(at_s) }
}

fn held_back(from: Regained, until_s: u64) -> Event {
    Event::HeldBack { partition: P, from, until: Duration::from_secs(until_s) }
}

pub(super) fn regained(what: Regained, at: Duration) -> Event {
    Event::Regained { partition: P, what, at }
}

pub(super) fn refused_after(typed: bool, ms: u64) -> Event {
    let (after, budget) = (Duration::from_millis(ms), Duration::from_millis(50));
    Event::Refused { client: 1, partition: P, typed, after, budget }
}

pub(super) fn logged(lines: u64) -> Event {
    Event::Logged { who: "spu 1".to_owned(), lines, budget: 10 }
}

/// Rules about how long something takes, and how much it is.
pub(super) fn cases() -> Vec<Case> {
    const LATE: Duration = Duration::from_millis(1);
    let (acks, whole) = (Regained::Acknowledges, Regained::FullSet);
    let healed_at = Duration::from_secs(20);
    let in_time = healed_at + LIVE_WITHIN;
    vec![
        Case {
            rule: "liveness: acknowledged again too late",
            bad: vec![healed(20), regained(acks, in_time + LATE), regained(whole, in_time)],
            good: vec![healed(20), regained(acks, in_time), regained(whole, in_time)],
            is: |v| matches!(v, Violation::NotLive { what: Regained::Acknowledges, after: Some(_), .. }),
        },
        Case {
            rule: "liveness: an acknowledgement before the faults were over is none",
            bad: vec![regained(acks, Duration::from_secs(19)), healed(20), regained(whole, in_time)],
            good: vec![healed(20), regained(acks, healed_at), regained(whole, in_time)],
            is: |v| matches!(v, Violation::NotLive { what: Regained::Acknowledges, after: None, .. }),
        },
        Case {
            rule: "liveness: the set is never full again",
            bad: vec![healed(20), regained(acks, in_time)],
            good: vec![healed(20), regained(acks, in_time), regained(whole, in_time)],
            is: |v| matches!(v, Violation::NotLive { what: Regained::FullSet, after: None, .. }),
        },
        Case {
            rule: "liveness: a hold moves the bound of what it holds back, and not further than to its end",
            bad: vec![
                healed(20),
                held_back(whole, 25),
                regained(acks, in_time),
                regained(whole, Duration::from_secs(25) + LIVE_WITHIN + LATE),
            ],
            good: vec![
                healed(20),
                held_back(whole, 22),
                held_back(whole, 25),
                regained(acks, in_time),
                regained(whole, Duration::from_secs(25) + LIVE_WITHIN),
            ],
            is: |v| matches!(v, Violation::NotLive { what: Regained::FullSet, .. }),
        },
        Case {
            rule: "liveness: a hold of the one excuses nothing of the other",
            bad: vec![healed(20), held_back(whole, 25), regained(acks, in_time + LATE)],
            good: vec![healed(20), held_back(acks, 25), regained(acks, in_time + LATE)],
            is: |v| matches!(v, Violation::NotLive { what: Regained::Acknowledges, .. }),
        },
        Case {
            rule: "refusals say why",
            bad: vec![refused_after(false, 1)],
            good: vec![refused_after(true, 1)],
            is: |v| matches!(v, Violation::Untyped { .. }),
        },
        Case {
            rule: "refusals come within their budget",
            bad: vec![refused_after(true, 50), refused_after(true, 51)],
            good: vec![refused_after(true, 50)],
            is: |v| matches!(v, Violation::LateRefusal { .. }),
        },
        Case {
            rule: "log budget",
            bad: vec![logged(10), logged(11)],
            good: vec![logged(10)],
            is: |v| matches!(v, Violation::LogBudget { .. }),
        },
    ]
}
