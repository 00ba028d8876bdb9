//! Every call of the disk door made to fail, one after the other, with every kind of fault.

use std::collections::BTreeSet;
use std::sync::Arc;

use plimsoll_proto::ids::{ClusterId, ControllerId};
use plimsoll_storage::fs::faulty::{Fault, FaultKind, Faults, FaultyDisk, Then};
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings, PowerLoss};
use plimsoll_storage::fs::{DiskError, FailureCause, SharedDisk};
use raft::eraftpb::Entry;

use super::told::{Call, End, Told};
use super::{CONTROLLER, Recovered, entry, fresh, in_full, new_disk, settings, snapshot, start, vote};
use crate::raft_runtime::journal::{FileJournal, Journal as _, JournalError};
use crate::raft_runtime::{DataDir, DataDirError, Identity as _};

/// Calls through the door, and which of them were struck.
#[derive(Default)]
struct Sites {
    seen: BTreeSet<String>,
    struck: BTreeSet<String>,
    /// Those of a run without faults.
    regular: BTreeSet<String>,
}

impl Sites {
    fn note(&mut self, faults: &Faults) {
        let trace = faults.trace();
        let site = |(operation, path): &(_, String)| {
            let file = path.rsplit('/').next().filter(|file| !file.is_empty()).unwrap_or("root");
            format!("{operation:?} {file}")
        };
        self.seen.extend(trace.iter().map(site));
        for (call, _) in faults.fired() {
            let at = usize::try_from(call - 1).expect("few calls");
            self.struck.insert(site(&trace[at]));
        }
    }

    /// What `scripts/prove` adds up.
    fn tell(&self, name: &str, calls: u64, cases: u64) {
        println!("CASES controller-journal {name} calls={calls} cases={cases}");
        for site in &self.seen {
            let struck = if self.struck.contains(site) { "struck" } else { "missed" };
            println!("SITE controller-journal {struck} {site}");
        }
        let missed: Vec<_> = self.regular.difference(&self.struck).collect();
        assert!(missed.is_empty(), "{name}: every call is also made to fail, but for {missed:?}");
    }
}

/// Whether this is how a fault of this kind must be told.
fn fits(kind: FaultKind, error: &JournalError) -> bool {
    use JournalError::{Failed, Refused};
    match kind {
        FaultKind::NoSpace | FaultKind::Quota | FaultKind::FileTooBig => {
            matches!(error, Refused(DiskError::OutOfSpace { written: 0, .. }))
        }
        // Half a head can't be taken back, nor half a record where the next write is cut short, too.
        FaultKind::ShortWrite => matches!(
            error,
            Refused(DiskError::OutOfSpace { .. })
                | Failed(DiskError::VolumeFailed { operation: "journal head" | "journal", .. })
        ),
        FaultKind::OutOfHandles => matches!(error, Refused(DiskError::Exhausted { .. })),
        FaultKind::Unclassified => matches!(
            error,
            Refused(DiskError::Unknown { .. })
                | Failed(DiskError::VolumeFailed { cause: FailureCause::AppendErrors, .. })
        ),
        FaultKind::WriteIo
        | FaultKind::SyncIo
        | FaultKind::ReadIo
        | FaultKind::ReadOnlyFilesystem
        | FaultKind::Dead => matches!(error, Failed(DiskError::VolumeFailed { .. })),
    }
}

/// How a case ends: killed, or without power and torn; in full also in other ways, and with all gone that was not synced.
fn ends(call: u64) -> Vec<Option<PowerLoss>> {
    let mut ends = vec![None, Some(PowerLoss::Tears { seed: call })];
    if in_full() {
        ends.push(Some(PowerLoss::LosesAllUnsynced));
        ends.extend((1..12).map(|more| Some(PowerLoss::Tears { seed: call + 1000 * more })));
    }
    ends
}

/// Runs `case` for every call, kind and end. It gets the fault and how to end, and returns the calls of its run.
fn strike(name: &str, mut case: impl FnMut(Option<Fault>, Option<PowerLoss>, &mut Sites) -> u64) {
    let mut sites = Sites::default();
    let calls = case(None, None, &mut sites);
    sites.regular = sites.seen.clone();
    let mut cases = 0;
    for kind in FaultKind::ALL {
        for then in [Then::Works, Then::StaysSo] {
            for call in 1..=calls {
                for end in ends(call) {
                    case(Some(Fault { kind, call, then }), end, &mut sites);
                    cases += 1;
                }
            }
        }
    }
    sites.tell(name, calls, cases);
}

