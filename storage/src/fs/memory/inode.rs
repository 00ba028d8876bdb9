//! One file of the memory disk: what a reader sees now, and what would be left after a power loss.

use std::collections::BTreeSet;

/// Disks promise no more than whole sectors of 512 bytes.
pub(super) const SECTOR_BYTES: u64 = 512;

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors in which live and durable may differ.
    dirty: BTreeSet<u64>,
    /// Blocks in use, written or only allocated.
    allocated: BTreeSet<u64>,
    durable_allocated: BTreeSet<u64>,
    pub(super) handles: u64,
    pub(super) linked: bool,
}

/// A position in memory. Files of the memory disk are far smaller than the address space.
fn index(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

impl Inode {
    pub(super) fn linked() -> Self {
        Self { linked: true, ..Self::default() }
    }

    pub(super) fn len(&self) -> u64 {
        self.live.len() as u64
    }

    pub(super) fn blocks(&self) -> u64 {
        self.allocated.len() as u64
    }

    pub(super) fn has_block(&self, block: u64) -> bool {
        self.allocated.contains(&block)
    }

    pub(super) fn add_block(&mut self, block: u64) {
        self.allocated.insert(block);
    }

    /// Frees every block from `first` on; returns how many.
    pub(super) fn free_blocks_from(&mut self, first: u64) -> u64 {
        self.allocated.split_off(&first).len() as u64
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let rest = self.live.get(index(offset)..).unwrap_or_default();
        let taken = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..taken), rest.get(..taken)) {
            to.copy_from_slice(from);
        }
        taken
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        if end > self.len() {
            self.mark_dirty(self.len(), end);
            self.live.resize(index(end), 0);
        }
        self.mark_dirty(offset, end);
        if let Some(to) = self.live.get_mut(index(offset)..index(end)) {
            to.copy_from_slice(bytes);
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        let (low, high) = (len.min(self.len()), len.max(self.len()));
        self.mark_dirty(low, high);
        self.live.resize(index(len), 0);
    }

    fn mark_dirty(&mut self, from: u64, to: u64) {
        if from < to {
            self.dirty.extend(from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES));
        }
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.live.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            copy_sector(&self.live, &mut self.durable, sector);
        }
        self.durable_allocated.clone_from(&self.allocated);
    }

    /// The kernel reports the failure once and counts the pages as clean: readers see them, no later sync writes
    /// them (measured on a thin volume).
    pub(super) fn fail_sync(&mut self) {
        self.dirty.clear();
    }

    /// What is left after a power loss; without `pick` exactly what was synced. `pick(n)` gives a number
    /// below or equal to n.
    pub(super) fn lose_power(&mut self, pick: Option<&mut dyn FnMut(u64) -> u64>) {
        if let Some(pick) = pick {
            let (live_len, durable_len) = (self.live.len() as u64, self.durable.len() as u64);
            let low = live_len.min(durable_len);
            let high = live_len.max(durable_len);
            // The length was written back early, late or in steps.
            let len = match pick(2) {
                0 => durable_len,
                1 => live_len,
                _ => low + pick(high - low),
            };
            // Whatever stays unwritten beyond the durable length reads as zeros.
            self.durable.resize(index(high), 0);
            for sector in &self.dirty {
                if pick(1) == 1 {
                    copy_sector(&self.live, &mut self.durable, *sector);
                }
            }
            self.durable.resize(index(len), 0);
        }
        self.live.clone_from(&self.durable);
        self.dirty.clear();
        self.allocated.clone_from(&self.durable_allocated);
        self.handles = 0;
    }

    /// Gives blocks to all bytes, after a power loss left a length that allocation did not follow.
    pub(super) fn cover(&mut self, block_bytes: u64) {
        // Only blocks with data need one: holes stay holes.
        for block in 0..self.len().div_ceil(block_bytes) {
            let from = index(block * block_bytes);
            let to = index((block + 1) * block_bytes).min(self.live.len());
            if self.live.get(from..to).is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0)) {
                self.allocated.insert(block);
            }
        }
        self.durable_allocated.clone_from(&self.allocated);
    }
}

/// Copies one sector as far as both files reach.
fn copy_sector(from: &[u8], to: &mut [u8], sector: u64) {
    let start = index(sector * SECTOR_BYTES);
    let end = index((sector + 1) * SECTOR_BYTES).min(from.len()).min(to.len());
    if let (Some(source), Some(target)) = (from.get(start..end), to.get_mut(start..end)) {
        target.copy_from_slice(source);
    }
}
