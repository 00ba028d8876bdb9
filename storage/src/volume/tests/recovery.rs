//! Opening after damage.

use std::time::Duration;

use plimsoll_proto::ids::LeaderEpoch;
use proptest::prelude::*;

use super::world::*;
use crate::fs::memory::{MemoryDisk, MemoryDiskSettings, PowerLoss};
use crate::fs::{Disk, OpenMode};
use crate::log::ReadError;
use crate::volume::{DamagedRange, Volume};

const NOW: Duration = Duration::from_secs(1);

fn filled(records: u32) -> (MemoryDisk, Promises) {
    let disk = MemoryDisk::new(MemoryDiskSettings::plain(64 << 20));
    let (mut volume, _) = open(shared(&disk), NOW);
    volume.create_partition(partition(0), small_segments(), NOW).unwrap();
    let mut promises = Promises::default();
    for _ in 0..records {
        promises.produce(&mut volume, &partition(0), 1000, NOW).unwrap();
    }
    volume.close(WALL_MS).unwrap();
    (disk, promises)
}

fn dir() -> String {
    format!("partitions/{}", partition(0))
}

fn logs(disk: &MemoryDisk) -> Vec<String> {
    let names = disk.list(&dir()).unwrap().into_iter().map(|e| e.name);
    names.filter(|n| n.ends_with(".log")).map(|n| format!("{}/{n}", dir())).collect()
}

fn write(disk: &MemoryDisk, path: &str, at: u64, bytes: &[u8]) {
    disk.open(path, OpenMode::Write).unwrap().write_at(bytes, at).unwrap();
}

#[test]
fn garbage_behind_the_end_is_cut() {
    let (disk, promises) = filled(100);
    let last = logs(&disk).pop().unwrap();
    let end = disk.open(&last, OpenMode::Read).unwrap().len().unwrap();
    write(&disk, &last, end, &[0x5a; 700]);
    let (mut volume, report) = open(shared(&disk), NOW);
    assert_eq!(report.cut.len(), 1);
    assert_eq!((report.cut[0].bytes, report.cut[0].log_end), (700, offset(100)));
    promises.check(&mut volume, "cut");
    volume.append_as_leader(&partition(0), batch(&[b"v"], None), LeaderEpoch(1), NOW, WALL_MS).unwrap();
}

#[test]
fn a_whole_batch_behind_the_checkpoint_counts() {
    let (disk, mut promises) = filled(10);
    let (mut volume, _) = open(shared(&disk), NOW);
    promises.produce(&mut volume, &partition(0), 1000, NOW).unwrap();
    drop(volume);
    let (mut volume, report) = open(shared(&disk), NOW);
    assert!(report.cut.is_empty());
    promises.check(&mut volume, "behind the checkpoint");
    assert_eq!(volume.log(&partition(0)).unwrap().log_end, offset(11));
}

#[test]
fn rot_in_a_sealed_segment_is_found_on_reading_and_quarantined() {
    let (disk, _) = filled(300);
    let second = logs(&disk)[1].clone();
    write(&disk, &second, 0, &[0xff; 20]);
    let (mut volume, report) = open(shared(&disk), NOW);
    assert!(report.damaged.is_empty(), "verified lazily");
    let from = offset(second[dir().len() + 1..].trim_end_matches(".log").parse().unwrap());
    let read = volume.read(&partition(0), from, offset(300), 1000);
    let Err(ReadError::Damaged { from: first, to }) = read else { panic!("{read:?}") };
    assert_eq!(first, from);
    assert!(volume.log(&partition(0)).unwrap().damaged);
    assert!(volume.read(&partition(0), to, offset(300), 1000).is_ok());
    assert!(volume.read(&partition(0), offset(0), offset(300), 1000).is_ok());
}

