//! Asking the disk for its space on another thread than the volume's own.
//!
//! While `statvfs` runs and its answer waits in a queue, the volume goes on writing. An answer is therefore joined
//! with the volume's accounts from *before* it was asked for: what was written since then counts against it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fs::{DiskError, SharedDisk, SpaceSample};

/// Accounts of a volume that its sampler reads.
#[derive(Debug, Default)]
pub(super) struct Meter {
    committed_total: AtomicU64,
    preallocated: AtomicU64,
}

impl Meter {
    pub(super) fn set(&self, committed_total: u64, preallocated: u64) {
        self.committed_total.store(committed_total, Ordering::Release);
        self.preallocated.store(preallocated, Ordering::Release);
    }
}

/// Takes samples for [`super::Volume::observe_measured`]. Every clone is the same.
#[derive(Clone)]
pub struct SpaceSampler {
    disk: SharedDisk,
    meter: Arc<Meter>,
}

/// An answer of the disk, and the volume's accounts from before the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// What the disk said.
    pub result: Result<SpaceSample, DiskError>,
    pub(super) committed_before: u64,
    pub(super) preallocated_before: u64,
}

impl SpaceSampler {
    pub(super) fn new(disk: SharedDisk, meter: Arc<Meter>) -> Self {
        Self { disk, meter }
    }

    /// Asks the disk. May block for ever on a mount that hangs.
    pub fn sample(&self) -> Measured {
        let committed_before = self.meter.committed_total.load(Ordering::Acquire);
        let preallocated_before = self.meter.preallocated.load(Ordering::Acquire);
        Measured { result: self.disk.space(), committed_before, preallocated_before }
    }
}

impl std::fmt::Debug for SpaceSampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpaceSampler").field("disk", &self.disk.label()).finish_non_exhaustive()
    }
}