fn lose(memory: &MemoryDisk, end: Option<PowerLoss>) -> End {
    end.map_or(End::Killed, |loss| {
        memory.power_loss(loss);
        End::PowerLost
    })
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    // Larger than a sector, so that a part of a batch may be torn.
    range.map(|index| entry(index, term, vec![u8::try_from(index).expect("few"); 300])).collect()
}

/// What every scenario begins with.
fn before() -> Vec<Call> {
    vec![Call::Append(entries(1..=4, 1)), Call::Vote(vote(1, 2)), Call::Sync]
}

fn compaction(index: u64, term: u64, rest: Vec<Entry>) -> Call {
    let snapshot = snapshot(index, term, vec![9; 3000]);
    let hard_state = vote(2, index);
    Call::Replace(Box::new(Recovered { hard_state, snapshot, truncated: (index, term), entries: rest }))
}

/// `calls` behind the usual beginning, with each call through the door made to fail.
fn scenario(name: &str, calls: &[Call]) {
    strike(name, |fault, end, sites| {
        let what = format!("{name}, {fault:?}");
        let (memory, disk) = new_disk();
        let (faulty, faults) = FaultyDisk::new(disk.clone());
        let (mut journal, loaded) = start(&(Arc::new(faulty) as SharedDisk)).expect("no fault yet");
        let mut told = Told::new(loaded);
        for call in before() {
            told.call(&mut journal, &call).expect("no fault yet");
        }
        faults.reset();
        if let Some(fault) = fault {
            faults.arm(fault);
        }
        let mut final_error = None;
        for call in calls {
            let mut done = attempt(&mut told, &mut journal, call, &faults, fault, &what);
            if done.as_ref().is_err_and(JournalError::is_retryable) {
                done = attempt(&mut told, &mut journal, call, &faults, fault, &what);
                let passes = fault.is_some_and(|fault| fault.then == Then::Works);
                assert!(!passes || done.is_ok(), "{what}: the same call is repeated, and {done:?}");
            }
            if let (Some(before), Err(now)) = (&final_error, &done) {
                assert_eq!(before, now, "{what}: what is final stays so");
            }
            assert!(final_error.is_none() || done.is_err(), "{what}: it goes on after it failed");
            match done {
                Err(error) if error.is_retryable() => break,
                Err(error) => final_error = Some(error),
                Ok(()) => {}
            }
        }
        sites.note(&faults);
        let (used, done) = (faults.calls(), told.newest().clone());
        drop(journal);
        let ended = lose(&memory, end);
        let (_, found) = start(&disk).unwrap_or_else(|error| panic!("{what}: {ended:?}: {error}"));
        told.check(&found, ended, &what);
        assert!(fault.is_some() || found == done, "{what}: without a fault all of it is there");
        used
    });
}

/// One call, whose error must be the one of the fault that struck it.
fn attempt(
    told: &mut Told,
    journal: &mut FileJournal,
    call: &Call,
    faults: &Faults,
    fault: Option<Fault>,
    what: &str,
) -> Result<(), JournalError> {
    let done = told.call(journal, call);
    if let Err(error) = &done {
        let struck = !faults.fired().is_empty();
        assert!(struck && fault.is_some_and(|fault| fits(fault.kind, error)), "{what}: {error:?}");
    }
    done
}

#[test]
fn append() {
    scenario(
        "append",
        &[
            Call::Append(entries(5..=7, 1)),
            Call::Vote(vote(1, 4)),
            Call::Sync,
            Call::Append(entries(8..=8, 1)),
            Call::Sync,
        ],
    );
}

#[test]
fn truncate() {
    scenario(
        "truncate",
        &[
            Call::Vote(vote(2, 2)),
            Call::Append(entries(3..=6, 2)),
            Call::Sync,
            Call::Vote(vote(3, 2)),
            Call::Append(entries(4..=4, 3)),
            Call::Sync,
        ],
    );
}

#[test]
fn compact() {
    scenario(
        "compact",
        &[
            Call::Vote(vote(2, 3)),
            Call::Append(entries(5..=6, 2)),
            compaction(3, 1, [entries(4..=4, 1), entries(5..=6, 2)].concat()),
            Call::Append(entries(7..=7, 2)),
            Call::Sync,
            compaction(6, 2, entries(7..=7, 2)),
            Call::Append(entries(8..=9, 2)),
            Call::Sync,
        ],
    );
}

