//! One leader per epoch.

use std::collections::BTreeMap;

use crate::event::Event;
use crate::violation::Violation;

pub(super) fn check(events: &[Event], found: &mut Vec<Violation>) {
    let mut leaders = BTreeMap::new();
    for event in events {
        let Event::Led { partition, epoch, spu, incarnation } = event else { continue };
        let now = (*spu, *incarnation);
        let first = *leaders.entry((*partition, *epoch)).or_insert(now);
        if first != now {
            found.push(Violation::TwoLeaders {
                partition: *partition,
                epoch: *epoch,
                one: first,
                other: now,
            });
        }
    }
}
