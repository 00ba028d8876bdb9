//! Making a log durable: sync and checkpoint.

use plimsoll_proto::ids::Offset;

use super::checkpoint::ActiveTimes;
use super::{Checkpoint, Env, PartitionLog};
use crate::fs::{DiskError, DiskFile, FailureCause, OpenMode};
use crate::segment::{FileKind, path_of};

const CHUNK_BYTES: usize = 1 << 20;

/// Writes every byte of the file over itself: what a failed sync left in the page cache counts as clean there, and
/// a sync alone would not write it. The bytes were checked when the log was opened.
fn write_anew(file: &dyn DiskFile) -> Result<(), DiskError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at: u64 = 0;
    loop {
        let read = file.read_at(&mut chunk, at)?;
        if read == 0 {
            return Ok(());
        }
        file.write_at(&chunk[..read], at)?;
        at += u64::try_from(read).expect("a chunk is small");
    }
}

impl PartitionLog {
    /// Syncs all that is written and returns the new durable end.
    ///
    /// A failed sync is final: the kernel drops the dirty pages and reports the error once, so a second sync
    /// would succeed without the data (measured: on a thin volume the first fsync gives EIO, the second succeeds).
    pub(crate) fn sync(&mut self, env: &mut Env<'_>) -> Result<Offset, DiskError> {
        if let Some(cause) = self.sync_failed {
            return Err(DiskError::VolumeFailed { cause, operation: "sync" });
        }
        if self.durable_end == self.log_end() && !self.dir_dirty {
            return Ok(self.durable_end);
        }
        let result = self.sync_files(env);
        match result {
            Ok(()) => {
                self.durable_end = self.log_end();
                self.changed = true;
                Ok(self.offsets().durable_end())
            }
            Err(error) => {
                if let DiskError::VolumeFailed { cause, .. } = error {
                    self.sync_failed = Some(cause);
                }
                Err(error)
            }
        }
    }

    /// Syncs sealed segments that no sync covers yet, at most one; for logs that are never synced on append.
    /// Returns whether one was.
    pub(crate) fn sync_one_sealed(&mut self, env: &mut Env<'_>) -> Result<bool, DiskError> {
        if let Some(cause) = self.sync_failed {
            return Err(DiskError::VolumeFailed { cause, operation: "sync" });
        }
        let Some(at) = self.sealed.iter().position(|s| s.end_offset > self.durable_end) else {
            return Ok(false);
        };
        let (base, end) = (self.sealed[at].base_offset, self.sealed[at].end_offset);
        let result = self.sync_segment(env, base).and_then(|()| self.sync_dir(env));
        match result {
            Ok(()) => {
                self.durable_end = end;
                self.changed = true;
                Ok(true)
            }
            Err(error) => {
                if let DiskError::VolumeFailed { cause, .. } = error {
                    self.sync_failed = Some(cause);
                }
                Err(error)
            }
        }
    }

    fn sync_files(&mut self, env: &mut Env<'_>) -> Result<(), DiskError> {
        let behind: Vec<Offset> =
            self.sealed.iter().filter(|s| s.end_offset > self.durable_end).map(|s| s.base_offset).collect();
        for base in behind {
            self.sync_segment(env, base)?;
        }
        if self.durable_end < self.log_end() {
            let file = self.active.file(env.disk, &self.dir)?;
            if self.is_distrusted() {
                write_anew(&*file)?;
            }
            file.sync_data()?;
        }
        self.sync_dir(env)
    }

    /// Makes a cut durable: the new length, and the removals.
    pub(crate) fn sync_cut(&mut self, env: &mut Env<'_>) -> Result<(), DiskError> {
        let file = self.active.file(env.disk, &self.dir)?;
        let result = file.sync_data().and_then(|()| self.sync_dir(env));
        if let Err(DiskError::VolumeFailed { cause, .. }) = &result {
            self.sync_failed = Some(*cause);
        }
        result
    }

