//! Each rule finds its bad history, and lets the good one next to it pass.

mod bounds;

use std::collections::BTreeSet;
use std::time::Duration;

use plimsoll_history::{Answer, Event, Held, History, Payload, Promise, Regained, Violation, check};
use plimsoll_proto::ids::{Incarnation, LeaderEpoch, Offset, PartitionId, SpuId, TopicId};

const P: PartitionId = PartitionId { topic_id: TopicId([7; 16]), index: 0 };

fn at(offset: u64) -> Offset {
    Offset::new(offset).expect("a small offset")
}

fn pay(n: u128) -> Payload {
    Payload(n)
}

fn sent(producer: u64, n: u128) -> Event {
    Event::Sent { producer, partition: P, payload: pay(n) }
}

fn told(n: u128, answer: Answer) -> Event {
    Event::Answered { partition: P, payload: pay(n), answer }
}

fn acked(n: u128, offset: u64) -> Event {
    told(n, Answer::Acked { offset: at(offset), promise: Promise::Replicated })
}

fn read(consumer: u64, offset: u64, n: u128) -> Event {
    Event::Read { consumer, partition: P, offset: at(offset), payload: pay(n) }
}

fn held(spu: u32, leader: bool, start: u64, hw: u64, records: &[(u64, u128)]) -> Event {
    Event::Held(Held {
        spu: SpuId(spu),
        partition: P,
        leader,
        log_start: at(start),
        high_watermark: at(hw),
        records: records.iter().map(|(offset, n)| (at(*offset), pay(*n))).collect(),
    })
}

fn led(spu: u32, incarnation: u64, epoch: u32) -> Event {
    Event::Led {
        partition: P,
        epoch: LeaderEpoch(epoch),
        spu: SpuId(spu),
        incarnation: Some(Incarnation(incarnation)),
    }
}

/// Led, as an acknowledgement tells it.
fn acked_by(spu: u32, epoch: u32) -> Event {
    Event::Led { partition: P, epoch: LeaderEpoch(epoch), spu: SpuId(spu), incarnation: None }
}

fn committed(high_watermark: u64) -> Event {
    Event::Committed { partition: P, high_watermark: at(high_watermark) }
}

struct Case {
    rule: &'static str,
    bad: Vec<Event>,
    good: Vec<Event>,
    is: fn(&Violation) -> bool,
}

