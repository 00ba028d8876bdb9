//! Making a log shorter: trim its head, truncate its tail, delete it. None of it needs space.

use std::ops::ControlFlow;

use plimsoll_proto::ids::{LeaderEpoch, Offset, ProducerId};

use super::{Env, PartitionLog, Producers};
use crate::fs::{Disk, DiskError, DiskFile};
use crate::segment::{
    ActiveSegment, Expect, FileKind, IndexKind, SealedSegment, WalkEnd, load_index, open_index, path_of,
    walk_headers,
};

impl PartitionLog {
    /// Moves the log start to `to` and removes the segments below it; returns the bytes given back.
    ///
    /// The high watermark follows: what a leader trimmed was committed. Beyond the log end, the log restarts
    /// empty at `to`. The log start never goes back.
    ///
    /// # Errors
    /// What the disk says; the log start has moved nevertheless, and files that are left are removed by the
    /// next trim.
    pub(crate) fn trim_head(&mut self, env: &mut Env<'_>, to: Offset) -> Result<u64, DiskError> {
        if to > self.log_end() {
            return self.restart_at(env, to);
        }
        if to > self.log_start {
            self.log_start = to;
            self.high_watermark = self.high_watermark.max(to);
            self.epochs.trim_head(to);
            self.changed = true;
            tolerate_full(self.write_checkpoint(env, false))?;
        }
        let mut freed = 0;
        while let Some(first) = self.sealed.front().copied().filter(|s| s.end_offset <= self.log_start) {
            env.handles.close(self.id, first.base_offset);
            SealedSegment::remove(env.disk, &self.dir, first.base_offset)?;
            self.sealed.pop_front();
            self.sum_up();
            self.dir_dirty = true;
            freed += first.disk_bytes();
        }
        if self.log_start == self.log_end() && self.active.size > 0 {
            freed += self.empty_active(env)?;
        }
        Ok(freed)
    }

    /// Starts anew, empty, at an offset beyond the log end.
    fn restart_at(&mut self, env: &mut Env<'_>, to: Offset) -> Result<u64, DiskError> {
        let freed = self.trim_head(env, self.log_end())?;
        // The checkpoint comes first: a crash behind it finds a log that ends before its start, and
        // recovery does the rest of this.
        self.move_empty_log(env, to)?;
        Ok(freed)
    }

    /// Drops all data of the active segment, which lies below the log start. By rename: that needs no inode,
    /// and a new file would.
    fn empty_active(&mut self, env: &mut Env<'_>) -> Result<u64, DiskError> {
        let (base, to) = (self.active.base_offset, self.log_end());
        let freed = self.active.disk_bytes();
        // A durable end below a log start would be told as a loss after a crash.
        self.durable_end = to;
        tolerate_full(self.write_checkpoint(env, false))?;
        self.rebase_active(env, base, to)?;
        Ok(freed)
    }

    pub(crate) fn move_empty_log(&mut self, env: &mut Env<'_>, to: Offset) -> Result<(), DiskError> {
        let base = self.active.base_offset;
        self.active.end_offset = to;
        (self.log_start, self.high_watermark, self.durable_end) = (to, to, to);
        self.epochs.trim_head(to);
        self.changed = true;
        let result =
            tolerate_full(self.write_checkpoint(env, false)).and_then(|()| self.rebase_active(env, base, to));
        if result.is_err() {
            // The file still has its old name: nothing may be written into it for another offset.
            self.must_roll = true;
        }
        result
    }

    /// Renames the active segment to a new base offset and empties it. After a failed rename nothing has
    /// changed.
    fn rebase_active(&mut self, env: &mut Env<'_>, base: Offset, to: Offset) -> Result<(), DiskError> {
        let file = self.active.file(env.disk, &self.dir)?;
        env.handles.close(self.id, base);
        if base != to {
            let path = |offset| path_of(&self.dir, offset, FileKind::Log);
            env.disk.rename(&path(base), &path(to))?;
        }
        self.dir_dirty = true;
        // A crash here leaves a file whose first batch is not at its base offset: recovery cuts it.
        let wall_ms = env.wall_ms;
        let mut fresh = ActiveSegment::new(to, to, 0, wall_ms);
        fresh.adopt(file);
        self.active = fresh;
        self.must_roll = false;
        self.hints.clear();
        let file = self.active.file(env.disk, &self.dir)?;
        self.active.give_back(&*file)?;
        for (kind, index) in [(FileKind::Index, IndexKind::Offsets), (FileKind::TimeIndex, IndexKind::Times)]
        {
            if base != to {
                // Hints: without an index the segment is walked. A device that fails says so all the same.
                let renamed = env.disk.rename(&path_of(&self.dir, base, kind), &path_of(&self.dir, to, kind));
                if let Err(error @ DiskError::VolumeFailed { .. }) = renamed {
                    return Err(error);
                }
            }
            if let Some(file) = open_index(env.disk, &self.dir, to, kind, index)? {
                tolerate_full(file.empty())?;
            }
        }
        Ok(())
    }