#[test]
fn install() {
    scenario("install", &[compaction(50, 2, Vec::new()), Call::Append(entries(51..=52, 2)), Call::Sync]);
}

/// What a refused append left lies just behind a record that was written over its beginning.
#[test]
fn leftovers_do_not_continue_what_was_written_over_them() {
    let (_, disk) = new_disk();
    let (faulty, faults) = FaultyDisk::new(disk.clone());
    let (mut journal, loaded) = start(&(Arc::new(faulty) as SharedDisk)).expect("no fault yet");
    let mut told = Told::new(loaded);
    faults.arm(Fault { kind: FaultKind::ShortWrite, call: 1, then: Then::Works });
    let refused = told.call(&mut journal, &Call::Append(entries(1..=4, 1)));
    assert!(refused.is_err_and(|error| error.is_retryable()));
    told.call(&mut journal, &Call::Append(entries(1..=1, 2))).expect("once");
    drop(journal);
    let (_, found) = start(&disk).expect("whole");
    told.check(&found, End::Killed, "leftovers");
}

/// A start reads two generations and what the last run did not sync.
#[test]
fn start_again() {
    strike("start", |fault, end, sites| {
        let what = format!("start, {fault:?}");
        let (memory, disk) = new_disk();
        let (mut journal, loaded) = start(&disk).expect("just made");
        let mut told = Told::new(loaded);
        let rest =
            [compaction(3, 1, entries(4..=4, 1)), Call::Append(entries(5..=6, 2)), Call::Vote(vote(3, 4))];
        for call in before().iter().chain(&rest) {
            told.call(&mut journal, call).expect("no fault yet");
        }
        drop(journal);
        let (faulty, faults) = FaultyDisk::new(disk.clone());
        let faulty: SharedDisk = Arc::new(faulty);
        if let Some(fault) = fault {
            faults.arm(fault);
        }
        let started = start(&faulty);
        sites.note(&faults);
        let calls = faults.calls();
        let told = match started {
            Ok((_, found)) => {
                told.check(&found, End::Killed, &what);
                // What a start tells is there from then on.
                Told::new(found)
            }
            Err(error) => {
                let struck = fault.is_some_and(|fault| fits(fault.kind, &error));
                assert!(struck, "{what}: a fault is not damage: {error:?}");
                told
            }
        };
        let ended = lose(&memory, end);
        let (_, found) = start(&disk).unwrap_or_else(|error| panic!("{what}: {ended:?}: {error}"));
        told.check(&found, ended, &what);
        calls
    });
}

fn open_dir(disk: &SharedDisk, bootstrap: bool) -> Result<(DataDir, FileJournal), DataDirError> {
    let voters = [1, 2, 3].map(ControllerId);
    DataDir::open(disk, ControllerId(CONTROLLER), bootstrap, voters, &settings())
}

/// A data directory is made, used and told its cluster.
#[test]
fn bootstrap() {
    let cluster = ClusterId([7; 16]);
    strike("bootstrap", |fault, end, sites| {
        let what = format!("bootstrap, {fault:?}");
        let memory = MemoryDisk::new(MemoryDiskSettings::plain(4 << 20));
        let disk: SharedDisk = Arc::new(memory.clone());
        let (faulty, faults) = FaultyDisk::new(disk.clone());
        let faulty: SharedDisk = Arc::new(faulty);
        if let Some(fault) = fault {
            faults.arm(fault);
        }
        let (mut ready, mut named) = (false, false);
        let error = match open_dir(&faulty, true) {
            Ok((mut dir, _)) => {
                ready = true;
                let noted = dir.set_cluster_id(cluster);
                named = noted.is_ok();
                noted.err()
            }
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            let of_disk = match &error {
                DataDirError::Disk { error, .. } => !matches!(error, DiskError::AlreadyExists { .. }),
                DataDirError::Journal(error) => fault.is_some_and(|fault| fits(fault.kind, error)),
                _ => false,
            };
            assert!(of_disk && !faults.fired().is_empty(), "{what}: {error:?}");
        }
        sites.note(&faults);
        let calls = faults.calls();
        lose(&memory, end);
        // One that was ready is not made anew; one that was not is.
        let opened = open_dir(&disk, !ready);
        let (dir, mut journal) = opened.unwrap_or_else(|error| panic!("{what}: {end:?}: {error}"));
        assert_eq!(journal.load(), Ok(fresh()), "{what}");
        assert!(dir.cluster_id() == Some(cluster) || !named && dir.cluster_id().is_none(), "{what}");
        calls
    });
}
