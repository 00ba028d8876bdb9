//! Proofs of the offsets area behind a volume: full disks, failing calls, crashes, cuts, and a model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{ClusterId, LeaderEpoch, Offset, PartitionId, SpuId, TopicId, VolumeId};
use proptest::prelude::*;

use super::{Change, GroupValue, OffsetValue, OffsetsError};
use crate::fs::SharedDisk;
use crate::fs::faulty::{Fault, FaultKind, FaultyDisk, Then};
use crate::fs::memory::{MemoryDisk, MemoryDiskSettings, PowerLoss};
use crate::log::{AppendError, FlushPolicy, LogSettings};
use crate::volume::{OpenReport, ReplicaGuards, Volume, VolumeSettings};

const WALL_MS: u64 = 1_700_000_000_000;
const AREA: PartitionId = PartitionId { topic_id: TopicId([9; 16]), index: 1 };
const KEYS: u32 = 5;

fn open(disk: SharedDisk) -> (Volume, OpenReport) {
    let settings = VolumeSettings::new(ClusterId([1; 16]), SpuId(3), VolumeId([2; 16]));
    Volume::open(disk, settings, Duration::from_millis(1), WALL_MS).unwrap()
}

fn create(volume: &mut Volume) {
    let settings =
        LogSettings { flush: FlushPolicy::Ack, offsets_area_bytes: Some(64 << 10), ..LogSettings::default() };
    volume.create_partition(AREA, settings, Duration::from_millis(1)).unwrap();
}

fn key(index: u32) -> PartitionId {
    PartitionId { topic_id: TopicId([7; 16]), index }
}

fn offset(n: u64) -> Offset {
    Offset::new(n).unwrap()
}

fn set(group: &str, index: u32, to: u64) -> Change {
    let value = OffsetValue {
        offset: offset(to),
        leader_epoch: LeaderEpoch(1),
        owner_epoch: 1,
        committed_ms: WALL_MS,
    };
    Change::Offset { group: group.to_owned(), partition: key(index), value: Some(value) }
}

fn found(volume: &Volume, index: u32) -> Option<u64> {
    volume.offsets(&AREA)?.offset("group", &key(index)).map(|value| value.offset.get())
}

/// What may be found of each key.
#[derive(Clone, Debug, Default)]
struct Promises {
    allowed: BTreeMap<u32, BTreeSet<Option<u64>>>,
}

