//! What replicas hold: no gaps, one payload per offset for ever, equal prefixes, retention within policy,
//! everything that was read.

use std::collections::{BTreeMap, BTreeSet};

use super::{Partition, Seen, below_high_watermark};
use crate::event::Held;
use crate::violation::Violation;
use plimsoll_proto::ids::PartitionId;

pub(super) fn check(seen: &Seen<'_>, found: &mut Vec<Violation>) {
    for (id, partition) in &seen.partitions {
        for (held, allowed) in partition.replicas.iter().zip(&partition.allowed) {
            contiguous(held, found);
            if held.log_start > *allowed {
                found.push(Violation::TrimmedTooMuch {
                    spu: held.spu,
                    partition: *id,
                    log_start: held.log_start,
                    allowed: *allowed,
                });
            }
        }
        equal_prefixes(*id, partition, found);
        one_payload(*id, partition, found);
        read_then_gone(*id, partition, found);
    }
}

fn contiguous(held: &Held, found: &mut Vec<Violation>) {
    let mut expected = held.log_start;
    for (offset, _) in &held.records {
        if *offset != expected {
            found.push(Violation::Gap {
                who: format!("replica on {}", held.spu),
                partition: held.partition,
                expected,
                found: *offset,
            });
        }
        expected = offset.checked_add(1).unwrap_or(*offset);
    }
    // A replica that claims more to be committed than it holds has lost the rest.
    if expected < held.high_watermark {
        found.push(Violation::Gap {
            who: format!("replica on {}", held.spu),
            partition: held.partition,
            expected,
            found: held.high_watermark,
        });
    }
}

fn equal_prefixes(id: PartitionId, partition: &Partition<'_>, found: &mut Vec<Violation>) {
    for (at, one) in partition.replicas.iter().enumerate() {
        let first: BTreeMap<_, _> = below_high_watermark(one).collect();
        for other in &partition.replicas[at + 1..] {
            let differs = below_high_watermark(other)
                .find(|(offset, payload)| first.get(offset).is_some_and(|seen| seen != payload));
            if let Some((offset, _)) = differs {
                found.push(Violation::ReplicasDiffer {
                    partition: id,
                    offset,
                    one: one.spu,
                    other: other.spu,
                });
            }
        }
    }
}

/// Compares consumers with replicas and with each other; replicas among themselves are compared above.
fn one_payload(id: PartitionId, partition: &Partition<'_>, found: &mut Vec<Violation>) {
    let mut first = BTreeMap::new();
    for held in &partition.replicas {
        for (offset, payload) in below_high_watermark(held) {
            first.entry(offset).or_insert((payload, format!("replica on {}", held.spu)));
        }
    }
    for (consumer, offset, payload) in &partition.reads {
        let who = || format!("consumer {consumer}");
        let (seen, one) = first.entry(*offset).or_insert_with(|| (*payload, who()));
        if seen != payload {
            found.push(Violation::TwoPayloads {
                partition: id,
                offset: *offset,
                one: one.clone(),
                other: who(),
            });
        }
    }
}

/// Nobody reads past the true high watermark, also where no recorder knows it: what was read is there for ever.
/// A different record at the offset is told by [`one_payload`].
fn read_then_gone(id: PartitionId, partition: &Partition<'_>, found: &mut Vec<Violation>) {
    let Some(leader) = partition.replicas.iter().find(|held| held.leader) else { return };
    let there: BTreeSet<_> = below_high_watermark(leader).map(|(offset, _)| offset).collect();
    for (consumer, offset, payload) in &partition.reads {
        if *offset >= partition.may_trim_below && !there.contains(offset) {
            found.push(Violation::ReadThenGone {
                consumer: *consumer,
                partition: id,
                offset: *offset,
                payload: *payload,
            });
        }
    }
}
