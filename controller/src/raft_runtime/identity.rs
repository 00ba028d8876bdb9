//! Whose data directory it is.
//!
//! ```text
//! controller.id, two slots at bytes 0 and 4096, both written at every change, one after the other (no space needed). A
//! slot, little endian:
//!  0  magic "PLCTRLID"        8 bytes
//!  8  format version          u32
//! 12  CRC-32C of bytes 16..64 u32
//! 16  slot sequence           u64   the higher of two good slots counts
//! 24  state                   u32   1 being made, 2 ready
//! 28  cluster id is known     u32   0 or 1
//! 32  controller id           u64
//! 40  cluster id              16 bytes
//! 56  zero                    u64
//! ```
//!
//! `being made` is written before the journal exists and `ready` after it is durable: a bootstrap that was cut short
//! is begun anew, and a directory without this file but with a journal is refused, because its votes would be
//! forgotten. For the same reason no slot says `being made` any more when the first vote is given: if the other slot
//! rots, the journal is not made anew. The cluster id is not known at bootstrap: the first leader proposes it, and it is noted here when
//! applied.

use plimsoll_proto::ids::{ClusterId, ControllerId};
use plimsoll_storage::fs::{DiskError, DiskFile, LockGuard, OpenMode, SharedDisk};

use super::journal::{FileJournal, JournalError, JournalSettings, Recovered};

const FILE: &str = "controller.id";
const NEW_FILE: &str = "controller.id.new";
const LOCK: &str = "lock";
const MAGIC: &[u8; 8] = b"PLCTRLID";
const VERSION: u32 = 1;
const SLOT_BYTES: usize = 64;
const FILE_BYTES: usize = 8192;

/// Why a data directory can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataDirError {
    /// Another process uses it. Exit code 5.
    #[error("data directory {dir} is locked by another process; stop it or use another --data-dir")]
    Locked {
        /// The directory.
        dir: String,
    },
    /// It belongs to another controller or cluster. Exit code 5.
    #[error(
        "data directory {dir} belongs to {found}, this is {wanted}; use the directory's own --id or another --data-dir"
    )]
    ForeignIdentity {
        /// The directory.
        dir: String,
        /// Whose it is.
        found: String,
        /// Who wanted it.
        wanted: String,
    },
    /// Nothing was ever stored there, and `--bootstrap` was not given.
    #[error(
        "data directory {dir} is empty; start with --bootstrap if this controller is new (never after losing a disk: return under a new --id)"
    )]
    NotBootstrapped {
        /// The directory.
        dir: String,
    },
    /// `--bootstrap` in a directory that holds something else.
    #[error("data directory {dir} is not empty (it holds {entry}); --bootstrap needs an empty one")]
    NotEmpty {
        /// The directory.
        dir: String,
        /// What was found there.
        entry: String,
    },
    /// A new cluster of so many controllers. Exit code 7.
    #[error(
        "a cluster begins with 1, 3 or 5 controllers, the list names {count}: one more that must answer makes nothing \
         safer"
    )]
    ControllerCount {
        /// How many there were.
        count: usize,
    },
    /// The identity file can't be read, or is gone beside a journal. Restore it, or return under a new id.
    #[error(
        "data directory {dir} is damaged: {why}; restore it, or return as a new controller under a new --id"
    )]
    Damaged {
        /// The directory.
        dir: String,
        /// What is wrong.
        why: String,
    },
    /// The journal can't be made or opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The disk refused.
    #[error("data directory {dir}: {error}")]
    Disk {
        /// The directory.
        dir: String,
        /// What it said.
        error: DiskError,
    },
}

/// Remembers which cluster this controller belongs to.
pub trait Identity: Send {
    /// The cluster, once known.
    fn cluster_id(&self) -> Option<ClusterId>;
    /// Notes the cluster, durably. Needs no space.
    ///
    /// # Errors
    /// `Disk`: try again later; nothing depends on it before the next start.
    fn set_cluster_id(&mut self, id: ClusterId) -> Result<(), DataDirError>;
}

