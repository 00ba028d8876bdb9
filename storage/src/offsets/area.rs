//! A replica of an offsets log: the ring, what its batches say, and its ends.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use plimsoll_proto::batch::{self, BatchHeader, Limits};
use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId};

use super::record::{self, Change, Entry, SNAPSHOT_SHARE};
use super::ring::{self, Span};
use super::table::OffsetsTable;
use crate::fs::{DiskError, DiskFile, FailureCause};
use crate::log::{AppendError, Appended, Epochs, LogView, Offsets, ReadError, SlotFile};

/// Bytes of a batch beyond its records, and of its frame.
const OVERHEAD_BYTES: u64 = 128;

/// Why offsets were not committed; none of them was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffsetsError {
    /// The area has no room for another key. Keys that are there can be committed. Delete groups.
    #[error("the area for offsets is full: {keys} keys take {live_bytes} of {limit_bytes} bytes")]
    Full {
        /// Keys with a value.
        keys: usize,
        /// Bytes that they take.
        live_bytes: u64,
        /// Bytes that all keys may take.
        limit_bytes: u64,
    },
    /// More at once than one batch may hold.
    #[error("{bytes} bytes at once are over the limit of {limit_bytes}")]
    TooLarge {
        /// Of the request.
        bytes: u64,
        /// Of a batch.
        limit_bytes: u64,
    },
    /// A snapshot waits for the in-sync set, and there is no room beside it. Later.
    #[error("the offsets log waits for its followers")]
    Busy,
    /// A later owner of the partition has committed.
    #[error("{partition} belongs to a later owner")]
    Fenced {
        /// Which.
        partition: PartitionId,
    },
    /// The log refuses.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why nothing was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AreaFailure {
    /// By rule; the disk was not touched.
    Refused(OffsetsError),
    /// By the disk.
    Disk {
        error: DiskError,
        needed_bytes: u64,
        /// What was written in part may be found when the area is opened again.
        uncut: bool,
    },
}

impl From<OffsetsError> for AreaFailure {
    fn from(error: OffsetsError) -> Self {
        Self::Refused(error)
    }
}

impl From<AppendError> for AreaFailure {
    fn from(error: AppendError) -> Self {
        Self::Refused(error.into())
    }
}

/// One batch in the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub(super) base: Offset,
    pub(super) end: Offset,
    pub(super) position: u64,
    pub(super) length: usize,
    pub(super) chain_before: u32,
    pub(super) snapshot: bool,
}

impl Batch {
    pub(super) fn framed(&self) -> u64 {
        ring::framed(wide(self.length))
    }
}

/// See the module.
pub(crate) struct AreaLog {
    pub(super) id: PartitionId,
    pub(super) file: Box<dyn DiskFile>,
    pub(super) size: u64,
    pub(super) checkpoint: SlotFile,
    pub(super) log_start: Offset,
    pub(super) high_watermark: Offset,
    pub(super) durable_end: Offset,
    pub(super) batches: VecDeque<Batch>,
    /// Where the next frame goes, and the chain before it.
    pub(super) tail: (u64, u32),
    pub(super) used_bytes: u64,
    pub(super) epochs: Epochs,
    pub(super) table: OffsetsTable,
    pub(super) sync_failed: Option<FailureCause>,
    /// What no sync covers may be only in a page cache that counts it as clean: write the ring anew before a sync.
    pub(super) rewrite: bool,
    /// Offsets below the durable end were not found when it was opened.
    pub(super) damaged: bool,
    pub(super) changed: bool,
    /// Where the log starts on the disk, while that is before where it starts here: not to be overwritten.
    pub(super) kept_head: Option<u64>,
}

impl AreaLog {
    pub(super) fn take(
        &mut self,
        header: &BatchHeader,
        position: u64,
        chain_before: u32,
        entries: Vec<Entry>,
    ) {
        let snapshot = entries.first() == Some(&Entry::SnapshotBegins);
        let batch = Batch {
            base: header.base_offset,
            end: header.end_offset(),
            position,
            length: header.size_bytes,
            chain_before,
            snapshot,
        };
        self.used_bytes += batch.framed();
        self.batches.push_back(batch);
        entries.into_iter().for_each(|entry| self.table.apply(entry));
    }

    pub(crate) fn log_end(&self) -> Offset {
        self.batches.back().map_or(self.log_start, |batch| batch.end)
    }