    /// Cuts the log to end at `to`, or at the start of the batch that holds it. The cut is durable when this
    /// returns: after a power loss the tail does not come back.
    ///
    /// The high watermark and the durable end come down with it, and a failed sync is forgiven when nothing at
    /// or above the durable end is left.
    ///
    /// # Errors
    /// What the disk says; the log may be cut in part, never shorter than asked.
    pub(crate) fn truncate_tail(&mut self, env: &mut Env<'_>, to: Offset) -> Result<(), DiskError> {
        let to = to.max(self.log_start);
        if to >= self.log_end() {
            return Ok(());
        }
        let to = self.batch_start(env, to)?.max(self.log_start);
        // First the checkpoint with the lower ends: whatever of the tail a crash leaves is then beyond them.
        let before = self.durable_end;
        self.high_watermark = self.high_watermark.min(to);
        self.durable_end = self.durable_end.min(to);
        self.changed = true;
        tolerate_full(self.write_checkpoint_ending(env, to))?;
        self.hints.clear();
        while self.active.base_offset > to && !self.sealed.is_empty() {
            self.drop_active(env)?;
        }
        self.cut_active(env, to)?;
        self.changed = true;
        if self.log_end() < self.log_start {
            self.begin_at_log_start(env)?;
        }
        self.epochs.truncate_tail(self.log_end());
        self.high_watermark = self.high_watermark.min(self.log_end());
        self.durable_end = self.durable_end.min(self.log_end());
        let lost = self.producers.truncate_tail(self.log_end());
        if !lost.is_empty() {
            self.rebuild_producers(env, &lost)?;
        }
        if self.sync_failed.is_some() {
            // Never sync again what a sync failed for; nothing at or above the durable end is left.
            if self.log_end() <= before {
                self.sync_failed = None;
            }
        } else {
            self.sync_cut(env)?;
        }
        let _ = self.offsets();
        Ok(())
    }

    /// The batch that holds the log start was cut whole: the log goes on, empty, at its start.
    fn begin_at_log_start(&mut self, env: &mut Env<'_>) -> Result<(), DiskError> {
        let base = self.active.base_offset;
        self.active.end_offset = self.log_start;
        let result = self.rebase_active(env, base, self.log_start);
        if result.is_err() {
            // The file keeps its old name: nothing may be written into it for another offset.
            self.must_roll = true;
        }
        result
    }

    /// Removes the active segment; the sealed one before it becomes active.
    fn drop_active(&mut self, env: &mut Env<'_>) -> Result<(), DiskError> {
        let Some(before) = self.sealed.back().copied() else { return Ok(()) };
        // What can fail comes before the removal.
        let revived = self.revive(env, &before)?;
        self.active.close();
        SealedSegment::remove(env.disk, &self.dir, self.active.base_offset)?;
        self.dir_dirty = true;
        self.sealed.pop_back();
        self.sum_up();
        env.handles.close(self.id, before.base_offset);
        self.active = revived;
        Ok(())
    }

    fn revive(&self, env: &mut Env<'_>, sealed: &SealedSegment) -> Result<ActiveSegment, DiskError> {
        let mut active =
            ActiveSegment::new(sealed.base_offset, sealed.end_offset, sealed.size_bytes, env.wall_ms);
        active.max_timestamp_ms = sealed.max_timestamp_ms;
        active.last_append_ms = sealed.last_append_ms;
        active.damaged_from = sealed.damaged_from;
        load_indexes(env, &self.dir, &mut active)?;
        for (kind, index) in [(FileKind::Index, IndexKind::Offsets), (FileKind::TimeIndex, IndexKind::Times)]
        {
            if let Some(file) = open_index(env.disk, &self.dir, sealed.base_offset, kind, index)? {
                tolerate_full(file.unseal())?;
            }
        }
        Ok(active)
    }

