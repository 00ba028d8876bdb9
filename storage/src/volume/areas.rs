//! Offsets areas of a volume: logs of another shape behind the same calls.
//!
//! They are exempt from the level: an area asks the filesystem for nothing once it is made.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use plimsoll_proto::disk::WriteClass;
use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId};

use super::{DamagedRange, OpenReport, Volume};
use crate::fs::{Disk, DiskError};
use crate::log::{AppendError, Appended};
use crate::offsets::{
    AreaFailure, AreaLog, Change, OffsetsError, OffsetsTable, OpenedArea, is_area, open_area,
};
use crate::recovery::dir_of;
use crate::space::Repeat;

/// An area with what its upkeep needs.
pub(super) struct AreaEntry {
    pub(super) area: AreaLog,
    checkpoint_at: Duration,
}

pub(super) type Areas = BTreeMap<PartitionId, AreaEntry>;

/// Opens the area of a partition; `None` when its directory is not that of one. What can't be opened is in the report.
pub(super) fn open_if_area(
    disk: &dyn Disk,
    partition: PartitionId,
    areas: &mut Areas,
    report: &mut OpenReport,
) -> Option<()> {
    match is_area(disk, &dir_of(partition)) {
        Ok(false) => return None,
        Ok(true) => {}
        Err(error) => {
            report.failed.push((partition, error));
            return Some(());
        }
    }
    match open_area(disk, partition, report.device_failed) {
        Ok(None) => {}
        Ok(Some(OpenedArea { area, damaged })) => {
            report.damaged.extend(damaged.map(|(from, to)| DamagedRange { partition, from, to }));
            areas.insert(partition, AreaEntry { area, checkpoint_at: Duration::ZERO });
        }
        Err(error) => report.failed.push((partition, error)),
    }
    Some(())
}

impl Volume {
    /// Whether a log is an offsets area.
    pub fn is_offsets_area(&self, partition: &PartitionId) -> bool {
        self.areas.contains_key(partition)
    }

    /// What an offsets area holds, committed or on its way to be.
    pub fn offsets(&self, partition: &PartitionId) -> Option<&OffsetsTable> {
        self.areas.get(partition).map(|entry| entry.area.table())
    }

    /// Appends changes to an offsets area as the leader of `epoch`, in one batch; not durable before
    /// [`Volume::sync`]. Works at every level but Failed: no block is asked for.
    ///
    /// # Errors
    /// None of the changes was appended, unless `Append(VolumeFailed{written: true})`.
    pub fn commit_offsets(
        &mut self,
        partition: &PartitionId,
        changes: &[Change],
        epoch: LeaderEpoch,
        now: Duration,
        wall_ms: u64,
    ) -> Result<Appended, OffsetsError> {
        self.set_time(now, wall_ms);
        self.check_writable(WriteClass::ConsumerOffsets, 0)?;
        let entry = self.areas.get_mut(partition).ok_or(AppendError::NotFound)?;
        match entry.area.commit(changes, epoch, wall_ms) {
            Ok(appended) => {
                self.note_success();
                Ok(appended)
            }
            Err(failure) => Err(self.area_refused(failure)),
        }
    }

    fn area_refused(&mut self, failure: AreaFailure) -> OffsetsError {
        match failure {
            AreaFailure::Refused(error) => error,
            AreaFailure::Disk { error, needed_bytes, uncut } => {
                let repeat = Repeat::Allocate { bytes: needed_bytes };
                self.disk_refused(&error, needed_bytes, repeat, uncut).into()
            }
        }
    }

    /// Trims an offsets area to its newest committed snapshot, as its leader may; whether it did. Needs no space.
    ///
    /// # Errors
    /// What the disk says.
    pub fn settle_offsets(&mut self, partition: &PartitionId) -> Result<bool, DiskError> {
        let Some(entry) = self.areas.get_mut(partition) else { return Ok(false) };
        let Some(to) = entry.area.superseded_to() else { return Ok(false) };
        let trimmed = entry.area.trim_head(self.disk.as_ref(), to);
        self.noted(trimmed).map(|()| true)
    }

