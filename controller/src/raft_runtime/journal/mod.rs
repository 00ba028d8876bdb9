//! Where votes and the Raft log are kept.
//!
//! [`Journal`] is the contract; [`FileJournal`] keeps it on preallocated files and is the one the program uses;
//! a memory journal exists for simulations. One conformance suite runs on both.

mod conformance;
mod file;
mod header;
#[cfg(any(test, feature = "memory-metadata"))]
mod memory;
#[cfg(test)]
pub(super) mod proofs;
mod record;
mod replay;

use plimsoll_storage::fs::DiskError;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};

pub use file::{FileJournal, JournalSettings};
#[cfg(any(test, feature = "memory-metadata"))]
pub use memory::MemoryJournal;

/// What is left to do without the votes and entries that the other controllers count on.
const REMEDY: &str = "put it back, or return as a new controller under a new --id and in an empty --data-dir";

/// Why the journal did not do it, by what the lane must do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The preallocated area has no room for it. Nothing was written: compact, and refuse if that does not help.
    #[error("the journal needs {needed} bytes and has {room}")]
    OutOfRoom {
        /// Bytes the write needs.
        needed: u64,
        /// Bytes left for it.
        room: u64,
    },
    /// The disk refused before anything was promised. Nothing counts as written; the same call may be repeated.
    #[error("the journal's disk refused: {0}")]
    Refused(DiskError),
    /// A sync failed or the volume did. Nothing written since the last good sync counts, and nothing may be
    /// written any more: the controller must be started again, on a volume that works.
    #[error("the journal's volume failed: {0}")]
    Failed(DiskError),
    /// What stands on disk is not what was written there. Refuse to start: restore the file, or return as a new
    /// controller.
    #[error("journal file {file} is damaged at byte {at}: {why}; {REMEDY}")]
    Damaged {
        /// The file, as people find it.
        file: String,
        /// Where.
        at: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// A file of the journal is not there. Refuse to start, as for `Damaged`.
    #[error("journal file {file} is missing; {REMEDY}")]
    Missing {
        /// The file, as people find it.
        file: String,
    },
}

impl JournalError {
    /// Whether repeating the call later can succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::OutOfRoom { .. } | Self::Refused(_))
    }
}

/// What a journal holds.
///
/// ```text
///            truncated            snapshot.index              last
///   gone  |------|--- entries kept ----|------- entries --------|
/// ```
/// `truncated <= snapshot.index <= last`, where `last` is the last entry or, without entries, `truncated`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Recovered {
    /// Term, vote and commit.
    pub hard_state: HardState,
    /// The newest snapshot; index 0 and no data before the first one, but always the configuration.
    pub snapshot: Snapshot,
    /// Index and term of the entry before the first one kept.
    pub truncated: (u64, u64),
    /// Entries after `truncated`, without gaps.
    pub entries: Vec<Entry>,
}

impl Recovered {
    /// What every controller of a new cluster starts with.
    pub fn fresh(voters: impl IntoIterator<Item = u64>) -> Self {
        let mut recovered = Self::default();
        let conf_state = ConfState { voters: voters.into_iter().collect(), ..ConfState::default() };
        recovered.snapshot.mut_metadata().set_conf_state(conf_state);
        recovered
    }

    /// Index of the last entry.
    pub fn last_index(&self) -> u64 {
        self.entries.last().map_or(self.truncated.0, |entry| entry.index)
    }

    /// Adds an entry, which replaces those at its index and after. False, and nothing done, when it would leave a
    /// gap or replace what a snapshot covers.
    #[must_use]
    pub(super) fn put(&mut self, entry: Entry) -> bool {
        if entry.index <= self.truncated.0 || entry.index - 1 > self.last_index() {
            return false;
        }
        let keep = usize::try_from(entry.index - self.truncated.0 - 1).unwrap_or(usize::MAX);
        self.entries.truncate(keep);
        self.entries.push(entry);
        true
    }
}

/// How full a journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Bytes that may hold entries before the journal must be compacted.
    pub capacity: u64,
    /// Bytes of it in use.
    pub used: u64,
}

impl Fill {
    /// Bytes left for entries.
    pub fn room(self) -> u64 {
        self.capacity.saturating_sub(self.used)
    }
}

/// The durable part of a Raft peer. All methods block; they run on the Raft lane.
///
/// Contract, checked by the conformance suite:
/// - Nothing is durable before [`Journal::sync`] returns; after it everything written before is.
/// - All entries of an [`Journal::append`] are there after a crash, or none.
/// - A call that fails with a retryable error changed nothing that `load` would ever show, and the next call
///   continues from before it. Of a sync, what was written before it stays written.
/// - What rots after a sync returned makes `load` fail, unless what notes the sync rots, too. Otherwise it never shows
///   contents without it.
/// - What `load` did not show never comes back.
/// - After a failed sync, and after any failure of the volume, every call fails with `Failed`.
/// - [`Journal::replace`] is atomic and durable when it returns: after a crash within it, `load` shows all of the
///   old contents or all of the new.
pub trait Journal: Send {
    /// Reads everything. Called once, before anything else.
    ///
    /// # Errors
    /// `Damaged`, `Missing`, `Failed`: refuse to start with the message.
    fn load(&mut self) -> Result<Recovered, JournalError>;
    /// Writes entries; the first replaces what is at its index and after.
    ///
    /// # Errors
    /// `OutOfRoom`, `Refused`, `Failed`.
    fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError>;
    /// Writes term, vote and commit. Has room set aside that entries can't take.
    ///
    /// # Errors
    /// `OutOfRoom`, `Refused`, `Failed`.
    fn set_hard_state(&mut self, hard_state: &HardState) -> Result<(), JournalError>;
    /// Makes everything written durable, and notes that it is.
    ///
    /// # Errors
    /// `Refused` when the note was: what was written may be durable or not. `Failed`; final.
    fn sync(&mut self) -> Result<(), JournalError>;
    /// Puts other contents in place of everything, durably: a compaction, or a snapshot from the leader.
    ///
    /// # Errors
    /// `OutOfRoom` when the contents don't fit, `Refused`, `Failed`.
    fn replace(&mut self, contents: &Recovered) -> Result<(), JournalError>;
    /// How full it is.
    fn fill(&self) -> Fill;
    /// Upper bound of the bytes that `entry_bytes` of encoded entries in `count` entries take.
    fn cost(&self, count: u64, entry_bytes: u64) -> u64;
    /// The place for people.
    fn label(&self) -> String;
}
