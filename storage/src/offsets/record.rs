//! What is kept of a group, and how it stands in a record.
//!
//! ```text
//!   key:    kind u8 = 0                                                        a snapshot begins: forget all before
//!           kind u8 = 1 | topic id 16 | partition u32 | group name, UTF-8      an offset
//!           kind u8 = 2 | group name, UTF-8                                    a group
//!   value:  absent                                                             the key is deleted
//!           version u8 = 1 | offset u64 | leader epoch u32 | owner epoch u64 | committed at u64    of an offset
//!           version u8 = 1 | has members u8 | changed at u64 | session timeout u32                 of a group
//! ```
//!
//! All integers are big-endian, times milliseconds since 1970.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use plimsoll_proto::batch::{self, BatchBuilder, BatchError, Compression, Limits, NewRecord};
use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId, TopicId};

/// A snapshot may take one part in so many of an area: there is room for the old one, the new one and commits.
pub const SNAPSHOT_SHARE: u64 = 4;

const VERSION: u8 = 1;
const KIND_SNAPSHOT: u8 = 0;
const KIND_OFFSET: u8 = 1;
const KIND_GROUP: u8 = 2;

/// The newest committed offset of a group in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetValue {
    /// Offset of the next record to read.
    pub offset: Offset,
    /// Leader epoch of the record before it, as the consumer saw it; 0 when not known.
    pub leader_epoch: LeaderEpoch,
    /// Since which epoch of the group its committer owned the partition: an older owner is fenced.
    pub owner_epoch: u64,
    /// When it was committed, milliseconds since 1970.
    pub committed_ms: u64,
}

/// What a new coordinator must know of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupValue {
    /// Whether it had members: a new coordinator waits for them before it gives their partitions away.
    pub has_members: bool,
    /// When that changed, milliseconds since 1970.
    pub changed_ms: u64,
    /// The longest session timeout of its members, milliseconds.
    pub session_ms: u32,
}

/// One change of what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Of an offset; `None` deletes it.
    Offset {
        /// Whose.
        group: String,
        /// Where.
        partition: PartitionId,
        /// What.
        value: Option<OffsetValue>,
    },
    /// Of a group; `None` deletes it, but not its offsets.
    Group {
        /// Which.
        group: String,
        /// What.
        value: Option<GroupValue>,
    },
}

/// What one record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Everything before it is superseded.
    SnapshotBegins,
    Change(Change),
}

impl Change {
    /// The group that it is about.
    pub fn group(&self) -> &str {
        match self {
            Self::Offset { group, .. } | Self::Group { group, .. } => group,
        }
    }

    fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(32 + self.group().len());
        match self {
            Self::Offset { group, partition, .. } => {
                key.put_u8(KIND_OFFSET);
                key.put_slice(&partition.topic_id.0);
                key.put_u32(partition.index);
                key.put_slice(group.as_bytes());
            }
            Self::Group { group, .. } => {
                key.put_u8(KIND_GROUP);
                key.put_slice(group.as_bytes());
            }
        }
        key
    }

    fn value(&self) -> Option<Vec<u8>> {
        let mut out = vec![VERSION];
        match self {
            Self::Offset { value, .. } => {
                let value = value.as_ref()?;
                out.put_u64(value.offset.get());
                out.put_u32(value.leader_epoch.0);
                out.put_u64(value.owner_epoch);
                out.put_u64(value.committed_ms);
            }
            Self::Group { value, .. } => {
                let value = value.as_ref()?;
                out.put_u8(u8::from(value.has_members));
                out.put_u64(value.changed_ms);
                out.put_u32(value.session_ms);
            }
        }
        Some(out)
    }

    /// Greatest number of bytes that it takes in a batch.
    pub(crate) fn bytes_max(&self) -> u64 {
        let (key, value) = (self.key(), self.value());
        let record = NewRecord { key: Some(&key), value: value.as_deref(), ..NewRecord::default() };
        u64::try_from(record.bytes_max()).unwrap_or(u64::MAX)
    }
}

/// A batch of changes, to be stamped by the leader.
pub(crate) fn encode(changes: &[Change], snapshot: bool, now_ms: u64) -> Result<BytesMut, BatchError> {
    let timestamp_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let mut builder = BatchBuilder::new(Compression::None);
    if snapshot {
        builder.push(&NewRecord { key: Some(&[KIND_SNAPSHOT]), timestamp_ms, ..NewRecord::default() })?;
    }
    for change in changes {
        let (key, value) = (change.key(), change.value());
        let record =
            NewRecord { key: Some(&key), value: value.as_deref(), timestamp_ms, ..NewRecord::default() };
        builder.push(&record)?;
    }
    builder.build()
}

