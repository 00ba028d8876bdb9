//! Whether the files of a log are sound: batches, offsets, epochs, indexes, checkpoint.

use std::ops::ControlFlow;

use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId};

use super::expect::Batches;
use super::walk::{BadBytes, Seen, SeenBatch, SeenSegment};
use super::{LogFiles, area, checkpoint_of};
use crate::fs::{Disk, DiskError, OpenMode};
use crate::log::{Checkpoint, SlotFile};
use crate::segment::{FileKind, IndexContents, IndexFile, IndexKind, path_of};

/// Findings that are kept of one log; more are counted.
const FINDINGS_MAX: usize = 1000;

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// A batch whose checksum, counts or records do not fit, or bytes that are none.
    Batch,
    /// Offsets that do not continue the log, or are missing from it.
    Offsets,
    /// A leader epoch that goes back, or is another one than was written down.
    Epoch,
    /// The index of a sealed segment, or its seal.
    Index,
    /// The checkpoint is not readable, or of another partition.
    Checkpoint,
    /// Bytes behind all that was ever vouched for: the next start cuts them. No damage.
    TornTail,
    /// An index of the active segment that is behind or ahead: it costs time, never data. No damage.
    StaleIndex,
}

impl FindingKind {
    /// Whether something is lost or wrong, rather than as a crash leaves it.
    pub fn is_damage(self) -> bool {
        match self {
            Self::Batch | Self::Offsets | Self::Epoch | Self::Index | Self::Checkpoint => true,
            Self::TornTail | Self::StaleIndex => false,
        }
    }

    /// One word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Offsets => "offsets",
            Self::Epoch => "epoch",
            Self::Index => "index",
            Self::Checkpoint => "checkpoint",
            Self::TornTail => "torn_tail",
            Self::StaleIndex => "stale_index",
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// The file, from the directory that was opened.
    pub file: String,
    /// Where in it.
    pub position: Option<u64>,
    /// Which offset is affected.
    pub offset: Option<Offset>,
    /// For people.
    pub what: String,
}

/// What became of checking one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whose it is.
    pub partition: Option<PartitionId>,
    /// Its directory.
    pub dir: String,
    /// Segments.
    pub segments: u64,
    /// Batches, sound or not.
    pub batches: u64,
    /// Records by the headers of the sound ones.
    pub records: u64,
    /// Bytes of all `.log` files.
    pub bytes: u64,
    /// First offset that counts, by the checkpoint or the first segment.
    pub log_start: Offset,
    /// Offset behind the last sound record.
    pub log_end: Offset,
    /// The first thousand.
    pub findings: Vec<Finding>,
    /// Those beyond.
    pub findings_left_out: u64,
}

impl Verified {
    /// Whether anything is damaged.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind.is_damage())
    }
}

impl LogFiles {
    /// Checks every byte of the log.
    ///
    /// # Errors
    /// What the disk says; what is wrong with the files is among the findings.
    pub fn verify(&self, disk: &dyn Disk) -> Result<Verified, DiskError> {
        if self.is_area {
            return area::verify(self, disk);
        }
        let checkpoint = checkpoint_of(disk, &self.dir)?;
        let mut check = Check::new(self, disk, checkpoint);
        check.judge_checkpoint()?;
        let mut failed = None;
        self.walk(disk, |seen| {
            let done = match seen {
                Seen::Segment(segment) => check.begin(segment),
                Seen::Batch(batch) => {
                    check.batch(batch);
                    Ok(())
                }
                Seen::Bad(bad) => {
                    check.bad(bad);
                    Ok(())
                }
            };
            failed = done.err();
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match failed {
            Some(error) => Err(error),
            None => Ok(check.finish()),
        }
    }
}

/// The segment under way.
struct Current {
    segment: SeenSegment,
    is_last: bool,
    offsets: IndexContents,
    times: IndexContents,
    batches: Batches,
    /// Position behind the last sound batch.
    sound_to: u64,
    /// Something bad with nothing sound behind it yet.
    tail: Option<Finding>,
}

struct Check<'a> {
    files: &'a LogFiles,
    disk: &'a dyn Disk,
    checkpoint: Option<Checkpoint>,
    current: Option<Current>,
    next: Option<Offset>,
    epoch: LeaderEpoch,
    out: Verified,
}

impl<'a> Check<'a> {
    fn new(files: &'a LogFiles, disk: &'a dyn Disk, checkpoint: Option<Checkpoint>) -> Self {
        let first = files.base_offsets.first().copied().unwrap_or(Offset::ZERO);
        let log_start = checkpoint.as_ref().map_or(first, |c| c.log_start);
        let out = Verified {
            partition: files.partition,
            dir: files.dir.clone(),
            segments: 0,
            batches: 0,
            records: 0,
            bytes: 0,
            log_start,
            log_end: first,
            findings: Vec::new(),
            findings_left_out: 0,
        };
        Self { files, disk, checkpoint, current: None, next: None, epoch: LeaderEpoch(0), out }
    }

