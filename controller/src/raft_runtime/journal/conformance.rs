//! One suite for every journal, and what only disks can do to one.
#![cfg(test)]

use std::sync::Arc;

use plimsoll_storage::fs::faulty::{Fault, FaultKind, FaultyDisk, Then};
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings, PowerLoss};
use plimsoll_storage::fs::{OpenMode, SharedDisk};
use raft::eraftpb::{Entry, HardState, Snapshot};

use super::{FileJournal, Journal, JournalError, JournalSettings, MemoryJournal, Recovered};

const FILE_BYTES: u64 = JournalSettings::FILE_BYTES_MIN;

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, data: vec![7; 20], ..Entry::default() }
}

fn vote(term: u64, commit: u64) -> HardState {
    HardState { term, vote: 1, commit }
}

fn fresh() -> Recovered {
    Recovered::fresh([1, 2, 3])
}

fn with_snapshot(index: u64, term: u64, entries: Vec<Entry>) -> Recovered {
    let mut snapshot = Snapshot { data: vec![9; 3000], ..Snapshot::default() };
    snapshot.mut_metadata().index = index;
    snapshot.mut_metadata().term = term;
    snapshot.mut_metadata().set_conf_state(fresh().snapshot.get_metadata().get_conf_state().clone());
    Recovered { hard_state: vote(term, index), snapshot, truncated: (index, term), entries }
}

/// `open` gives the journal as a new process would find it.
fn suite(mut open: impl FnMut() -> Box<dyn Journal>) {
    let mut journal = open();
    assert_eq!(journal.load(), Ok(fresh()), "new");
    journal.append(&[entry(1, 1), entry(2, 1), entry(3, 1)]).expect("room");
    journal.set_hard_state(&vote(1, 1)).expect("room");
    journal.sync().expect("works");
    drop(journal);

    let mut journal = open();
    let expected =
        Recovered { hard_state: vote(1, 1), entries: vec![entry(1, 1), entry(2, 1), entry(3, 1)], ..fresh() };
    assert_eq!(journal.load(), Ok(expected), "appended");
    journal.append(&[entry(2, 2)]).expect("room");
    journal.set_hard_state(&vote(2, 2)).expect("room");
    journal.sync().expect("works");
    drop(journal);

    let mut journal = open();
    let expected = Recovered { hard_state: vote(2, 2), entries: vec![entry(1, 1), entry(2, 2)], ..fresh() };
    assert_eq!(journal.load(), Ok(expected), "an entry replaces those after it");
    let compacted = with_snapshot(2, 2, vec![entry(3, 2)]);
    journal.replace(&compacted).expect("room");
    drop(journal);

    let mut journal = open();
    assert_eq!(journal.load(), Ok(compacted.clone()), "replaced");
    let filled = fill_up(journal.as_mut(), 4);
    assert!(journal.fill().room() < 100);
    journal.set_hard_state(&vote(3, 2)).expect("votes have room of their own");
    journal.sync().expect("works");
    drop(journal);

    let mut journal = open();
    let loaded = journal.load().expect("whole");
    assert_eq!((loaded.last_index(), loaded.hard_state), (filled, vote(3, 2)));
    journal.replace(&compacted).expect("the old contents don't count");
    journal.append(&[entry(4, 3)]).expect("room again");
    let too_large =
        Recovered { snapshot: Snapshot { data: vec![0; 4 << 20], ..Snapshot::default() }, ..compacted };
    assert!(matches!(journal.replace(&too_large), Err(JournalError::OutOfRoom { .. })));
    journal.sync().expect("works");
    assert_eq!(
        open().load().map(|loaded| loaded.last_index()),
        Ok(4),
        "a refused replacement changes nothing"
    );
}