#[test]
fn rot_before_the_durable_end_of_the_active_segment_keeps_the_log_end() {
    let (disk, _) = filled(100);
    let last = logs(&disk).pop().unwrap();
    let base: u64 = last[dir().len() + 1..].trim_end_matches(".log").parse().unwrap();
    let size = disk.open(&last, OpenMode::Read).unwrap().len().unwrap();
    // The header of the last batch; further back lies what a checkpoint vouches for and reading finds.
    write(&disk, &last, size - size / (100 - base), &[0xff; 20]);
    let (mut volume, report) = open(shared(&disk), NOW);
    let bad = offset(99);
    assert_eq!(report.damaged, [DamagedRange { partition: partition(0), from: bad, to: offset(100) }]);
    let view = volume.log(&partition(0)).unwrap();
    assert_eq!(view.log_end, offset(100));
    let appended =
        volume.append_as_leader(&partition(0), batch(&[b"v"], None), LeaderEpoch(1), NOW, WALL_MS).unwrap();
    assert_eq!(appended.base_offset, offset(100));
    assert!(volume.read(&partition(0), offset(100), offset(101), 1000).is_ok());
    assert!(matches!(volume.read(&partition(0), bad, offset(101), 1000), Err(ReadError::Damaged { .. })));
    drop(volume);
    let (mut volume, _) = open(shared(&disk), NOW);
    assert_eq!(volume.log(&partition(0)).unwrap().log_end, offset(101));
    volume.truncate_tail(&partition(0), bad).unwrap();
    assert_eq!(volume.log(&partition(0)).unwrap().log_end, bad, "refetch starts where the damage did");
    assert!(!volume.log(&partition(0)).unwrap().damaged);
}

#[test]
fn a_lost_tail_below_the_durable_end_is_reported_and_its_offsets_are_not_used_again() {
    let (disk, _) = filled(100);
    let last = logs(&disk).pop().unwrap();
    let file = disk.open(&last, OpenMode::Write).unwrap();
    file.set_len(file.len().unwrap() / 2).unwrap();
    drop(file);
    let (volume, report) = open(shared(&disk), NOW);
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(report.damaged[0].to, offset(100));
    assert_eq!(volume.log(&partition(0)).unwrap().log_end, offset(100));
}

#[test]
fn without_checkpoint_and_indexes_everything_is_found_by_scanning() {
    let (disk, promises) = filled(300);
    for entry in disk.list(&dir()).unwrap() {
        if !entry.name.ends_with(".log") {
            disk.remove_file(&format!("{}/{}", dir(), entry.name)).unwrap();
        }
    }
    let (mut volume, report) = open(shared(&disk), NOW);
    assert!(report.damaged.is_empty() && report.cut.is_empty(), "{report:?}");
    promises.check(&mut volume, "scanned");
    assert_eq!(volume.log(&partition(0)).unwrap().log_end, offset(300));
}

#[test]
fn unknown_entries_are_counted_and_left_alone() {
    let (disk, promises) = filled(10);
    let foreign = [format!("{}/README", dir()), "partitions/notes".to_owned()];
    for path in &foreign {
        disk.open(path, OpenMode::CreateNew).unwrap();
    }
    let (mut volume, report) = open(shared(&disk), NOW);
    assert_eq!(report.unknown_entries, 2);
    promises.check(&mut volume, "foreign files");
    volume.delete_partition(&partition(0)).unwrap();
    for path in &foreign {
        assert!(disk.open(path, OpenMode::Read).is_ok(), "{path}");
    }
}

#[test]
fn a_lost_page_cache_is_told_from_a_killed_process() {
    let (disk, _) = filled(10);
    let (volume, _) = open(shared(&disk), NOW);
    drop(volume);
    let (volume, report) = open(shared(&disk), NOW);
    assert!(!report.page_cache_lost && !report.clean);
    drop(volume);
    disk.power_loss(PowerLoss::LosesAllUnsynced);
    let (volume, report) = open(shared(&disk), NOW);
    assert!(report.page_cache_lost);
    volume.close(WALL_MS).unwrap();
    disk.power_loss(PowerLoss::LosesAllUnsynced);
    let (_, report) = open(shared(&disk), NOW);
    assert!(report.clean && !report.page_cache_lost);
}

