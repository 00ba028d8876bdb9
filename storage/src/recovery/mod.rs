//! Opening a log after whatever happened to it.
//!
//! ```text
//!   sealed, trusted by seal           | scanned: CRC of every batch
//!   ----------------------------------+---------------------------+---------
//!                              trusted end                   first bad byte
//!                                                                 |<- torn tail, cut
//! ```
//!
//! The trusted end is where the last checkpoint found the log end when the page cache has lived since then,
//! and the durable end when it has not. Bad bytes beyond it are a torn tail and are cut; bad bytes before it
//! are damage: the segment is quarantined from there on, the log end stays, the range is reported, and nothing
//! is deleted.
//!
//! Opening needs no space: it creates nothing and writes nothing.

mod open;
mod scan;

use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId};

pub(crate) use open::open_log;

use crate::fs::{Disk, DiskError};
use crate::log::{
    CHECKPOINT_MAGIC, Env, Epochs, LogSettings, Offsets, PartitionLog, Parts, Producers, SlotFile,
};
use crate::segment::ActiveSegment;

/// Name of a log's checkpoint file.
pub(crate) const CHECKPOINT_NAME: &str = "checkpoint";
/// Directory of all partitions.
pub(crate) const PARTITIONS_DIR: &str = "partitions";

/// Directory of a partition.
pub(crate) fn dir_of(partition: PartitionId) -> String {
    format!("{PARTITIONS_DIR}/{partition}")
}

/// Makes a new, empty log, durable when this returns. Fails whole; what was made is removed or adopted by the
/// next try.
///
/// # Errors
/// `OutOfSpace` when there is no room for its files; nothing counts as made then.
pub(crate) fn create_log(
    env: &mut Env<'_>,
    partition: PartitionId,
    settings: LogSettings,
    producers_max: usize,
) -> Result<PartitionLog, DiskError> {
    let dir = dir_of(partition);
    let made = create_files(env.disk, &dir, env.wall_ms);
    if made.is_err() {
        let _ = crate::log::remove_partition_files(env.disk, &dir);
    }
    let (active, checkpoint) = made?;
    let mut log = PartitionLog::from_parts(Parts {
        id: partition,
        dir,
        settings,
        offsets: Offsets::new(Offset::ZERO, Offset::ZERO, Offset::ZERO, Offset::ZERO),
        sealed: std::collections::VecDeque::new(),
        active,
        epochs: Epochs::default(),
        producers: Producers::new(producers_max),
        producers_max,
        checkpoint,
        must_roll: false,
    });
    log.checkpoint(env)?;
    log.sync(env)?;
    env.disk.sync_dir(PARTITIONS_DIR)?;
    Ok(log)
}

fn create_files(disk: &dyn Disk, dir: &str, wall_ms: u64) -> Result<(ActiveSegment, SlotFile), DiskError> {
    disk.create_dir(dir)?;
    let checkpoint = SlotFile::create(disk, format!("{dir}/{CHECKPOINT_NAME}"), CHECKPOINT_MAGIC)?;
    let active = ActiveSegment::create(disk, dir, Offset::ZERO, wall_ms)?;
    Ok((active, checkpoint))
}

/// Epoch that every batch's is at least.
const FIRST_EPOCH: LeaderEpoch = LeaderEpoch(0);