/// An identity that is forgotten with the process, for simulations.
#[cfg(any(test, feature = "memory-metadata"))]
#[derive(Clone, Debug, Default)]
pub struct MemoryIdentity {
    /// The cluster, once known.
    pub cluster_id: Option<ClusterId>,
}

#[cfg(any(test, feature = "memory-metadata"))]
impl Identity for MemoryIdentity {
    fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster_id
    }

    fn set_cluster_id(&mut self, id: ClusterId) -> Result<(), DataDirError> {
        self.cluster_id = Some(id);
        Ok(())
    }
}

/// A locked data directory of this controller. The lock ends with it.
pub struct DataDir {
    dir: String,
    file: Box<dyn DiskFile>,
    slot: Slot,
    _lock: Box<dyn LockGuard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    sequence: u64,
    ready: bool,
    controller: u64,
    cluster: Option<ClusterId>,
}

impl DataDir {
    /// Takes the directory for controller `id` and opens its journal. With `bootstrap`, an empty directory is made
    /// into one of a new controller whose voters are `voters`, none for one that joins; without effect on one that is
    /// ready. Opening a ready one needs no space.
    ///
    /// # Errors
    /// See [`DataDirError`]; every message names the remedy.
    pub fn open(
        disk: &SharedDisk,
        id: ControllerId,
        bootstrap: bool,
        voters: impl IntoIterator<Item = ControllerId>,
        settings: &JournalSettings,
    ) -> Result<(Self, FileJournal), DataDirError> {
        let dir = disk.label();
        let failed = |error| DataDirError::Disk { dir: dir.clone(), error };
        let known = match disk.open(FILE, OpenMode::Write) {
            Ok(file) => Some(file),
            Err(DiskError::NotFound { .. }) => None,
            Err(error) => return Err(failed(error)),
        };
        let voters: Vec<u64> = voters.into_iter().map(|voter| voter.0).collect();
        if known.is_none() {
            check_empty(disk, bootstrap, settings)?;
            check_count(voters.len())?;
        }
        let lock = disk.lock(LOCK).map_err(|error| match error {
            DiskError::Locked => DataDirError::Locked { dir: dir.clone() },
            error => failed(error),
        })?;
        let file = known.map_or_else(|| create_file(disk, id).map_err(failed), Ok)?;
        let (slot, alike) = read_slot(file.as_ref()).map_err(failed)?.ok_or_else(|| {
            DataDirError::Damaged { dir: dir.clone(), why: format!("neither slot of {FILE} is readable") }
        })?;
        if slot.controller != id.0 {
            return Err(DataDirError::ForeignIdentity {
                dir,
                found: format!("controller {}", slot.controller),
                wanted: format!("controller {id}"),
            });
        }
        let mut opened = Self { dir, file, slot, _lock: lock };
        if !opened.slot.ready {
            if !bootstrap {
                return Err(DataDirError::NotBootstrapped { dir: opened.dir });
            }
            check_count(voters.len())?;
            let fresh = Recovered::fresh(voters);
            FileJournal::create(disk, settings, id.0, &fresh)?;
            opened.write(Slot { ready: true, ..opened.slot })?;
        } else if !alike {
            // A change was cut short, or a slot has rotted. What was read may be in the page cache only, so it goes first.
            opened.put(opened.slot)?;
            opened.put(opened.slot.next())?;
        }
        let journal = FileJournal::open(disk, settings, id.0)?;
        Ok((opened, journal))
    }

    /// The cluster, once known.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.slot.cluster
    }

    /// Writes both slots. A crash in between leaves the old or the new to count.
    fn write(&mut self, slot: Slot) -> Result<(), DataDirError> {
        for _ in 0..2 {
            self.put(Slot { sequence: self.slot.next().sequence, ..slot })?;
        }
        Ok(())
    }

    fn put(&mut self, slot: Slot) -> Result<(), DataDirError> {
        let at = (slot.sequence % 2) * 4096;
        let written = self.file.write_at(&slot.encode(), at).and_then(|()| self.file.sync_data());
        written.map_err(|error| DataDirError::Disk { dir: self.dir.clone(), error })?;
        self.slot = slot;
        Ok(())
    }
}

