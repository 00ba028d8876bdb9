//! The log of one partition: append, read, trim, truncate, sync, checkpoint.
//!
//! What it does not do: it knows no other log, no level and no leader; [`crate::volume`] does.

mod append;
mod buffers;
mod checkpoint;
mod cut;
mod epochs;
mod error;
mod persist;
mod producers;
mod read;
mod settings;
mod slots;
mod view;

use std::collections::VecDeque;
use std::time::Duration;

use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId};

pub(crate) use append::AppendFailure;
pub(crate) use buffers::ReadBuffers;
pub(crate) use checkpoint::{Checkpoint, MAGIC as CHECKPOINT_MAGIC};
pub(crate) use cut::{load_indexes, remove_partition_files};
pub(crate) use epochs::Epochs;
pub use error::{AppendError, ReadError};
pub(crate) use producers::Producers;
pub use settings::{FlushPolicy, LogSettings, OnPressure};
pub(crate) use slots::SlotFile;
pub use view::{Appended, LogView, Offsets};

use crate::fs::{Disk, FailureCause};
use crate::segment::{ActiveSegment, ReadHandles, SealedSegment};
use crate::space::SpareFiles;

/// What an operation needs from around the log.
pub(crate) struct Env<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) handles: &'a mut ReadHandles,
    pub(crate) buffers: &'a mut ReadBuffers,
    /// Files for a roll when the disk gives none.
    pub(crate) spares: Option<&'a mut SpareFiles>,
    pub(crate) now: Duration,
    /// Cluster time, milliseconds since 1970.
    pub(crate) wall_ms: u64,
    /// Size of the volume, which bounds segments.
    pub(crate) capacity_bytes: u64,
    /// Bytes that may be preallocated beyond the need.
    pub(crate) extra_max: u64,
}

/// See the module.
pub(crate) struct PartitionLog {
    id: PartitionId,
    dir: String,
    settings: LogSettings,
    log_start: Offset,
    high_watermark: Offset,
    durable_end: Offset,
    sealed: VecDeque<SealedSegment>,
    sums: Sums,
    active: ActiveSegment,
    epochs: Epochs,
    producers: Producers,
    producers_max: usize,
    checkpoint: SlotFile,
    /// A sync failed; nothing at or above `durable_end` counts.
    sync_failed: Option<FailureCause>,
    /// Below this, what no sync covers is written anew before a sync: the device failed in a former run, and the
    /// kernel counts pages as clean that it never got.
    rewrite_to: Offset,
    /// Files were made or removed since the directory was synced.
    dir_dirty: bool,
    /// Something that a checkpoint holds changed since the last one.
    changed: bool,
    /// Rolling failed for want of space; not tried again before.
    roll_again_at: Duration,
    /// The active segment is damaged: nothing may be appended behind the damage.
    must_roll: bool,
    hints: read::Hints,
}

/// Sums over the sealed segments, kept so that every append need not add them up.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    data_bytes: u64,
    disk_bytes: u64,
    damaged: bool,
}

/// What recovery found, to make a log of.
pub(crate) struct Parts {
    pub(crate) id: PartitionId,
    pub(crate) dir: String,
    pub(crate) settings: LogSettings,
    pub(crate) offsets: Offsets,
    pub(crate) sealed: VecDeque<SealedSegment>,
    pub(crate) active: ActiveSegment,
    pub(crate) epochs: Epochs,
    pub(crate) producers: Producers,
    pub(crate) producers_max: usize,
    pub(crate) checkpoint: SlotFile,
    pub(crate) must_roll: bool,
}

