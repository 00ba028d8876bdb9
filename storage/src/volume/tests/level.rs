//! A volume that fills, refuses, reclaims, starts full and comes back.

use std::time::Duration;

use plimsoll_proto::disk::{DiskCause, DiskLevel, WriteClass};
use plimsoll_proto::ids::LeaderEpoch;

use super::world::*;
use crate::fs::memory::{MemoryDisk, MemoryDiskSettings, PowerLoss};
use crate::fs::{Disk, DiskError, FailureCause};
use crate::log::{AppendError, LogSettings, OnPressure};
use crate::space::{Observation, Verdict};
use crate::volume::{ReplicaGuard, ReplicaGuards, Volume, VolumeEvent, VolumeSettings};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn world(capacity: u64) -> (MemoryDisk, Volume) {
    let disk = MemoryDisk::new(MemoryDiskSettings::plain(capacity));
    let (mut volume, _) = open(shared(&disk), s(1));
    for index in 0..2 {
        volume.create_partition(partition(index), small_segments(), s(1)).unwrap();
    }
    (disk, volume)
}

fn sample(volume: &mut Volume, disk: &MemoryDisk, at: Duration) -> Vec<VolumeEvent> {
    volume.observe(Observation::Sample(disk.space().unwrap()), at)
}

/// Samples every 50 ms until the level is reached; returns how long it took.
fn settle(volume: &mut Volume, disk: &MemoryDisk, from: Duration, level: DiskLevel) -> Duration {
    for step in 0..200u32 {
        let at = from + Duration::from_millis(50) * step;
        sample(volume, disk, at);
        volume.tick(at, WALL_MS, &ReplicaGuards::new());
        if volume.level().level == level {
            return at - from;
        }
    }
    panic!("{level} is never reached: {:?}", volume.level());
}

fn produce(volume: &mut Volume, at: Duration) -> Result<crate::log::Appended, AppendError> {
    volume.append_as_leader(&partition(0), batch(&[&[b'v'; 1000]], None), LeaderEpoch(1), at, WALL_MS)
}

#[test]
fn a_foreign_fill_refuses_at_once_and_room_readmits_within_two_seconds() {
    let (disk, mut volume) = world(64 << 20);
    produce(&mut volume, s(2)).unwrap();
    assert!(volume.facts().preallocated_bytes > 0);
    disk.take_all_bytes();
    let events = sample(&mut volume, &disk, s(3));
    assert!(
        events.iter().any(|e| matches!(e, VolumeEvent::LevelChanged { to: DiskLevel::ReadOnly, .. })),
        "{events:?}"
    );
    assert_eq!(volume.facts().preallocated_bytes, 0, "given back");
    let refused = produce(&mut volume, s(3));
    assert!(
        matches!(refused, Err(AppendError::OutOfSpace { level: DiskLevel::ReadOnly, .. })),
        "{refused:?}"
    );
    assert!(matches!(volume.admit(WriteClass::Produce, 1000, Duration::ZERO, s(3)), Verdict::Refuse { .. }));
    assert_eq!(read_all(&mut volume, &partition(0), None).len(), 1);
    disk.release();
    let took = settle(&mut volume, &disk, s(4), DiskLevel::Normal);
    assert!(took <= s(2), "{took:?}");
    produce(&mut volume, s(7)).unwrap();
}

#[test]
fn a_real_enospc_changes_the_level_in_the_same_call_and_nothing_is_written() {
    let (disk, mut volume) = world(64 << 20);
    while volume.facts().preallocated_bytes > 4096 || volume.log(&partition(0)).unwrap().log_end == offset(0)
    {
        produce(&mut volume, s(2)).unwrap();
    }
    disk.set_greedy(true);
    let mut acked = volume.log(&partition(0)).unwrap().log_end;
    let refused = loop {
        match produce(&mut volume, s(2)) {
            Ok(appended) => acked = appended.log_end,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            refused,
            AppendError::OutOfSpace { cause: DiskCause::Bytes, level: DiskLevel::ReadOnly, .. }
        ),
        "{refused:?}"
    );
    assert_eq!(volume.log(&partition(0)).unwrap().log_end, acked);
    let events = volume.take_events();
    assert!(events.iter().any(|e| matches!(e, VolumeEvent::LevelChanged { to: DiskLevel::ReadOnly, .. })));
    disk.set_greedy(false);
    disk.release();
    settle(&mut volume, &disk, s(3), DiskLevel::Normal);
    assert_eq!(produce(&mut volume, s(5)).unwrap().base_offset, acked);
}

