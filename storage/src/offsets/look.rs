//! What lies in the files of an area, for people: nothing is written, and nothing believed.

use bytes::Bytes;
use plimsoll_proto::batch::BatchHeader;
use plimsoll_proto::ids::{Offset, PartitionId};

use super::checkpoint::{Checkpoint, MAGIC};
use super::open::{AREA_NAME, read_all, visit_counted};
use super::ring::HEAD_BYTES;
use crate::fs::{Disk, DiskError, OpenMode};
use crate::log::SlotFile;
use crate::recovery::CHECKPOINT_NAME;

/// How often the files are read again when their node has written a checkpoint meanwhile.
const READS_MAX: u32 = 5;

/// The files of an area.
pub(crate) struct AreaFiles {
    pub(crate) checkpoint: AreaCheckpoint,
    /// Bytes of the ring, and those that it occupies.
    pub(crate) size_bytes: u64,
    pub(crate) allocated_bytes: u64,
    /// Batches that count, with the positions where they begin.
    pub(crate) batches: Vec<(u64, BatchHeader, Bytes)>,
}

/// What the checkpoint of an area says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AreaCheckpoint {
    /// There is none yet, or the area is being deleted: the next start removes it.
    Unfinished,
    /// No slot of it is valid.
    Invalid,
    Valid {
        partition: PartitionId,
        log_start: Offset,
        durable_end: Offset,
    },
}

impl AreaFiles {
    /// Reads the files in the directory `dir`. Without a ring nothing is finished there.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn read(disk: &dyn Disk, dir: &str) -> Result<Self, DiskError> {
        let file = match disk.open(&format!("{dir}/{AREA_NAME}"), OpenMode::Read) {
            Err(DiskError::NotFound { .. }) => return Ok(Self::none()),
            other => other?,
        };
        let (size_bytes, allocated_bytes) = (file.len()?, file.allocated_bytes()?);
        let mut read = 0;
        let (known, ring) = loop {
            let known = checkpoint(disk, dir)?;
            let ring = read_all(file.as_ref(), size_bytes)?;
            read += 1;
            // A running node overwrites what lies before the log start of its checkpoint.
            if read == READS_MAX || checkpoint(disk, dir)? == known {
                break (known, ring);
            }
        };
        let mut batches = Vec::new();
        let checkpoint = match known {
            Read::Nothing => AreaCheckpoint::Unfinished,
            Read::Invalid => AreaCheckpoint::Invalid,
            Read::Valid(known) if known.deleted => AreaCheckpoint::Unfinished,
            Read::Valid(known) => {
                visit_counted(&ring, (known.position, known.chain), known.log_start, |found, header, _| {
                    batches.push((found.position + HEAD_BYTES, header, found.batch));
                });
                AreaCheckpoint::Valid {
                    partition: known.partition,
                    log_start: known.log_start,
                    durable_end: known.durable_end,
                }
            }
        };
        Ok(Self { checkpoint, size_bytes, allocated_bytes, batches })
    }

    fn none() -> Self {
        Self {
            checkpoint: AreaCheckpoint::Unfinished,
            size_bytes: 0,
            allocated_bytes: 0,
            batches: Vec::new(),
        }
    }

    /// Where the log begins and ends.
    pub(crate) fn ends(&self) -> (Offset, Offset) {
        let start = match self.checkpoint {
            AreaCheckpoint::Valid { log_start, .. } => log_start,
            AreaCheckpoint::Unfinished | AreaCheckpoint::Invalid => Offset::ZERO,
        };
        (start, self.batches.last().map_or(start, |(_, header, _)| header.end_offset()))
    }
}

#[derive(PartialEq, Eq)]
enum Read {
    Nothing,
    Invalid,
    Valid(Box<Checkpoint>),
}

fn checkpoint(disk: &dyn Disk, dir: &str) -> Result<Read, DiskError> {
    let path = format!("{dir}/{CHECKPOINT_NAME}");
    let payload = match SlotFile::open(disk, path.clone(), MAGIC) {
        Ok((_, payload)) => payload,
        Err(DiskError::NotFound { .. }) => return Ok(Read::Nothing),
        Err(error) => return Err(error),
    };
    match payload.and_then(|bytes| Checkpoint::decode(&bytes)) {
        Some(known) => Ok(Read::Valid(Box::new(known))),
        None if SlotFile::is_blank(disk.open(&path, OpenMode::Read)?.as_ref())? => Ok(Read::Nothing),
        None => Ok(Read::Invalid),
    }
}
