//! Random operations against a plain model.

use std::sync::Arc;

use plimsoll_storage::fs::faulty::{Fault, FaultKind, Faults, FaultyDisk, Then};
use plimsoll_storage::fs::memory::{MemoryDisk, PowerLoss};
use plimsoll_storage::fs::{OpenMode, SharedDisk};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use prost_raft::Message as _;

use super::told::{Call, End, Told};
use super::{FileJournal, Recovered, current, entry, in_full, new_disk, seed, snapshot, start};
use crate::raft_runtime::journal::{Journal, JournalError, header};

#[derive(Clone, Debug)]
enum Op {
    /// So many entries of so many bytes, the first of them in the place of the last but `back`.
    Append {
        back: u8,
        count: u8,
        bytes: u16,
    },
    /// Votes in the next term, or notes what is committed in this one.
    Vote {
        next_term: bool,
        commit: u8,
    },
    Sync,
    /// Compacts at this share of what is committed, and keeps a share of the entries before it.
    Compact {
        at: u8,
        keep: u8,
        bytes: u16,
    },
    /// A snapshot from the leader, so far beyond the last entry.
    Install {
        beyond: u8,
        bytes: u16,
    },
    Kill,
    /// All that was not synced goes, or a part of it.
    PowerLoss(Option<u64>),
    /// The process is killed or the power goes, and then a byte rots at this share of what was synced. It is put back.
    Rot {
        at: u16,
        power_loss: Option<u64>,
    },
    /// Every sync fails until the next start.
    SyncsFail,
    Fault {
        kind: FaultKind,
        call: u8,
        stays: bool,
    },
    /// The process is killed, and the start after it meets a fault.
    BadStart {
        kind: FaultKind,
        call: u8,
        stays: bool,
    },
    ForeignFill,
    Heal,
}

fn kinds() -> impl Strategy<Value = FaultKind> {
    proptest::sample::select(FaultKind::ALL.as_slice())
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // Many of one size: then what was left of others may lie where the next record is looked for.
    let large = prop_oneof![6 => Just(100u16), 2 => 0u16..300, 1 => 20_000u16..60_000];
    let snapshots = prop_oneof![6 => 0u16..5000, 1 => 40_000u16..];
    let op = prop_oneof![
        10 => (0u8..4, 1u8..5, large).prop_map(|(back, count, bytes)| Op::Append { back, count, bytes }),
        4 => any::<(bool, u8)>().prop_map(|(next_term, commit)| Op::Vote { next_term, commit }),
        6 => Just(Op::Sync),
        2 => (any::<(u8, u8)>(), snapshots.clone())
            .prop_map(|((at, keep), bytes)| Op::Compact { at, keep, bytes }),
        1 => (1u8..20, snapshots).prop_map(|(beyond, bytes)| Op::Install { beyond, bytes }),
        1 => Just(Op::Kill),
        2 => any::<Option<u64>>().prop_map(Op::PowerLoss),
        2 => (prop_oneof![any::<u16>(), 65_000..=u16::MAX], any::<Option<u64>>())
            .prop_map(|(at, power_loss)| Op::Rot { at, power_loss }),
        1 => Just(Op::SyncsFail),
        2 => (kinds(), 1u8..8, any::<bool>()).prop_map(|(kind, call, stays)| Op::Fault { kind, call, stays }),
        1 => (kinds(), 1u8..14, any::<bool>())
            .prop_map(|(kind, call, stays)| Op::BadStart { kind, call, stays }),
        1 => Just(Op::ForeignFill),
        2 => Just(Op::Heal),
    ];
    proptest::collection::vec(op, 1..80)
}

struct World {
    memory: MemoryDisk,
    disk: SharedDisk,
    faults: Faults,
    journal: FileJournal,
    told: Told,
    /// Nothing works before the next start.
    failed: bool,
    syncs_fail: bool,
    /// No two entries or snapshots are the same.
    made: u64,
    /// Bytes of records that were synced.
    synced: u64,
}

