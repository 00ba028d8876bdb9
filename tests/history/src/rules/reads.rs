//! What a consumer sees: offsets without gaps, nothing beyond the true high watermark.

use std::collections::BTreeMap;

use crate::event::Event;
use crate::violation::Violation;

pub(super) fn check(events: &[Event], found: &mut Vec<Violation>) {
    let mut next = BTreeMap::new();
    let mut committed = BTreeMap::new();
    for event in events {
        match event {
            Event::Seek { consumer, partition, to } => {
                next.insert((*consumer, *partition), *to);
            }
            Event::Committed { partition, high_watermark } => {
                let known = committed.entry(*partition).or_insert(*high_watermark);
                *known = (*known).max(*high_watermark);
            }
            Event::Read { consumer, partition, offset, .. } => {
                let expected = next.get(&(*consumer, *partition)).copied().unwrap_or(*offset);
                if expected != *offset {
                    found.push(Violation::Gap {
                        who: format!("consumer {consumer}"),
                        partition: *partition,
                        expected,
                        found: *offset,
                    });
                }
                next.insert((*consumer, *partition), offset.checked_add(1).unwrap_or(*offset));
                if let Some(high_watermark) = committed.get(partition).copied()
                    && *offset >= high_watermark
                {
                    found.push(Violation::PastHighWatermark {
                        consumer: *consumer,
                        partition: *partition,
                        offset: *offset,
                        high_watermark,
                    });
                }
            }
            Event::Sent { .. }
            | Event::Answered { .. }
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
}