    fn cut_active(&mut self, env: &mut Env<'_>, to: Offset) -> Result<(), DiskError> {
        let file = self.active.file(env.disk, &self.dir)?;
        let begin = Expect { position: 0, offset: self.active.base_offset, epoch: LeaderEpoch(0) };
        let end = walk_headers(&*file, begin, self.active.size, |found| {
            if found.header.end_offset() > to { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let (WalkEnd::Good(at) | WalkEnd::Bad(at)) = end;
        if at.offset >= self.active.end_offset {
            return Ok(());
        }
        self.active.cut(&*file, at.position, at.offset)?;
        if self.active.damaged_from.is_some_and(|damaged| damaged >= at.offset) {
            self.active.damaged_from = None;
            self.must_roll = false;
        }
        Ok(())
    }

    /// Reads what producers wrote from the headers of the whole log again. Where records are missing, by damage or
    /// between the end of a file and a log start behind it, what came before is not taken for the last of anyone.
    pub(crate) fn rebuild_producers(
        &mut self,
        env: &mut Env<'_>,
        lost: &[ProducerId],
    ) -> Result<(), DiskError> {
        let mut producers = Producers::new(self.producers_max);
        producers.set_forgotten_to(self.producers.forgotten_to());
        for segment in &self.sealed {
            let reader = env.handles.get(env.disk, self.id, &self.dir, segment.base_offset)?;
            let begin = Expect { position: 0, offset: segment.base_offset, epoch: LeaderEpoch(0) };
            read_producers(&*reader.file, begin, (segment.size_bytes, segment.end_offset), &mut producers)?;
        }
        let file = self.active.file(env.disk, &self.dir)?;
        let begin = Expect { position: 0, offset: self.active.base_offset, epoch: LeaderEpoch(0) };
        read_producers(&*file, begin, (self.active.size, self.active.end_offset), &mut producers)?;
        // Producers whose batches are all trimmed are known from the checkpoint only.
        producers.adopt_missing(&self.producers);
        if self.log_start > Offset::ZERO {
            producers.forget(lost);
        }
        self.producers = producers;
        self.changed = true;
        Ok(())
    }

    /// Writes down that the log is being deleted, so that a crash from here on is completed by the next open.
    /// Needs no space.
    pub(crate) fn mark_deleted(&mut self, env: &mut Env<'_>) -> Result<(), DiskError> {
        tolerate_full(self.write_checkpoint(env, true))?;
        env.handles.close_partition(self.id);
        self.active.close();
        Ok(())
    }
}

/// Records the producers of one segment that should end at that size and offset.
fn read_producers(
    file: &dyn DiskFile,
    begin: Expect,
    (size_bytes, end_offset): (u64, Offset),
    producers: &mut Producers,
) -> Result<(), DiskError> {
    let end = walk_headers(file, begin, size_bytes, |found| {
        producers.record(&found.header);
        ControlFlow::Continue(())
    })?;
    let (WalkEnd::Good(at) | WalkEnd::Bad(at)) = end;
    if at.offset < end_offset {
        producers.distrust();
    }
    Ok(())
}

/// Removes the files of ours in a partition's directory, and the directory when it is empty then.
pub(crate) fn remove_partition_files(disk: &dyn Disk, dir: &str) -> Result<(), DiskError> {
    let entries = match disk.list(dir) {
        Err(DiskError::NotFound { .. }) => return Ok(()),
        other => other?,
    };
    let gone = |result| match result {
        Err(DiskError::NotFound { .. }) => Ok(()),
        other => other,
    };
    let mut foreign = 0;
    for entry in &entries {
        let is_area = entry.name == crate::offsets::AREA_NAME;
        if is_area || crate::segment::parse_name(&entry.name).is_some() {
            gone(disk.remove_file(&format!("{dir}/{}", entry.name)))?;
        } else if entry.name != crate::recovery::CHECKPOINT_NAME {
            foreign += 1;
        }
    }
    gone(disk.remove_file(&format!("{dir}/{}", crate::recovery::CHECKPOINT_NAME)))?;
    if foreign == 0 {
        gone(disk.remove_dir(dir))?;
    }
    Ok(())
}

/// Fills a segment's in-memory indexes from its files; without them it is walked.
pub(crate) fn load_indexes(env: &Env<'_>, dir: &str, active: &mut ActiveSegment) -> Result<(), DiskError> {
    let load = |kind, index| load_index(env.disk, dir, active.base_offset, kind, index);
    let index = load(FileKind::Index, IndexKind::Offsets)?;
    let times = load(FileKind::TimeIndex, IndexKind::Times)?;
    active.set_indexes(index, times);
    Ok(())
}

/// A checkpoint that finds no room (only where overwriting needs some) leaves the older one; recovery then
/// reads more.
fn tolerate_full(result: Result<(), DiskError>) -> Result<(), DiskError> {
    match result {
        Err(DiskError::OutOfSpace { .. }) => Ok(()),
        other => other,
    }
}
