//! Open files for reading sealed segments: bounded, least recently used first out.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_proto::ids::{Offset, PartitionId};

use super::{FileKind, IndexFile, IndexKind, SparseIndex, path_of};
use crate::fs::{Disk, DiskError, DiskFile, OpenMode};

/// A sealed segment opened for reading, with its index.
pub(crate) struct SegmentReader {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) index: SparseIndex,
}

struct Slot {
    reader: Arc<SegmentReader>,
    used: u64,
}

/// See the module.
pub(crate) struct ReadHandles {
    slots: BTreeMap<(PartitionId, Offset), Slot>,
    uses: u64,
    slots_max: usize,
}

impl ReadHandles {
    pub(crate) fn new(slots_max: usize) -> Self {
        Self { slots: BTreeMap::new(), uses: 0, slots_max: slots_max.max(1) }
    }

    /// The reader of a segment, from the cache or opened now. Needs no space.
    pub(crate) fn get(
        &mut self,
        disk: &dyn Disk,
        partition: PartitionId,
        dir: &str,
        base_offset: Offset,
    ) -> Result<Arc<SegmentReader>, DiskError> {
        self.uses += 1;
        if let Some(slot) = self.slots.get_mut(&(partition, base_offset)) {
            slot.used = self.uses;
            return Ok(Arc::clone(&slot.reader));
        }
        let file = disk.open(&path_of(dir, base_offset, FileKind::Log), OpenMode::Read)?;
        let index = match disk.open(&path_of(dir, base_offset, FileKind::Index), OpenMode::Read) {
            Ok(file) => IndexFile::new(file, IndexKind::Offsets, base_offset).load().unwrap_or_default(),
            Err(_) => SparseIndex::default(),
        };
        if self.slots.len() >= self.slots_max {
            self.evict();
        }
        let reader = Arc::new(SegmentReader { file, index });
        let slot = Slot { reader: Arc::clone(&reader), used: self.uses };
        self.slots.insert((partition, base_offset), slot);
        Ok(reader)
    }

    /// Closes a segment's file, so that unlinking it frees its bytes.
    pub(crate) fn close(&mut self, partition: PartitionId, base_offset: Offset) {
        self.slots.remove(&(partition, base_offset));
    }

    /// Closes everything of a partition.
    pub(crate) fn close_partition(&mut self, partition: PartitionId) {
        self.slots.retain(|(owner, _), _| *owner != partition);
    }

    fn evict(&mut self) {
        let oldest = self.slots.iter().min_by_key(|(_, slot)| slot.used).map(|(key, _)| *key);
        if let Some(key) = oldest {
            self.slots.remove(&key);
        }
    }
}
