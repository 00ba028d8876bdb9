//! The words for the state of a disk that every part of the system shares.

use std::fmt;

use crate::v1;

impl v1::VolumeFacts {
    /// Replicas that are stopped and named in the facts of one volume at most.
    pub const STOPPED_REPLICAS_MAX: usize = 64;
}

/// How close a volume is to being full, from best to worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum DiskLevel {
    /// Room enough; retention as configured.
    #[default]
    Normal,
    /// Pressure retention runs; not a target for new replicas.
    Reclaim,
    /// Producers are delayed; leaders are asked to move.
    Throttle,
    /// Produce is refused with DISK_FULL; everything else goes on.
    ReadOnly,
    /// Out of service for writes because the device failed. Failed is not full.
    Failed,
}

impl DiskLevel {
    /// Whether produce may be accepted at all.
    pub fn accepts_produce(self) -> bool {
        self < Self::ReadOnly
    }
}

impl fmt::Display for DiskLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "normal",
            Self::Reclaim => "reclaim",
            Self::Throttle => "throttle",
            Self::ReadOnly => "read-only",
            Self::Failed => "failed",
        })
    }
}

/// Which resource of a volume ran out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DiskCause {
    /// Free bytes.
    Bytes,
    /// Free inodes.
    Inodes,
    /// A quota of the filesystem.
    Quota,
    /// A configured byte limit, or the file size limit of the process.
    Limit,
    /// Space is back, but the volume waits out a hold against flapping.
    Hold,
}

impl fmt::Display for DiskCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Inodes => "inodes",
            Self::Quota => "quota",
            Self::Limit => "limit",
            Self::Hold => "hold",
        })
    }
}

/// Who asks for space, from first refused to last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WriteClass {
    /// Records of producers.
    Produce,
    /// Records a follower copies from its leader.
    FollowerCatchUp,
    /// Offsets of consumer groups.
    ConsumerOffsets,
    /// Checkpoints, epochs and other control data.
    ControlPlane,
    /// What a deletion itself needs.
    Deletion,
}