    fn find(&mut self, finding: Finding) {
        if self.out.findings.len() < FINDINGS_MAX {
            self.out.findings.push(finding);
        } else {
            self.out.findings_left_out += 1;
        }
    }

    fn checkpoint_path(&self) -> String {
        format!("{}/{}", self.files.dir, crate::recovery::CHECKPOINT_NAME)
    }

    fn judge_checkpoint(&mut self) -> Result<(), DiskError> {
        let file = self.checkpoint_path();
        let what = match &self.checkpoint {
            Some(c) if self.files.partition.is_some_and(|partition| c.partition != partition) => {
                format!("it is of partition {}", c.partition)
            }
            Some(_) => return Ok(()),
            None => match self.disk.open(&file, OpenMode::Read) {
                Err(DiskError::NotFound { .. }) => return Ok(()),
                Err(error) => return Err(error),
                // The log is younger than its first checkpoint.
                Ok(file) if SlotFile::is_blank(&*file)? => return Ok(()),
                Ok(_) => "no slot of it is valid".to_owned(),
            },
        };
        self.checkpoint = None;
        self.find(Finding { kind: FindingKind::Checkpoint, file, position: None, offset: None, what });
        Ok(())
    }

    fn begin(&mut self, segment: &SeenSegment) -> Result<(), DiskError> {
        self.end_segment();
        let base = segment.base_offset;
        if let Some(next) = self.next.filter(|next| *next != base && base > self.out.log_start) {
            let what = if next < base {
                format!("offsets {next} to {base} are missing")
            } else {
                format!("the segment begins at {base}, the one before ends at {next}")
            };
            self.find(Finding {
                kind: FindingKind::Offsets,
                file: segment.file.clone(),
                position: None,
                offset: Some(next.min(base)),
                what,
            });
        }
        if self.next.is_none() && base > self.out.log_start {
            let what = format!("offsets {} to {base} are missing", self.out.log_start);
            self.find(Finding {
                kind: FindingKind::Offsets,
                file: segment.file.clone(),
                position: None,
                offset: Some(self.out.log_start),
                what,
            });
        }
        let contents =
            |kind, index| match self.disk.open(&path_of(&self.files.dir, base, kind), OpenMode::Read) {
                Ok(file) => IndexFile::new(file, index, base).contents(),
                Err(DiskError::NotFound { .. }) => {
                    Ok(IndexContents { is_blank: true, header_fits: false, entries: Vec::new(), seal: None })
                }
                Err(error) => Err(error),
            };
        let offsets = contents(FileKind::Index, IndexKind::Offsets)?;
        let times = contents(FileKind::TimeIndex, IndexKind::Times)?;
        self.current = Some(Current {
            segment: segment.clone(),
            is_last: self.files.base_offsets.last() == Some(&base),
            batches: Batches::asked_by(&offsets, &times),
            offsets,
            times,
            sound_to: 0,
            tail: None,
        });
        self.next = Some(base);
        self.out.segments += 1;
        self.out.bytes += segment.size_bytes;
        self.out.log_end = self.out.log_end.max(base);
        Ok(())
    }

    fn batch(&mut self, batch: &SeenBatch) {
        self.out.batches += 1;
        let Some(next) = self.next else { return };
        let header = &batch.header;
        let wrong = match &batch.sound {
            Err(error) => Some((FindingKind::Batch, error.to_string())),
            Ok(()) if header.base_offset != next => Some((
                FindingKind::Offsets,
                format!("the batch begins at {}, {next} was due", header.base_offset),
            )),
            Ok(()) => self.wrong_epoch(batch).map(|what| (FindingKind::Epoch, what)),
        };
        let Some(current) = &mut self.current else { return };
        // What was held back as a tail is none: something follows.
        let held = current.tail.take();
        let (position, file) = (Some(batch.position), current.segment.file.clone());
        match wrong {
            Some((kind, what)) => {
                current.tail = Some(Finding { kind, file, position, offset: Some(next), what });
            }
            None => {
                current.batches.see(batch.position, header);
                current.sound_to = batch.position + u64::try_from(batch.bytes.len()).unwrap_or(u64::MAX);
                self.epoch = header.leader_epoch.unwrap_or(self.epoch);
                self.out.records += u64::from(header.record_count);
                self.out.log_end = self.out.log_end.max(header.end_offset());
            }
        }
        // A batch whose bytes are bad says where the next one begins all the same, if it says anything.
        self.next = Some(header.end_offset().max(next));
        if let Some(held) = held {
            self.find(held);
        }
    }

