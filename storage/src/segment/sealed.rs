//! A segment that nothing is appended to any more.

use plimsoll_proto::ids::Offset;

use super::{BLOCK_BYTES, FileKind, path_of, whole_blocks};
use crate::fs::{Disk, DiskError};

/// What is remembered of a sealed segment; its files are opened when needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealedSegment {
    pub(crate) base_offset: Offset,
    pub(crate) end_offset: Offset,
    pub(crate) size_bytes: u64,
    pub(crate) max_timestamp_ms: i64,
    /// Cluster time of the last append, which age counts from.
    pub(crate) last_append_ms: u64,
    /// First offset that can't be read; the rest of the segment is quarantined.
    pub(crate) damaged_from: Option<Offset>,
}

impl SealedSegment {
    /// Bytes that deleting it gives back, its indexes included.
    pub(crate) fn disk_bytes(&self) -> u64 {
        whole_blocks(self.size_bytes) + 2 * BLOCK_BYTES
    }

    /// Removes the three files, the log last: while it stands, the segment is still there. Files that are
    /// gone already are fine.
    pub(crate) fn remove(disk: &dyn Disk, dir: &str, base_offset: Offset) -> Result<(), DiskError> {
        for kind in [FileKind::TimeIndex, FileKind::Index, FileKind::Log] {
            match disk.remove_file(&path_of(dir, base_offset, kind)) {
                Ok(()) | Err(DiskError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
