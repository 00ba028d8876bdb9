//! Appending.

use std::time::Duration;

use plimsoll_proto::batch::{self, BatchHeader};
use plimsoll_proto::ids::LeaderEpoch;

use super::producers::{KeptBatch, SequenceCheck};
use super::{AppendError, Appended, Env, PartitionLog};
use crate::fs::{DiskError, DiskFile};
use crate::segment::{ActiveSegment, Room, SealedSegment};

/// After a roll that found no room, the active segment goes on; the next try is this much later.
const ROLL_PAUSE: Duration = Duration::from_secs(1);

/// Why nothing was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AppendFailure {
    /// By rule; the disk was not touched.
    Refused(AppendError),
    /// By the disk.
    Disk {
        error: DiskError,
        needed_bytes: u64,
        /// Where in its file the batch would have ended.
        file_end: u64,
        /// Bytes of the batch could not be cut away: the outcome is unknown.
        uncut: bool,
    },
}

impl From<AppendError> for AppendFailure {
    fn from(error: AppendError) -> Self {
        Self::Refused(error)
    }
}

impl PartitionLog {
    /// Checks, stamps and appends one verified batch as the leader of `epoch`.
    pub(crate) fn append_as_leader(
        &mut self,
        env: &mut Env<'_>,
        bytes: &mut [u8],
        header: &BatchHeader,
        epoch: LeaderEpoch,
    ) -> Result<Appended, AppendFailure> {
        if let Some(current) = self.epochs.last().filter(|last| epoch < *last) {
            return Err(AppendError::StaleEpoch { given: epoch, current }.into());
        }
        if let Some(sequence) = &header.producer {
            match self.producers.check(sequence, header.record_count)? {
                SequenceCheck::Next => {}
                SequenceCheck::Duplicate(kept) => return Ok(self.repeated(&kept)),
            }
        }
        let base_offset = self.log_end();
        if base_offset.checked_add(u64::from(header.record_count)).is_none() {
            return Err(AppendError::OffsetsExhausted.into());
        }
        batch::stamp(bytes, base_offset, epoch).map_err(AppendError::Corrupt)?;
        let stamped = BatchHeader { base_offset, leader_epoch: Some(epoch), ..*header };
        self.append_stamped(env, bytes, &[stamped])
    }

    /// Where the batch of this header is, if it is in the log already and remembered.
    pub(crate) fn appended_before(&self, header: &BatchHeader) -> Option<Appended> {
        match self.producers.check(header.producer.as_ref()?, header.record_count) {
            Ok(SequenceCheck::Duplicate(kept)) => Some(self.repeated(&kept)),
            Ok(SequenceCheck::Next) | Err(_) => None,
        }
    }

    fn repeated(&self, kept: &KeptBatch) -> Appended {
        Appended {
            base_offset: kept.base_offset,
            end_offset: kept.end_offset(),
            log_end: self.log_end(),
            duplicate: true,
        }
    }

    /// Appends verified batches that a leader stamped; they must continue this log.
    pub(crate) fn append_as_follower(
        &mut self,
        env: &mut Env<'_>,
        bytes: &[u8],
        headers: &[BatchHeader],
    ) -> Result<Appended, AppendFailure> {
        let mut next = self.log_end();
        // An own epoch without a record does not stand against what the leader of today has.
        let mut epoch = self.epochs.last_below(next);
        for header in headers {
            if header.base_offset != next {
                let found = header.base_offset;
                return Err(AppendError::NotContiguous { found, log_end: self.log_end() }.into());
            }
            if header.leader_epoch < epoch {
                let given = header.leader_epoch.unwrap_or_default();
                return Err(AppendError::StaleEpoch { given, current: epoch.unwrap_or_default() }.into());
            }
            epoch = header.leader_epoch;
            next = header.end_offset();
        }
        self.append_stamped(env, bytes, headers)
    }