/// Appends until not even an entry without data has room. The last index.
fn fill_up(journal: &mut dyn Journal, from: u64) -> u64 {
    let mut index = from;
    for bytes in [60_000, 1000, 0] {
        loop {
            match journal.append(&[Entry { data: vec![1; bytes], ..entry(index, 2) }]) {
                Ok(()) => index += 1,
                Err(JournalError::OutOfRoom { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    index - 1
}

#[test]
fn memory_conforms() {
    let journal = MemoryJournal::new(fresh(), FILE_BYTES);
    suite(|| Box::new(journal.clone()));
    let mut live = journal.clone();
    let before = live.load().expect("memory");
    live.set_hard_state(&vote(9, 2)).expect("memory");
    journal.crash();
    assert_eq!(live.load(), Ok(before));
}

fn settings() -> JournalSettings {
    JournalSettings { file_bytes: FILE_BYTES, ..JournalSettings::default() }
}

fn new_disk() -> (MemoryDisk, SharedDisk) {
    let memory = MemoryDisk::new(MemoryDiskSettings::plain(8 << 20));
    let disk: SharedDisk = Arc::new(memory.clone());
    FileJournal::create(&disk, &settings(), 1, &fresh()).expect("room");
    (memory, disk)
}

fn open(disk: &SharedDisk) -> FileJournal {
    FileJournal::open(disk, &settings(), 1).expect("made")
}

#[test]
fn files_conform_without_a_free_byte_or_inode() {
    let (memory, disk) = new_disk();
    memory.take_all_bytes();
    memory.take_all_inodes();
    memory.set_greedy(true);
    suite(|| Box::new(open(&disk)));
}

#[test]
fn files_conform_on_a_real_disk() {
    let dir = crate::raft_runtime::testing::TempDir::new("journal");
    let disk: SharedDisk =
        Arc::new(plimsoll_storage::fs::real::RealDisk::open(dir.path()).expect("a directory"));
    FileJournal::create(&disk, &settings(), 1, &fresh()).expect("room");
    suite(|| Box::new(open(&disk)));
}

/// A run of calls against a model: every state that a later `load` may show.
struct Run {
    journal: FileJournal,
    possible: Vec<Recovered>,
}

enum Call {
    Append(Entry),
    Vote(HardState),
    Sync,
    Replace(Box<Recovered>),
}

fn script() -> Vec<Call> {
    let mut calls = Vec::new();
    for index in 1..=4 {
        calls.push(Call::Append(entry(index, 1)));
        calls.push(Call::Vote(vote(1, index - 1)));
        calls.push(Call::Sync);
    }
    calls.push(Call::Append(entry(4, 2)));
    calls.push(Call::Sync);
    calls.push(Call::Replace(Box::new(with_snapshot(3, 1, vec![entry(4, 2)]))));
    calls.push(Call::Append(entry(5, 2)));
    calls.push(Call::Sync);
    calls.push(Call::Replace(Box::new(with_snapshot(5, 2, Vec::new()))));
    calls.push(Call::Append(entry(6, 2)));
    calls.push(Call::Vote(vote(2, 5)));
    calls.push(Call::Sync);
    calls.push(Call::Append(entry(7, 2)));
    calls.push(Call::Sync);
    calls
}

impl Run {
    fn start(disk: &SharedDisk) -> Self {
        let mut journal = open(disk);
        let loaded = journal.load().expect("whole");
        Self { journal, possible: vec![loaded] }
    }

    fn newest(&self) -> Recovered {
        self.possible.last().expect("never empty").clone()
    }

    /// One call, repeated once when it was refused for now. False when the journal has failed.
    fn call(&mut self, call: &Call) -> bool {
        match self.attempt(call) {
            Err(error) if error.is_retryable() => self.attempt(call).is_ok(),
            other => other.is_ok(),
        }
    }

    fn attempt(&mut self, call: &Call) -> Result<(), JournalError> {
        let mut next = self.newest();
        match call {
            Call::Append(entry) => {
                assert!(next.put(entry.clone()));
                self.journal.append(std::slice::from_ref(entry))?;
                self.possible.push(next);
            }
            Call::Vote(vote) => {
                next.hard_state = vote.clone();
                self.journal.set_hard_state(vote)?;
                self.possible.push(next);
            }
            Call::Sync => {
                self.journal.sync()?;
                self.possible = vec![next];
            }
            Call::Replace(contents) => {
                let done = self.journal.replace(contents);
                match done {
                    Ok(()) => self.possible = vec![contents.as_ref().clone()],
                    Err(JournalError::Failed(_)) => self.possible.push(contents.as_ref().clone()),
                    Err(_) => {}
                }
                return done;
            }
        }
        Ok(())
    }
}

fn losses() -> impl Iterator<Item = PowerLoss> {
    std::iter::once(PowerLoss::LosesAllUnsynced).chain((0..3).map(|seed| PowerLoss::Tears { seed }))
}

#[test]
fn a_crash_after_any_call_loses_nothing_that_was_synced() {
    for upto in 0..=script().len() {
        for loss in losses() {
            let (memory, disk) = new_disk();
            let mut run = Run::start(&disk);
            for call in &script()[..upto] {
                assert!(run.call(call));
            }
            memory.power_loss(loss);
            let loaded = open(&disk).load().expect("a torn tail is cut");
            assert!(run.possible.contains(&loaded), "after {upto} calls, {loss:?}: {loaded:?}");
        }
    }
}

#[test]
fn the_kth_failing_call_loses_nothing_that_was_synced() {
    let kinds = [
        FaultKind::NoSpace,
        FaultKind::Quota,
        FaultKind::FileTooBig,
        FaultKind::ShortWrite,
        FaultKind::WriteIo,
        FaultKind::SyncIo,
        FaultKind::ReadOnlyFilesystem,
        FaultKind::OutOfHandles,
        FaultKind::Unclassified,
        FaultKind::Dead,
    ];
    for (kind, then) in kinds.into_iter().flat_map(|kind| [(kind, Then::Works), (kind, Then::StaysSo)]) {
        for call in 1.. {
            let (memory, disk) = new_disk();
            let (faulty, faults) = FaultyDisk::new(disk.clone());
            let faulty: SharedDisk = Arc::new(faulty);
            let mut run = Run::start(&faulty);
            faults.arm(Fault { kind, call, then });
            let finished = script().iter().all(|call| run.call(call));
            let struck = !faults.fired().is_empty();
            memory.power_loss(PowerLoss::Tears { seed: call });
            let loaded =
                open(&disk).load().unwrap_or_else(|error| panic!("{kind:?} {then:?} {call}: {error}"));
            assert!(run.possible.contains(&loaded), "{kind:?} {then:?} {call}: {loaded:?}");
            if faults.calls() < call {
                assert!(finished && !struck);
                break;
            }
        }
    }
}

#[test]
fn a_failed_sync_is_final() {
    let (memory, disk) = new_disk();
    let mut run = Run::start(&disk);
    memory.set_sync_fails(true);
    run.journal.append(&[entry(1, 1)]).expect("room");
    assert!(matches!(run.journal.sync(), Err(JournalError::Failed(_))));
    memory.set_sync_fails(false);
    assert!(matches!(run.journal.sync(), Err(JournalError::Failed(_))));
    assert!(matches!(run.journal.append(&[entry(2, 1)]), Err(JournalError::Failed(_))));
    assert!(matches!(run.journal.replace(&fresh()), Err(JournalError::Failed(_))));
}

#[test]
fn rot_in_what_was_synced_refuses_to_start() {
    let (_, disk) = new_disk();
    let mut run = Run::start(&disk);
    for call in script() {
        assert!(run.call(&call));
    }
    let end = super::header::BODY + run.journal.fill().used;
    let whole = run.newest();
    drop(run);
    let mut refused = 0u64;
    for name in ["a.log", "b.log"] {
        let file = disk.open(&format!("journal/{name}"), OpenMode::Write).expect("there");
        for at in 0..end {
            let mut byte = [0u8; 1];
            file.read_at(&mut byte, at).expect("reads");
            file.write_at(&[byte[0] ^ 0x10], at).expect("writes");
            let loaded = FileJournal::open(&disk, &settings(), 1).and_then(|mut journal| journal.load());
            match loaded {
                // Not looked at, or there twice.
                Ok(loaded) => assert_eq!(loaded, whole, "{name} {at}"),
                Err(JournalError::Damaged { file, .. }) => {
                    refused += 1;
                    assert!(file.ends_with(name), "{file} named for {name}");
                }
                Err(error) => panic!("{error}"),
            }
            file.write_at(&byte, at).expect("writes");
        }
    }
    assert!(refused >= end - super::header::BODY, "{refused}");
}

#[test]
fn a_missing_or_foreign_file_is_named() {
    let (_, disk) = new_disk();
    let foreign = FileJournal::open(&disk, &settings(), 2).err();
    assert!(matches!(foreign, Some(JournalError::Damaged { why, .. }) if why.contains("another controller")));
    disk.remove_file("journal/a.log").expect("there");
    let missing = FileJournal::open(&disk, &settings(), 1).err();
    assert!(matches!(missing, Some(JournalError::Missing { file }) if file.ends_with("journal/a.log")));
}
