//! How a volume is opened.

use std::time::Duration;

use plimsoll_proto::ids::{ClusterId, SpuId, VolumeId};

use crate::space::MarkSettings;

/// Files that each volume may keep open, of either kind, however many volumes there are.
const OPEN_FILES_MIN: usize = 8;

/// Settings of one volume. Identities are not optional: a directory of another cluster or node is refused.
#[derive(Clone, Debug)]
pub struct VolumeSettings {
    /// The cluster that the directory must belong to.
    pub cluster_id: ClusterId,
    /// The node that the directory must belong to.
    pub spu_id: SpuId,
    /// Identity that a fresh directory gets; random, made by the caller.
    pub new_volume_id: VolumeId,
    /// Bytes that this volume may use, whatever the filesystem has. Default none.
    pub byte_limit: Option<u64>,
    /// Where the disk levels begin and end.
    pub marks: MarkSettings,
    /// Bytes kept for later write classes; default max(1 % of capacity, 2 MiB).
    pub reserve_bytes: Option<u64>,
    /// How often retention looks at every log when there is no pressure. Default 5 minutes.
    pub retention_interval: Duration,
    /// How often changed logs are checkpointed. Default 10 s.
    pub checkpoint_interval: Duration,
    /// Logs with open files for appending; the least recently used are closed. Default 256,
    /// which the volumes of a node share ([`Self::one_of`]).
    pub open_logs_max: usize,
    /// Open files for reading sealed segments. Default 128, shared likewise.
    pub read_handles_max: usize,
    /// Idempotent producers remembered in each log. Default 1,000.
    pub producers_max: usize,
}

impl VolumeSettings {
    /// Defaults for everything but the identities.
    pub fn new(cluster_id: ClusterId, spu_id: SpuId, new_volume_id: VolumeId) -> Self {
        Self {
            cluster_id,
            spu_id,
            new_volume_id,
            byte_limit: None,
            marks: MarkSettings::default(),
            reserve_bytes: None,
            retention_interval: Duration::from_secs(5 * 60),
            checkpoint_interval: Duration::from_secs(10),
            open_logs_max: 256,
            read_handles_max: 128,
            producers_max: 1000,
        }
    }

    /// The same for one of so many volumes of a process: they share what it may have open.
    #[must_use]
    pub fn one_of(mut self, volumes: usize) -> Self {
        let share = |files: usize| (files / volumes.max(1)).max(OPEN_FILES_MIN);
        self.open_logs_max = share(self.open_logs_max);
        self.read_handles_max = share(self.read_handles_max);
        self
    }
}
