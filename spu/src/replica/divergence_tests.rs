//! Two logs that went apart: how often a follower is told to cut, and where that ends.

use plimsoll_proto::ids::{LeaderEpoch, Offset, SpuId};
use proptest::prelude::*;

use super::{Asked, EpochEnd, Follower, FollowerStep, LeaderAnswer, OwnLog, Position};

/// The epoch of each record, by offset. A record is told by both.
type Log = Vec<u32>;

fn at(offset: usize) -> Offset {
    Offset::new(u64::try_from(offset).expect("small")).expect("small")
}

fn lookup(log: &Log) -> impl Fn(LeaderEpoch) -> Option<EpochEnd> + '_ {
    |epoch| {
        let end = log.iter().rposition(|of| *of <= epoch.0)? + 1;
        Some(EpochEnd { epoch: LeaderEpoch(log[end - 1]), end: at(end) })
    }
}

fn common(a: &Log, b: &Log) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Follows until nothing is to be cut any more, and returns how often something was.
fn cuts(leader: &Log, log: &mut Log) -> usize {
    let mut follower = Follower::new(SpuId(1), LeaderEpoch(u32::MAX));
    for cuts in 0.. {
        let (log_end, last_epoch) = (at(log.len()), log.last().copied().map(LeaderEpoch));
        let own = OwnLog { log_start: Offset::ZERO, high_watermark: Offset::ZERO, log_end, last_epoch };
        let ends = (Offset::ZERO, at(leader.len()));
        let end = match Position::of(log_end, last_epoch, ends, lookup(leader)) {
            Position::Continues => return cuts,
            Position::Diverging(end) => end,
            Position::Trimmed => panic!("nothing was trimmed"),
        };
        let asked = Asked { log_end, last_epoch };
        let answer = LeaderAnswer::Diverging(end);
        let step = follower.on_answer(own, asked, answer, Offset::ZERO, lookup(log));
        let Some(FollowerStep::TruncateTail(to)) = step else { panic!("{step:?} at {log_end}") };
        assert!(to < log_end, "every cut takes something away");
        log.truncate(usize::try_from(to.get()).expect("small"));
    }
    unreachable!("a log has an end")
}

#[test]
fn one_lookup_is_not_always_enough() {
    let leader = [[1; 5].as_slice(), &[3; 3], &[6; 4]].concat();
    let mut follower = [[1; 7].as_slice(), &[2; 2], &[5; 2]].concat();
    // First to the end of the leader's epoch 3, then, as the leader never saw epoch 2, to the end of its epoch 1.
    assert_eq!(cuts(&leader, &mut follower), 2);
    assert_eq!(follower, [1; 5]);
}

/// In each epoch one of three leads and appends, and the others copy as far as they get.
fn histories() -> impl Strategy<Value = [Log; 3]> {
    let turn = (0..3usize, 0..4usize, [0..12usize, 0..12usize]);
    proptest::collection::vec(turn, 1..12).prop_map(|turns| {
        let mut logs: [Log; 3] = Default::default();
        for (epoch, (leader, records, copied)) in (1..).zip(turns) {
            logs[leader].extend(std::iter::repeat_n(epoch, records));
            let led = logs[leader].clone();
            for (step, copied) in [1, 2].into_iter().zip(copied) {
                let log = &mut logs[(leader + step) % 3];
                // Some hear nothing of this leader.
                if copied > 0 {
                    let end = (common(log, &led) + copied - 1).min(led.len());
                    *log = led[..end].to_vec();
                }
            }
        }
        logs
    })
}

proptest! {
    #[test]
    fn lookups_end_at_what_both_have(logs in histories()) {
        let [leader, follower, _] = logs;
        let shared = common(&leader, &follower);
        let mut epochs = follower.clone();
        epochs.dedup();
        let mut log = follower;
        let cuts = cuts(&leader, &mut log);
        prop_assert_eq!(log, &leader[..shared], "all that both have stays, and nothing else");
        prop_assert!(cuts <= epochs.len() + 1, "{} cuts for {} epochs", cuts, epochs.len());
    }
}
