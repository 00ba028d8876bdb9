//! Reading the files of logs without a volume, for people and offline: what is in them, and whether it is sound.
//!
//! What it does not do: it never writes, takes no lock and believes nothing that it reads. On files that a running
//! node appends to, the last batches may look torn.
//!
//! Start at [`find_logs`], then [`LogFiles::walk`] or [`LogFiles::verify`].

mod area;
mod expect;
mod verify;
mod walk;

use plimsoll_proto::ids::{Offset, PartitionId};

pub use verify::{Finding, FindingKind, Verified};
pub use walk::{BadBytes, Seen, SeenBatch, SeenSegment};

use crate::fs::{Disk, DiskError};
use crate::log::{CHECKPOINT_MAGIC, Checkpoint, SlotFile};
use crate::offsets::is_area;
use crate::recovery::{CHECKPOINT_NAME, PARTITIONS_DIR};
use crate::segment::{FileKind, parse_name};

/// Producers of a checkpoint that are read at most; the rest is not looked at.
const PRODUCERS_MAX: usize = 1 << 16;

/// The files of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFiles {
    /// Whose they are, by the name of the directory or by the checkpoint in it.
    pub partition: Option<PartitionId>,
    /// The directory, from the one that was opened.
    pub dir: String,
    /// Base offsets of the segments, ascending.
    pub base_offsets: Vec<Offset>,
    /// Offsets of consumer groups: a ring instead of segments.
    pub is_area: bool,
}

/// Finds logs: those of a data directory, of its directory of partitions, or the one whose files lie here.
///
/// # Errors
/// What the disk says. No log at all is an empty list.
pub fn find_logs(disk: &dyn Disk) -> Result<Vec<LogFiles>, DiskError> {
    let entries = disk.list("")?;
    if is_area(disk, ".")? {
        let partition = area::partition_of(disk, ".")?;
        return Ok(vec![LogFiles {
            partition,
            dir: ".".to_owned(),
            base_offsets: Vec::new(),
            is_area: true,
        }]);
    }
    if entries.iter().any(|entry| !entry.is_dir && parse_name(&entry.name).is_some()) {
        let partition = checkpoint_of(disk, ".")?.map(|checkpoint| checkpoint.partition);
        return Ok(vec![LogFiles::of(disk, partition, ".".to_owned())?]);
    }
    let is_volume = entries.iter().any(|entry| entry.is_dir && entry.name == PARTITIONS_DIR);
    let (entries, prefix) = if is_volume {
        (disk.list(PARTITIONS_DIR)?, format!("{PARTITIONS_DIR}/"))
    } else {
        (entries, String::new())
    };
    let mut logs = Vec::new();
    for entry in entries {
        if let Some(partition) = entry.name.parse::<PartitionId>().ok().filter(|_| entry.is_dir) {
            let dir = format!("{prefix}{}", entry.name);
            logs.push(LogFiles::of(disk, Some(partition), dir)?);
        }
    }
    Ok(logs)
}

impl LogFiles {
    fn of(disk: &dyn Disk, partition: Option<PartitionId>, dir: String) -> Result<Self, DiskError> {
        let entries = disk.list(&dir)?;
        let logs = entries.iter().filter(|entry| !entry.is_dir).filter_map(|entry| parse_name(&entry.name));
        let mut base_offsets: Vec<Offset> =
            logs.filter(|(_, kind)| *kind == FileKind::Log).map(|(base, _)| base).collect();
        base_offsets.sort_unstable();
        Ok(Self { partition, is_area: is_area(disk, &dir)?, dir, base_offsets })
    }
}

/// `None` when there is no file, or nothing in it that counts.
fn checkpoint_of(disk: &dyn Disk, dir: &str) -> Result<Option<Checkpoint>, DiskError> {
    match SlotFile::open(disk, format!("{dir}/{CHECKPOINT_NAME}"), CHECKPOINT_MAGIC) {
        Ok((_, payload)) => Ok(payload.and_then(|bytes| Checkpoint::decode(&bytes, PRODUCERS_MAX))),
        Err(DiskError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
