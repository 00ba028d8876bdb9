//! A metadata store in memory; clones share their contents.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Batch, Changes, MetadataError, MetadataStore, Stored};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    records: Changes,
    applied: Option<(u64, u64)>,
    full: bool,
}

impl MemoryStore {
    /// While on, nothing can be opened or written.
    pub fn set_full(&self, full: bool) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).full = full;
    }
}

impl MetadataStore for MemoryStore {
    fn load(&mut self) -> Result<Option<Stored>, MetadataError> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.full {
            return Err(MetadataError::NoRoom);
        }
        let records = shared.records.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
        Ok(shared.applied.map(|(applied_index, applied_term)| Stored {
            applied_index,
            applied_term,
            records: records.collect(),
        }))
    }

    fn write(&mut self, batch: &Batch) -> Result<(), MetadataError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.full {
            return Err(MetadataError::NoRoom);
        }
        if batch.replace_all {
            shared.records.clear();
        }
        shared.records.extend(batch.changes.clone());
        shared.records.retain(|_, value| value.is_some());
        shared.applied = Some((batch.applied_index, batch.applied_term));
        Ok(())
    }
}
