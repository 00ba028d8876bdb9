//! One leader per epoch.

use std::collections::BTreeMap;

use crate::event::Event;
use crate::violation::Violation;

pub(super) fn check(events: &[Event], found: &mut Vec<Violation>) {
    let mut leaders = BTreeMap::new();
    for event in events {
        let Event::Led { partition, epoch, spu, incarnation } = event else { continue };
        let now = (*spu, *incarnation);
        let first = leaders.entry((*partition, *epoch)).or_insert(now);
        let other_run = first.1.zip(now.1).is_some_and(|(one, other)| one != other);
        if first.0 != now.0 || other_run {
            found.push(Violation::TwoLeaders {
                partition: *partition,
                epoch: *epoch,
                one: *first,
                other: now,
            });
        } else {
            // An acknowledgement names the node, the metadata name its run as well.
            first.1 = first.1.or(now.1);
        }
    }
}
