//! What may take so long, or be so much, and no more: coming back after faults, refusals, lines in a log.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_proto::ids::PartitionId;

use crate::event::{Event, Regained};
use crate::violation::Violation;

/// With all faults over, and nothing held back by design, a partition has everything again within this.
pub const LIVE_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn check(events: &[Event], found: &mut Vec<Violation>) {
    live(events, found);
    for event in events {
        match event {
            Event::Refused { client, partition, typed, after, budget } => {
                let (client, partition, after, budget) = (*client, *partition, *after, *budget);
                if !typed {
                    found.push(Violation::Untyped { client, partition });
                }
                if after > budget {
                    found.push(Violation::LateRefusal { client, partition, after, budget });
                }
            }
            Event::Logged { who, lines, budget } if lines > budget => {
                found.push(Violation::LogBudget { who: who.clone(), lines: *lines, budget: *budget });
            }
            _ => {}
        }
    }
}

fn live(events: &[Event], found: &mut Vec<Violation>) {
    let mut healed: BTreeMap<PartitionId, Duration> = BTreeMap::new();
    let mut held: BTreeMap<(PartitionId, Regained), Duration> = BTreeMap::new();
    for event in events {
        match event {
            Event::Healed { partition, at } => drop(healed.insert(*partition, *at)),
            Event::HeldBack { partition, from, until } => {
                let last = held.entry((*partition, *from)).or_default();
                *last = (*last).max(*until);
            }
            _ => {}
        }
    }
    for (partition, healed) in healed {
        for what in [Regained::Acknowledges, Regained::FullSet] {
            let again = events.iter().find_map(|event| match event {
                Event::Regained { partition: found, what: regained, at } => {
                    (*found == partition && *regained == what && *at >= healed).then_some(*at)
                }
                _ => None,
            });
            let from = held.get(&(partition, what)).map_or(healed, |until| healed.max(*until));
            let after = again.map(|at| at.saturating_sub(from));
            if after.is_none_or(|after| after > LIVE_WITHIN) {
                found.push(Violation::NotLive { partition, what, after, allowed: LIVE_WITHIN });
            }
        }
    }
}
