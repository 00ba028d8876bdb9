//! Where the applied state is kept between starts, so that a start replays only the end of the journal.
//!
//! It is a convenience and never the truth: whatever is missing, unreadable or behind is rebuilt from the journal's
//! snapshot and entries. The program uses a [`ChildStore`]: a [`RocksStore`] in a process of its own, since RocksDB may
//! abort the one it is in. A memory one exists for simulations. One conformance suite runs on all.

mod ballast;
mod child;
mod conformance;
pub(super) mod feed;
mod frames;
#[cfg(any(test, feature = "memory-metadata"))]
mod memory;
mod rocks;
mod serve;

use std::collections::BTreeMap;

pub use child::{ChildStore, StoreProgram};
#[cfg(any(test, feature = "memory-metadata"))]
pub use memory::MemoryStore;
pub use rocks::{RocksSettings, RocksStore};
pub use serve::{ServeError, serve};

/// A key and its new value, or none when it is deleted.
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Index of the last entry the records reflect.
    pub applied_index: u64,
    /// Its term.
    pub applied_term: u64,
    /// All records in order of keys.
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What to write at once.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Batch {
    /// Records to put and delete.
    pub changes: Changes,
    /// Everything that is not in `changes` goes.
    pub replace_all: bool,
    /// Index of the last entry that `changes` reflect.
    pub applied_index: u64,
    /// Its term.
    pub applied_term: u64,
}

impl Batch {
    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        let bytes: usize =
            self.changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// Why a store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Too little room to open or write safely. Nothing was touched: go on in memory and try again later.
    #[error("too little room for the metadata store")]
    NoRoom,
    /// The store can't be used, or not any more until the process is started again. Go on in memory.
    #[error("the metadata store is out of use: {0}")]
    Unusable(String),
    /// The store's process ended, or was ended because it hung. Whether the batch was written is not known. Go on in
    /// memory and give the whole state later: a part is refused until then.
    #[error("the process of the metadata store was interrupted: {0}")]
    Interrupted(String),
}

/// Keeps the applied state. All methods block.
///
/// Contract, checked by the conformance suite:
/// - [`MetadataStore::write`] is atomic, and durable when it returns `Ok`.
/// - After an error, `load` of a later process shows what the last successful write left; after `Interrupted` it may be
///   what the interrupted one left.
/// - `NoRoom` touches nothing on disk.
pub trait MetadataStore: Send {
    /// What is stored. `None` when there is nothing, or nothing readable: an unreadable store is emptied.
    ///
    /// # Errors
    /// `NoRoom` when there is not enough room to open it safely; it stays as it is. `Unusable`. `Interrupted`.
    fn load(&mut self) -> Result<Option<Stored>, MetadataError>;
    /// Writes a batch.
    ///
    /// # Errors
    /// `NoRoom`, `Unusable`, `Interrupted`.
    fn write(&mut self, batch: &Batch) -> Result<(), MetadataError>;
}
