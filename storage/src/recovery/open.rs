//! From the files of a partition to its log.

use std::collections::VecDeque;

use plimsoll_proto::ids::{Offset, PartitionId, ProducerId};

use super::scan::{Scanned, Trust, scan_segment};
use super::{CHECKPOINT_NAME, dir_of};
use crate::fs::{DirEntry, DiskError, OpenMode};
use crate::log::{
    CHECKPOINT_MAGIC, Checkpoint, Env, Epochs, LogSettings, Offsets, PartitionLog, Parts, Producers,
    SlotFile, load_indexes, remove_partition_files,
};
use crate::segment::{
    ActiveSegment, BLOCK_BYTES, Expect, FileKind, IndexFile, IndexKind, Seal, SealedSegment, parse_name,
    path_of, whole_blocks,
};

/// Preallocation that is not worth giving back when a log is opened.
const SLACK_BYTES: u64 = 16 * BLOCK_BYTES;

/// A log and what opening it met.
pub(crate) struct Opened {
    pub(crate) log: PartitionLog,
    /// Bytes of torn tail that were cut.
    pub(crate) cut_bytes: u64,
    /// Ranges to be fetched from elsewhere.
    pub(crate) damaged: Vec<(Offset, Offset)>,
    /// Entries of the directory that are not ours.
    pub(crate) unknown_entries: u64,
}

/// Opens the log in the directory of `partition`; `None` when there is none: its creation never ended, or its
/// deletion has just been completed.
///
/// # Errors
/// What the disk says; `NotFound` when a checkpoint speaks of records and no segment is there.
pub(crate) fn open_log(
    env: &mut Env<'_>,
    partition: PartitionId,
    producers_max: usize,
    page_cache_lost: bool,
) -> Result<Option<Opened>, DiskError> {
    let dir = dir_of(partition);
    let entries = env.disk.list(&dir)?;
    let (file, known) = open_checkpoint(env, &dir, partition, producers_max)?;
    if known.as_ref().is_some_and(|c| c.deleted) {
        remove_partition_files(env.disk, &dir)?;
        return Ok(None);
    }
    let bases = log_bases(&entries);
    if bases.is_empty() {
        return match known {
            Some(c) if c.written_end > Offset::ZERO => {
                Err(DiskError::NotFound { operation: "open of a log" })
            }
            _ => Ok(None),
        };
    }
    let unknown_entries = entries
        .iter()
        .filter(|e| e.is_dir || (e.name != CHECKPOINT_NAME && parse_name(&e.name).is_none()))
        .count();
    let mut opening = Opening::new(dir, known, producers_max, page_cache_lost);
    opening.read_segments(env, &bases)?;
    let mut opened = opening.finish(env, partition, file)?;
    opened.unknown_entries = u64::try_from(unknown_entries).unwrap_or(u64::MAX);
    Ok(Some(opened))
}

fn open_checkpoint(
    env: &Env<'_>,
    dir: &str,
    partition: PartitionId,
    producers_max: usize,
) -> Result<(SlotFile, Option<Checkpoint>), DiskError> {
    let path = format!("{dir}/{CHECKPOINT_NAME}");
    match SlotFile::open(env.disk, path.clone(), CHECKPOINT_MAGIC) {
        Ok((file, payload)) => {
            let known = payload.and_then(|bytes| Checkpoint::decode(&bytes, producers_max));
            Ok((file, known.filter(|c| c.partition == partition)))
        }
        Err(DiskError::NotFound { .. }) => Ok((SlotFile::absent(path, CHECKPOINT_MAGIC), None)),
        Err(error) => Err(error),
    }
}

fn log_bases(entries: &[DirEntry]) -> Vec<Offset> {
    let mut bases: Vec<Offset> = entries
        .iter()
        .filter(|e| !e.is_dir)
        .filter_map(|e| parse_name(&e.name))
        .filter(|(_, kind)| *kind == FileKind::Log)
        .map(|(base, _)| base)
        .collect();
    bases.sort_unstable();
    bases
}

/// A log while its files are read, oldest first.
struct Opening {
    dir: String,
    known: Option<Checkpoint>,
    page_cache_lost: bool,
    trusted_end: Offset,
    /// What the checkpoint says of producers reaches up to here.
    known_end: Offset,
    log_start: Offset,
    sealed: VecDeque<SealedSegment>,
    active: Option<ActiveSegment>,
    epochs: Epochs,
    producers: Producers,
    producers_max: usize,
    /// The producers' state has a hole: read it from the whole log.
    rebuild: bool,
    /// Producers of which the checkpoint's state has nothing left.
    lost: Vec<ProducerId>,
    must_roll: bool,
    cut_bytes: u64,
    damaged: Vec<(Offset, Offset)>,
}

