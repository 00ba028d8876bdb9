//! What members of a group were given, and what of their offsets was acknowledged.

use std::collections::{BTreeMap, BTreeSet};

/// By partition. Offsets are of the next record to read, as they are committed.
#[derive(Debug, Default)]
pub(in crate::simulation) struct Progress {
    acked: BTreeMap<u32, u64>,
    delivered: BTreeMap<u32, BTreeSet<u64>>,
}

impl Progress {
    /// A commit was acknowledged.
    pub(in crate::simulation) fn acked(&mut self, partition: u32, offset: u64) {
        let known = self.acked.entry(partition).or_default();
        *known = offset.max(*known);
    }

    /// The furthest that was acknowledged so far.
    pub(in crate::simulation) fn acknowledged(&self) -> &BTreeMap<u32, u64> {
        &self.acked
    }

    /// A member was given a record; what is wrong with it, when these offsets were acknowledged before the member joined.
    pub(in crate::simulation) fn delivered(
        &mut self,
        partition: u32,
        offset: u64,
        before: &BTreeMap<u32, u64>,
    ) -> Option<String> {
        self.delivered.entry(partition).or_default().insert(offset);
        let committed = before.get(&partition).copied().unwrap_or(0);
        (offset < committed).then(|| {
            format!("a member that joined when {committed} was committed of partition {partition} is given {offset}")
        })
    }

    /// Records below what is committed that no member was given.
    pub(in crate::simulation) fn left_out(&self, committed: &BTreeMap<u32, u64>) -> Vec<String> {
        let none = BTreeSet::new();
        committed
            .iter()
            .filter_map(|(partition, end)| {
                let delivered = self.delivered.get(partition).unwrap_or(&none);
                let first = (0..*end).find(|offset| !delivered.contains(offset))?;
                Some(format!("{end} is committed of partition {partition}, but no member was given {first}"))
            })
            .collect()
    }
}

/// What was acknowledged before and is not found.
pub(super) fn missing(before: &BTreeMap<u32, u64>, found: &BTreeMap<u32, u64>) -> Vec<String> {
    before
        .iter()
        .filter(|(partition, offset)| found.get(partition).is_none_or(|found| found < offset))
        .map(|(partition, offset)| {
            let found = found.get(partition);
            format!("{offset} was acknowledged as committed of partition {partition}, found is {found:?}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_that_are_lost_or_go_back_are_found() {
        let before = BTreeMap::from([(0, 7), (1, 3)]);
        assert!(missing(&before, &BTreeMap::from([(0, 7), (1, 9)])).is_empty());
        let lost = missing(&before, &BTreeMap::from([(0, 7)]));
        assert!(lost.len() == 1 && lost[0].contains("partition 1"), "{lost:?}");
        let back = missing(&before, &BTreeMap::from([(0, 6), (1, 3)]));
        assert!(back.len() == 1 && back[0].contains("partition 0"), "{back:?}");
    }

    #[test]
    fn the_furthest_acknowledgement_counts() {
        let mut progress = Progress::default();
        progress.acked(0, 5);
        progress.acked(0, 3);
        assert_eq!(progress.acknowledged(), &BTreeMap::from([(0, 5)]));
    }

    #[test]
    fn a_member_that_begins_too_early_and_records_left_out_are_found() {
        let mut progress = Progress::default();
        let before = BTreeMap::from([(0, 1)]);
        assert!(progress.delivered(0, 0, &BTreeMap::new()).is_none());
        assert!(progress.delivered(0, 0, &before).is_some());
        assert!(progress.delivered(0, 1, &before).is_none());
        assert!(progress.delivered(0, 3, &before).is_none());
        assert!(progress.left_out(&BTreeMap::from([(0, 2)])).is_empty());
        let left_out = progress.left_out(&BTreeMap::from([(0, 4), (1, 0)]));
        assert!(left_out.len() == 1 && left_out[0].ends_with("given 2"), "{left_out:?}");
    }
}
