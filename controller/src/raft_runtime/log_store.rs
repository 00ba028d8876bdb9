//! The log as `raft` reads it: what the journal holds, mirrored in memory.

use std::cell::Cell;

use prost_raft::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::util::limit_size;
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::journal::{Journal, JournalError, Recovered};

/// The journal and its mirror. Nothing is in the mirror that the journal did not take first.
pub(super) struct LogStore {
    journal: Box<dyn Journal>,
    contents: Recovered,
    /// Something was written since the last sync.
    unsynced: bool,
    /// The configuration after the last applied entry; that of the stored snapshot may be older.
    conf_state: ConfState,
    /// A peer needs a snapshot at least as new as this index.
    snapshot_wanted: Cell<Option<u64>>,
}

impl LogStore {
    /// Over a journal that was loaded. `voters` are those after the last applied entry, where that is known
    /// better than from the stored snapshot.
    pub(super) fn new(journal: Box<dyn Journal>, contents: Recovered, voters: Option<Vec<u64>>) -> Self {
        let stored = contents.snapshot.get_metadata().get_conf_state().clone();
        let conf_state = voters.map_or(stored, |voters| ConfState { voters, ..ConfState::default() });
        Self { journal, contents, unsynced: false, conf_state, snapshot_wanted: Cell::new(None) }
    }

    /// Who votes after the last applied entry.
    pub(super) fn voters(&self) -> &[u64] {
        &self.conf_state.voters
    }

    /// A change of the configuration was applied; it is stored with the next snapshot, and with the applied state.
    pub(super) fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    pub(super) fn contents(&self) -> &Recovered {
        &self.contents
    }

    pub(super) fn journal(&self) -> &dyn Journal {
        self.journal.as_ref()
    }

    /// Writes what a `Ready` asks for, durably when `sync`. On an error nothing of it counts, and the same call may
    /// be repeated when the error says so.
    pub(super) fn persist(
        &mut self,
        snapshot: &Snapshot,
        entries: &[Entry],
        hard_state: Option<&HardState>,
        sync: bool,
    ) -> Result<(), JournalError> {
        if !snapshot.is_empty() {
            return self.persist_snapshot(snapshot, entries, hard_state);
        }
        if !entries.is_empty() {
            self.journal.append(entries)?;
        }
        if let Some(hard_state) = hard_state {
            self.journal.set_hard_state(hard_state)?;
        }
        self.unsynced = true;
        if sync {
            self.settle()?;
        }
        for entry in entries {
            let put = self.contents.put(entry.clone());
            assert!(put, "raft appends without gaps and never below its snapshot");
        }
        if let Some(hard_state) = hard_state {
            self.contents.hard_state = hard_state.clone();
        }
        Ok(())
    }

    fn persist_snapshot(
        &mut self,
        snapshot: &Snapshot,
        entries: &[Entry],
        hard_state: Option<&HardState>,
    ) -> Result<(), JournalError> {
        let metadata = snapshot.get_metadata();
        let mut hard_state = hard_state.unwrap_or(&self.contents.hard_state).clone();
        hard_state.commit = hard_state.commit.max(metadata.index);
        let contents = Recovered {
            hard_state,
            snapshot: snapshot.clone(),
            truncated: (metadata.index, metadata.term),
            entries: entries.to_vec(),
        };
        self.journal.replace(&contents)?;
        self.unsynced = false;
        self.conf_state = metadata.get_conf_state().clone();
        self.contents = contents;
        Ok(())
    }

    /// Makes durable what was written without a sync. Costs nothing when there is none.
    pub(super) fn settle(&mut self) -> Result<(), JournalError> {
        if self.unsynced {
            self.journal.sync()?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Notes a commit index, not necessarily durably: it only spares work at the next start.
    pub(super) fn note_commit(&mut self, commit: u64) -> Result<(), JournalError> {
        let hard_state = HardState { commit, ..self.contents.hard_state.clone() };
        self.journal.set_hard_state(&hard_state)?;
        self.unsynced = true;
        self.contents.hard_state = hard_state;
        Ok(())
    }

    /// Puts a snapshot of the state after `index` in place of the entries up to it, less the last ones within
    /// `keep_entries` and `keep_bytes`.
    pub(super) fn compact(
        &mut self,
        index: u64,
        data: Vec<u8>,
        keep_entries: u64,
        keep_bytes: u64,
    ) -> Result<(), JournalError> {
        let Ok(term) = Storage::term(self, index) else { return Ok(()) };
        let mut snapshot = Snapshot { data, ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        metadata.index = index;
        metadata.term = term;
        metadata.set_conf_state(self.conf_state.clone());
        let first = self.first_kept(index, keep_entries, keep_bytes);
        let truncated = (first - 1, Storage::term(self, first - 1).unwrap_or(0));
        let mut hard_state = self.contents.hard_state.clone();
        hard_state.commit = hard_state.commit.max(index);
        let entries = self.contents.entries.iter().filter(|entry| entry.index >= first).cloned().collect();
        let contents = Recovered { hard_state, snapshot, truncated, entries };
        self.journal.replace(&contents)?;
        self.unsynced = false;
        self.contents = contents;
        self.snapshot_wanted.set(None);
        Ok(())
    }

    fn first_kept(&self, index: u64, keep_entries: u64, keep_bytes: u64) -> u64 {
        let mut bytes = 0u64;
        let kept = self
            .contents
            .entries
            .iter()
            .rev()
            .skip_while(|entry| entry.index > index)
            .take_while(|entry| {
                bytes = bytes.saturating_add(u64::try_from(entry.encoded_len()).unwrap_or(u64::MAX));
                bytes <= keep_bytes && index - entry.index < keep_entries
            })
            .count();
        index + 1 - u64::try_from(kept).unwrap_or(0)
    }

    /// Whether a peer waits for a newer snapshot than there is.
    pub(super) fn snapshot_wanted(&self) -> Option<u64> {
        self.snapshot_wanted.get()
    }

    fn position(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.contents.truncated.0 + 1)?).ok()
    }
}

impl Storage for LogStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.contents.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let from = self.position(low).ok_or(raft::Error::Store(StorageError::Compacted))?;
        let upto = self.position(high).ok_or(raft::Error::Store(StorageError::Compacted))?;
        let slice = self.contents.entries.get(from..upto);
        let mut entries = slice.ok_or(raft::Error::Store(StorageError::Unavailable))?.to_vec();
        limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.contents.truncated.0 {
            return Ok(self.contents.truncated.1);
        }
        let at = self.position(index).ok_or(raft::Error::Store(StorageError::Compacted))?;
        let entry = self.contents.entries.get(at);
        entry.map(|entry| entry.term).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.contents.truncated.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.contents.last_index())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let index = self.contents.snapshot.get_metadata().index;
        if index == 0 || index < request_index {
            self.snapshot_wanted.set(Some(request_index));
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.contents.snapshot.clone())
    }
}