#[test]
fn at_zero_bytes_and_inodes_it_starts_reads_trims_truncates_deletes_and_closes() {
    for clean in [true, false] {
        let (disk, mut volume) = world(64 << 20);
        for _ in 0..200 {
            produce(&mut volume, s(2)).unwrap();
        }
        if clean {
            volume.close(WALL_MS).unwrap();
        } else {
            drop(volume);
        }
        disk.set_greedy(true);
        disk.take_all_bytes();
        disk.take_all_inodes();
        let (mut volume, report) = open(shared(&disk), s(3));
        assert!(report.failed.is_empty() && report.damaged.is_empty(), "{report:?}");
        assert_eq!(volume.level().level, DiskLevel::ReadOnly);
        assert_eq!(read_all(&mut volume, &partition(0), None).len(), 200);
        assert!(matches!(produce(&mut volume, s(3)), Err(AppendError::OutOfSpace { .. })));
        volume.set_high_watermark(&partition(0), offset(200));
        volume.trim_head(&partition(0), offset(100)).unwrap();
        volume.truncate_tail(&partition(0), offset(150)).unwrap();
        assert_eq!(read_all(&mut volume, &partition(0), None).len(), 50);
        volume.trim_head(&partition(0), offset(150)).unwrap();
        assert_eq!(volume.log(&partition(0)).unwrap().bytes, 0);
        volume.sync(&partition(0)).unwrap();
        assert!(volume.delete_partition(&partition(1)).unwrap() > 0);
        volume.close(WALL_MS).unwrap();
        disk.set_greedy(false);
        disk.release();
        let (mut volume, report) = open(shared(&disk), s(4));
        assert!(report.clean, "{report:?}");
        assert_eq!(volume.partitions(), [partition(0)]);
        settle(&mut volume, &disk, s(4), DiskLevel::Normal);
        assert_eq!(produce(&mut volume, s(9)).unwrap().base_offset, offset(150));
    }
}

#[test]
fn pressure_frees_what_retention_allows_before_anything_is_refused() {
    let (disk, mut volume) = world(16 << 20);
    let settings = LogSettings { retention_bytes_max: Some(200_000), ..small_segments() };
    volume.configure(&partition(0), settings);
    volume.tick(s(2), WALL_MS, &ReplicaGuards::new());
    for _ in 0..5000 {
        let appended = produce(&mut volume, s(2)).unwrap();
        volume.set_high_watermark(&partition(0), appended.log_end);
    }
    // The interval is not over: nothing goes without pressure.
    assert!(volume.tick(s(3), WALL_MS, &ReplicaGuards::new()).is_empty());
    let left = disk.available_bytes();
    disk.take_bytes(left - (2 << 20));
    sample(&mut volume, &disk, s(4));
    assert!(volume.level().level >= DiskLevel::Reclaim);
    assert!(volume.reclaim_due());
    let verdict = volume.admit(WriteClass::Produce, 1000, Duration::ZERO, s(4));
    assert!(!matches!(verdict, Verdict::Refuse { .. }), "{verdict:?}");
    let events = volume.tick(s(4), WALL_MS, &ReplicaGuards::new());
    assert!(events.iter().any(|e| matches!(e, VolumeEvent::Reclaimed { .. })), "{events:?}");
    assert!(volume.log(&partition(0)).unwrap().bytes < 300_000);
    assert_eq!(volume.level().level, DiskLevel::Normal, "seen at once");
}