impl Opening {
    fn new(dir: String, known: Option<Checkpoint>, producers_max: usize, page_cache_lost: bool) -> Self {
        let trusted_end = known
            .as_ref()
            .map_or(Offset::ZERO, |c| if page_cache_lost { c.durable_end } else { c.written_end });
        // What lies below the log start was committed, wherever the trusted end is.
        let known_end =
            known.as_ref().map_or(Offset::ZERO, |c| trusted_end.max(c.log_start).min(c.written_end));
        let mut epochs = Epochs::default();
        let mut producers = Producers::new(producers_max);
        let mut rebuild = false;
        let mut lost = Vec::new();
        if let Some(checkpoint) = &known {
            epochs = checkpoint.epochs.clone();
            producers = checkpoint.producers.clone();
            rebuild = checkpoint.read_log;
            if known_end < checkpoint.written_end {
                epochs.truncate_tail(known_end);
                lost = producers.truncate_tail(known_end);
                rebuild |= !lost.is_empty();
            }
        }
        Self {
            dir,
            page_cache_lost,
            trusted_end,
            known_end,
            log_start: known.as_ref().map_or(Offset::ZERO, |c| c.log_start),
            known,
            sealed: VecDeque::new(),
            active: None,
            epochs,
            producers,
            producers_max,
            rebuild,
            lost,
            must_roll: false,
            cut_bytes: 0,
            damaged: Vec::new(),
        }
    }

    fn read_segments(&mut self, env: &mut Env<'_>, bases: &[Offset]) -> Result<(), DiskError> {
        let kept = self.without_empty_leftovers(env, bases)?;
        for (i, &base) in kept.iter().enumerate() {
            let Some(&next) = kept.get(i + 1) else {
                return self.read_active(env, base);
            };
            if let Some(cut_at) = self.read_sealed(env, base, next)? {
                // The tail beyond the trusted end is torn here: nothing behind it continues the log.
                for &later in kept[i + 1..].iter().rev() {
                    self.cut_bytes += env.disk.open(&self.log_path(later), OpenMode::Read)?.len()?;
                    SealedSegment::remove(env.disk, &self.dir, later)?;
                }
                return self.take_active(env, base, cut_at);
            }
        }
        Ok(())
    }

    /// A roll that was broken off leaves an empty segment that nothing was appended to; one in the middle, or
    /// one whose predecessor is not sealed up to it, does not count.
    fn without_empty_leftovers(&self, env: &Env<'_>, bases: &[Offset]) -> Result<Vec<Offset>, DiskError> {
        let mut kept: Vec<Offset> = Vec::with_capacity(bases.len());
        for (i, &base) in bases.iter().enumerate() {
            let empty = env.disk.open(&self.log_path(base), OpenMode::Read)?.is_empty()?;
            let last = i + 1 == bases.len();
            let continues = match kept.last() {
                // The first one that lost what was never synced is where the log ends now: without it the log
                // would seem to start behind it, as if trimmed.
                None => last || (self.page_cache_lost && bases[i + 1] > self.log_start),
                Some(&before) => {
                    last && self.seal_of(env, before).is_some_and(|seal| seal.end_offset == base)
                }
            };
            if empty && !continues {
                // Best effort; a later roll adopts it.
                let _ = SealedSegment::remove(env.disk, &self.dir, base);
            } else {
                kept.push(base);
            }
        }
        if kept.is_empty() {
            kept.extend(bases.last());
        }
        Ok(kept)
    }

    fn log_path(&self, base: Offset) -> String {
        path_of(&self.dir, base, FileKind::Log)
    }

    fn seal_of(&self, env: &Env<'_>, base: Offset) -> Option<Seal> {
        let file = env.disk.open(&path_of(&self.dir, base, FileKind::Index), OpenMode::Read).ok()?;
        IndexFile::new(file, IndexKind::Offsets, base).read_seal().ok()?
    }

    /// Takes a segment with a successor. `Some` when it is torn beyond the trusted end, with its good end.
    fn read_sealed(
        &mut self,
        env: &Env<'_>,
        base: Offset,
        next: Offset,
    ) -> Result<Option<Expect>, DiskError> {
        let file = env.disk.open(&self.log_path(base), OpenMode::Read)?;
        let size = file.len()?;
        let seal = self.seal_of(env, base).filter(|seal| seal.end_offset == next);
        let trusted = next <= self.trusted_end || next <= self.log_start;
        let mut segment = SealedSegment {
            base_offset: base,
            end_offset: next,
            size_bytes: size,
            max_timestamp_ms: seal.map_or(i64::MAX, |s| s.max_timestamp_ms),
            last_append_ms: seal.map_or(env.wall_ms, |s| s.last_append_ms),
            damaged_from: None,
        };
        let sound = seal.is_none_or(|s| s.size_bytes == size);
        if !(trusted && sound) {
            let end = if trusted { next } else { self.trusted_end };
            match self.scan(env, &*file, base, end)?.0 {
                Scanned::Good(at) if at.offset == next => segment.size_bytes = at.position,
                Scanned::Good(at) if !trusted => return Ok(Some(at)),
                Scanned::Good(at) | Scanned::Damaged(at) => {
                    segment.damaged_from = Some(at.offset);
                    self.damaged.push((at.offset, next));
                }
            }
        }
        self.sealed.push_back(segment);
        Ok(None)
    }

