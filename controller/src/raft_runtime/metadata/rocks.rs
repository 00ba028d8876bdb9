//! The metadata store on RocksDB.
//!
//! RocksDB, as Debian builds it (7.8.3, with assertions), aborts the process when a write or an open meets a full
//! disk. So it is touched only after the room was looked at and found ample, and nothing of it runs in between. A foreign
//! writer may take that room a moment later: the program has this store in a process of its own.
//! - no write-ahead log of its own (the journal is it): a write goes to memory, then is flushed to a new file;
//! - no automatic compaction, no statistics, hardly any log of its own;
//! - every open, flush and compaction first needs `margin` free bytes beyond what it may write, and free inodes.
//!
//! An unreadable directory is emptied and begun anew.

use std::path::PathBuf;

use plimsoll_storage::fs::{DiskError, SharedDisk};
use rocksdb::{DB, FlushOptions, IteratorMode, LogLevel, Options, WriteBatch, WriteOptions};

use super::ballast::Ballast;
use super::{Batch, MetadataError, MetadataStore, Stored};

/// Place and caution of a [`RocksStore`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocksSettings {
    /// Directory within the data directory. Default `metadata`.
    pub dir: String,
    /// Bytes that must stay free beyond what an operation may write: a foreign writer may be filling the disk at the
    /// same moment, and a flush takes milliseconds. Default 32 MiB.
    pub margin_bytes: u64,
    /// Bytes preallocated, to be given up when the margin is missed by little. Default 8 MiB; 0 for none.
    pub ballast_bytes: u64,
    /// Flushes between two compactions. Default 16.
    pub flushes_per_compaction: u32,
}

impl Default for RocksSettings {
    fn default() -> Self {
        Self {
            dir: "metadata".to_owned(),
            margin_bytes: 32 * 1024 * 1024,
            ballast_bytes: 8 * 1024 * 1024,
            flushes_per_compaction: 16,
        }
    }
}

/// Key of what the records reflect; records are kept under `r` and their own key.
const POSITION_KEY: &[u8] = b"p";
const RECORD_PREFIX: u8 = b'r';
/// Layout of this store.
const VERSION: u8 = 1;
const INODES_MIN: u64 = 32;
const BALLAST: &str = "metadata.ballast";

/// See the module.
pub struct RocksStore {
    disk: SharedDisk,
    path: PathBuf,
    settings: RocksSettings,
    ballast: Ballast,
    state: State,
    flushes: u32,
    begun_anew: Option<String>,
}

enum State {
    Closed,
    Open(DB),
    Unusable(String),
}

impl RocksStore {
    /// A store in `settings.dir` of `disk`, which is the directory `root` of the host. Touches no RocksDB file.
    pub fn new(disk: SharedDisk, root: &std::path::Path, settings: RocksSettings) -> Self {
        let path = root.join(&settings.dir);
        let ballast = Ballast::new(disk.clone(), BALLAST, settings.ballast_bytes);
        Self { disk, path, settings, ballast, state: State::Closed, flushes: 0, begun_anew: None }
    }

    /// Why an unreadable store was emptied, since this was asked last.
    pub(super) fn begun_anew(&mut self) -> Option<String> {
        self.begun_anew.take()
    }

    /// Whether `writing` bytes may be written with the margin to spare; gives up the ballast when that is enough.
    fn make_room(&mut self, writing: u64) -> Result<(), MetadataError> {
        // A flush writes the data once, its index and filter, and small files beside it.
        let needed = writing.saturating_mul(2).saturating_add(self.settings.margin_bytes);
        if self.has_room(needed) {
            return Ok(());
        }
        let held = self.ballast.held_bytes();
        if held > 0 && self.has_room(needed.saturating_sub(held)) {
            self.ballast.release();
            if self.has_room(needed) {
                return Ok(());
            }
        }
        Err(MetadataError::NoRoom)
    }

    fn has_room(&self, needed: u64) -> bool {
        self.disk.space().is_ok_and(|space| {
            let inodes = space.total_inodes == 0 || space.available_inodes >= INODES_MIN;
            inodes && space.available_bytes >= needed
        })
    }

    fn db(&mut self) -> Result<&DB, MetadataError> {
        if matches!(self.state, State::Closed) {
            self.make_room(0)?;
            self.state = match DB::open(&options(), &self.path) {
                Ok(db) => State::Open(db),
                Err(error) => self.begin_anew(error.as_ref()),
            };
        }
        match &self.state {
            State::Open(db) => Ok(db),
            State::Unusable(why) => Err(MetadataError::Unusable(why.clone())),
            State::Closed => Err(MetadataError::NoRoom),
        }
    }

    /// Empties an unreadable directory and opens it again; later, when there is no room by then.
    fn begin_anew(&mut self, why: &str) -> State {
        // An opening that met a full disk says nothing about what is there.
        if self.make_room(0).is_err() {
            return State::Closed;
        }
        tracing::warn!(dir = %self.path.display(), why, "metadata store is unreadable; it is rebuilt from the journal");
        self.begun_anew = Some(why.to_owned());
        if let Err(error) = remove_tree(&self.disk, &self.settings.dir) {
            return State::Unusable(error.to_string());
        }
        // Reading took its time, and what it gave back may be taken already.
        if self.make_room(0).is_err() {
            return State::Closed;
        }
        match DB::open(&options(), &self.path) {
            Ok(db) => State::Open(db),
            Err(error) => State::Unusable(error.to_string()),
        }
    }