#[test]
fn unexpired_data_goes_only_where_the_topic_allows_it() {
    let (disk, mut volume) = world(16 << 20);
    let settings =
        LogSettings { on_pressure: OnPressure::Trim, min_retention: Duration::ZERO, ..small_segments() };
    volume.configure(&partition(0), settings);
    for index in 0..2 {
        for _ in 0..2000 {
            let batch = batch(&[&[b'v'; 1000]], None);
            let at =
                volume.append_as_leader(&partition(index), batch, LeaderEpoch(1), s(2), WALL_MS).unwrap();
            volume.set_high_watermark(&partition(index), at.log_end);
        }
    }
    disk.take_bytes(disk.available_bytes() - (2 << 20));
    sample(&mut volume, &disk, s(4));
    volume.tick(s(4), WALL_MS, &ReplicaGuards::new());
    assert_eq!(volume.log(&partition(0)).unwrap().log_start, offset(0), "only a leader trims");
    let guard = ReplicaGuard { leads: true, group_floor: Some(offset(500)), ..ReplicaGuard::default() };
    let guards = ReplicaGuards::from([(partition(0), guard), (partition(1), guard)]);
    sample(&mut volume, &disk, s(5));
    volume.tick(s(5), WALL_MS, &guards);
    let starts: Vec<u64> = (0..2).map(|i| volume.log(&partition(i)).unwrap().log_start.get()).collect();
    assert!(starts[0] > 300 && starts[0] <= 500, "{starts:?}");
    assert_eq!(starts[1], 0, "on_pressure = refuse keeps everything");
}

#[test]
fn what_groups_have_not_read_goes_only_where_the_topic_says_so() {
    let (disk, mut volume) = world(16 << 20);
    let kept = LogSettings { min_retention: Duration::ZERO, ..small_segments() };
    let policies = [OnPressure::Trim, OnPressure::TrimPastActiveGroups];
    for (index, on_pressure) in (0..).zip(policies) {
        volume.configure(&partition(index), LogSettings { on_pressure, ..kept.clone() });
        for _ in 0..2000 {
            let batch = batch(&[&[b'v'; 1000]], None);
            let at =
                volume.append_as_leader(&partition(index), batch, LeaderEpoch(1), s(2), WALL_MS).unwrap();
            volume.set_high_watermark(&partition(index), at.log_end);
        }
    }
    disk.take_bytes(disk.available_bytes() - (2 << 20));
    sample(&mut volume, &disk, s(4));
    let guard = ReplicaGuard { leads: true, group_floor: Some(offset(0)), ..ReplicaGuard::default() };
    volume.tick(s(4), WALL_MS, &ReplicaGuards::from([(partition(0), guard), (partition(1), guard)]));
    let start = |index| volume.log(&partition(index)).unwrap().log_start;
    assert_eq!(start(0), offset(0), "a group has still to read it");
    assert!(start(1) > offset(0), "the oldest went, whoever has to read it");
}

#[test]
fn an_unconfigured_log_is_never_trimmed() {
    let (disk, mut volume) = world(16 << 20);
    for _ in 0..500 {
        let at = produce(&mut volume, s(2)).unwrap();
        volume.set_high_watermark(&partition(0), at.log_end);
    }
    volume.close(WALL_MS).unwrap();
    let much_later = WALL_MS + 400 * 24 * 3600 * 1000;
    let (mut volume, _) = Volume::open(shared(&disk), settings(), s(3), much_later).unwrap();
    assert!(volume.tick(s(3), much_later, &ReplicaGuards::new()).is_empty());
    volume.configure(&partition(0), LogSettings::default());
    volume.set_time_trusted(true);
    let later = s(3) + settings().retention_interval;
    let events = volume.tick(later, much_later, &ReplicaGuards::new());
    assert!(!events.is_empty());
    assert_eq!(volume.log(&partition(0)).unwrap().log_start, offset(500));
}

#[test]
fn a_failed_sync_is_final_and_says_so() {
    let (disk, mut volume) = world(64 << 20);
    produce(&mut volume, s(2)).unwrap();
    assert_eq!(volume.sync(&partition(0)), Ok(offset(1)));
    produce(&mut volume, s(2)).unwrap();
    disk.set_sync_fails(true);
    let failed = volume.sync(&partition(0));
    assert!(matches!(failed, Err(DiskError::VolumeFailed { cause: FailureCause::SyncFailed, .. })));
    disk.set_sync_fails(false);
    assert!(volume.sync(&partition(0)).is_err(), "never tried again");
    let view = volume.log(&partition(0)).unwrap();
    assert!(view.sync_failed);
    assert_eq!(view.durable_end, offset(1));
    assert!(matches!(produce(&mut volume, s(3)), Err(AppendError::VolumeFailed { written: false, .. })));
    assert_eq!(volume.facts().failure, Some(FailureCause::SyncFailed));
    let events = volume.tick(s(4), WALL_MS, &ReplicaGuards::new());
    assert!(events.contains(&VolumeEvent::Failed { cause: FailureCause::SyncFailed }));
    assert_eq!(read_all(&mut volume, &partition(0), None).len(), 2, "the last copy stays readable");
    volume.truncate_tail(&partition(0), offset(1)).unwrap();
    assert!(!volume.log(&partition(0)).unwrap().sync_failed);
}