fn cases() -> Vec<Case> {
    let refused = |n| told(n, Answer::Refused);
    let unknown = |n| told(n, Answer::Unknown);
    vec![
        Case {
            rule: "lost: the leader no longer has an acknowledged record",
            bad: vec![sent(1, 1), acked(1, 0), held(1, true, 0, 0, &[]), held(2, false, 0, 1, &[(0, 1)])],
            good: vec![sent(1, 1), acked(1, 0), held(1, true, 0, 1, &[(0, 1)]), held(2, false, 0, 0, &[])],
            is: |v| matches!(v, Violation::Lost { .. }),
        },
        Case {
            rule: "lost: nobody read an acknowledged record",
            bad: vec![sent(1, 1), acked(1, 0)],
            good: vec![sent(1, 1), acked(1, 0), read(1, 0, 1)],
            is: |v| matches!(v, Violation::Lost { .. }),
        },
        Case {
            rule: "lost: beyond what retention may take",
            bad: vec![
                sent(1, 1),
                acked(1, 0),
                sent(1, 2),
                acked(2, 1),
                Event::MayTrim { partition: P, below: at(1) },
                held(1, true, 1, 1, &[]),
            ],
            good: vec![
                sent(1, 1),
                acked(1, 0),
                sent(1, 2),
                acked(2, 1),
                Event::MayTrim { partition: P, below: at(1) },
                held(1, true, 1, 2, &[(1, 2)]),
            ],
            is: |v| matches!(v, Violation::Lost { .. }),
        },
        Case {
            rule: "phantom: a refused record appears",
            bad: vec![sent(1, 1), refused(1), held(1, true, 0, 1, &[(0, 1)])],
            good: vec![sent(1, 1), refused(1), held(1, true, 0, 0, &[])],
            is: |v| matches!(v, Violation::Phantom { why: "refused", .. }),
        },
        Case {
            rule: "phantom: a record that was never sent is read",
            bad: vec![sent(1, 1), acked(1, 0), read(1, 0, 1), read(1, 1, 99)],
            good: vec![sent(1, 1), acked(1, 0), read(1, 0, 1)],
            is: |v| matches!(v, Violation::Phantom { why: "never sent", .. }),
        },
        Case {
            rule: "unknown at most once",
            bad: vec![sent(1, 1), unknown(1), held(1, true, 0, 2, &[(0, 1), (1, 1)])],
            good: vec![sent(1, 1), unknown(1), held(1, true, 0, 1, &[(0, 1)])],
            is: |v| matches!(v, Violation::Duplicate { .. }),
        },
        Case {
            rule: "no duplicates",
            bad: vec![sent(1, 1), acked(1, 0), held(1, true, 0, 2, &[(0, 1), (1, 1)])],
            good: vec![sent(1, 1), acked(1, 0), held(1, true, 0, 1, &[(0, 1)])],
            is: |v| matches!(v, Violation::Duplicate { .. }),
        },
        Case {
            rule: "order of a producer",
            bad: vec![
                sent(1, 1),
                sent(1, 2),
                acked(1, 1),
                acked(2, 0),
                held(1, true, 0, 2, &[(0, 2), (1, 1)]),
            ],
            // Two producers at once may interleave as they like.
            good: vec![
                sent(1, 1),
                sent(2, 2),
                acked(1, 1),
                acked(2, 0),
                held(1, true, 0, 2, &[(0, 2), (1, 1)]),
            ],
            is: |v| matches!(v, Violation::Reordered { .. }),
        },
        Case {
            rule: "real-time order",
            bad: vec![
                sent(1, 1),
                acked(1, 1),
                sent(2, 2),
                acked(2, 0),
                held(1, true, 0, 2, &[(0, 2), (1, 1)]),
            ],
            good: vec![
                sent(1, 1),
                sent(2, 2),
                acked(1, 1),
                acked(2, 0),
                held(1, true, 0, 2, &[(0, 2), (1, 1)]),
            ],
            is: |v| matches!(v, Violation::RealTime { .. }),
        },
        Case {
            rule: "contiguous offsets for a consumer",
            bad: vec![sent(1, 1), sent(1, 2), read(1, 0, 1), read(1, 2, 2)],
            good: vec![
                sent(1, 1),
                sent(1, 2),
                read(1, 0, 1),
                Event::Seek { consumer: 1, partition: P, to: at(2) },
                read(1, 2, 2),
            ],
            is: |v| matches!(v, Violation::Gap { .. }),
        },
        Case {
            rule: "contiguous offsets on a replica",
            bad: vec![sent(1, 1), sent(1, 2), held(1, false, 0, 3, &[(0, 1), (2, 2)])],
            good: vec![sent(1, 1), sent(1, 2), held(1, false, 0, 2, &[(0, 1), (1, 2)])],
            is: |v| matches!(v, Violation::Gap { .. }),
        },
        Case {
            rule: "a replica holds what it claims to be committed",
            bad: vec![sent(1, 1), held(1, false, 0, 2, &[(0, 1)])],
            good: vec![sent(1, 1), held(1, false, 0, 1, &[(0, 1)])],
            is: |v| matches!(v, Violation::Gap { .. }),
        },
        Case {
            rule: "one payload per offset: two consumers",
            bad: vec![sent(1, 1), sent(2, 2), read(1, 0, 1), read(2, 0, 2)],
            good: vec![sent(1, 1), sent(2, 2), read(1, 0, 1), read(2, 0, 1)],
            is: |v| matches!(v, Violation::TwoPayloads { .. }),
        },
        Case {
            rule: "one payload per offset: a consumer and a replica, later",
            bad: vec![sent(1, 1), sent(2, 2), read(1, 0, 1), held(1, true, 0, 1, &[(0, 2)])],
            // What lies beyond the high watermark is not committed and may be cut.
            good: vec![sent(1, 1), sent(2, 2), read(1, 0, 1), held(1, false, 0, 0, &[(0, 2)])],
            is: |v| matches!(v, Violation::TwoPayloads { .. }),
        },
        Case {
            rule: "equal prefixes",
            bad: vec![
                sent(1, 1),
                sent(2, 2),
                held(1, true, 0, 1, &[(0, 1)]),
                held(2, false, 0, 1, &[(0, 2)]),
            ],
            good: vec![
                sent(1, 1),
                sent(2, 2),
                held(1, true, 0, 1, &[(0, 1)]),
                held(2, false, 0, 0, &[(0, 2)]),
            ],
            is: |v| matches!(v, Violation::ReplicasDiffer { .. }),
        },
        Case {
            rule: "what was read is there for ever",
            bad: vec![sent(1, 1), read(1, 0, 1), held(1, true, 0, 0, &[(0, 1)])],
            good: vec![sent(1, 1), read(1, 0, 1), held(1, true, 0, 1, &[(0, 1)]), held(2, false, 0, 0, &[])],
            is: |v| matches!(v, Violation::ReadThenGone { .. }),
        },
        Case {
            rule: "nobody reads past the true high watermark",
            bad: vec![sent(1, 1), read(1, 0, 1), committed(0), committed(1), read(2, 0, 1), read(2, 1, 1)],
            good: vec![sent(1, 1), committed(0), committed(1), read(1, 0, 1)],
            is: |v| matches!(v, Violation::PastHighWatermark { consumer: 2, .. }),
        },
        Case {
            rule: "one leader per epoch",
            bad: vec![led(1, 5, 3), led(2, 6, 3)],
            good: vec![led(1, 5, 3), led(1, 5, 3), led(2, 6, 4)],
            is: |v| matches!(v, Violation::TwoLeaders { .. }),
        },
        Case {
            rule: "one leader per epoch: a new run of a node needs a new epoch",
            bad: vec![led(1, 5, 3), led(1, 9, 3)],
            good: vec![led(1, 5, 3), led(1, 9, 4)],
            is: |v| matches!(v, Violation::TwoLeaders { .. }),
        },
        Case {
            rule: "one leader per epoch: two nodes acknowledge in one",
            bad: vec![acked_by(1, 3), led(1, 5, 3), acked_by(2, 3)],
            good: vec![acked_by(1, 3), led(1, 5, 3), acked_by(1, 3), acked_by(2, 4)],
            is: |v| matches!(v, Violation::TwoLeaders { .. }),
        },
        Case {
            rule: "one leader per epoch: the run that the metadata name counts behind an acknowledgement too",
            bad: vec![acked_by(1, 3), led(1, 5, 3), led(1, 9, 3)],
            good: vec![acked_by(1, 3), led(1, 5, 3), acked_by(1, 3)],
            is: |v| matches!(v, Violation::TwoLeaders { .. }),
        },
        Case {
            rule: "retention within policy",
            bad: vec![held(1, true, 5, 5, &[])],
            good: vec![Event::MayTrim { partition: P, below: at(5) }, held(1, true, 5, 5, &[])],
            is: |v| matches!(v, Violation::TrimmedTooMuch { .. }),
        },
        Case {
            rule: "retention within policy: what is allowed later was not allowed when it was found",
            bad: vec![held(1, true, 5, 5, &[]), Event::MayTrim { partition: P, below: at(5) }],
            good: vec![
                held(1, true, 0, 0, &[]),
                Event::MayTrim { partition: P, below: at(5) },
                held(1, true, 5, 5, &[]),
            ],
            is: |v| matches!(v, Violation::TrimmedTooMuch { .. }),
        },
        Case {
            rule: "the recorder keeps records apart",
            bad: vec![sent(1, 1), sent(1, 1)],
            good: vec![sent(1, 1), sent(1, 2)],
            is: |v| matches!(v, Violation::Reused { why: "sent twice", .. }),
        },
        Case {
            rule: "a record has one answer",
            bad: vec![sent(1, 1), acked(1, 0), unknown(1)],
            good: vec![sent(1, 1), acked(1, 0)],
            is: |v| matches!(v, Violation::Reused { why: "answered twice", .. }),
        },
        Case {
            rule: "only what was sent is answered",
            bad: vec![sent(1, 1), acked(2, 0)],
            good: vec![sent(1, 1), acked(1, 0)],
            is: |v| matches!(v, Violation::Reused { why: "answered, never sent", .. }),
        },
    ]
}

