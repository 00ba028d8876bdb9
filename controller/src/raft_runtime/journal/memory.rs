//! A journal in memory, for simulations that don't care about disks. Clones share their contents, so that a
//! restarted node finds what it had synced.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost_raft::Message as _;
use raft::eraftpb::{Entry, HardState};

use super::{Fill, Journal, JournalError, Recovered};

/// See the module.
#[derive(Clone, Debug)]
pub struct MemoryJournal {
    shared: Arc<Mutex<Shared>>,
    capacity: u64,
}

#[derive(Debug, Default)]
struct Shared {
    live: Recovered,
    durable: Recovered,
}

impl MemoryJournal {
    /// A journal that holds `contents` and at most `capacity` bytes.
    pub fn new(contents: Recovered, capacity: u64) -> Self {
        let shared = Shared { live: contents.clone(), durable: contents };
        Self { shared: Arc::new(Mutex::new(shared)), capacity }
    }

    /// Forgets what was not synced, as a crash of the machine does.
    pub fn crash(&self) {
        let mut shared = self.lock();
        shared.live = shared.durable.clone();
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn weigh(&self, contents: &Recovered) -> u64 {
        let entries: usize = contents.entries.iter().map(Entry::encoded_len).sum();
        let count = u64::try_from(contents.entries.len()).unwrap_or(u64::MAX);
        let snapshot = contents.snapshot.encoded_len();
        self.cost(count, u64::try_from(entries + snapshot).unwrap_or(u64::MAX))
    }

    fn check_room(&self, contents: &Recovered) -> Result<(), JournalError> {
        let needed = self.weigh(contents);
        if needed > self.capacity {
            return Err(JournalError::OutOfRoom { needed, room: self.capacity });
        }
        Ok(())
    }
}

impl Journal for MemoryJournal {
    fn load(&mut self) -> Result<Recovered, JournalError> {
        let mut shared = self.lock();
        shared.durable = shared.live.clone();
        Ok(shared.live.clone())
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut contents = self.lock().live.clone();
        for entry in entries {
            if !contents.put(entry.clone()) {
                let why = "an entry leaves a gap";
                return Err(JournalError::Damaged { file: self.label(), at: entry.index, why });
            }
        }
        self.check_room(&contents)?;
        self.lock().live = contents;
        Ok(())
    }

    fn set_hard_state(&mut self, hard_state: &HardState) -> Result<(), JournalError> {
        self.lock().live.hard_state = hard_state.clone();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        let mut shared = self.lock();
        shared.durable = shared.live.clone();
        Ok(())
    }

    fn replace(&mut self, contents: &Recovered) -> Result<(), JournalError> {
        self.check_room(contents)?;
        let mut shared = self.lock();
        shared.live = contents.clone();
        shared.durable = contents.clone();
        Ok(())
    }

    fn fill(&self) -> Fill {
        let used = self.weigh(&self.lock().live);
        Fill { capacity: self.capacity, used }
    }

    fn cost(&self, count: u64, entry_bytes: u64) -> u64 {
        count.saturating_mul(64).saturating_add(entry_bytes)
    }

    fn label(&self) -> String {
        "memory".to_owned()
    }
}
