//! Proofs of the journal, as the storage layer has them: `scripts/prove controller-journal` runs them in full and adds
//! up what they print.

mod damage;
mod defects;
mod faults;
mod model;
mod real_disk;
mod told;

use std::sync::Arc;

use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings};
use plimsoll_storage::fs::{OpenMode, SharedDisk};
use raft::eraftpb::{Entry, HardState, Snapshot};

use super::{FileJournal, Journal as _, JournalError, JournalSettings, Recovered, header, replay};
use crate::raft_runtime::testing::Random;

const FILE_BYTES: u64 = JournalSettings::FILE_BYTES_MIN;
const CONTROLLER: u64 = 1;

fn settings() -> JournalSettings {
    JournalSettings { file_bytes: FILE_BYTES, ..JournalSettings::default() }
}

fn fresh() -> Recovered {
    Recovered::fresh([1, 2, 3])
}

/// A disk with an empty journal and a little room besides.
fn new_disk() -> (MemoryDisk, SharedDisk) {
    let memory = MemoryDisk::new(MemoryDiskSettings::plain(4 << 20));
    let disk: SharedDisk = Arc::new(memory.clone());
    FileJournal::create(&disk, &settings(), CONTROLLER, &fresh()).expect("room");
    (memory, disk)
}

/// The path of the file that is in use, and its head.
fn current(disk: &SharedDisk) -> (&'static str, header::Slot) {
    let head = |path: &'static str| {
        let mut head = vec![0; usize::try_from(header::BODY).expect("small")];
        disk.open(path, OpenMode::Read).expect("there").read_at(&mut head, 0).expect("reads");
        (path, header::Slot::newest(&head).expect("one is good"))
    };
    let heads = ["journal/a.log", "journal/b.log"].map(head).into_iter();
    let current = heads.filter(|(_, slot)| slot.usage == header::Use::Current);
    current.max_by_key(|(_, slot)| slot.generation).expect("one is in use")
}

/// How far a journal vouches for its records, and where they end.
pub(in crate::raft_runtime) fn vouched_and_written(disk: &SharedDisk) -> (u64, u64) {
    let (path, slot) = current(disk);
    let mut bytes = vec![0; usize::try_from(FILE_BYTES).expect("small")];
    disk.open(path, OpenMode::Read).expect("there").read_at(&mut bytes, 0).expect("reads");
    let replayed = replay::replay(&bytes, slot.generation, 0).expect("whole");
    (slot.synced_end, replayed.end)
}

/// What a start does with the journal.
fn start(disk: &SharedDisk) -> Result<(FileJournal, Recovered), JournalError> {
    let mut journal = FileJournal::open(disk, &settings(), CONTROLLER)?;
    let loaded = journal.load()?;
    Ok((journal, loaded))
}

fn entry(index: u64, term: u64, data: Vec<u8>) -> Entry {
    Entry { index, term, data, ..Entry::default() }
}

fn vote(term: u64, commit: u64) -> HardState {
    HardState { term, vote: 1 + term % 3, commit }
}

fn snapshot(index: u64, term: u64, data: Vec<u8>) -> Snapshot {
    let mut snapshot = Snapshot { data, ..Snapshot::default() };
    snapshot.mut_metadata().index = index;
    snapshot.mut_metadata().term = term;
    snapshot.mut_metadata().set_conf_state(fresh().snapshot.get_metadata().get_conf_state().clone());
    snapshot
}

/// Whether all repetitions were asked for.
fn in_full() -> bool {
    std::env::var_os("PLIMSOLL_PROVE_FULL").is_some()
}

/// Where random choices begin.
fn seed() -> u64 {
    std::env::var("PLIMSOLL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}
