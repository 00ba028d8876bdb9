//! The rules, one question a file.

mod answers;
mod bounds;
mod leaders;
mod logs;
mod reads;

use std::collections::BTreeMap;

use plimsoll_proto::ids::{Offset, PartitionId};

use crate::event::{Event, Held, History, Payload};
use crate::violation::Violation;

pub use bounds::LIVE_WITHIN;

/// Checks a history against every rule; empty when nothing was broken.
///
/// Violations come by rule, within a rule in the order of partitions and offsets; the same history always
/// gives the same list.
pub fn check(history: &History) -> Vec<Violation> {
    let seen = Seen::collect(history.events());
    let mut found = Vec::new();
    leaders::check(history.events(), &mut found);
    reads::check(history.events(), &mut found);
    logs::check(&seen, &mut found);
    answers::check(history.events(), &seen, &mut found);
    bounds::check(history.events(), &mut found);
    found
}

/// What was observed of each partition, by anybody.
#[derive(Default)]
struct Seen<'a> {
    partitions: BTreeMap<PartitionId, Partition<'a>>,
}

#[derive(Default)]
struct Partition<'a> {
    replicas: Vec<&'a Held>,
    /// For each replica, below what it might delete when it was looked at.
    allowed: Vec<Offset>,
    reads: Vec<(u64, Offset, Payload)>,
    may_trim_below: Offset,
}

impl<'a> Seen<'a> {
    fn collect(events: &'a [Event]) -> Self {
        let mut seen = Self::default();
        for event in events {
            match event {
                Event::Held(held) => {
                    let partition = seen.of(held.partition);
                    partition.replicas.push(held);
                    partition.allowed.push(partition.may_trim_below);
                }
                Event::Read { consumer, partition, offset, payload } => {
                    seen.of(*partition).reads.push((*consumer, *offset, *payload));
                }
                Event::MayTrim { partition, below } => {
                    let partition = seen.of(*partition);
                    partition.may_trim_below = partition.may_trim_below.max(*below);
                }
                Event::Sent { .. }
                | Event::Answered { .. }
                | Event::Seek { .. }
                | Event::Committed { .. }
                | Event::Led { .. }
                | Event::Healed { .. }
                | Event::HeldBack { .. }
                | Event::Regained { .. }
                | Event::Refused { .. }
                | Event::Logged { .. } => {}
            }
        }
        seen
    }

    fn of(&mut self, partition: PartitionId) -> &mut Partition<'a> {
        self.partitions.entry(partition).or_default()
    }
}

impl Partition<'_> {
    /// Every committed record as (offset, payload): what replicas hold below their high watermarks and what
    /// consumers read. With a differing pair at an offset both are there.
    fn committed(&self) -> std::collections::BTreeSet<(Offset, Payload)> {
        let held = self.replicas.iter().flat_map(|held| below_high_watermark(held));
        held.chain(self.reads.iter().map(|(_, offset, payload)| (*offset, *payload))).collect()
    }
}

fn below_high_watermark(held: &Held) -> impl Iterator<Item = (Offset, Payload)> {
    held.records.iter().copied().filter(|(offset, _)| *offset < held.high_watermark)
}