impl Identity for DataDir {
    fn cluster_id(&self) -> Option<ClusterId> {
        self.slot.cluster
    }

    fn set_cluster_id(&mut self, id: ClusterId) -> Result<(), DataDirError> {
        self.write(Slot { cluster: Some(id), ..self.slot })
    }
}

/// Later the number may be any while controllers come and go. Without voters this one joins a cluster.
fn check_count(count: usize) -> Result<(), DataDirError> {
    if [0, 1, 3, 5].contains(&count) { Ok(()) } else { Err(DataDirError::ControllerCount { count }) }
}

/// A directory without an identity: only one that holds nothing may be bootstrapped.
fn check_empty(disk: &SharedDisk, bootstrap: bool, settings: &JournalSettings) -> Result<(), DataDirError> {
    let dir = disk.label();
    let entries = disk.list("").map_err(|error| DataDirError::Disk { dir: dir.clone(), error })?;
    if entries.iter().any(|entry| entry.name == settings.dir) {
        let why = format!("{FILE} is missing beside a journal");
        return Err(DataDirError::Damaged { dir, why });
    }
    if !bootstrap {
        return Err(DataDirError::NotBootstrapped { dir });
    }
    let ours = [LOCK, NEW_FILE, "lost+found"];
    match entries.into_iter().find(|entry| !ours.contains(&entry.name.as_str())) {
        Some(entry) => Err(DataDirError::NotEmpty { dir, entry: entry.name }),
        None => Ok(()),
    }
}

