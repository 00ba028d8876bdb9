//! A failed volume comes back within the process, as it would with a start of it.
//!
//! A failed sync is final for what was written; it need not be for the device. What no sync covers counts for nothing
//! any more: when that is noted on the device itself, and a trial write can be synced and read back, the directory is
//! opened again as after a power loss. What follows is the same as after a start: nobody trusts these replicas until
//! they have caught up, and what is uncertain is written anew before a sync covers it.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;

use super::{OpenError, OpenReport, Volume, VolumeEvent};
use crate::fs::DiskError;
use crate::space::{Canary, Repeat, canary};

/// What the trial takes.
const TRIAL: Repeat = Repeat::Allocate { bytes: 64 * 1024 };

/// Why a failed volume stays failed; it is as before, and another try may be made later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RebuildError {
    /// The directory is not there any more, or its disk says nothing of its space.
    #[error("the directory is gone: {0}")]
    Gone(DiskError),
    /// The device does not take the note that it failed. Without it a crash would be taken for one that lost nothing.
    #[error("the device does not take a note of its failure")]
    NotNoted,
    /// The trial write failed.
    #[error("the trial write failed: {0}")]
    Trial(DiskError),
    /// The directory does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Volume {
    /// Opens the directory of a failed volume again. Blocks like [`Volume::open`].
    ///
    /// The volume is then what a start of the process would make of it: its logs have their default settings and are
    /// left alone by retention until [`Volume::configure`], and `loss_untold` of the report says that no replica of it
    /// may be trusted to hold what it acknowledged. Only to be called when the cluster has committed that the volume
    /// failed, so that nobody counts on its replicas.
    ///
    /// # Errors
    /// [`RebuildError`]: the volume stays failed. After `Ok` it may be failed again, when a log can't be read.
    ///
    /// # Panics
    /// When the volume has not failed.
    pub fn rebuild(&mut self, now: Duration, wall_ms: u64) -> Result<OpenReport, RebuildError> {
        assert_eq!(self.sensor.view().level, DiskLevel::Failed, "only a failed volume is rebuilt");
        self.time.now = now;
        self.disk.space().map_err(RebuildError::Gone)?;
        self.failure_note_at = now;
        self.note_device_failed();
        if !(self.run.failed && self.run_noted) {
            return Err(RebuildError::NotNoted);
        }
        canary::run(self.disk.as_ref(), Canary { attempt: 0, repeat: TRIAL }).map_err(RebuildError::Trial)?;
        // What samplers have counted goes on; nothing is reserved between two calls.
        let counted = (self.ledger.committed_total(), self.accounts.written_total);
        let (disk, lock) = (Arc::clone(&self.disk), Arc::clone(&self.lock));
        let (mut fresh, report) =
            Self::open_locked(disk, lock, self.settings.clone(), counted, now, wall_ms)?;
        fresh.meter = Arc::clone(&self.meter);
        fresh.meter.set(counted.0, fresh.accounts.preallocated_bytes);
        let view = fresh.sensor.view();
        let mut events = std::mem::take(&mut self.events);
        events.push(VolumeEvent::LevelChanged {
            from: DiskLevel::Failed,
            to: view.level,
            cause: view.cause,
            free_bytes: view.facts.free_bytes,
        });
        events.append(&mut fresh.events);
        fresh.events = events;
        *self = fresh;
        Ok(report)
    }
}
