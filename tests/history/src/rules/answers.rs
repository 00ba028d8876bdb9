//! What producers were told against what is there: nothing lost, no phantoms, no duplicates, order kept.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_proto::ids::{Offset, PartitionId};

use super::{Partition, Seen, below_high_watermark};
use crate::event::{Answer, Event, Payload, Promise};
use crate::violation::Violation;

struct Record {
    producer: u64,
    /// Position among everything sent, to compare the records of one producer.
    number: usize,
    answer: Option<Answer>,
    /// Greatest offset that had been acknowledged in the partition when the record was sent.
    acked_before: Option<Offset>,
}

type Records = BTreeMap<PartitionId, BTreeMap<Payload, Record>>;

pub(super) fn check(events: &[Event], seen: &Seen<'_>, found: &mut Vec<Violation>) {
    let sent = collect(events, found);
    let nothing = BTreeMap::new();
    for (id, partition) in &seen.partitions {
        let records = sent.get(id).unwrap_or(&nothing);
        let committed = partition.committed();
        appearances(*id, &committed, records, found);
        order(*id, &committed, records, found);
    }
    for (id, records) in &sent {
        lost(*id, seen.partitions.get(id), records, found);
        real_time(*id, records, found);
    }
}

fn collect(events: &[Event], found: &mut Vec<Violation>) -> Records {
    let mut sent = Records::new();
    let mut acked: BTreeMap<PartitionId, Offset> = BTreeMap::new();
    for (number, event) in events.iter().enumerate() {
        match event {
            Event::Sent { producer, partition, payload } => {
                let acked_before = acked.get(partition).copied();
                let record = Record { producer: *producer, number, answer: None, acked_before };
                if sent.entry(*partition).or_default().insert(*payload, record).is_some() {
                    found.push(reused(*partition, *payload, "sent twice"));
                }
            }
            Event::Answered { partition, payload, answer } => {
                if let Answer::Acked { offset, .. } = answer {
                    let last = acked.entry(*partition).or_insert(*offset);
                    *last = (*last).max(*offset);
                }
                match sent.get_mut(partition).and_then(|records| records.get_mut(payload)) {
                    Some(record) if record.answer.is_none() => record.answer = Some(*answer),
                    Some(_) => found.push(reused(*partition, *payload, "answered twice")),
                    None => found.push(reused(*partition, *payload, "answered, never sent")),
                }
            }
            Event::Seek { .. }
            | Event::Read { .. }
            | Event::Committed { .. }
            | Event::MayTrim { .. }
            | Event::Led { .. }
            | Event::Healed { .. }
            | Event::HeldBack { .. }
            | Event::Regained { .. }
            | Event::Refused { .. }
            | Event::Logged { .. }
            | Event::Held(_) => {}
        }
    }
    sent
}

fn reused(partition: PartitionId, payload: Payload, why: &'static str) -> Violation {
    Violation::Reused { partition, payload, why }
}

/// Everything that appears was sent, was not refused, and is there once.
fn appearances(
    id: PartitionId,
    committed: &BTreeSet<(Offset, Payload)>,
    records: &BTreeMap<Payload, Record>,
    found: &mut Vec<Violation>,
) {
    let mut places: BTreeMap<Payload, Offset> = BTreeMap::new();
    for (offset, payload) in committed {
        let why = match records.get(payload).map(|record| record.answer) {
            None => Some("never sent"),
            Some(Some(Answer::Refused)) => Some("refused"),
            Some(Some(Answer::Acked { .. } | Answer::Unknown) | None) => None,
        };
        if let Some(why) = why {
            found.push(Violation::Phantom { partition: id, offset: *offset, payload: *payload, why });
        }
        if let Some(first) = places.insert(*payload, *offset) {
            found.push(Violation::Duplicate { partition: id, first, second: *offset, payload: *payload });
        }
    }
}

/// The records of one producer lie in the order it sent them.
fn order(
    id: PartitionId,
    committed: &BTreeSet<(Offset, Payload)>,
    records: &BTreeMap<Payload, Record>,
    found: &mut Vec<Violation>,
) {
    let mut last: BTreeMap<u64, (usize, Offset)> = BTreeMap::new();
    for (offset, payload) in committed {
        let Some(record) = records.get(payload) else { continue };
        match last.get(&record.producer) {
            Some((number, before)) if *number > record.number => found.push(Violation::Reordered {
                partition: id,
                producer: record.producer,
                earlier: *before,
                later: *offset,
            }),
            _ => {
                last.insert(record.producer, (record.number, *offset));
            }
        }
    }
}

/// Everything acknowledged to be replicated is where the acknowledgement said: with the leader, when the
/// leader's copy is known; else with any replica; else with any consumer.
fn lost(
    id: PartitionId,
    partition: Option<&Partition<'_>>,
    records: &BTreeMap<Payload, Record>,
    found: &mut Vec<Violation>,
) {
    let nothing = Partition::default();
    let partition = partition.unwrap_or(&nothing);
    let leader = partition.replicas.iter().find(|held| held.leader);
    let there: BTreeSet<(Offset, Payload)> = match leader {
        Some(held) => below_high_watermark(held).collect(),
        None if !partition.replicas.is_empty() => {
            partition.replicas.iter().flat_map(|held| below_high_watermark(held)).collect()
        }
        None => partition.committed(),
    };
    for (payload, record) in records {
        let Some(Answer::Acked { offset, promise: Promise::Replicated }) = record.answer else { continue };
        if offset >= partition.may_trim_below && !there.contains(&(offset, *payload)) {
            found.push(Violation::Lost { partition: id, offset, payload: *payload });
        }
    }
}

/// What was sent after an acknowledgement lies behind what was acknowledged.
fn real_time(id: PartitionId, records: &BTreeMap<Payload, Record>, found: &mut Vec<Violation>) {
    for record in records.values() {
        if let (Some(Answer::Acked { offset, .. }), Some(acked)) = (record.answer, record.acked_before)
            && offset <= acked
        {
            found.push(Violation::RealTime { partition: id, offset, acked });
        }
    }
}
