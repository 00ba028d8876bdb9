//! Real disks: one that a foreign writer fills to the last byte and inode while a journal is made and used, and some that
//! lose their power.

#[path = "../../../../../storage/tests/rig/mod.rs"]
mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plimsoll_proto::ids::ControllerId;
use plimsoll_storage::fs::real::RealDisk;
use plimsoll_storage::fs::{Disk as _, DiskError, OpenMode, SharedDisk};

use self::rig::Rig;
use super::told::{Call, End, Told};
use super::{CONTROLLER, Random, Recovered, entry, in_full, seed, settings, snapshot, vote};
use crate::raft_runtime::journal::{FileJournal, Journal as _, JournalError};
use crate::raft_runtime::{DataDir, DataDirError};

const CALLS: u64 = 60;

/// Takes all it can get until told to stop, in pieces that leave ever smaller rests; gives it back then.
fn foreign(disk: &RealDisk, stop: &AtomicBool, full: &AtomicBool) {
    let file = disk.open("foreign", OpenMode::CreateNew).expect("an inode for the first file");
    let piece = vec![b'f'; 256 * 1024];
    let (mut at, mut size, mut files) = (0u64, piece.len(), 0u64);
    while !stop.load(Ordering::Relaxed) {
        match disk.open(&format!("foreign-{files}"), OpenMode::CreateNew) {
            Ok(_) => files += 1,
            Err(DiskError::OutOfSpace { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        match file.write_at(&piece[..size], at) {
            Ok(()) => at += size as u64,
            Err(DiskError::OutOfSpace { written, .. }) => {
                at += written;
                if size <= 512 {
                    full.store(true, Ordering::Relaxed);
                }
                size = if size > 512 { size / 2 } else { piece.len() };
                std::thread::yield_now();
            }
            Err(other) => panic!("{other}"),
        }
    }
    disk.remove_file("foreign").expect("there");
    for number in 0..files {
        disk.remove_file(&format!("foreign-{number}")).expect("there");
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does it while a foreign writer races, from the moment when the disk is full if that is to be waited for.
fn beside_foreign<T>(outside: &RealDisk, when_full: bool, act: impl FnOnce() -> T) -> T {
    let (stop, full) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| foreign(outside, &stop, &full));
        // Stops the foreign writer also when an assertion fails.
        let _stop = StopOnDrop(&stop);
        while when_full && !full.load(Ordering::Relaxed) && !writer.is_finished() {
            std::thread::yield_now();
        }
        act()
    })
}

fn open(disk: &SharedDisk) -> Result<(DataDir, FileJournal), DataDirError> {
    let voters = [1, 2, 3].map(ControllerId);
    DataDir::open(disk, ControllerId(CONTROLLER), true, voters, &settings())
}

/// Tried again for as long as `passes`: another test of this process that starts a program holds a copy of every lock and
/// of every removed file that is still open, until that program begins.
fn once<T>(
    act: impl Fn() -> Result<T, DataDirError>,
    passes: impl Fn(&DataDirError) -> bool,
) -> Result<T, DataDirError> {
    loop {
        match act() {
            Err(error) if passes(&error) => std::thread::yield_now(),
            done => return done,
        }
    }
}

fn is_full(error: &DataDirError) -> bool {
    matches!(
        error,
        DataDirError::Disk { error: DiskError::OutOfSpace { .. }, .. }
            | DataDirError::Journal(JournalError::Refused(DiskError::OutOfSpace { .. }))
    )
}

/// A controller's data directory in use, and what it was told.
struct Running {
    identity: DataDir,
    journal: FileJournal,
    told: Told,
}

impl Running {
    /// Starts on what is there; the other is what was found.
    fn start(disk: &SharedDisk, what: &str) -> (Self, Recovered) {
        let opened = once(|| open(disk), |error| matches!(error, DataDirError::Locked { .. }));
        let (identity, mut journal) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        let found = journal.load().unwrap_or_else(|error| panic!("{what}: {error}"));
        (Self { identity, journal, told: Told::new(found.clone()) }, found)
    }

    /// Any call, which may not meet a full disk.
    fn call(&mut self, random: &mut Random, what: &str) {
        let newest = self.told.newest();
        let (last, state) = (newest.last_index(), newest.hard_state.clone());
        let call = match random.below(7) {
            0..=2 => {
                let bytes = [100, 5000, 60_000][random.below(3)];
                Call::Append(vec![entry(last + 1, state.term, vec![b'v'; bytes])])
            }
            3 => Call::Vote(vote(state.term + 1, state.commit)),
            4 => Call::Vote(raft::eraftpb::HardState { commit: last, ..state }),
            _ => Call::Sync,
        };
        match self.told.call(&mut self.journal, &call) {
            Ok(()) => {}
            Err(JournalError::OutOfRoom { .. }) => {
                let newest = self.told.newest();
                let (last, hard_state) = (newest.last_index(), newest.hard_state.clone());
                let snapshot = snapshot(last, hard_state.term, vec![b's'; 200_000]);
                let truncated = (last, hard_state.term);
                let hard_state = raft::eraftpb::HardState { commit: last, ..hard_state };
                let compacted = Recovered { hard_state, snapshot, truncated, entries: Vec::new() };
                let compacted = self.told.call(&mut self.journal, &Call::Replace(Box::new(compacted)));
                assert_eq!(compacted, Ok(()), "{what}");
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

/// Any calls, and the process killed in between.
fn live(disk: &SharedDisk, random: &mut Random, what: &str) {
    let (mut running, _) = Running::start(disk, what);
    for _ in 0..CALLS {
        if random.below(8) > 0 {
            running.call(random, what);
            continue;
        }
        let Running { identity, journal, told } = running;
        drop((identity, journal));
        let found;
        (running, found) = Running::start(disk, what);
        told.check(&found, End::Killed, what);
    }
}

#[test]
fn a_foreign_writer_races_for_the_last_bytes() {
    let rig = match Rig::tmpfs(4) {
        Ok(rig) => rig,
        Err(reason) => return println!("SKIPPED controller-journal-tmpfs: {reason}"),
    };
    let (rounds, seed) = (if in_full() { 2000 } else { 40 }, seed());
    let outside = RealDisk::open(&rig.path()).expect("a directory");
    let mut random = Random(seed | 1);
    let mut refused = 0;
    for round in 0..rounds {
        let what = format!("PLIMSOLL_SEED={seed} scripts/prove controller-journal: tmpfs, round {round}");
        let path = rig.path().join("controller");
        let inside: SharedDisk = Arc::new(RealDisk::open(&path).expect("room for a directory"));
        assert!(inside.reserves(), "{what}");
        match beside_foreign(&outside, round % 2 == 1, || open(&inside)) {
            Ok(made) => drop(made),
            Err(error) if is_full(&error) => {
                refused += 1;
                let anew = once(|| open(&inside), is_full);
                drop(anew.unwrap_or_else(|error| panic!("{what}: begun anew: {error}")));
            }
            Err(error) => panic!("{what}: {error}"),
        }
        beside_foreign(&outside, true, || live(&inside, &mut random, &what));
        drop(inside);
        std::fs::remove_dir_all(&path).expect("nothing else is there");
    }
    assert!(refused > 0, "the foreign writer also comes first");
    println!("CASES controller-journal tmpfs cases={rounds} refused_bootstraps={refused} seed={seed}");
}

/// Rounds of a life and a loss of power on one filesystem.
fn power_losses(name: &str, made: Result<Rig, String>) {
    let mut rig = match made {
        Ok(rig) => rig,
        Err(reason) => return println!("SKIPPED controller-journal-{name}: {reason}"),
    };
    let (rounds, seed) = (if in_full() { 40 } else { 3 }, seed());
    let mut random = Random(seed | 1);
    let mut before: Option<Told> = None;
    for round in 0..=rounds {
        let what = format!("PLIMSOLL_SEED={seed} scripts/prove controller-journal: {name}, round {round}");
        let path = rig.path().join("controller");
        let disk: SharedDisk = Arc::new(RealDisk::open(&path).expect("room for a directory"));
        let (mut running, found) = Running::start(&disk, &what);
        if let Some(told) = before {
            told.check(&found, End::PowerLost, &what);
        }
        for _ in 0..random.below(usize::try_from(CALLS).expect("few")) {
            running.call(&mut random, &what);
        }
        // Nothing may be open any more.
        before = Some(running.told);
        drop((running.journal, running.identity, disk));
        if let Err(reason) = rig.power_loss() {
            return println!("SKIPPED controller-journal-{name}: {reason}");
        }
    }
    println!("CASES controller-journal {name} cases={rounds} seed={seed}");
}

#[test]
fn ext4_loses_its_power() {
    power_losses("power-ext4", Rig::image(64, &["mkfs.ext4", "-q", "-F", "-m", "0"], "loop"));
}

#[test]
fn xfs_loses_its_power() {
    power_losses("power-xfs", Rig::image(320, &["mkfs.xfs", "-q"], "loop"));
}