    fn read(&mut self) -> Result<Result<Option<Stored>, String>, MetadataError> {
        let db = self.db()?;
        Ok(read_all(db))
    }

    fn compact_sometimes(&mut self) {
        self.flushes += 1;
        if self.flushes < self.settings.flushes_per_compaction {
            return;
        }
        let State::Open(db) = &self.state else { return };
        let size = db.live_files().map_or(u64::MAX / 4, |files| {
            files.iter().map(|file| u64::try_from(file.size).unwrap_or(0)).fold(0, u64::saturating_add)
        });
        if self.make_room(size).is_ok()
            && let State::Open(db) = &self.state
        {
            db.compact_range::<&[u8], &[u8]>(None, None);
            self.flushes = 0;
        }
    }
}

impl MetadataStore for RocksStore {
    fn load(&mut self) -> Result<Option<Stored>, MetadataError> {
        match self.disk.list(&self.settings.dir) {
            Ok(_) => {}
            // Never made: nothing to read, and no reason to make it now.
            Err(DiskError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(MetadataError::Unusable(error.to_string())),
        }
        match self.read()? {
            Ok(stored) => Ok(stored),
            Err(why) => {
                self.state = State::Closed;
                self.state = self.begin_anew(&why);
                Ok(None)
            }
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), MetadataError> {
        self.make_room(batch.bytes())?;
        let db = self.db()?;
        let writes = write_batch(db, batch).map_err(MetadataError::Unusable)?;
        let mut no_wal = WriteOptions::default();
        no_wal.disable_wal(true);
        let mut wait = FlushOptions::default();
        wait.set_wait(true);
        let done = db.write_opt(writes, &no_wal).and_then(|()| db.flush_opt(&wait));
        if let Err(error) = done {
            let why = error.to_string();
            if let State::Open(db) = std::mem::replace(&mut self.state, State::Unusable(why.clone())) {
                // Closing would flush again, and a flush that fails may abort the process.
                std::mem::forget(db);
            }
            return Err(MetadataError::Unusable(why));
        }
        self.compact_sometimes();
        if self.has_room(self.settings.margin_bytes.saturating_add(3 * self.settings.ballast_bytes)) {
            self.ballast.renew();
        }
        Ok(())
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_disable_auto_compactions(true);
    options.set_level_zero_slowdown_writes_trigger(1 << 20);
    options.set_level_zero_stop_writes_trigger(1 << 20);
    options.set_write_buffer_size(64 * 1024 * 1024);
    options.set_max_background_jobs(2);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_keep_log_file_num(2);
    options.set_log_level(LogLevel::Error);
    options
}

fn write_batch(db: &DB, batch: &Batch) -> Result<WriteBatch, String> {
    let mut writes = WriteBatch::default();
    if batch.replace_all {
        for item in db.iterator(IteratorMode::Start) {
            let (key, _) = item.map_err(|error| error.to_string())?;
            writes.delete(key);
        }
    }
    for (key, value) in &batch.changes {
        let mut prefixed = Vec::with_capacity(key.len() + 1);
        prefixed.push(RECORD_PREFIX);
        prefixed.extend_from_slice(key);
        match value {
            Some(value) => writes.put(prefixed, value),
            None => writes.delete(prefixed),
        }
    }
    let mut position = vec![VERSION];
    position.extend_from_slice(&batch.applied_index.to_le_bytes());
    position.extend_from_slice(&batch.applied_term.to_le_bytes());
    writes.put(POSITION_KEY, position);
    Ok(writes)
}

fn read_all(db: &DB) -> Result<Option<Stored>, String> {
    let mut position = None;
    let mut records = Vec::new();
    for item in db.iterator(IteratorMode::Start) {
        let (key, value) = item.map_err(|error| error.to_string())?;
        match key.split_first() {
            Some((&RECORD_PREFIX, key)) => records.push((key.to_vec(), value.to_vec())),
            _ if *key == *POSITION_KEY => {
                position = Some(decode_position(&value).ok_or("unreadable position")?)
            }
            _ => return Err("a key of unknown kind".to_owned()),
        }
    }
    Ok(position.map(|(applied_index, applied_term)| Stored { applied_index, applied_term, records }))
}

fn decode_position(value: &[u8]) -> Option<(u64, u64)> {
    let (version, rest) = value.split_first()?;
    let (index, term) = rest.split_first_chunk::<8>()?;
    let term: [u8; 8] = term.try_into().ok()?;
    (*version == VERSION).then(|| (u64::from_le_bytes(*index), u64::from_le_bytes(term)))
}

fn remove_tree(disk: &SharedDisk, dir: &str) -> Result<(), DiskError> {
    for entry in disk.list(dir)? {
        let path = format!("{dir}/{}", entry.name);
        if entry.is_dir {
            remove_tree(disk, &path)?;
            disk.remove_dir(&path)?;
        } else {
            disk.remove_file(&path)?;
        }
    }
    Ok(())
}