    fn append_stamped(
        &mut self,
        env: &mut Env<'_>,
        bytes: &[u8],
        headers: &[BatchHeader],
    ) -> Result<Appended, AppendFailure> {
        let length = u64::try_from(bytes.len()).expect("usize is at most 64 bits");
        let file_end = self.active.size + length;
        let on_disk = |error| AppendFailure::Disk { error, needed_bytes: length, file_end, uncut: false };
        if let Some(cause) = self.sync_failed {
            return Err(AppendFailure::Refused(AppendError::VolumeFailed { cause, written: false }));
        }
        let segment_bytes = self.settings.effective_segment_bytes(env.capacity_bytes);
        self.roll_if_due(env, length, segment_bytes).map_err(on_disk)?;
        let file = self.active.file(env.disk, &self.dir).map_err(on_disk)?;
        if self.active.is_torn() {
            self.active.give_back(&*file).map_err(on_disk)?;
        }
        let room = Room { now: env.now, extra_max: env.extra_max, segment_bytes };
        self.active.reserve(&*file, length, &room).map_err(on_disk)?;
        self.write(&*file, bytes, headers, segment_bytes, env.wall_ms)
    }

    fn write(
        &mut self,
        file: &dyn DiskFile,
        bytes: &[u8],
        headers: &[BatchHeader],
        segment_bytes: u64,
        wall_ms: u64,
    ) -> Result<Appended, AppendFailure> {
        let base_offset = self.log_end();
        let needed_bytes = u64::try_from(bytes.len()).expect("usize is at most 64 bits");
        let file_end = self.active.size + needed_bytes;
        self.active.write(file, bytes).map_err(|failure| AppendFailure::Disk {
            error: failure.error,
            needed_bytes,
            file_end,
            uncut: failure.uncut,
        })?;
        for header in headers {
            if let Some(epoch) = header.leader_epoch {
                self.epochs.wrote(epoch, header.base_offset);
            }
            self.producers.record(header);
            self.active.advance(header, segment_bytes, wall_ms);
        }
        self.changed = true;
        let log_end = self.offsets().log_end();
        Ok(Appended { base_offset, end_offset: log_end, log_end, duplicate: false })
    }

    fn roll_if_due(&mut self, env: &mut Env<'_>, bytes: u64, segment_bytes: u64) -> Result<(), DiskError> {
        if self.must_roll {
            return self.roll(env);
        }
        let full = self.active.size + bytes > segment_bytes;
        let age_max = u64::try_from(self.settings.segment_age_max.as_millis()).unwrap_or(u64::MAX);
        let old = self.active.first_append_ms.is_some_and(|at| env.wall_ms.saturating_sub(at) > age_max);
        if self.active.size == 0 || !(full || old) || env.now < self.roll_again_at {
            return Ok(());
        }
        match self.roll(env) {
            Err(DiskError::OutOfSpace { .. }) => {
                self.roll_again_at = env.now + ROLL_PAUSE;
                Ok(())
            }
            other => other,
        }
    }

    /// New files, or spares of the physical reserve when the disk gives none.
    fn next_segment(&self, env: &mut Env<'_>) -> Result<ActiveSegment, DiskError> {
        let made = ActiveSegment::create(env.disk, &self.dir, self.log_end(), env.wall_ms);
        let Err(DiskError::OutOfSpace { .. }) = made else { return made };
        let Some(spares) = env.spares.as_deref_mut() else { return made };
        match ActiveSegment::from_spares(env.disk, spares, &self.dir, self.log_end(), env.wall_ms)? {
            Some(segment) => Ok(segment),
            None => made,
        }
    }

    /// Seals the active segment and starts a new one. When that fails, the active one goes on.
    pub(crate) fn roll(&mut self, env: &mut Env<'_>) -> Result<(), DiskError> {
        let next = self.next_segment(env)?;
        match self.active.seal(env.disk, &self.dir) {
            Ok(sealed) => {
                self.sealed.push_back(sealed);
                self.sum_up();
                self.active = next;
                self.dir_dirty = true;
                self.changed = true;
                self.must_roll = false;
                self.hints.clear();
                Ok(())
            }
            Err(error) => {
                drop(next);
                let _ = SealedSegment::remove(env.disk, &self.dir, self.log_end());
                Err(error)
            }
        }
    }
}
