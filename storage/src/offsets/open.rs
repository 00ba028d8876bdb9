//! Making and opening an area. Opening needs no space.

use std::collections::VecDeque;

use bytes::Bytes;
use plimsoll_proto::batch::BatchHeader;
use plimsoll_proto::ids::{Offset, PartitionId};

use super::area::{AreaLog, wide};
use super::checkpoint::{Checkpoint, MAGIC};
use super::record::{self, Entry};
use super::ring::{Found, Walk};
use super::table::OffsetsTable;
use crate::fs::{Disk, DiskError, DiskFile, OpenMode};
use crate::log::{Epochs, SlotFile};
use crate::recovery::{CHECKPOINT_NAME, PARTITIONS_DIR, dir_of};

/// Name of the ring's file.
pub(crate) const AREA_NAME: &str = "offsets-area";
/// Bytes written at once when the file is made.
const FILL_BYTES: usize = 256 << 10;
/// The smallest area.
const AREA_BYTES_MIN: u64 = 64 << 10;

/// An area and what opening it met.
pub(crate) struct OpenedArea {
    pub(crate) area: AreaLog,
    /// Offsets that should be there and are not.
    pub(crate) damaged: Option<(Offset, Offset)>,
}

/// Whether the directory of a partition is that of an area, or of what is left of one.
pub(crate) fn is_area(disk: &dyn Disk, dir: &str) -> Result<bool, DiskError> {
    if disk.list(dir)?.iter().any(|entry| entry.name == AREA_NAME) {
        return Ok(true);
    }
    match SlotFile::open(disk, format!("{dir}/{CHECKPOINT_NAME}"), MAGIC) {
        Ok((_, payload)) => Ok(payload.is_some()),
        Err(DiskError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens an area; `None` when its creation never ended or its deletion has just been completed. Needs no space.
///
/// # Errors
/// What the disk says.
pub(crate) fn open_area(
    disk: &dyn Disk,
    partition: PartitionId,
    distrust: bool,
) -> Result<Option<OpenedArea>, DiskError> {
    let dir = dir_of(partition);
    let (checkpoint, payload) = match SlotFile::open(disk, format!("{dir}/{CHECKPOINT_NAME}"), MAGIC) {
        Err(DiskError::NotFound { .. }) => {
            (SlotFile::absent(format!("{dir}/{CHECKPOINT_NAME}"), MAGIC), None)
        }
        other => other?,
    };
    let known = payload.and_then(|bytes| Checkpoint::decode(&bytes)).filter(|c| c.partition == partition);
    let file = match disk.open(&format!("{dir}/{AREA_NAME}"), OpenMode::Write) {
        Err(DiskError::NotFound { .. }) => None,
        other => Some(other?),
    };
    let (Some(known), Some(file)) = (known.filter(|c| !c.deleted), file) else {
        crate::log::remove_partition_files(disk, &dir)?;
        return Ok(None);
    };
    let size = file.len()?;
    let ring = read_all(file.as_ref(), size)?;
    let mut area = AreaLog {
        id: partition,
        file,
        size,
        checkpoint,
        log_start: known.log_start,
        high_watermark: known.log_start,
        durable_end: known.log_start,
        batches: VecDeque::new(),
        tail: (known.position, known.chain),
        used_bytes: 0,
        epochs: known.epochs.clone(),
        table: OffsetsTable::default(),
        sync_failed: None,
        rewrite: distrust,
        damaged: false,
        changed: false,
        kept_head: None,
    };
    area.scan(&ring);
    let end = area.log_end();
    area.epochs.truncate_above(end);
    area.high_watermark = known.high_watermark.clamp(area.log_start, end);
    area.durable_end = known.durable_end.min(end);
    let damaged = (end < known.durable_end).then_some((end, known.durable_end));
    area.damaged = damaged.is_some();
    Ok(Some(OpenedArea { area, damaged }))
}

pub(super) fn read_all(file: &dyn DiskFile, size: u64) -> Result<Bytes, DiskError> {
    let length = usize::try_from(size).map_err(|_| DiskError::Unknown { errno: 0, operation: "read" })?;
    let mut ring = vec![0; length];
    let mut at = 0;
    while at < length {
        match file.read_at(&mut ring[at..], wide(at))? {
            0 => break,
            read => at += read,
        }
    }
    Ok(ring.into())
}

impl AreaLog {
    /// Makes a new, empty area of `size` bytes (rounded to blocks), durable when this returns.
    ///
    /// # Errors
    /// `OutOfSpace` when there is no room; nothing counts as made then.
    pub(crate) fn create(disk: &dyn Disk, partition: PartitionId, size: u64) -> Result<Self, DiskError> {
        let dir = dir_of(partition);
        let size = size.max(AREA_BYTES_MIN).next_multiple_of(4096);
        let made = Self::create_files(disk, partition, &dir, size);
        if made.is_err() {
            let _ = crate::log::remove_partition_files(disk, &dir);
        }
        made
    }

    fn create_files(
        disk: &dyn Disk,
        partition: PartitionId,
        dir: &str,
        size: u64,
    ) -> Result<Self, DiskError> {
        disk.create_dir(dir)?;
        let checkpoint = SlotFile::create(disk, format!("{dir}/{CHECKPOINT_NAME}"), MAGIC)?;
        let path = format!("{dir}/{AREA_NAME}");
        let file = match disk.open(&path, OpenMode::CreateNew) {
            Err(DiskError::AlreadyExists { .. }) => disk.open(&path, OpenMode::Write)?,
            other => other?,
        };
        file.allocate(0, size)?;
        // Written, not only allocated: to turn an allocated block into a written one a filesystem may need another.
        let zeros = vec![0; FILL_BYTES];
        let mut at = 0;
        while at < size {
            let part = usize::try_from(size - at).unwrap_or(usize::MAX).min(FILL_BYTES);
            file.write_at(&zeros[..part], at)?;
            at += wide(part);
        }
        file.sync_data()?;
        disk.sync_dir(dir)?;
        let chain = crc32c::crc32c(partition.to_string().as_bytes());
        let mut area = Self {
            id: partition,
            file,
            size,
            checkpoint,
            log_start: Offset::ZERO,
            high_watermark: Offset::ZERO,
            durable_end: Offset::ZERO,
            batches: VecDeque::new(),
            tail: (0, chain),
            used_bytes: 0,
            epochs: Epochs::default(),
            table: OffsetsTable::default(),
            sync_failed: None,
            rewrite: false,
            damaged: false,
            changed: true,
            kept_head: None,
        };
        area.write_checkpoint(disk)?;
        disk.sync_dir(PARTITIONS_DIR)?;
        Ok(area)
    }

    fn scan(&mut self, ring: &Bytes) {
        self.tail = visit_counted(ring, self.tail, self.log_start, |found, header, entries| {
            if let Some(epoch) = header.leader_epoch {
                self.epochs.wrote(epoch, header.base_offset);
            }
            self.take(&header, found.position, found.chain_before, entries);
        });
    }
}

/// Visits the batches that count, each of which continues the chain and the log; the position behind them, and the
/// chain there.
pub(super) fn visit_counted(
    ring: &Bytes,
    (position, chain): (u64, u32),
    log_start: Offset,
    mut visit: impl FnMut(Found, BatchHeader, Vec<Entry>),
) -> (u64, u32) {
    let mut walk = Walk::new(ring, position, chain);
    let (mut next, mut is_first) = (log_start, true);
    let mut end = walk.end();
    while let Some(found) = walk.next() {
        let Ok(header) = BatchHeader::parse(&found.batch) else { break };
        let continues = if is_first {
            header.base_offset <= next && header.end_offset() > next
        } else {
            header.base_offset == next
        };
        let Ok(entries) = record::decode(&found.batch) else { break };
        if !continues || header.size_bytes != found.batch.len() {
            break;
        }
        (next, is_first) = (header.end_offset(), false);
        visit(found, header, entries);
        end = walk.end();
    }
    end
}