    /// Against the batch before, and what the checkpoint has written down.
    fn wrong_epoch(&self, batch: &SeenBatch) -> Option<String> {
        let Some(epoch) = batch.header.leader_epoch else { return Some("no leader epoch".to_owned()) };
        if epoch < self.epoch {
            return Some(format!("leader epoch {epoch} follows {}", self.epoch));
        }
        let checkpoint = self.checkpoint.as_ref()?;
        let offset = batch.header.base_offset;
        if offset >= checkpoint.written_end {
            return None;
        }
        let starts = checkpoint.epochs.starts();
        let behind = starts.partition_point(|start| start.1 <= offset);
        let noted = starts[behind.checked_sub(1)?].0;
        (noted != epoch).then(|| format!("leader epoch {epoch}, the checkpoint has {noted} here"))
    }

    fn bad(&mut self, bad: &BadBytes) {
        let next = self.next;
        let Some(current) = &mut self.current else { return };
        let what = format!("{} bytes are no batch: {}", bad.bytes, bad.error);
        let finding = Finding {
            kind: FindingKind::Batch,
            file: current.segment.file.clone(),
            position: Some(bad.position),
            offset: next,
            what,
        };
        let held = current.tail.replace(finding);
        if let Some(held) = held {
            self.find(held);
        }
    }

    fn end_segment(&mut self) {
        let Some(mut current) = self.current.take() else { return };
        if let Some(mut tail) = current.tail.take() {
            let vouched = self.checkpoint.as_ref().map_or(Offset::ZERO, |c| c.written_end);
            if current.is_last && tail.offset.is_none_or(|offset| offset >= vouched) {
                tail.kind = FindingKind::TornTail;
            }
            self.find(tail);
        }
        self.judge_indexes(&current);
    }

    fn judge_indexes(&mut self, current: &Current) {
        let base = current.segment.base_offset;
        let end = self.next.unwrap_or(base);
        for (kind, index, contents) in [
            (FileKind::Index, IndexKind::Offsets, &current.offsets),
            (FileKind::TimeIndex, IndexKind::Times, &current.times),
        ] {
            let file = path_of(&self.files.dir, base, kind);
            let size = current.segment.size_bytes;
            let (kind, what) = match &contents.seal {
                _ if contents.is_blank => continue,
                _ if !contents.header_fits => (FindingKind::Index, Some("its header is not one".to_owned())),
                Some((_, _, false)) => {
                    (FindingKind::Index, Some("its entries are not those of its seal".to_owned()))
                }
                Some((seal, count, true)) => {
                    let judged = current.batches.judge_seal(seal, end, size);
                    (FindingKind::Index, judged.or_else(|| current.batches.judge(index, contents, *count)))
                }
                None => {
                    let count = contents.entries.len();
                    (FindingKind::StaleIndex, current.batches.judge(index, contents, count))
                }
            };
            if let Some(what) = what {
                // Where the log itself is damaged its index can't agree.
                // A power loss may have taken entries: they were never synced.
                let lost = contents.entries.contains(&(0, 0));
                let explained = current.sound_to < size || lost;
                let kind =
                    if explained && kind == FindingKind::Index { FindingKind::StaleIndex } else { kind };
                self.find(Finding { kind, file, position: None, offset: Some(base), what });
            }
        }
    }

    fn finish(mut self) -> Verified {
        self.end_segment();
        let vouched = self.checkpoint.as_ref().filter(|c| !c.deleted).map(|c| c.written_end);
        if let Some(end) = vouched.filter(|end| *end > self.out.log_end && *end > self.out.log_start) {
            let what = format!("it vouches for offsets up to {end}, the log ends at {}", self.out.log_end);
            let (file, offset) = (self.checkpoint_path(), Some(self.out.log_end));
            self.find(Finding { kind: FindingKind::Offsets, file, position: None, offset, what });
        }
        self.out
    }
}