#[test]
fn a_loss_is_told_by_every_start_until_somebody_knows() {
    let (disk, _) = filled(10);
    drop(open(shared(&disk), NOW));
    disk.power_loss(PowerLoss::LosesAllUnsynced);
    for how in ["killed", "closed in order", "killed"] {
        let (volume, report) = open(shared(&disk), NOW);
        assert!(report.loss_untold, "before the run that was {how}");
        if how == "killed" { drop(volume) } else { volume.close(WALL_MS).unwrap() }
    }
    let (mut volume, report) = open(shared(&disk), NOW);
    assert!(report.loss_untold && !report.page_cache_lost);
    volume.loss_told();
    volume.tick(NOW, WALL_MS, &crate::volume::ReplicaGuards::new());
    drop(volume);
    assert!(!open(shared(&disk), NOW).1.loss_untold);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any bytes in any of our files: opening, reading and writing end without a panic.
    #[test]
    fn arbitrary_damage_never_panics(
        edits in proptest::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), proptest::collection::vec(any::<u8>(), 1..40)),
            1..6,
        ),
        cut in proptest::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        let (disk, _) = filled(150);
        let files: Vec<String> = disk.list(&dir()).unwrap().into_iter().map(|e| format!("{}/{}", dir(), e.name)).collect();
        for (file, at, bytes) in edits {
            let path = &files[file.index(files.len())];
            let len = disk.open(path, OpenMode::Read).unwrap().len().unwrap();
            let at = at.index(usize::try_from(len).unwrap() + 1);
            write(&disk, path, u64::try_from(at).unwrap(), &bytes);
        }
        if let Some((file, at)) = cut {
            let file = disk.open(&files[file.index(files.len())], OpenMode::Write).unwrap();
            let len = usize::try_from(file.len().unwrap()).unwrap();
            file.set_len(u64::try_from(at.index(len + 1)).unwrap()).unwrap();
        }
        let (mut volume, _) = Volume::open(shared(&disk), settings(), NOW, WALL_MS).unwrap();
        for partition in volume.partitions() {
            let view = volume.log(&partition).unwrap();
            let mut from = view.log_start;
            while from < view.log_end {
                from = match volume.read(&partition, from, view.log_end, 4096) {
                    Ok(bytes) => plimsoll_proto::batch::iter_batches(&bytes).last().unwrap().unwrap().0.end_offset(),
                    Err(ReadError::Damaged { to, .. }) => to,
                    Err(other) => panic!("{other}"),
                };
            }
            let _ = volume.offset_at(&partition, 1000);
            let _ = volume.append_as_leader(&partition, batch(&[b"v"], Some((3, 0, 0))), LeaderEpoch(1), NOW, WALL_MS);
            volume.truncate_tail(&partition, offset(view.log_end.get() / 2)).unwrap();
            volume.trim_head(&partition, volume.log(&partition).unwrap().log_end).unwrap();
        }
        drop(volume);
        let _ = open(shared(&disk), NOW);
    }
}

/// Found by the simulation (seed 2012): the first segment came back empty, the next one did not, and the log seemed
/// to have been trimmed up to there.
#[test]
fn a_power_loss_never_moves_the_log_start() {
    for seed in 0..200 {
        let disk = MemoryDisk::new(MemoryDiskSettings::plain(64 << 20));
        let (mut volume, _) = open(shared(&disk), NOW);
        volume.create_partition(partition(0), small_segments(), NOW).unwrap();
        let mut promises = Promises::default();
        for _ in 0..200 {
            promises.produce(&mut volume, &partition(0), 1000, NOW).unwrap();
        }
        drop(volume);
        disk.power_loss(PowerLoss::Tears { seed });
        let (volume, report) = open(shared(&disk), NOW);
        assert!(report.damaged.is_empty(), "seed {seed}: {report:?}");
        if let Some(log) = volume.log(&partition(0)) {
            assert_eq!(log.log_start, offset(0), "seed {seed}");
        }
    }
}

/// Found by the simulation (seed 1014): a leader that never wrote in its epoch follows again, and its new leader
/// goes on with records of an older epoch.
#[test]
fn an_epoch_without_a_record_does_not_stop_a_follower() {
    let leads = MemoryDisk::new(MemoryDiskSettings::plain(64 << 20));
    let (mut leader, _) = open(shared(&leads), NOW);
    leader.create_partition(partition(0), small_segments(), NOW).unwrap();
    let mut promises = Promises::default();
    for _ in 0..2 {
        promises.produce(&mut leader, &partition(0), 100, NOW).unwrap();
    }
    let first = leader.read(&partition(0), offset(0), offset(1), 1).unwrap();
    let second = leader.read(&partition(0), offset(1), offset(2), 1).unwrap();

    let follows = MemoryDisk::new(MemoryDiskSettings::plain(64 << 20));
    let (mut follower, _) = open(shared(&follows), NOW);
    follower.create_partition(partition(0), small_segments(), NOW).unwrap();
    follower.append_as_follower(&partition(0), first, NOW, WALL_MS).unwrap();
    follower.note_epoch(&partition(0), LeaderEpoch(3), offset(1)).unwrap();
    follower.append_as_follower(&partition(0), second, NOW, WALL_MS).unwrap();
    let ends = Some((LeaderEpoch(1), offset(2)));
    assert_eq!(follower.epoch_end(&partition(0), LeaderEpoch(1)), ends);
    drop(follower);
    let (follower, _) = open(shared(&follows), NOW);
    assert_eq!(follower.epoch_end(&partition(0), LeaderEpoch(1)), ends);
}
