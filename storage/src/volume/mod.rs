//! One data directory: its logs, its space, its level. One owner, blocking calls.

mod report;
mod settings;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId, VolumeId};

pub use report::{
    DamagedRange, OpenError, OpenReport, ReclaimReason, ReplicaGuard, ReplicaGuards, TailCut, VolumeEvent,
    VolumeFacts,
};
pub use settings::VolumeSettings;

use crate::fs::{DiskError, SharedDisk};
use crate::log::{AppendError, Appended, LogSettings, LogView, ReadError};

/// A data directory in use. Send, but not shared: its owner is one worker.
pub struct Volume {
    disk: SharedDisk,
}

#[allow(unused_variables, missing_docs, clippy::all, reason = "skeleton, bodies follow within the hour")]
impl Volume {
    pub fn open(disk: SharedDisk, settings: VolumeSettings, now: Duration, wall_ms: u64) -> Result<(Self, OpenReport), OpenError> { panic!() }
    pub fn id(&self) -> VolumeId { panic!() }
    pub fn partitions(&self) -> Vec<PartitionId> { panic!() }
    pub fn log(&self, partition: &PartitionId) -> Option<LogView> { panic!() }
    pub fn create_partition(&mut self, partition: PartitionId, settings: LogSettings, now: Duration) -> Result<(), AppendError> { panic!() }
    pub fn configure(&mut self, partition: &PartitionId, settings: LogSettings) { panic!() }
    pub fn delete_partition(&mut self, partition: &PartitionId) -> Result<u64, DiskError> { panic!() }
    pub fn append_as_leader(&mut self, partition: &PartitionId, batch: BytesMut, epoch: LeaderEpoch, now: Duration, wall_ms: u64) -> Result<Appended, AppendError> { panic!() }
    pub fn append_as_follower(&mut self, partition: &PartitionId, batches: Bytes, now: Duration, wall_ms: u64) -> Result<Appended, AppendError> { panic!() }
    pub fn read(&mut self, partition: &PartitionId, from: Offset, limit: Offset, max_bytes: usize) -> Result<Bytes, ReadError> { panic!() }
    pub fn offset_at(&mut self, partition: &PartitionId, timestamp_ms: i64) -> Result<Option<Offset>, ReadError> { panic!() }
    pub fn epoch_end(&self, partition: &PartitionId, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> { panic!() }
    pub fn note_epoch(&mut self, partition: &PartitionId, epoch: LeaderEpoch, start: Offset) -> Result<(), AppendError> { panic!() }
    pub fn truncate_tail(&mut self, partition: &PartitionId, to: Offset) -> Result<(), DiskError> { panic!() }
    pub fn trim_head(&mut self, partition: &PartitionId, to: Offset) -> Result<u64, DiskError> { panic!() }
    pub fn set_high_watermark(&mut self, partition: &PartitionId, high_watermark: Offset) { panic!() }
    pub fn sync(&mut self, partition: &PartitionId) -> Result<Offset, DiskError> { panic!() }
    pub fn tick(&mut self, now: Duration, wall_ms: u64, guards: &ReplicaGuards) -> Vec<VolumeEvent> { panic!() }
    pub fn facts(&self) -> VolumeFacts { panic!() }
    pub fn close(self, wall_ms: u64) -> Result<(), DiskError> { panic!() }
}
