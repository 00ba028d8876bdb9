//! The newest value of every key: what a snapshot holds.

use std::collections::BTreeMap;

use plimsoll_proto::ids::PartitionId;

use super::record::{Change, Entry, GroupValue, OffsetValue};

/// Everything that is kept of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupOffsets {
    /// Whether it had members, if that was ever noted.
    pub group: Option<GroupValue>,
    /// Its committed offsets.
    pub offsets: BTreeMap<PartitionId, OffsetValue>,
}

/// Groups by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetsTable {
    groups: BTreeMap<String, GroupOffsets>,
    keys: usize,
    /// Bytes of a snapshot of all this, at most.
    live_bytes: u64,
}

impl OffsetsTable {
    /// All groups, by name.
    pub fn groups(&self) -> &BTreeMap<String, GroupOffsets> {
        &self.groups
    }

    /// One group.
    pub fn group(&self, name: &str) -> Option<&GroupOffsets> {
        self.groups.get(name)
    }

    /// One committed offset.
    pub fn offset(&self, group: &str, partition: &PartitionId) -> Option<&OffsetValue> {
        self.groups.get(group)?.offsets.get(partition)
    }

    /// Keys with a value.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// Bytes of a snapshot of all this, at most.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes that a snapshot takes after these changes, at most. A change of a key that is there costs nothing more.
    pub(crate) fn bytes_after(&self, changes: &[Change]) -> u64 {
        let mut added: BTreeMap<(&str, Option<PartitionId>), u64> = BTreeMap::new();
        for change in changes {
            let (key, is_new, deletes) = match change {
                Change::Offset { group, partition, value } => (
                    (group.as_str(), Some(*partition)),
                    self.offset(group, partition).is_none(),
                    value.is_none(),
                ),
                Change::Group { group, value } => (
                    (group.as_str(), None),
                    self.group(group).is_none_or(|kept| kept.group.is_none()),
                    value.is_none(),
                ),
            };
            if is_new && !deletes {
                added.insert(key, change.bytes_max());
            }
        }
        self.live_bytes.saturating_add(added.values().sum())
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::SnapshotBegins => self.clear(),
            Entry::Change(change) => self.change(change),
        }
    }

    fn change(&mut self, change: Change) {
        // All values of a kind are equally long, so that what a key takes depends on its name alone.
        let bytes = match &change {
            Change::Offset { group, partition, .. } => offset_bytes(group, *partition),
            Change::Group { group, .. } => group_bytes(group),
        };
        let name = change.group().to_owned();
        let kept = self.groups.entry(name.clone()).or_default();
        let (before, after) = match change {
            Change::Offset { partition, value: Some(value), .. } => {
                (kept.offsets.insert(partition, value).is_some(), true)
            }
            Change::Offset { partition, value: None, .. } => {
                (kept.offsets.remove(&partition).is_some(), false)
            }
            Change::Group { value, .. } => {
                let after = value.is_some();
                (std::mem::replace(&mut kept.group, value).is_some(), after)
            }
        };
        if *kept == GroupOffsets::default() {
            self.groups.remove(&name);
        }
        match (before, after) {
            (false, true) => {
                self.keys += 1;
                self.live_bytes += bytes;
            }
            (true, false) => {
                self.keys -= 1;
                self.live_bytes -= bytes;
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Every key with its value, in order.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let mut all = Vec::with_capacity(self.keys);
        for (group, kept) in &self.groups {
            if let Some(value) = kept.group {
                all.push(Change::Group { group: group.clone(), value: Some(value) });
            }
            for (partition, value) in &kept.offsets {
                all.push(Change::Offset { group: group.clone(), partition: *partition, value: Some(*value) });
            }
        }
        all
    }
}

fn offset_bytes(group: &str, partition: PartitionId) -> u64 {
    use plimsoll_proto::ids::{LeaderEpoch, Offset};
    let value =
        OffsetValue { offset: Offset::ZERO, leader_epoch: LeaderEpoch(0), owner_epoch: 0, committed_ms: 0 };
    Change::Offset { group: group.to_owned(), partition, value: Some(value) }.bytes_max()
}

fn group_bytes(group: &str) -> u64 {
    let value = GroupValue { has_members: false, changed_ms: 0, session_ms: 0 };
    Change::Group { group: group.to_owned(), value: Some(value) }.bytes_max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_proto::ids::{LeaderEpoch, Offset, TopicId};

    fn set(group: &str, index: u32, offset: u64) -> Change {
        let value = OffsetValue {
            offset: Offset::new(offset).unwrap(),
            leader_epoch: LeaderEpoch(1),
            owner_epoch: 1,
            committed_ms: offset,
        };
        let partition = PartitionId { topic_id: TopicId([1; 16]), index };
        Change::Offset { group: group.to_owned(), partition, value: Some(value) }
    }

    #[test]
    fn it_grows_with_keys_and_not_with_changes() {
        let mut table = OffsetsTable::default();
        for offset in 0..1000 {
            for index in 0..3 {
                table.apply(Entry::Change(set("g", index, offset)));
            }
        }
        assert_eq!(table.keys(), 3);
        let bytes = table.live_bytes();
        assert_eq!(table.bytes_after(&[set("g", 0, 7), set("g", 1, 7)]), bytes);
        let added = [set("g", 9, 7), set("g", 9, 8)];
        assert_eq!(table.bytes_after(&added), bytes + added[0].bytes_max());
        let copy = table.changes().into_iter().fold(OffsetsTable::default(), |mut copy, change| {
            copy.apply(Entry::Change(change));
            copy
        });
        assert_eq!(copy, table);
        for index in 0..3 {
            let partition = PartitionId { topic_id: TopicId([1; 16]), index };
            let gone = Change::Offset { group: "g".to_owned(), partition, value: None };
            table.apply(Entry::Change(gone.clone()));
            table.apply(Entry::Change(gone));
        }
        assert_eq!(table, OffsetsTable::default());
    }
}