    fn sync_segment(&self, env: &Env<'_>, base: Offset) -> Result<(), DiskError> {
        let file = env.disk.open(&path_of(&self.dir, base, FileKind::Log), OpenMode::Write)?;
        if self.is_distrusted() {
            write_anew(&*file)?;
        }
        file.sync_data()
    }

    fn sync_dir(&mut self, env: &Env<'_>) -> Result<(), DiskError> {
        if self.dir_dirty {
            env.disk.sync_dir(&self.dir)?;
            self.dir_dirty = false;
        }
        Ok(())
    }

    /// Whether a checkpoint would say anything new.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Writes the checkpoint. Without room for all of it, its essential part, which needs none.
    pub(crate) fn checkpoint(&mut self, env: &mut Env<'_>) -> Result<(), DiskError> {
        self.active.persist_index(env.disk, &self.dir)?;
        self.write_checkpoint(env, false)
    }

    pub(super) fn write_checkpoint(&mut self, env: &mut Env<'_>, deleted: bool) -> Result<(), DiskError> {
        let checkpoint = self.to_checkpoint(deleted);
        self.put_checkpoint(env, &checkpoint)
    }

    /// A checkpoint as if the log ended at `to` already.
    pub(super) fn write_checkpoint_ending(&mut self, env: &mut Env<'_>, to: Offset) -> Result<(), DiskError> {
        let mut checkpoint = self.to_checkpoint(false);
        checkpoint.written_end = to;
        checkpoint.epochs.truncate_tail(to);
        let lost = checkpoint.producers.truncate_tail(to);
        checkpoint.read_log = !lost.is_empty();
        if self.log_start > Offset::ZERO {
            // They may have written below the log start: of whom the log has nothing, nobody can tell.
            checkpoint.producers.forget(&lost);
        }
        self.put_checkpoint(env, &checkpoint)
    }

    fn put_checkpoint(&mut self, env: &mut Env<'_>, checkpoint: &Checkpoint) -> Result<(), DiskError> {
        let result = match self.checkpoint.write(env.disk, &checkpoint.encode()) {
            Err(DiskError::OutOfSpace { .. }) => self.checkpoint.write(env.disk, &checkpoint.encode_short()),
            other => other,
        };
        if let Err(DiskError::VolumeFailed { cause: FailureCause::SyncFailed, .. }) = result {
            self.sync_failed.get_or_insert(FailureCause::SyncFailed);
        }
        result?;
        self.changed = false;
        Ok(())
    }

    fn to_checkpoint(&self, deleted: bool) -> Checkpoint {
        let offsets = self.offsets();
        Checkpoint {
            partition: self.id,
            deleted,
            log_start: offsets.log_start(),
            high_watermark: offsets.high_watermark(),
            durable_end: offsets.durable_end(),
            written_end: offsets.log_end(),
            active: ActiveTimes {
                base_offset: self.active.base_offset,
                first_append_ms: self.active.first_append_ms.unwrap_or(0),
                last_append_ms: self.active.last_append_ms,
            },
            epochs: self.epochs.clone(),
            producers: self.producers.clone(),
            read_log: false,
        }
    }

    /// Nothing is appended any more: gives unused preallocation back and keeps neither a file open nor, when its files
    /// hold it, the index in memory. Needs no space.
    pub(crate) fn rest(&mut self, env: &mut Env<'_>) -> Result<(), DiskError> {
        self.give_back(env)?;
        self.active.persist_index(env.disk, &self.dir)?;
        self.active.close();
        Ok(())
    }

    /// Gives unused preallocation back. Needs no space.
    pub(crate) fn give_back(&mut self, env: &mut Env<'_>) -> Result<(), DiskError> {
        if self.active.preallocated() == 0 && !self.active.is_torn() {
            return Ok(());
        }
        let file = self.active.file(env.disk, &self.dir)?;
        self.active.give_back(&*file)
    }
}