    pub(crate) fn view(&self) -> LogView {
        let offsets = Offsets::new(self.log_start, self.high_watermark, self.log_end(), self.durable_end);
        LogView {
            log_start: offsets.log_start(),
            high_watermark: offsets.high_watermark(),
            log_end: offsets.log_end(),
            durable_end: offsets.durable_end(),
            last_epoch: self.epochs.last(),
            bytes: self.used_bytes,
            preallocated_bytes: 0,
            segments: 1,
            sync_failed: self.sync_failed.is_some(),
            damaged: self.damaged,
        }
    }

    /// What is committed, or on its way to be.
    pub(crate) fn table(&self) -> &OffsetsTable {
        &self.table
    }

    /// Bytes of the disk that it occupies.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.size + SlotFile::DISK_BYTES
    }

    /// Bytes that all keys together may take in a snapshot.
    pub(crate) fn live_bytes_max(&self) -> u64 {
        self.size / SNAPSHOT_SHARE
    }

    fn span(&self) -> Span {
        let head = self.batches.front().map_or(self.tail.0, |batch| batch.position);
        let empty = self.batches.is_empty() && self.kept_head.is_none_or(|kept| kept == self.tail.0);
        Span { head: self.kept_head.unwrap_or(head), tail: self.tail.0, empty }
    }

    /// Whole batches from the one that holds `from` on; as [`crate::volume::Volume::read`].
    pub(crate) fn read(&self, from: Offset, limit: Offset, max_bytes: usize) -> Result<Bytes, ReadError> {
        if from < self.log_start {
            return Err(ReadError::OffsetTrimmed { requested: from, log_start: self.log_start });
        }
        if from > self.log_end() {
            return Err(ReadError::OffsetNotAvailable { requested: from, log_end: self.log_end() });
        }
        let mut out = BytesMut::new();
        let first = self.batches.partition_point(|batch| batch.end <= from);
        for batch in self.batches.range(first..) {
            if batch.end > limit || (!out.is_empty() && out.len() + batch.length > max_bytes) {
                break;
            }
            let bytes = self.read_batch(batch)?;
            out.extend_from_slice(&bytes);
        }
        Ok(out.freeze())
    }

    pub(super) fn read_batch(&self, batch: &Batch) -> Result<Bytes, DiskError> {
        let mut bytes = vec![0; batch.length];
        let at = batch.position + ring::HEAD_BYTES;
        if self.file.read_at(&mut bytes, at)? < batch.length {
            return Err(DiskError::Unknown { errno: 0, operation: "read" });
        }
        Ok(bytes.into())
    }

    /// Appends changes as the leader of `epoch`; a snapshot goes first when half of the ring is taken.
    ///
    /// # Errors
    /// Nothing was appended of the changes; see [`OffsetsError`].
    pub(crate) fn commit(
        &mut self,
        changes: &[Change],
        epoch: LeaderEpoch,
        now_ms: u64,
    ) -> Result<Appended, AreaFailure> {
        for change in changes {
            if let Change::Offset { group, partition, value: Some(value) } = change
                && self
                    .table
                    .offset(group, partition)
                    .is_some_and(|kept| kept.owner_epoch > value.owner_epoch)
            {
                return Err(OffsetsError::Fenced { partition: *partition }.into());
            }
        }
        let after = self.table.bytes_after(changes).saturating_add(OVERHEAD_BYTES);
        let limit_bytes = self.live_bytes_max();
        if after > limit_bytes && after > self.table.live_bytes() + OVERHEAD_BYTES {
            let (keys, live_bytes) = (self.table.keys(), self.table.live_bytes());
            return Err(OffsetsError::Full { keys, live_bytes, limit_bytes }.into());
        }
        let batch = record::encode(changes, false, now_ms).map_err(AppendError::Corrupt)?;
        let need = ring::framed(wide(batch.len()));
        let most = self.size / (SNAPSHOT_SHARE * 2);
        if need > most {
            return Err(OffsetsError::TooLarge { bytes: need, limit_bytes: most }.into());
        }
        let pending = self.batches.iter().any(|batch| batch.snapshot && batch.base > self.log_start);
        if self.used_bytes + need > self.size / 2 && !pending {
            let snapshot =
                record::encode(&self.table.changes(), true, now_ms).map_err(AppendError::Corrupt)?;
            self.append_as_leader(snapshot, epoch)?;
        }
        if self.used_bytes + need > self.size / SNAPSHOT_SHARE * 3 {
            return Err(OffsetsError::Busy.into());
        }
        self.append_as_leader(batch, epoch)
    }

    fn append_as_leader(&mut self, mut batch: BytesMut, epoch: LeaderEpoch) -> Result<Appended, AreaFailure> {
        if let Some(current) = self.epochs.last().filter(|last| epoch < *last) {
            return Err(AppendError::StaleEpoch { given: epoch, current }.into());
        }
        let base = self.log_end();
        batch::stamp(&mut batch, base, epoch).map_err(AppendError::Corrupt)?;
        let header = BatchHeader::parse(&batch).map_err(AppendError::Corrupt)?;
        self.append(&[(header, batch.freeze())])
    }

    /// Appends batches that a leader stamped; they must continue the log.
    pub(crate) fn append_as_follower(&mut self, batches: &Bytes) -> Result<Appended, AreaFailure> {
        let mut checked = Vec::new();
        let mut next = self.log_end();
        let mut last = self.epochs.last_below(next);
        for item in batch::iter_batches(batches) {
            let (_, bytes) = item.map_err(AppendError::Corrupt)?;
            let header = batch::verify(&bytes, &Limits::REPLICA).map_err(AppendError::Corrupt)?;
            if header.base_offset != next {
                return Err(AppendError::NotContiguous { found: header.base_offset, log_end: next }.into());
            }
            if header.leader_epoch.is_none() || header.leader_epoch < last {
                let given = header.leader_epoch.unwrap_or_default();
                return Err(AppendError::StaleEpoch { given, current: last.unwrap_or_default() }.into());
            }
            (next, last) = (header.end_offset(), header.leader_epoch);
            checked.push((header, bytes));
        }
        self.append(&checked)
    }

    fn append(&mut self, batches: &[(BatchHeader, Bytes)]) -> Result<Appended, AreaFailure> {
        if let Some(cause) = self.sync_failed {
            return Err(AppendError::VolumeFailed { cause, written: false }.into());
        }
        let base_offset = self.log_end();
        for (header, bytes) in batches {
            let entries = record::decode(bytes).map_err(AppendError::Corrupt)?;
            let (position, chain_before) = self.write(bytes)?;
            if let Some(epoch) = header.leader_epoch {
                self.epochs.wrote(epoch, header.base_offset);
            }
            self.take(header, position, chain_before, entries);
            self.changed = true;
        }
        let log_end = self.view().log_end;
        Ok(Appended { base_offset, end_offset: log_end, log_end, duplicate: false })
    }

    /// Writes a frame behind the others; its position and the chain before it. After an error it is not there, and
    /// will not be found, unless the error says so.
    fn write(&mut self, batch: &[u8]) -> Result<(u64, u32), AreaFailure> {
        let need = ring::framed(wide(batch.len()));
        let slot = self.span().place(need, self.size).ok_or(OffsetsError::Busy)?;
        let mut before = self.tail.1;
        let mut written = Ok(());
        if slot.wraps && self.tail.0 > 0 {
            let (bytes, chain) = ring::wrap(before);
            written = self.file.write_at(&bytes, self.tail.0);
            before = chain;
        }
        let (bytes, chain) = ring::frame(before, batch);
        let written = written.and_then(|()| self.file.write_at(&bytes, slot.position));
        if let Err(error) = written {
            let uncut = self.stop_at_tail().is_err();
            return Err(AreaFailure::Disk { error, needed_bytes: need, uncut });
        }
        self.tail = (ring::behind(slot.position, need, self.size), chain);
        Ok((slot.position, before))
    }

    /// Makes sure that no frame is found at the tail.
    pub(super) fn stop_at_tail(&self) -> Result<(), DiskError> {
        self.file.write_at(&[0; 8], self.tail.0)
    }

    /// Moves the high watermark forward, at most to the log end.
    pub(crate) fn set_high_watermark(&mut self, to: Offset) {
        let to = to.min(self.log_end());
        if to > self.high_watermark {
            self.high_watermark = to;
            self.changed = true;
        }
    }

    pub(crate) fn epoch_end(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.end(epoch, self.log_end())
    }

    pub(crate) fn note_epoch(&mut self, epoch: LeaderEpoch) -> Result<(), AppendError> {
        self.changed |= self.epochs.begin(epoch, self.log_end())?;
        Ok(())
    }

    /// Whether a sync has to write the ring anew.
    pub(crate) fn is_distrusted(&self) -> bool {
        self.rewrite && self.durable_end < self.log_end()
    }

    /// It has everything that is committed again.
    pub(crate) fn repaired(&mut self) {
        self.damaged = false;
    }
}

pub(super) fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("usize is at most 64 bits")
}
