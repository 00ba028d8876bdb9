//! What the index files of a segment may say, given its batches.

use std::collections::BTreeMap;

use plimsoll_proto::batch::BatchHeader;
use plimsoll_proto::ids::Offset;

use crate::segment::{IndexContents, IndexKind, Seal};

/// The batches of one segment, as its indexes must see them. Bounded by the entries that are asked for.
#[derive(Debug, Default)]
pub(super) struct Batches {
    /// Positions that an offset index names, and what really begins there.
    positions: BTreeMap<u64, Option<Offset>>,
    /// Offsets that a time index names, and the greatest timestamp up to there.
    times: BTreeMap<u64, Option<i64>>,
    max_timestamp_ms: Option<i64>,
}

impl Batches {
    /// Will remember what the entries ask about.
    pub(super) fn asked_by(offsets: &IndexContents, times: &IndexContents) -> Self {
        let positions = offsets.entries.iter().map(|&(_, position)| (position, None)).collect();
        let times = times.entries.iter().map(|&(_, offset)| (offset, None)).collect();
        Self { positions, times, max_timestamp_ms: None }
    }

    pub(super) fn see(&mut self, position: u64, header: &BatchHeader) {
        let max = self.max_timestamp_ms.map_or(header.max_timestamp_ms, |t| t.max(header.max_timestamp_ms));
        self.max_timestamp_ms = Some(max);
        if let Some(found) = self.positions.get_mut(&position) {
            *found = Some(header.base_offset);
        }
        if let Some(found) = self.times.get_mut(&header.base_offset.get()) {
            *found = Some(max);
        }
    }

    /// What is wrong with a sealed index, in words.
    pub(super) fn judge_seal(&self, seal: &Seal, end_offset: Offset, size: u64) -> Option<String> {
        if (seal.end_offset, seal.size_bytes) != (end_offset, size) {
            return Some(format!(
                "the seal speaks of {} bytes to offset {}, the log has {size} to {end_offset}",
                seal.size_bytes, seal.end_offset
            ));
        }
        match self.max_timestamp_ms {
            Some(max) if max != seal.max_timestamp_ms => {
                Some(format!("the seal's greatest timestamp is {}, the log's {max}", seal.max_timestamp_ms))
            }
            _ => None,
        }
    }

    /// The first of so many entries that is wrong, in words.
    pub(super) fn judge(&self, kind: IndexKind, contents: &IndexContents, count: usize) -> Option<String> {
        let mut before: Option<(u64, u64)> = None;
        for (number, &(key, value)) in contents.entries.iter().take(count).enumerate() {
            if before.is_some_and(|(k, v)| k >= key || v >= value) {
                return Some(format!("entry {number} is not in order"));
            }
            before = Some((key, value));
            let fits = match kind {
                IndexKind::Offsets => {
                    self.positions.get(&value).copied().flatten().is_some_and(|offset| offset.get() == key)
                }
                IndexKind::Times => {
                    let max = self.times.get(&value).copied().flatten();
                    max.is_some_and(|max| u64::try_from(max).is_ok_and(|max| max == key))
                }
            };
            if !fits {
                return Some(format!("entry {number} ({key} at {value}) is not what the log says"));
            }
        }
        None
    }
}