fn all() -> impl Iterator<Item = Case> {
    cases().into_iter().chain(bounds::cases())
}

/// The names of all variants: one that is left out here does not compile.
macro_rules! variants {
    ($($name:ident),* $(,)?) => {
        const VARIANTS: &[&str] = &[$(stringify!($name)),*];

        fn variant(violation: &Violation) -> &'static str {
            match violation {
                $(Violation::$name { .. } => stringify!($name),)*
            }
        }
    };
}

variants!(
    Lost,
    Phantom,
    Duplicate,
    Reordered,
    RealTime,
    ReadThenGone,
    Gap,
    TwoPayloads,
    ReplicasDiffer,
    PastHighWatermark,
    TwoLeaders,
    TrimmedTooMuch,
    NotLive,
    Untyped,
    LateRefusal,
    LogBudget,
    Reused,
);

#[test]
fn every_violation_has_a_bad_history() {
    let mut shown = BTreeSet::new();
    for case in all() {
        let found = check(&case.bad.into_iter().collect::<History>());
        shown.extend(found.iter().filter(|violation| (case.is)(violation)).map(variant));
    }
    assert_eq!(shown, VARIANTS.iter().copied().collect::<BTreeSet<_>>());
}

#[test]
fn every_rule_finds_its_bad_history() {
    for case in all() {
        let found = check(&case.bad.into_iter().collect::<History>());
        assert!(found.iter().any(case.is), "{}: found only {found:?}", case.rule);
    }
}