    /// A replica that had lost what it should have has caught up.
    pub fn offsets_repaired(&mut self, partition: &PartitionId) {
        if let Some(entry) = self.areas.get_mut(partition) {
            entry.area.repaired();
        }
    }

    pub(super) fn create_area(&mut self, partition: PartitionId, bytes: u64) -> Result<(), AppendError> {
        self.check_writable(WriteClass::ControlPlane, bytes)?;
        match AreaLog::create(self.disk.as_ref(), partition, bytes) {
            Ok(area) => {
                self.accounts.used_bytes += area.disk_bytes();
                self.areas.insert(partition, AreaEntry { area, checkpoint_at: self.time.now });
                Ok(())
            }
            Err(error) => Err(self.disk_refused(&error, bytes, Repeat::Allocate { bytes }, false)),
        }
    }

    pub(super) fn append_to_area(
        &mut self,
        partition: &PartitionId,
        batches: &Bytes,
    ) -> Result<Appended, AppendError> {
        self.check_writable(WriteClass::ConsumerOffsets, 0)?;
        let entry = self.areas.get_mut(partition).ok_or(AppendError::NotFound)?;
        match entry.area.append_as_follower(batches) {
            Ok(appended) => {
                self.note_success();
                Ok(appended)
            }
            Err(failure) => Err(match self.area_refused(failure) {
                OffsetsError::Append(error) => error,
                // The leader's log fits once its log start is followed.
                OffsetsError::Busy
                | OffsetsError::Full { .. }
                | OffsetsError::TooLarge { .. }
                | OffsetsError::Fenced { .. } => AppendError::Temporary(DiskError::Exhausted {
                    errno: 0,
                    operation: "append to a full area",
                }),
            }),
        }
    }

    pub(super) fn sync_area(&mut self, partition: &PartitionId) -> Option<Result<Offset, DiskError>> {
        let synced = self.areas.get_mut(partition)?.area.sync();
        Some(self.noted(synced))
    }

    pub(super) fn cut_area(&mut self, partition: &PartitionId, to: Offset) -> Option<Result<(), DiskError>> {
        let cut = self.areas.get_mut(partition)?.area.truncate_tail(self.disk.as_ref(), to);
        Some(self.noted(cut))
    }

    pub(super) fn trim_area(
        &mut self,
        partition: &PartitionId,
        to: Offset,
    ) -> Option<Result<u64, DiskError>> {
        let trimmed = self.areas.get_mut(partition)?.area.trim_head(self.disk.as_ref(), to);
        Some(self.noted(trimmed).map(|()| 0))
    }

    fn noted<T>(&mut self, result: Result<T, DiskError>) -> Result<T, DiskError> {
        if let Err(error) = &result {
            self.note_failure(error, 0);
        }
        result
    }

    /// Marks an area as deleted; its files go as those of any log.
    pub(super) fn mark_area_deleted(&mut self, partition: &PartitionId) -> Result<(), DiskError> {
        let Some(entry) = self.areas.get_mut(partition) else { return Ok(()) };
        let marked = entry.area.mark_deleted(self.disk.as_ref());
        self.noted(marked)?;
        if let Some(entry) = self.areas.remove(partition) {
            self.deleting.insert(*partition, entry.area.disk_bytes());
        }
        Ok(())
    }

    /// Writes the checkpoints that are due.
    pub(super) fn checkpoint_areas(&mut self) {
        let now = self.time.now;
        let interval = self.settings.checkpoint_interval;
        let mut failure = None;
        for entry in self.areas.values_mut() {
            if entry.checkpoint_at <= now && entry.area.is_changed() {
                entry.checkpoint_at = now + interval;
                failure = entry.area.write_checkpoint(self.disk.as_ref()).err().or(failure);
            }
        }
        if let Some(error) = failure.filter(|error| !matches!(error, DiskError::OutOfSpace { .. })) {
            self.note_failure(&error, 0);
        }
    }

    /// Syncs and checkpoints every area, for a close in order.
    pub(super) fn close_areas(&mut self) -> Result<(), DiskError> {
        for entry in self.areas.values_mut() {
            entry.area.sync()?;
            if entry.area.is_changed() {
                entry.area.write_checkpoint(self.disk.as_ref())?;
            }
        }
        Ok(())
    }
}
