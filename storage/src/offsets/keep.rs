//! Making an area durable and shorter. None of it needs space.

use plimsoll_proto::ids::Offset;

use super::area::{AreaLog, Batch};
use super::checkpoint::Checkpoint;
use super::open::read_all;
use super::record;
use super::ring;
use super::table::OffsetsTable;
use crate::fs::{Disk, DiskError, FailureCause};

impl AreaLog {
    /// Syncs all that is written.
    ///
    /// # Errors
    /// A failed sync is final.
    pub(crate) fn sync(&mut self) -> Result<Offset, DiskError> {
        if let Some(cause) = self.sync_failed {
            return Err(DiskError::VolumeFailed { cause, operation: "sync" });
        }
        if self.durable_end == self.log_end() {
            return Ok(self.durable_end);
        }
        if self.rewrite {
            let ring = read_all(self.file.as_ref(), self.size)?;
            self.file.write_at(&ring, 0)?;
            self.rewrite = false;
        }
        let synced = self.file.sync_data();
        self.note_sync(&synced);
        synced?;
        self.durable_end = self.log_end();
        self.changed = true;
        Ok(self.durable_end)
    }

    fn note_sync(&mut self, result: &Result<(), DiskError>) {
        if let Err(DiskError::VolumeFailed { cause, .. }) = result {
            self.sync_failed = Some(*cause);
        }
    }

    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    pub(crate) fn write_checkpoint(&mut self, disk: &dyn Disk) -> Result<(), DiskError> {
        let checkpoint = self.to_checkpoint(false);
        self.put(disk, &checkpoint)
    }

    fn to_checkpoint(&self, deleted: bool) -> Checkpoint {
        let (position, chain) =
            self.batches.front().map_or(self.tail, |first| (first.position, first.chain_before));
        Checkpoint {
            partition: self.id,
            deleted,
            log_start: self.log_start,
            position,
            chain,
            high_watermark: self.high_watermark,
            durable_end: self.durable_end,
            epochs: self.epochs.clone(),
        }
    }

    fn put(&mut self, disk: &dyn Disk, checkpoint: &Checkpoint) -> Result<(), DiskError> {
        let result = self.checkpoint.write(disk, &checkpoint.encode());
        if matches!(result, Err(DiskError::VolumeFailed { cause: FailureCause::SyncFailed, .. })) {
            self.note_sync(&result);
        }
        result?;
        self.changed = false;
        self.kept_head = None;
        Ok(())
    }

    /// The start of a snapshot that is committed and supersedes what is before it.
    pub(crate) fn superseded_to(&self) -> Option<Offset> {
        let committed = |batch: &&Batch| {
            batch.snapshot && batch.base > self.log_start && batch.end <= self.high_watermark
        };
        self.batches.iter().rev().find(committed).map(|batch| batch.base)
    }

    /// Moves the log start; beyond the log end the log restarts empty there. The new start is durable before the room
    /// in front of it is used again.
    ///
    /// # Errors
    /// What the disk says; the log start has moved nevertheless, and nothing was overwritten yet.
    pub(crate) fn trim_head(&mut self, disk: &dyn Disk, to: Offset) -> Result<(), DiskError> {
        if to <= self.log_start {
            return Ok(());
        }
        let restarts = to > self.log_end();
        self.kept_head.get_or_insert(self.batches.front().map_or(self.tail.0, |first| first.position));
        while let Some(first) = self.batches.front().copied().filter(|first| first.end <= to) {
            self.used_bytes -= first.framed();
            self.batches.pop_front();
        }
        self.log_start = to;
        self.high_watermark = self.high_watermark.max(to);
        self.epochs.trim_head(to);
        if restarts {
            self.table.clear();
            self.damaged = false;
            self.tail.1 = crc32c::crc32c_append(self.tail.1, &to.get().to_be_bytes());
        }
        self.durable_end = if restarts || self.batches.is_empty() { to } else { self.durable_end };
        self.changed = true;
        self.write_checkpoint(disk)
    }

    /// Cuts the log to end at `to`, or at the start of the batch that holds it; durable when this returns.
    ///
    /// # Errors
    /// What the disk says; the log is never shorter than asked.
    pub(crate) fn truncate_tail(&mut self, disk: &dyn Disk, to: Offset) -> Result<(), DiskError> {
        let to = to.max(self.log_start);
        if to >= self.log_end() {
            return Ok(());
        }
        let durable_before = self.durable_end;
        let mut restored = None;
        while let Some(last) = self.batches.back().copied().filter(|last| last.end > to) {
            self.used_bytes -= last.framed();
            self.batches.pop_back();
            restored = Some(last);
        }
        let Some(first_cut) = restored else { return Ok(()) };
        self.tail = match self.batches.back() {
            // The chain before the cut frame may include a wrap, which is written anew when it is needed.
            Some(kept) => {
                let chain = ring::chain_of(kept.chain_before, &self.read_batch(kept)?);
                (ring::behind(kept.position, kept.framed(), self.size), chain)
            }
            None => (first_cut.position, first_cut.chain_before),
        };
        let end = self.log_end();
        self.epochs.truncate_tail(end);
        self.high_watermark = self.high_watermark.min(end);
        self.durable_end = self.durable_end.min(end);
        self.rebuild()?;
        self.changed = true;
        self.write_checkpoint(disk)?;
        self.stop_at_tail()?;
        if self.sync_failed.is_some() {
            // Never sync again what a sync failed for; nothing at or above the durable end is left.
            if end <= durable_before {
                self.sync_failed = None;
            }
            return Ok(());
        }
        let synced = self.file.sync_data();
        self.note_sync(&synced);
        synced
    }

    /// Reads what is left after a cut again.
    fn rebuild(&mut self) -> Result<(), DiskError> {
        let mut table = OffsetsTable::default();
        for batch in &self.batches {
            let bytes = self.read_batch(batch)?;
            let entries = record::decode(&bytes)
                .map_err(|_| DiskError::Unknown { errno: 0, operation: "read an offsets area" })?;
            entries.into_iter().for_each(|entry| table.apply(entry));
        }
        self.table = table;
        Ok(())
    }

    /// Writes down that it is being deleted. Needs no space.
    pub(crate) fn mark_deleted(&mut self, disk: &dyn Disk) -> Result<(), DiskError> {
        let checkpoint = self.to_checkpoint(true);
        self.put(disk, &checkpoint)
    }
}
