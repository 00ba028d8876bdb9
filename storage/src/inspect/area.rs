//! The area of an offsets log: one ring instead of segments.

use std::ops::ControlFlow;

use plimsoll_proto::batch;
use plimsoll_proto::ids::{Offset, PartitionId};

use super::LogFiles;
use super::verify::{Finding, FindingKind, Verified};
use super::walk::{ALL, Seen, SeenBatch, SeenSegment};
use crate::fs::{Disk, DiskError};
use crate::offsets::{AREA_NAME, AreaCheckpoint, AreaFiles};
use crate::recovery::CHECKPOINT_NAME;

/// Whose an area is, by its checkpoint.
pub(super) fn partition_of(disk: &dyn Disk, dir: &str) -> Result<Option<PartitionId>, DiskError> {
    Ok(match AreaFiles::read(disk, dir)?.checkpoint {
        AreaCheckpoint::Valid { partition, .. } => Some(partition),
        AreaCheckpoint::Unfinished | AreaCheckpoint::Invalid => None,
    })
}

/// Visits the ring as one segment, and the batches that count.
pub(super) fn walk(
    files: &LogFiles,
    disk: &dyn Disk,
    mut visit: impl FnMut(Seen<'_>) -> ControlFlow<()>,
) -> Result<(), DiskError> {
    let area = AreaFiles::read(disk, &files.dir)?;
    let segment = SeenSegment {
        base_offset: area.ends().0,
        file: format!("{}/{AREA_NAME}", files.dir),
        size_bytes: area.size_bytes,
        allocated_bytes: area.allocated_bytes,
        sealed_end: None,
    };
    let mut flow = visit(Seen::Segment(&segment));
    for (position, header, bytes) in area.batches {
        if flow.is_break() {
            break;
        }
        let sound = batch::verify(&bytes, &ALL).map(drop);
        flow = visit(Seen::Batch(&SeenBatch { position, header, bytes, sound }));
    }
    Ok(())
}

/// Checks checkpoint and ring. What does not continue the ring's chain is no batch, so that damage shows as an end
/// before the durable one.
pub(super) fn verify(files: &LogFiles, disk: &dyn Disk) -> Result<Verified, DiskError> {
    let area = AreaFiles::read(disk, &files.dir)?;
    let (log_start, log_end) = area.ends();
    let mut findings = Vec::new();
    let mut find = |kind, file: &str, offset: Option<Offset>, what: String| {
        let file = format!("{}/{file}", files.dir);
        findings.push(Finding { kind, file, position: None, offset, what });
    };
    match area.checkpoint {
        AreaCheckpoint::Unfinished => {}
        AreaCheckpoint::Invalid => {
            find(FindingKind::Checkpoint, CHECKPOINT_NAME, None, "no slot of it is valid".to_owned());
        }
        AreaCheckpoint::Valid { partition, .. } if files.partition.is_some_and(|own| own != partition) => {
            find(FindingKind::Checkpoint, CHECKPOINT_NAME, None, format!("it is of partition {partition}"));
        }
        AreaCheckpoint::Valid { durable_end, .. } if log_end < durable_end => {
            let what = format!("offsets up to {durable_end} were synced, the ring ends at {log_end}");
            find(FindingKind::Offsets, AREA_NAME, Some(log_end), what);
        }
        AreaCheckpoint::Valid { .. } => {}
    }
    for (position, header, bytes) in &area.batches {
        if let Err(error) = batch::verify(bytes, &ALL) {
            let (file, what) = (format!("{}/{AREA_NAME}", files.dir), error.to_string());
            let (position, offset) = (Some(*position), Some(header.base_offset));
            findings.push(Finding { kind: FindingKind::Batch, file, position, offset, what });
        }
    }
    let records = area.batches.iter().map(|(_, header, _)| u64::from(header.record_count)).sum();
    Ok(Verified {
        partition: files.partition,
        dir: files.dir.clone(),
        segments: 1,
        batches: u64::try_from(area.batches.len()).unwrap_or(u64::MAX),
        records,
        bytes: area.size_bytes,
        log_start,
        log_end,
        findings,
        findings_left_out: 0,
    })
}