#[test]
fn every_rule_lets_the_good_history_pass() {
    for case in all() {
        let found = check(&case.good.into_iter().collect::<History>());
        // Some good histories are cut short for one rule, so only that rule is asked about.
        assert!(!found.iter().any(case.is), "{}: found {found:?}", case.rule);
    }
}

#[test]
fn a_whole_good_history_breaks_nothing() {
    let history: History = vec![
        led(1, 5, 1),
        sent(1, 1),
        sent(1, 2),
        acked(1, 0),
        committed(1),
        read(1, 0, 1),
        told(2, Answer::Unknown),
        led(2, 6, 2),
        sent(1, 3),
        told(3, Answer::Refused),
        sent(1, 4),
        committed(3),
        acked(4, 2),
        read(1, 1, 2),
        read(1, 2, 4),
        bounds::refused_after(true, 7),
        acked_by(2, 2),
        bounds::healed(20),
        bounds::regained(Regained::Acknowledges, Duration::from_secs(21)),
        bounds::regained(Regained::FullSet, Duration::from_secs(22)),
        bounds::logged(3),
        held(1, false, 0, 2, &[(0, 1), (1, 2)]),
        held(2, true, 0, 3, &[(0, 1), (1, 2), (2, 4)]),
    ]
    .into_iter()
    .collect();
    assert_eq!(check(&history), vec![]);
}

#[test]
fn digests_keep_key_and_value_apart() {
    let of = |key: Option<&str>, value: Option<&str>| {
        Payload::of(key.map(str::as_bytes), value.map(str::as_bytes))
    };
    let all = [
        of(None, None),
        of(Some(""), None),
        of(None, Some("")),
        of(Some("ab"), Some("c")),
        of(Some("a"), Some("bc")),
        of(None, Some("abc")),
    ];
    for (i, one) in all.iter().enumerate() {
        for other in &all[i + 1..] {
            assert_ne!(one, other);
        }
    }
}
