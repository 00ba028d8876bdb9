//! A data directory that somebody empties while it is in use.

use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::LeaderEpoch;

use super::world::*;
use crate::fs::memory::{MemoryDisk, MemoryDiskSettings};
use crate::fs::{Disk, FailureCause};
use crate::log::AppendError;
use crate::volume::{LOCK_FILE, RebuildError, ReplicaGuards, Volume, VolumeEvent};

const NOW: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(100);

fn world() -> (MemoryDisk, Volume, Promises) {
    let disk = MemoryDisk::new(MemoryDiskSettings::plain(64 << 20));
    let (mut volume, _) = open(shared(&disk), NOW);
    volume.create_partition(partition(0), small_segments(), NOW).unwrap();
    let mut promises = Promises::default();
    for _ in 0..10 {
        promises.produce(&mut volume, &partition(0), 1000, NOW).unwrap();
    }
    volume.sync(&partition(0)).unwrap();
    (disk, volume, promises)
}

/// `rm -rf dir/*`
fn remove_all(disk: &MemoryDisk, dir: &str) {
    for entry in disk.list(dir).unwrap() {
        let path = if dir.is_empty() { entry.name } else { format!("{dir}/{}", entry.name) };
        if entry.is_dir {
            remove_all(disk, &path);
            disk.remove_dir(&path).unwrap();
        } else {
            disk.remove_file(&path).unwrap();
        }
    }
}

fn sample(volume: &mut Volume, at: Duration) -> Vec<VolumeEvent> {
    let measured = volume.sampler().sample();
    volume.observe_measured(measured, at)
}

#[test]
fn the_next_sample_tells_and_nothing_is_taken_or_put_there_any_more() {
    let (disk, mut volume, promises) = world();
    assert!(sample(&mut volume, NOW).is_empty());
    remove_all(&disk, "");
    let events = sample(&mut volume, NOW);
    assert!(events.contains(&VolumeEvent::Failed { cause: FailureCause::Vanished }), "{events:?}");
    assert_eq!(volume.level().level, DiskLevel::Failed);
    assert_eq!(volume.facts().failure, Some(FailureCause::Vanished));
    let refused = volume.append_as_leader(&partition(0), batch(&[b"v"], None), LeaderEpoch(1), NOW, WALL_MS);
    assert!(matches!(refused, Err(AppendError::VolumeFailed { written: false, .. })), "{refused:?}");
    promises.check(&mut volume, "open files give what is in them");
    volume.tick(LATER, WALL_MS, &ReplicaGuards::new());
    assert!(matches!(volume.rebuild(LATER, WALL_MS), Err(RebuildError::Gone(_))));
    volume.close(WALL_MS).unwrap_err();
    assert_eq!(
        disk.list("").unwrap(),
        [],
        "an identity there would make the next start trust an empty volume"
    );
    let (fresh, report) = open(shared(&disk), LATER);
    assert!(report.created);
    assert_eq!(fresh.partitions(), []);
}

#[test]
fn closed_before_it_was_noticed_it_leaves_nothing_that_passes_for_it() {
    let (disk, volume, _) = world();
    remove_all(&disk, "");
    volume.close(WALL_MS).unwrap_err();
    assert_eq!(disk.list("").unwrap(), []);
}

#[test]
fn a_removed_lock_ends_it_too_and_the_next_start_finds_everything() {
    let (disk, mut volume, promises) = world();
    disk.remove_file(LOCK_FILE).unwrap();
    sample(&mut volume, NOW);
    assert_eq!(
        volume.facts().failure,
        Some(FailureCause::Vanished),
        "another process may take the directory"
    );
    assert!(matches!(volume.rebuild(LATER, WALL_MS), Err(RebuildError::Gone(_))));
    drop(volume);
    let (mut volume, report) = open(shared(&disk), LATER);
    assert!(!report.created);
    promises.check(&mut volume, "after a start");
}
