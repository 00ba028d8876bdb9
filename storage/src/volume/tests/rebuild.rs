//! A failed volume that comes back without a start of the process.

use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::LeaderEpoch;

use super::world::*;
use crate::fs::memory::{MemoryDisk, MemoryDiskSettings, PowerLoss};
use crate::log::AppendError;
use crate::volume::{RebuildError, ReplicaGuards, Volume, VolumeEvent};

const NOW: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(100);

/// Ten records that are synced, five that are not, and a sync that failed.
fn failed() -> (MemoryDisk, Volume, Promises) {
    let disk = MemoryDisk::new(MemoryDiskSettings::plain(64 << 20));
    let (mut volume, _) = open(shared(&disk), NOW);
    volume.create_partition(partition(0), small_segments(), NOW).unwrap();
    let mut promises = Promises::default();
    for _ in 0..10 {
        promises.produce(&mut volume, &partition(0), 1000, NOW).unwrap();
    }
    volume.sync(&partition(0)).unwrap();
    for _ in 0..5 {
        promises.produce(&mut volume, &partition(0), 1000, NOW).unwrap();
    }
    disk.set_sync_fails(true);
    volume.sync(&partition(0)).unwrap_err();
    assert_eq!(volume.level().level, DiskLevel::Failed);
    (disk, volume, promises)
}

#[test]
fn while_the_device_fails_the_volume_stays_failed_and_can_be_read() {
    let (_, mut volume, promises) = failed();
    assert_eq!(volume.rebuild(LATER, WALL_MS), Err(RebuildError::NotNoted));
    assert_eq!(volume.level().level, DiskLevel::Failed);
    promises.check(&mut volume, "read");
    let refused =
        volume.append_as_leader(&partition(0), batch(&[b"v"], None), LeaderEpoch(1), LATER, WALL_MS);
    assert!(matches!(refused, Err(AppendError::VolumeFailed { written: false, .. })));
}

#[test]
fn a_device_that_works_again_is_one_whose_page_cache_was_lost() {
    let (disk, mut volume, promises) = failed();
    disk.set_sync_fails(false);
    let report = volume.rebuild(LATER, WALL_MS).unwrap();
    assert!(report.device_failed && report.page_cache_lost && report.loss_untold, "{report:?}");
    let view = volume.log(&partition(0)).unwrap();
    assert!(view.durable_end <= offset(10) && !view.sync_failed, "as the last checkpoint says: {view:?}");
    assert!(volume.take_events().iter().any(|event| matches!(
        event,
        VolumeEvent::LevelChanged { from: DiskLevel::Failed, to: DiskLevel::Normal, .. }
    )));
    promises.check(&mut volume, "what the cache had is there until it is cut by its leader");
    // A crash before the next sync takes what no sync covers, and only that.
    disk.power_loss(PowerLoss::LosesAllUnsynced);
    drop(volume);
    let (volume, report) = open(shared(&disk), LATER);
    assert!(report.loss_untold, "nobody was told yet");
    assert_eq!(volume.log(&partition(0)).unwrap().log_end, offset(10));
}

#[test]
fn what_was_uncertain_is_durable_after_the_next_sync() {
    let (disk, mut volume, mut promises) = failed();
    disk.set_sync_fails(false);
    volume.rebuild(LATER, WALL_MS).unwrap();
    promises.produce(&mut volume, &partition(0), 1000, LATER).unwrap();
    assert_eq!(volume.sync(&partition(0)), Ok(offset(16)));
    volume.loss_told();
    volume.tick(LATER, WALL_MS, &ReplicaGuards::new());
    drop(volume);
    disk.power_loss(PowerLoss::LosesAllUnsynced);
    let (mut volume, _) = open(shared(&disk), LATER);
    assert_eq!(volume.log(&partition(0)).unwrap().log_end, offset(16));
    promises.check(&mut volume, "after a power loss");
}

#[test]
fn it_fails_again_and_comes_back_again_and_a_sampler_goes_on() {
    let (disk, mut volume, mut promises) = failed();
    let sampler = volume.sampler();
    let before = sampler.sample();
    for round in 1..4u32 {
        disk.set_sync_fails(false);
        let now = LATER * round;
        volume.rebuild(now, WALL_MS).unwrap();
        volume.observe_measured(before.clone(), now);
        promises.produce(&mut volume, &partition(0), 1000, now).unwrap();
        volume.observe_measured(sampler.sample(), now);
        assert_eq!(volume.level().level, DiskLevel::Normal, "round {round}");
        disk.set_sync_fails(true);
        volume.sync(&partition(0)).unwrap_err();
        assert_eq!(volume.level().level, DiskLevel::Failed, "round {round}");
    }
    promises.check(&mut volume, "read");
}