impl World {
    fn new() -> Self {
        let (memory, disk) = new_disk();
        let (faulty, faults) = FaultyDisk::new(disk);
        let disk: SharedDisk = Arc::new(faulty);
        let (journal, loaded) = start(&disk).expect("just made");
        let told = Told::new(loaded);
        let synced = journal.fill().used;
        Self { memory, disk, faults, journal, told, failed: false, syncs_fail: false, made: 0, synced }
    }

    fn data(&mut self, bytes: u16) -> Vec<u8> {
        self.made += 1;
        let mut data = self.made.to_le_bytes().to_vec();
        // Zeros, as in a file that was never used: a part of a record may look like the whole of it.
        data.resize(data.len().max(usize::from(bytes)), 0);
        data
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Append { back, count, bytes } => {
                let newest = self.told.newest();
                let (last, committed) = (newest.last_index(), newest.hard_state.commit);
                let term = newest.hard_state.term;
                let from = (last + 1).saturating_sub(u64::from(*back)).max(committed + 1);
                let entries =
                    (from..from + u64::from(*count)).map(|index| entry(index, term, self.data(*bytes)));
                let call = Call::Append(entries.collect());
                self.call(&call);
            }
            Op::Vote { next_term, commit } => {
                let newest = self.told.newest();
                let mut vote = newest.hard_state.clone();
                vote.commit += between(newest.last_index() - vote.commit, *commit);
                if *next_term {
                    vote.term += 1;
                    vote.vote = 1 + vote.term % 3;
                }
                self.call(&Call::Vote(vote));
            }
            Op::Sync => self.call(&Call::Sync),
            Op::Compact { at, keep, bytes } => {
                let data = self.data(*bytes);
                if let Some(contents) = compacted(self.told.newest(), *at, *keep, data) {
                    self.call(&Call::Replace(Box::new(contents)));
                }
            }
            Op::Install { beyond, bytes } => {
                let data = self.data(*bytes);
                let newest = self.told.newest();
                let (index, term) = (newest.last_index() + u64::from(*beyond), newest.hard_state.term);
                let mut hard_state = newest.hard_state.clone();
                hard_state.commit = index;
                let snapshot = snapshot(index, term, data);
                let entries = Vec::new();
                let contents = Recovered { hard_state, snapshot, truncated: (index, term), entries };
                self.call(&Call::Replace(Box::new(contents)));
            }
            Op::Kill => self.start(End::Killed),
            Op::PowerLoss(seed) => {
                let loss = seed.map_or(PowerLoss::LosesAllUnsynced, |seed| PowerLoss::Tears { seed });
                self.memory.power_loss(loss);
                self.start(End::PowerLost);
            }
            Op::Rot { at, power_loss } => {
                let end = power_loss.map_or(End::Killed, |seed| {
                    self.memory.power_loss(PowerLoss::Tears { seed });
                    End::PowerLost
                });
                // What a replacement that failed has left may be current or not.
                if !self.failed {
                    self.refuses_rot(*at);
                }
                self.start(end);
            }
            Op::SyncsFail => {
                self.memory.set_sync_fails(true);
                self.syncs_fail = true;
            }
            Op::Fault { kind, call, stays } => self.arm(*kind, *call, *stays),
            Op::BadStart { kind, call, stays } => {
                self.memory.set_sync_fails(false);
                self.arm(*kind, *call, *stays);
                if let Err(error) = start(&self.disk) {
                    let fault = matches!(error, JournalError::Refused(_) | JournalError::Failed(_));
                    assert!(fault, "a disk that fails is not damage: {error}");
                }
                self.start(End::Killed);
            }
            Op::ForeignFill => {
                self.memory.take_all_bytes();
                self.memory.take_all_inodes();
                self.memory.set_greedy(true);
            }
            Op::Heal => {
                self.memory.set_greedy(false);
                self.memory.release();
                self.faults.reset();
            }
        }
    }

    /// A start on rot in what was synced.
    fn refuses_rot(&mut self, share: u16) {
        self.memory.set_sync_fails(false);
        self.faults.reset();
        let (path, _) = current(&self.disk);
        let file = self.disk.open(path, OpenMode::Write).expect("there");
        let at = header::BODY + (self.synced - 1) * u64::from(share) / u64::from(u16::MAX);
        let mut byte = [0; 1];
        file.read_at(&mut byte, at).expect("reads");
        file.write_at(&[byte[0] ^ 0x20], at).expect("rots");
        match start(&self.disk).err() {
            Some(JournalError::Damaged { file, .. }) => assert!(file.ends_with(path), "{file}"),
            other => panic!("rot at {at} of {path}: {other:?}"),
        }
        file.write_at(&byte, at).expect("is put back");
    }

    fn arm(&self, kind: FaultKind, call: u8, stays: bool) {
        let then = if stays { Then::StaysSo } else { Then::Works };
        self.faults.arm(Fault { kind, call: u64::from(call), then });
    }

    /// A start on a disk without faults, full or not.
    fn start(&mut self, end: End) {
        self.memory.set_sync_fails(false);
        self.faults.reset();
        let (journal, loaded) = start(&self.disk).unwrap_or_else(|error| panic!("{end:?}: {error}"));
        self.told.check(&loaded, end, "model");
        (self.journal, self.told) = (journal, Told::new(loaded));
        (self.failed, self.syncs_fail) = (false, false);
        self.synced = self.journal.fill().used;
    }

    fn call(&mut self, call: &Call) {
        let fill = self.journal.fill();
        match self.told.call(&mut self.journal, call) {
            Ok(()) => {
                assert!(!self.failed, "a journal that failed does nothing any more");
                if matches!(call, Call::Sync | Call::Replace(_)) {
                    self.synced = self.journal.fill().used;
                }
            }
            Err(JournalError::Failed(_)) => {
                let excused = self.failed || self.syncs_fail || !self.faults.fired().is_empty();
                assert!(excused, "nothing was made to fail");
                self.failed = true;
            }
            Err(JournalError::OutOfRoom { needed, room }) => {
                assert!(!self.failed && needed > room, "{needed} into {room}");
                match call {
                    Call::Append(entries) => {
                        let bytes: usize = entries.iter().map(|entry| entry.encoded_len()).sum();
                        let (count, bytes) = (entries.len() as u64, bytes as u64);
                        assert!(self.journal.cost(count, bytes) > fill.room(), "there was room");
                    }
                    Call::Replace(_) => {}
                    Call::Vote(_) | Call::Sync => panic!("votes have room of their own"),
                }
                assert_eq!(self.journal.fill(), fill);
            }
            Err(JournalError::Refused(error)) => {
                assert!(
                    !self.failed && !self.faults.fired().is_empty(),
                    "a full disk refuses nothing: {error}"
                );
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// This share of `whole`.
fn between(whole: u64, share: u8) -> u64 {
    whole * u64::from(share) / 255
}

/// A snapshot of what is committed. `None` when nothing is.
fn compacted(newest: &Recovered, at: u8, keep: u8, data: Vec<u8>) -> Option<Recovered> {
    let taken = newest.snapshot.get_metadata();
    let index = taken.index + between(newest.hard_state.commit - taken.index, at);
    let kept_after = newest.truncated.0 + between(index - newest.truncated.0, keep);
    let term = |at: u64| {
        let known = newest.entries.iter().find(|entry| entry.index == at).map(|entry| entry.term);
        known.unwrap_or(if at == taken.index { taken.term } else { newest.truncated.1 })
    };
    let entries = newest.entries.iter().filter(|entry| entry.index > kept_after).cloned().collect();
    (index > 0).then(|| Recovered {
        hard_state: newest.hard_state.clone(),
        snapshot: snapshot(index, term(index), data),
        truncated: (kept_after, term(kept_after)),
        entries,
    })
}

fn play(ops: &[Op]) {
    let mut world = World::new();
    for op in ops {
        world.step(op);
    }
    world.step(&Op::PowerLoss(Some(world.made)));
}

#[test]
fn random_operations_agree_with_the_model() {
    let cases = if in_full() { 6000 } else { 150 };
    let seed = seed();
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let outcome = runner.run(&ops(), |ops| {
        play(&ops);
        Ok(())
    });
    // The message holds the shortest list of operations that fails.
    assert!(
        outcome.is_ok(),
        "PLIMSOLL_SEED={seed} scripts/prove controller-journal\n{}",
        outcome.unwrap_err()
    );
    println!("CASES controller-journal model cases={cases} seed={seed}");
}