fn create_file(disk: &SharedDisk, id: ControllerId) -> Result<Box<dyn DiskFile>, DiskError> {
    match disk.remove_file(NEW_FILE) {
        Ok(()) | Err(DiskError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    let file = disk.open(NEW_FILE, OpenMode::CreateNew)?;
    let mut contents = vec![0u8; FILE_BYTES];
    let slot = Slot { sequence: 0, ready: false, controller: id.0, cluster: None };
    contents[..SLOT_BYTES].copy_from_slice(&slot.encode());
    file.write_at(&contents, 0)?;
    file.sync_data()?;
    drop(file);
    disk.rename(NEW_FILE, FILE)?;
    disk.sync_dir("")?;
    disk.open(FILE, OpenMode::Write)
}

/// The slot that counts, and whether the other one says the same.
fn read_slot(file: &dyn DiskFile) -> Result<Option<(Slot, bool)>, DiskError> {
    let mut contents = vec![0u8; FILE_BYTES];
    let read = file.read_at(&mut contents, 0)?;
    contents.truncate(read);
    let slots = [0, 4096].map(|at| contents.get(at..at + SLOT_BYTES).and_then(Slot::decode));
    let newest = slots.into_iter().flatten().max_by_key(|slot| slot.sequence);
    Ok(newest.map(|newest| {
        let alike = |slot: Slot| slot == Slot { sequence: slot.sequence, ..newest };
        (newest, slots.into_iter().all(|slot| slot.is_some_and(alike)))
    }))
}

impl Slot {
    /// The same, to be written over the other slot.
    fn next(self) -> Self {
        Self { sequence: self.sequence + 1, ..self }
    }

    fn encode(self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0u8; SLOT_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..28].copy_from_slice(&u32::to_le_bytes(if self.ready { 2 } else { 1 }));
        bytes[28..32].copy_from_slice(&u32::from(self.cluster.is_some()).to_le_bytes());
        bytes[32..40].copy_from_slice(&self.controller.to_le_bytes());
        bytes[40..56].copy_from_slice(&self.cluster.map_or([0; 16], |cluster| cluster.0));
        let crc = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let good = bytes.get(..8)? == MAGIC
            && u32_at(8)? == VERSION
            && u32_at(12)? == crc32c::crc32c(bytes.get(16..SLOT_BYTES)?);
        // Nothing counts that far, and after each comes another one.
        if !good || u64_at(16)? > u64::MAX / 2 {
            return None;
        }
        let ready = match u32_at(24)? {
            1 => false,
            2 => true,
            _ => return None,
        };
        let cluster = ClusterId::from_slice(bytes.get(40..56)?).ok()?;
        Some(Self {
            sequence: u64_at(16)?,
            ready,
            controller: u64_at(32)?,
            cluster: (u32_at(28)? == 1).then_some(cluster),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings, PowerLoss};

    use super::*;

    fn disk() -> (MemoryDisk, SharedDisk) {
        let disk = MemoryDisk::new(MemoryDiskSettings::plain(16 << 20));
        (disk.clone(), Arc::new(disk))
    }

    fn open(disk: &SharedDisk, id: u64, bootstrap: bool) -> Result<(DataDir, FileJournal), DataDirError> {
        let settings = JournalSettings { file_bytes: 1 << 20, ..JournalSettings::default() };
        DataDir::open(disk, ControllerId(id), bootstrap, [1, 2, 3].map(ControllerId), &settings)
    }

    #[test]
    fn a_cluster_begins_with_one_three_or_five_and_may_change_later() {
        let settings = JournalSettings { file_bytes: 1 << 20, ..JournalSettings::default() };
        let begin = |disk: &SharedDisk, count: u64| {
            DataDir::open(disk, ControllerId(1), true, (1..=count).map(ControllerId), &settings)
        };
        for count in 0..=8 {
            let (_, disk) = disk();
            let begun = begin(&disk, count);
            if [0, 1, 3, 5].contains(&count) {
                drop(begun.expect("a good number"));
                // A list that names who came since does not stop it.
                drop(begin(&disk, 4).expect("ready"));
            } else {
                let refused = begun.err().expect("refused");
                assert!(matches!(refused, DataDirError::ControllerCount { .. }), "{refused}");
                assert_eq!(disk.list("").expect("it is there"), [], "nothing was touched");
            }
        }
    }

    #[test]
    fn a_directory_is_bootstrapped_once_and_then_needs_no_space() {
        let (memory, disk) = disk();
        assert!(matches!(open(&disk, 1, false), Err(DataDirError::NotBootstrapped { .. })));
        let first = open(&disk, 1, true).expect("empty");
        assert!(matches!(open(&disk, 1, true), Err(DataDirError::Locked { .. })));
        drop(first);
        memory.take_all_bytes();
        memory.take_all_inodes();
        memory.set_greedy(true);
        let (mut again, _) = open(&disk, 1, true).expect("bootstrap is ignored");
        again.set_cluster_id(ClusterId([7; 16])).expect("no space needed");
        drop(again);
        memory.power_loss(PowerLoss::LosesAllUnsynced);
        let (last, _) = open(&disk, 1, false).expect("ready");
        assert_eq!(last.cluster_id(), Some(ClusterId([7; 16])));
        drop(last);
        assert!(matches!(open(&disk, 2, false), Err(DataDirError::ForeignIdentity { .. })));
    }

    #[test]
    fn a_journal_without_identity_and_a_used_directory_are_refused() {
        let (_, disk) = disk();
        drop(open(&disk, 1, true).expect("empty"));
        disk.remove_file(FILE).expect("there");
        assert!(matches!(open(&disk, 1, true), Err(DataDirError::Damaged { .. })));
        let (_, disk) = self::disk();
        disk.create_dir("photos").expect("room");
        assert!(matches!(open(&disk, 1, true), Err(DataDirError::NotEmpty { .. })));
    }

    #[test]
    fn a_missing_journal_file_refuses_to_start() {
        let (_, disk) = disk();
        drop(open(&disk, 1, true).expect("empty"));
        disk.remove_file("journal/b.log").expect("there");
        let refused = open(&disk, 1, true).err().expect("refused");
        assert!(
            matches!(&refused, DataDirError::Journal(JournalError::Missing { file }) if file.ends_with("b.log"))
        );
    }
}