impl PartitionLog {
    pub(crate) fn from_parts(parts: Parts) -> Self {
        let mut log = Self {
            id: parts.id,
            sums: Sums::default(),
            dir: parts.dir,
            settings: parts.settings,
            log_start: parts.offsets.log_start(),
            high_watermark: parts.offsets.high_watermark(),
            durable_end: parts.offsets.durable_end(),
            sealed: parts.sealed,
            active: parts.active,
            epochs: parts.epochs,
            producers: parts.producers,
            producers_max: parts.producers_max,
            checkpoint: parts.checkpoint,
            sync_failed: None,
            rewrite_to: Offset::ZERO,
            dir_dirty: true,
            changed: true,
            roll_again_at: Duration::ZERO,
            must_roll: parts.must_roll,
            hints: read::Hints::default(),
        };
        log.sum_up();
        assert_eq!(log.log_end(), parts.offsets.log_end(), "the active segment ends where the log ends");
        log
    }

    pub(crate) fn log_end(&self) -> Offset {
        self.active.end_offset
    }

    /// The offsets, with their invariant asserted.
    pub(crate) fn offsets(&self) -> Offsets {
        Offsets::new(self.log_start, self.high_watermark, self.log_end(), self.durable_end)
    }

    pub(crate) fn settings(&self) -> &LogSettings {
        &self.settings
    }

    pub(crate) fn configure(&mut self, settings: LogSettings) {
        self.settings = settings;
    }

    pub(crate) fn view(&self) -> LogView {
        let offsets = self.offsets();
        LogView {
            log_start: offsets.log_start(),
            high_watermark: offsets.high_watermark(),
            log_end: offsets.log_end(),
            durable_end: offsets.durable_end(),
            last_epoch: self.epochs.last(),
            bytes: self.sums.data_bytes + self.active.size,
            preallocated_bytes: self.active.preallocated(),
            segments: self.sealed.len() + 1,
            sync_failed: self.sync_failed.is_some(),
            damaged: self.active.damaged_from.is_some() || self.sums.damaged,
        }
    }

    /// Bytes of the disk that the log occupies, its small files included.
    pub(crate) fn disk_bytes(&self) -> u64 {
        const SMALL_FILES: u64 = SlotFile::DISK_BYTES + 2 * crate::segment::BLOCK_BYTES;
        self.sums.disk_bytes + self.active.disk_bytes() + SMALL_FILES
    }

    /// After each change of the sealed segments.
    fn sum_up(&mut self) {
        self.sums = Sums {
            data_bytes: self.sealed.iter().map(|s| s.size_bytes).sum(),
            disk_bytes: self.sealed.iter().map(SealedSegment::disk_bytes).sum(),
            damaged: self.sealed.iter().any(|s| s.damaged_from.is_some()),
        };
    }

    pub(crate) fn preallocated(&self) -> u64 {
        self.active.preallocated()
    }

    pub(crate) fn sealed(&self) -> &VecDeque<SealedSegment> {
        &self.sealed
    }

    pub(crate) fn active(&self) -> &ActiveSegment {
        &self.active
    }

    /// Moves the high watermark forward, at most to the log end.
    pub(crate) fn set_high_watermark(&mut self, to: Offset) {
        let to = to.min(self.log_end());
        if to > self.high_watermark {
            self.high_watermark = to;
            self.changed = true;
        }
    }

    pub(crate) fn epoch_end(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.end(epoch, self.log_end())
    }

    pub(crate) fn note_epoch(&mut self, epoch: LeaderEpoch) -> Result<(), AppendError> {
        self.changed |= self.epochs.begin(epoch, self.log_end())?;
        Ok(())
    }

    /// The device failed before this log was opened.
    pub(crate) fn distrust(&mut self) {
        self.rewrite_to = self.log_end();
    }

    /// Whether a sync has to write records anew.
    pub(crate) fn is_distrusted(&self) -> bool {
        self.durable_end < self.rewrite_to.min(self.log_end())
    }

    /// Whether the log's file for appending is open.
    pub(crate) fn is_open(&self) -> bool {
        self.active.is_open()
    }

    /// Closes the file for appending; the next append opens it again.
    pub(crate) fn close_file(&mut self) {
        self.active.close();
    }
}
