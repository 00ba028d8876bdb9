//! What operators do in one run of four: partitions move, nodes are drained; and devices that failed work again under
//! the running process.

use std::time::Duration;

use plimsoll_host::Random;

use super::draw::index;
use super::{FIRST, Fault, LAST, Node};

/// Keeps what is drawn here apart from what the seed itself draws.
const APART: u64 = 0x6f70_6572_6174_6564;
/// One run of so many.
const EVERY: u64 = 4;

/// To where a partition of three replicas may go: the least that the topic allows, and other orders of preference.
const PLACES: [&[u32]; 8] = [&[1, 2], &[2, 3], &[3, 1], &[2, 1], &[3, 2], &[1, 3], &[3, 2, 1], &[2, 3, 1]];
/// Where all partitions are in the end.
pub(in crate::simulation) const EVERYWHERE: &[u32] = &[1, 2, 3];

/// The number that operators draw from; `None` when nobody is at work in this run.
pub(super) fn operators(seed: u64) -> Option<Random> {
    let random = Random::seeded(seed ^ APART);
    (random.below(EVERY) == 0).then_some(random)
}

/// Adds their deeds.
pub(super) fn add(random: &Random, faults: &mut Vec<(Duration, Fault)>) {
    heal_in_place(faults);
    for _ in 0..2 + random.below(4) {
        let partition = u32::try_from(random.below(2)).unwrap_or(0);
        let to = PLACES[index(random, 8)];
        let begin = moment(random);
        let back = (begin + Duration::from_millis(500) + random.jitter(Duration::from_secs(6))).min(LAST);
        faults.push((begin, Fault::Reassign { partition, to }));
        faults.push((back, Fault::Reassign { partition, to: EVERYWHERE }));
    }
    if random.below(2) == 0 {
        let node = Node::SPUS[index(random, 3)];
        let begin = moment(random);
        let back = (begin + Duration::from_millis(500) + random.jitter(Duration::from_secs(6))).min(LAST);
        faults.push((begin, Fault::Drain(node)));
        faults.push((back, Fault::Serve(node)));
    }
    faults.sort_by_key(|(at, _)| *at);
}

fn moment(random: &Random) -> Duration {
    FIRST + random.jitter(LAST.saturating_sub(FIRST + Duration::from_secs(2)))
}

/// A storage node whose syncs failed is not killed in the end: its device works again. A controller is.
fn heal_in_place(faults: &mut Vec<(Duration, Fault)>) {
    let failing: Vec<(Duration, Node)> = faults
        .iter()
        .filter_map(|(at, fault)| match fault {
            Fault::SyncFails(node) if Node::SPUS.contains(node) => Some((*at, *node)),
            _ => None,
        })
        .collect();
    for (since, node) in failing {
        let next = |wanted: Fault, faults: &[(Duration, Fault)]| {
            faults.iter().position(|(at, fault)| *at >= since && *fault == wanted)
        };
        // They are what the same episode ends with: it has the process for itself.
        if let Some(kill) = next(Fault::Kill(node), faults) {
            faults[kill].1 = Fault::SyncWorks(node);
        }
        if let Some(start) = next(Fault::Start(node), faults) {
            faults.remove(start);
        }
    }
}