#[test]
fn a_run_that_ended_failed_trusts_nothing_above_the_durable_end() {
    for (name, synced_anew, kept) in [("power fails at once", false, 1), ("synced before", true, 2)] {
        let (disk, mut volume) = world(64 << 20);
        produce(&mut volume, s(2)).unwrap();
        assert_eq!(volume.sync(&partition(0)), Ok(offset(1)));
        produce(&mut volume, s(2)).unwrap();
        disk.set_sync_fails(true);
        assert!(volume.sync(&partition(0)).is_err());
        // The process ends; the page cache shows everything still, also the mark.
        drop(volume);
        disk.set_sync_fails(false);
        for again in 0..2 {
            let (volume, report) = open(shared(&disk), s(3));
            assert!(report.device_failed && report.page_cache_lost, "{name}, start {again}");
            assert!(!report.clean);
            drop(volume);
        }
        let (mut volume, _) = open(shared(&disk), s(4));
        let view = volume.log(&partition(0)).unwrap();
        // The durable end is that of the last checkpoint, which may be older than the last good sync.
        assert!(view.durable_end <= offset(1));
        assert_eq!((view.log_end, view.sync_failed), (offset(2), false));
        if synced_anew {
            assert_eq!(volume.sync(&partition(0)), Ok(offset(2)));
            volume.tick(s(5), WALL_MS, &ReplicaGuards::new());
            drop(volume);
            let (again, report) = open(shared(&disk), s(6));
            assert!(!report.device_failed && !report.page_cache_lost, "{name}");
            drop(again);
        } else {
            drop(volume);
        }
        disk.power_loss(PowerLoss::LosesAllUnsynced);
        let (mut volume, _) = open(shared(&disk), s(7));
        assert_eq!(read_all(&mut volume, &partition(0), None).len(), kept, "{name}");
    }
}

#[test]
fn a_byte_limit_counts_like_a_small_disk() {
    let disk = MemoryDisk::new(MemoryDiskSettings::plain(256 << 20));
    let limited = VolumeSettings { byte_limit: Some(16 << 20), ..settings() };
    let (mut volume, _) = Volume::open(shared(&disk), limited, s(1), WALL_MS).unwrap();
    volume.create_partition(partition(0), small_segments(), s(1)).unwrap();
    let refused = (0..100_000u32).find_map(|i| {
        let at = s(1) + Duration::from_millis(u64::from(i));
        if i % 50 == 0 {
            sample(&mut volume, &disk, at);
        }
        produce(&mut volume, at).err()
    });
    let limit = matches!(refused, Some(AppendError::OutOfSpace { cause: DiskCause::Limit, .. }));
    assert!(limit, "{refused:?}");
    assert!(disk.available_bytes() > 230 << 20);
}

#[test]
fn without_inodes_the_active_segment_goes_on_past_its_roll_size() {
    let (disk, mut volume) = world(64 << 20);
    disk.take_all_inodes();
    for i in 0..1000u64 {
        produce(&mut volume, s(2) + Duration::from_millis(i * 10)).unwrap();
    }
    // Four rolls came from the spares of the physical reserve, then there were none.
    assert_eq!(volume.log(&partition(0)).unwrap().segments, 5);
    disk.release();
    for i in 0..200u64 {
        produce(&mut volume, s(20) + Duration::from_millis(i * 10)).unwrap();
    }
    assert!(volume.log(&partition(0)).unwrap().segments > 5);
    assert_eq!(read_all(&mut volume, &partition(0), None).len(), 1200);
    drop(volume);
    let (mut volume, _) = open(shared(&disk), s(30));
    assert_eq!(read_all(&mut volume, &partition(0), None).len(), 1200);
}