/// What a batch says, in order. Records of a kind that is not known here are left out.
pub(crate) fn decode(batch: &Bytes) -> Result<Vec<Entry>, BatchError> {
    let mut entries = Vec::new();
    for record in batch::records(batch, &Limits::REPLICA)? {
        let record = record?;
        let key = record.key.unwrap_or_default();
        entries.extend(entry(&key, record.value.as_deref()));
    }
    Ok(entries)
}

fn entry(mut key: &[u8], value: Option<&[u8]>) -> Option<Entry> {
    let key = &mut key;
    match key.try_get_u8().ok()? {
        KIND_SNAPSHOT => Some(Entry::SnapshotBegins),
        KIND_OFFSET => {
            let mut topic_id = [0; 16];
            key.try_copy_to_slice(&mut topic_id).ok()?;
            let partition = PartitionId { topic_id: TopicId(topic_id), index: key.try_get_u32().ok()? };
            let group = std::str::from_utf8(key).ok()?.to_owned();
            let value = match value {
                None => None,
                Some(bytes) => Some(offset_value(bytes)?),
            };
            Some(Entry::Change(Change::Offset { group, partition, value }))
        }
        KIND_GROUP => {
            let group = std::str::from_utf8(key).ok()?.to_owned();
            let value = match value {
                None => None,
                Some(bytes) => Some(group_value(bytes)?),
            };
            Some(Entry::Change(Change::Group { group, value }))
        }
        _ => None,
    }
}

fn offset_value(mut bytes: &[u8]) -> Option<OffsetValue> {
    let from = &mut bytes;
    (from.try_get_u8().ok()? == VERSION).then_some(())?;
    Some(OffsetValue {
        offset: Offset::new(from.try_get_u64().ok()?).ok()?,
        leader_epoch: LeaderEpoch(from.try_get_u32().ok()?),
        owner_epoch: from.try_get_u64().ok()?,
        committed_ms: from.try_get_u64().ok()?,
    })
}

fn group_value(mut bytes: &[u8]) -> Option<GroupValue> {
    let from = &mut bytes;
    (from.try_get_u8().ok()? == VERSION).then_some(())?;
    Some(GroupValue {
        has_members: from.try_get_u8().ok()? != 0,
        changed_ms: from.try_get_u64().ok()?,
        session_ms: from.try_get_u32().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_survive_the_way_there_and_back_and_strangers_are_left_out() {
        let partition = PartitionId { topic_id: TopicId([3; 16]), index: 9 };
        let value = OffsetValue {
            offset: Offset::MAX,
            leader_epoch: LeaderEpoch(4),
            owner_epoch: u64::MAX,
            committed_ms: 17,
        };
        let group = GroupValue { has_members: true, changed_ms: 5, session_ms: 10_000 };
        let changes = [
            Change::Offset { group: "g-\u{fc}".to_owned(), partition, value: Some(value) },
            Change::Offset { group: String::new(), partition, value: None },
            Change::Group { group: "g".to_owned(), value: Some(group) },
            Change::Group { group: "g".to_owned(), value: None },
        ];
        let batch = encode(&changes, true, 99).unwrap().freeze();
        let found = decode(&batch).unwrap();
        let expected: Vec<Entry> = std::iter::once(Entry::SnapshotBegins)
            .chain(changes.iter().cloned().map(Entry::Change))
            .collect();
        assert_eq!(found, expected);
        let bytes: u64 = changes.iter().map(Change::bytes_max).sum();
        assert!(u64::try_from(batch.len()).unwrap() <= bytes + 61 + 32);
        for (key, value) in [(&[9][..], None), (&[][..], None), (&[1, 2][..], None), (&[2, 0xff][..], None)] {
            assert_eq!(entry(key, value), None, "{key:?}");
        }
        let mut key = changes[0].key();
        for value in [&[][..], &[2, 0][..], &[1][..]] {
            assert_eq!(entry(&key, Some(value)), None, "{value:?}");
        }
        key.truncate(20);
        assert_eq!(entry(&key, None), None);
    }
}