impl Promises {
    /// Commits as a leader without followers does: append, sync, high watermark, trim.
    fn commit(&mut self, volume: &mut Volume, index: u32, to: u64) -> Result<(), OffsetsError> {
        let now = Duration::from_millis(to);
        let allowed = self.allowed.entry(index).or_insert_with(|| [None].into());
        match volume.commit_offsets(&AREA, &[set("group", index, to)], LeaderEpoch(1), now, WALL_MS + to) {
            Ok(_) => allowed.insert(Some(to)),
            Err(error @ OffsetsError::Append(AppendError::VolumeFailed { written: true, .. })) => {
                allowed.insert(Some(to));
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let failed = |_| OffsetsError::Append(AppendError::NotFound);
        let end = volume.sync(&AREA).map_err(failed)?;
        *allowed = [Some(to)].into();
        volume.set_high_watermark(&AREA, end);
        // Tried again after the next commit.
        let _ = volume.settle_offsets(&AREA);
        Ok(())
    }

    fn check(&self, volume: &Volume, what: &str) {
        for (index, allowed) in &self.allowed {
            let found = found(volume, *index);
            assert!(allowed.contains(&found), "{what}: key {index}: {found:?} of {allowed:?}");
        }
        let view = volume.log(&AREA).unwrap();
        assert!(view.bytes <= 64 << 10, "{what}");
    }
}

/// Many times the area in commits; stops at a dead disk.
fn live(volume: &mut Volume, rounds: u64) -> Promises {
    let mut promises = Promises::default();
    for round in 1..=rounds {
        for index in 0..KEYS {
            let _ = promises.commit(volume, index, round * 100 + u64::from(index));
        }
        let at = 20_000 * round;
        volume.tick(Duration::from_millis(at), WALL_MS + at, &ReplicaGuards::new());
    }
    promises
}

#[test]
fn a_foreign_writer_with_every_byte_and_inode_stops_no_commit() {
    let memory = MemoryDisk::new(MemoryDiskSettings::plain(8 << 20));
    let (mut volume, _) = open(Arc::new(memory.clone()));
    create(&mut volume);
    memory.set_greedy(true);
    memory.take_all_inodes();
    let now = Duration::from_secs(1);
    volume.observe(crate::space::Observation::Sample(crate::fs::Disk::space(&memory).unwrap()), now);
    assert_eq!(volume.level().level, DiskLevel::ReadOnly);
    let mut promises = Promises::default();
    // A minute of 1,000 commits a second.
    for n in 1..=60_000u64 {
        let index = u32::try_from(n % u64::from(KEYS)).unwrap();
        promises.commit(&mut volume, index, n).unwrap_or_else(|error| panic!("commit {n}: {error}"));
    }
    promises.check(&volume, "full");
    let starts = volume.log(&AREA).unwrap().log_start;
    assert!(starts > offset(50_000), "the log was compacted: it starts at {starts}");
    drop(volume);
    let (mut volume, report) = open(Arc::new(memory.clone()));
    assert!(report.damaged.is_empty() && report.failed.is_empty(), "{report:?}");
    promises.check(&volume, "opened without a free byte");
    promises.commit(&mut volume, 0, 99_999).unwrap();
    promises.check(&volume, "and committed");
}

#[test]
fn a_key_beyond_the_area_is_refused_and_known_keys_go_on() {
    let memory = MemoryDisk::new(MemoryDiskSettings::plain(8 << 20));
    let (mut volume, _) = open(Arc::new(memory));
    create(&mut volume);
    let mut commit = |index, to| {
        let done = volume.commit_offsets(&AREA, &[set("g", index, to)], LeaderEpoch(1), Duration::ZERO, 1);
        let end = volume.sync(&AREA).unwrap();
        volume.set_high_watermark(&AREA, end);
        volume.settle_offsets(&AREA).unwrap();
        done
    };
    let full = (0..10_000).find(|index| commit(*index, 1).is_err()).unwrap();
    assert!(full > 100, "{full} keys");
    assert!(matches!(commit(full, 2), Err(OffsetsError::Full { .. })));
    for round in 0..20u64 {
        for index in 0..full {
            commit(index, round).unwrap_or_else(|error| panic!("{round} {index}: {error}"));
        }
    }
    // Room comes back with a deletion.
    let gone = Change::Offset { group: "g".to_owned(), partition: key(0), value: None };
    volume.commit_offsets(&AREA, &[gone], LeaderEpoch(1), Duration::ZERO, 1).unwrap();
    volume.commit_offsets(&AREA, &[set("g", full, 1)], LeaderEpoch(1), Duration::ZERO, 1).unwrap();
}

#[test]
fn a_former_owner_is_fenced_and_groups_are_kept() {
    let memory = MemoryDisk::new(MemoryDiskSettings::plain(8 << 20));
    let (mut volume, _) = open(Arc::new(memory));
    create(&mut volume);
    let mut owned = |owner_epoch| {
        let Change::Offset { group, partition, value } = set("g", 0, owner_epoch) else { unreachable!() };
        let value = value.map(|value| OffsetValue { owner_epoch, ..value });
        let change = Change::Offset { group, partition, value };
        volume.commit_offsets(&AREA, &[change], LeaderEpoch(1), Duration::ZERO, 1)
    };
    owned(5).unwrap();
    assert_eq!(owned(4), Err(OffsetsError::Fenced { partition: key(0) }));
    owned(5).unwrap();
    owned(6).unwrap();
    let value = GroupValue { has_members: true, changed_ms: 3, session_ms: 9 };
    let change = Change::Group { group: "g".to_owned(), value: Some(value) };
    volume.commit_offsets(&AREA, &[change], LeaderEpoch(1), Duration::ZERO, 1).unwrap();
    assert_eq!(volume.offsets(&AREA).unwrap().group("g").unwrap().group, Some(value));
}

const ROUNDS: u64 = 60;

fn prepared() -> (MemoryDisk, SharedDisk, crate::fs::faulty::Faults, Volume) {
    let memory = MemoryDisk::new(MemoryDiskSettings::plain(8 << 20));
    let (disk, faults) = FaultyDisk::new(Arc::new(memory.clone()));
    let disk: SharedDisk = Arc::new(disk);
    let (mut volume, _) = open(Arc::clone(&disk));
    create(&mut volume);
    (memory, disk, faults, volume)
}

fn in_full() -> bool {
    std::env::var_os("PLIMSOLL_PROVE_FULL").is_some()
}

/// Every call of a few compactions; in a quick run every third.
fn calls_to_try() -> impl Iterator<Item = u64> {
    let (_, _, faults, mut volume) = prepared();
    faults.reset();
    live(&mut volume, ROUNDS);
    assert!(volume.log(&AREA).unwrap().log_start > Offset::ZERO, "compacted at least once");
    let calls = faults.calls();
    let step = if in_full() { 1 } else { 3 };
    (1..=calls).step_by(step)
}

#[test]
fn a_process_or_a_machine_that_dies_at_any_call_loses_no_commit() {
    let mut cases = 0;
    for call in calls_to_try() {
        let losses = [None, Some(PowerLoss::LosesAllUnsynced), Some(PowerLoss::Tears { seed: call })];
        for loss in losses {
            let (memory, disk, faults, mut volume) = prepared();
            faults.arm(Fault { kind: FaultKind::Dead, call, then: Then::StaysSo });
            let mut promises = live(&mut volume, ROUNDS);
            faults.disarm();
            drop(volume);
            if let Some(loss) = loss {
                memory.power_loss(loss);
            }
            let what = format!("dead from call {call}, {loss:?}");
            let (mut volume, report) = open(Arc::clone(&disk));
            assert!(report.damaged.is_empty() && report.failed.is_empty(), "{what}: {report:?}");
            promises.check(&volume, &what);
            for index in 0..KEYS {
                promises.commit(&mut volume, index, 1_000_000).unwrap();
            }
            drop(volume);
            memory.power_loss(PowerLoss::LosesAllUnsynced);
            let (volume, _) = open(disk);
            promises.check(&volume, &format!("{what}, and once more"));
            cases += 1;
        }
    }
    println!("CASES offsets crash cases={cases}");
}

#[test]
fn no_failing_call_loses_a_commit_or_shows_a_refused_one() {
    let mut cases = 0;
    for call in calls_to_try() {
        for kind in FaultKind::ALL {
            let (memory, disk, faults, mut volume) = prepared();
            faults.arm(Fault { kind, call, then: Then::Works });
            let promises = live(&mut volume, ROUNDS);
            let fired = faults.fired();
            faults.disarm();
            let what = format!("{kind:?} at call {call}: {fired:?}");
            drop(volume);
            memory.power_loss(PowerLoss::LosesAllUnsynced);
            let (volume, report) = open(disk);
            assert!(report.failed.is_empty(), "{what}: {report:?}");
            promises.check(&volume, &what);
            cases += u64::from(!fired.is_empty());
        }
    }
    println!("CASES offsets full-disk cases={cases}");
    assert!(cases > 300);
}

#[test]
fn making_it_may_be_cut_off_at_any_call_and_works_later() {
    for kind in [FaultKind::NoSpace, FaultKind::SyncIo, FaultKind::Dead] {
        for call in 1..40 {
            let memory = MemoryDisk::new(MemoryDiskSettings::plain(8 << 20));
            let (disk, faults) = FaultyDisk::new(Arc::new(memory.clone()));
            let disk: SharedDisk = Arc::new(disk);
            let (mut volume, _) = open(Arc::clone(&disk));
            faults.arm(Fault { kind, call, then: Then::StaysSo });
            let settings = LogSettings { offsets_area_bytes: Some(64 << 10), ..LogSettings::default() };
            let _ = volume.create_partition(AREA, settings, Duration::from_millis(1));
            faults.disarm();
            drop(volume);
            memory.power_loss(PowerLoss::Tears { seed: call });
            let (mut volume, report) = open(disk);
            assert!(report.failed.is_empty(), "{kind:?} {call}: {report:?}");
            create(&mut volume);
            Promises::default().commit(&mut volume, 0, 7).unwrap();
            assert!(volume.delete_partition(&AREA).unwrap() > 0);
            assert!(volume.log(&AREA).is_none());
        }
    }
}

#[test]
fn damage_below_the_durable_end_is_told() {
    let memory = MemoryDisk::new(MemoryDiskSettings::plain(8 << 20));
    let (mut volume, _) = open(Arc::new(memory.clone()));
    create(&mut volume);
    live(&mut volume, 10);
    volume.close(WALL_MS).unwrap();
    let path = format!("partitions/{AREA}/offsets-area");
    let file = crate::fs::Disk::open(&memory, &path, crate::fs::OpenMode::Write).unwrap();
    file.write_at(&[0xff; 16], 900).unwrap();
    let (volume, report) = open(Arc::new(memory));
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    assert!(volume.log(&AREA).unwrap().damaged);
}

#[derive(Clone, Debug)]
enum Action {
    Commit { index: u32 },
    Settle,
    Cut { back: u64 },
    Restart,
    Reopen { power_loss: bool },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        20 => (0..40u32).prop_map(|index| Action::Commit { index }),
        3 => Just(Action::Settle),
        2 => (0..6u64).prop_map(|back| Action::Cut { back }),
        1 => Just(Action::Restart),
        2 => any::<bool>().prop_map(|power_loss| Action::Reopen { power_loss }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A leader and a follower that copies it: the follower's table is the leader's, whatever was cut, trimmed,
    /// restarted and lost on the way, and both fit into the area.
    #[test]
    fn a_follower_has_what_its_leader_has(actions in proptest::collection::vec(action(), 1..400)) {
        let (leader_disk, follower_disk) = (
            MemoryDisk::new(MemoryDiskSettings::plain(8 << 20)),
            MemoryDisk::new(MemoryDiskSettings::plain(8 << 20)),
        );
        let (mut leader, _) = open(Arc::new(leader_disk.clone()));
        let (mut follower, _) = open(Arc::new(follower_disk.clone()));
        create(&mut leader);
        create(&mut follower);
        let mut epoch = 1;
        let mut n = 0;
        for action in actions {
            match action {
                Action::Commit { index } => {
                    for _ in 0..8 {
                        n += 1;
                        let change = set("some-group-with-a-long-name", index, n);
                        let now = Duration::from_millis(n);
                        match leader.commit_offsets(&AREA, &[change], LeaderEpoch(epoch), now, n) {
                            // Nothing is settled any more: there is a limit to what may wait.
                            Ok(_) | Err(OffsetsError::Busy) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    leader.sync(&AREA).unwrap();
                    copy(&mut leader, &mut follower);
                }
                Action::Settle => {
                    let end = leader.log(&AREA).unwrap().log_end;
                    leader.set_high_watermark(&AREA, end);
                    leader.settle_offsets(&AREA).unwrap();
                }
                Action::Cut { back } => {
                    let view = leader.log(&AREA).unwrap();
                    let to = view.log_end.get().saturating_sub(back).max(view.high_watermark.get());
                    for volume in [&mut leader, &mut follower] {
                        volume.truncate_tail(&AREA, offset(to)).unwrap();
                    }
                    epoch += 1;
                }
                Action::Restart => {
                    let to = offset(follower.log(&AREA).unwrap().log_end.get() + 1);
                    // As after a long absence: a log that starts where the leader's does.
                    follower.trim_head(&AREA, to).unwrap();
                    follower.delete_partition(&AREA).unwrap();
                    create(&mut follower);
                    let start = leader.log(&AREA).unwrap().log_start;
                    follower.trim_head(&AREA, start).unwrap();
                    copy(&mut leader, &mut follower);
                }
                Action::Reopen { power_loss } => {
                    drop(follower);
                    if power_loss {
                        follower_disk.power_loss(PowerLoss::LosesAllUnsynced);
                    }
                    let (again, report) = open(Arc::new(follower_disk.clone()));
                    prop_assert!(report.damaged.is_empty() && report.failed.is_empty(), "{:?}", report);
                    follower = again;
                    copy(&mut leader, &mut follower);
                }
            }
            let (mine, theirs) = (leader.log(&AREA).unwrap(), follower.log(&AREA).unwrap());
            prop_assert_eq!(mine.log_end, theirs.log_end);
            prop_assert_eq!(leader.offsets(&AREA), follower.offsets(&AREA));
        }
    }
}

/// As the follower's worker does: first the leader's ends, then its batches, then a sync.
fn copy(leader: &mut Volume, follower: &mut Volume) {
    loop {
        let view = leader.log(&AREA).unwrap();
        let from = follower.log(&AREA).unwrap().log_end;
        follower.set_high_watermark(&AREA, view.high_watermark);
        follower.trim_head(&AREA, view.log_start.min(follower.log(&AREA).unwrap().high_watermark)).unwrap();
        if from >= view.log_end {
            follower.sync(&AREA).unwrap();
            return;
        }
        let batches = leader.read(&AREA, from, view.log_end, 4096).unwrap();
        follower.append_as_follower(&AREA, batches, Duration::ZERO, 1).unwrap();
    }
}
