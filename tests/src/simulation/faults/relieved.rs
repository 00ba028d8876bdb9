//! Runs in which replicas leave volumes that are short of room: partitions have two replicas for a while, so that a node is
//! left to take them, and the controllers wait for a moment only.

use std::time::Duration;

use plimsoll_host::Random;

use super::draw::index;
use super::{FIRST, Fault, LAST, Node};

/// Keeps what is drawn here apart from what the seed itself draws, and from what other operators do.
const APART: u64 = 0x7265_6c69_6576_652e;
/// One run of so many.
const EVERY: u64 = 8;

/// Before most moves have come to their end.
const CALLED_OFF_WITHIN: Duration = Duration::from_millis(250);

/// Where a partition is meanwhile.
const PAIRS: [&[u32]; 6] = [&[1, 2], &[2, 3], &[3, 1], &[2, 1], &[3, 2], &[1, 3]];

/// The number that these deeds are drawn from; `None` in other runs.
pub(super) fn relieving(seed: u64) -> Option<Random> {
    let random = Random::seeded(seed ^ APART);
    (random.below(EVERY) == 0).then_some(random)
}

/// Adds them: partitions make room on a node, a disk that one of them is on fills for long enough, and somebody asks for
/// relief at once, or calls it off.
pub(super) fn add(random: &Random, faults: &mut Vec<(Duration, Fault)>) {
    for partition in 0..2 {
        let to = PAIRS[index(random, 6)];
        faults.push((FIRST + random.jitter(Duration::from_secs(1)), Fault::Reassign { partition, to }));
    }
    for _ in 0..1 + random.below(2) {
        let node = Node::SPUS[index(random, 3)];
        let begin = moment(random);
        let end = (begin + Duration::from_secs(3) + random.jitter(Duration::from_secs(5))).min(LAST);
        faults.push((begin, Fault::Fill { node, greedy: random.below(2) == 0 }));
        faults.push((end, Fault::Free(node)));
        let asked = begin + random.jitter(Duration::from_secs(1));
        if random.below(2) == 0 {
            faults.push((asked, Fault::Relieve));
            // Soon: replicas of small partitions are there in no time.
            if random.below(3) == 0 {
                faults.push((asked + random.jitter(CALLED_OFF_WITHIN), Fault::CallOffRelief));
            }
        }
    }
    faults.sort_by_key(|(at, _)| *at);
}

/// After the partitions were told to make room.
fn moment(random: &Random) -> Duration {
    let from = FIRST + Duration::from_secs(2);
    from + random.jitter(LAST.saturating_sub(from + Duration::from_secs(2)))
}