    fn read_active(&mut self, env: &mut Env<'_>, base: Offset) -> Result<(), DiskError> {
        let file = env.disk.open(&self.log_path(base), OpenMode::Read)?;
        let (scanned, max_timestamp_ms) = self.scan(env, &*file, base, self.trusted_end)?;
        match scanned {
            Scanned::Good(at) => {
                self.take_active(env, base, at)?;
            }
            // A log that was about to restart behind its end: what is left lies below the log start.
            Scanned::Damaged(at) if self.log_start >= self.trusted_end => {
                self.take_active(env, base, at)?;
            }
            Scanned::Damaged(at) => {
                let size = file.len()?;
                let mut active = ActiveSegment::new(base, self.trusted_end, size, env.wall_ms);
                active.damaged_from = Some(at.offset);
                self.damaged.push((at.offset, self.trusted_end));
                self.must_roll = true;
                self.active = Some(active);
            }
        }
        if let Some(active) = &mut self.active {
            active.max_timestamp_ms = active.max_timestamp_ms.max(max_timestamp_ms);
        }
        Ok(())
    }

    fn take_active(&mut self, env: &mut Env<'_>, base: Offset, end: Expect) -> Result<(), DiskError> {
        let mut active = ActiveSegment::new(base, end.offset, end.position, env.wall_ms);
        load_indexes(env, &self.dir, &mut active)?;
        active.max_timestamp_ms =
            active.times.last_key().and_then(|t| i64::try_from(t).ok()).unwrap_or(i64::MIN);
        if let Some(times) = self.known.as_ref().map(|c| c.active).filter(|times| times.base_offset == base) {
            active.last_append_ms = times.last_append_ms.min(env.wall_ms);
            if times.first_append_ms > 0 && end.position > 0 {
                active.first_append_ms = Some(times.first_append_ms);
            }
        }
        let file = active.file(env.disk, &self.dir)?;
        let size = file.len()?;
        self.cut_bytes += size.saturating_sub(end.position);
        let ahead = file.allocated_bytes()?.saturating_sub(whole_blocks(end.position));
        if size > end.position || ahead > SLACK_BYTES {
            active.give_back(&*file)?;
        }
        active.close();
        self.active = Some(active);
        Ok(())
    }

    fn scan(
        &mut self,
        env: &Env<'_>,
        file: &dyn crate::fs::DiskFile,
        base: Offset,
        trusted_end: Offset,
    ) -> Result<(Scanned, i64), DiskError> {
        let index = match env.disk.open(&path_of(&self.dir, base, FileKind::Index), OpenMode::Read) {
            Ok(file) => IndexFile::new(file, IndexKind::Offsets, base).load().unwrap_or_default(),
            Err(_) => crate::segment::SparseIndex::default(),
        };
        let mut max_timestamp_ms = i64::MIN;
        let known_end = self.known_end;
        let (epochs, producers) = (&mut self.epochs, &mut self.producers);
        let scanned = scan_segment(file, base, &index, trusted_end, &mut |header, trust| {
            max_timestamp_ms = max_timestamp_ms.max(header.max_timestamp_ms);
            // A batch may straddle the known end: what the checkpoint said of it was dropped above.
            if trust == Trust::Verified && header.end_offset() > known_end {
                if let Some(epoch) = header.leader_epoch {
                    epochs.wrote(epoch, header.base_offset);
                }
                producers.record(header);
            }
        })?;
        Ok((scanned, max_timestamp_ms))
    }

    fn finish(
        self,
        env: &mut Env<'_>,
        partition: PartitionId,
        checkpoint: SlotFile,
    ) -> Result<Opened, DiskError> {
        let mut active = self.active.expect("the last of at least one segment is the active one");
        let first = self.sealed.front().map_or(active.base_offset, |s| s.base_offset);
        let log_start = self.log_start.max(first);
        let mut must_roll = self.must_roll;
        let has_gap = active.end_offset < log_start;
        if has_gap {
            // The log was about to restart there: the next trim does the rest.
            active.end_offset = log_start;
            must_roll = true;
        }
        let log_end = active.end_offset;
        let high_watermark =
            self.known.as_ref().map_or(log_start, |c| c.high_watermark).clamp(log_start, log_end);
        let durable_end = self.known.as_ref().map_or(first, |c| c.durable_end).min(log_end);
        let mut epochs = self.epochs;
        epochs.truncate_above(log_end);
        let mut log = PartitionLog::from_parts(Parts {
            id: partition,
            dir: self.dir,
            settings: LogSettings::default(),
            offsets: Offsets::new(log_start, high_watermark, log_end, durable_end),
            sealed: self.sealed,
            active,
            epochs,
            producers: self.producers,
            producers_max: self.producers_max,
            checkpoint,
            must_roll,
        });
        if self.rebuild {
            log.rebuild_producers(env, &self.lost)?;
        }
        if self.cut_bytes > 0 {
            // Or the next loss of power could bring the old tail back in the place of what is appended from now on.
            log.sync_cut(env)?;
        }
        Ok(Opened { log, cut_bytes: self.cut_bytes, damaged: self.damaged, unknown_entries: 0 })
    }
}
