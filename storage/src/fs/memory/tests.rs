use super::*;
use crate::fs::faulty::{Fault, FaultKind, FaultyDisk, Then};

const MIB: u64 = 1 << 20;

fn disk() -> MemoryDisk {
    MemoryDisk::new(MemoryDiskSettings::plain(MIB))
}

fn content(disk: &MemoryDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_power_loss_leaves_what_was_synced() {
    let disk = disk();
    disk.create_dir("d").unwrap();
    let file = disk.open("d/kept", OpenMode::CreateNew).unwrap();
    file.write_at(&[1; 5000], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir("").unwrap();
    disk.sync_dir("d").unwrap();
    file.write_at(&[2; 5000], 2000).unwrap();
    let lost = disk.open("d/lost", OpenMode::CreateNew).unwrap();
    lost.write_at(b"x", 0).unwrap();
    lost.sync_data().unwrap();
    let before = disk.mount_identity();
    disk.power_loss(PowerLoss::LosesAllUnsynced);
    assert_ne!(disk.mount_identity(), before);
    assert_eq!(content(&disk, "d/kept"), vec![1; 5000]);
    assert!(matches!(disk.open("d/lost", OpenMode::Read), Err(DiskError::NotFound { .. })), "no sync_dir");
    assert!(matches!(file.len(), Err(DiskError::VolumeFailed { .. })), "handles died with the power");
    drop((file, lost));
    assert_eq!(disk.available_bytes(), MIB - 8192);
}

#[test]
fn an_unlink_that_was_not_synced_comes_back_and_a_synced_one_does_not() {
    for synced in [false, true] {
        let disk = disk();
        let file = disk.open("f", OpenMode::CreateNew).unwrap();
        file.write_at(b"abc", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir("").unwrap();
        drop(file);
        disk.remove_file("f").unwrap();
        assert_eq!(disk.available_bytes(), MIB);
        if synced {
            disk.sync_dir("").unwrap();
        }
        disk.power_loss(PowerLoss::LosesAllUnsynced);
        assert_eq!(disk.open("f", OpenMode::Read).is_err(), synced);
    }
}

#[test]
fn a_file_made_and_unlinked_may_come_back_torn() {
    let mut back = 0;
    for seed in 0..20 {
        let disk = disk();
        let file = disk.open("f", OpenMode::CreateNew).unwrap();
        file.write_at(&[1; 5000], 0).unwrap();
        drop(file);
        disk.remove_file("f").unwrap();
        disk.power_loss(PowerLoss::Tears { seed });
        back += u32::from(disk.open("f", OpenMode::Write).is_ok());
    }
    assert!(back > 0 && back < 20);
}

#[test]
fn tearing_is_by_sector_and_by_seed() {
    let torn = |seed| {
        let disk = disk();
        let file = disk.open("f", OpenMode::CreateNew).unwrap();
        file.write_at(&[1; 8192], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(&[2; 8192], 0).unwrap();
        disk.power_loss(PowerLoss::Tears { seed });
        content(&disk, "f")
    };
    assert_eq!(torn(7), torn(7));
    let mut mixed = 0;
    for seed in 0..50 {
        let bytes = torn(seed);
        assert_eq!(bytes.len(), 8192);
        for sector in bytes.chunks(512) {
            assert!(sector.iter().all(|b| *b == sector[0]), "a sector is whole");
        }
        mixed += u32::from(bytes.contains(&1) && bytes.contains(&2));
    }
    assert!(mixed > 40);
}

#[test]
fn torn_lengths_lie_between_durable_and_live() {
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let disk = disk();
        let file = disk.open("f", OpenMode::CreateNew).unwrap();
        file.write_at(&[1; 100], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(&[2; 3000], 100).unwrap();
        disk.power_loss(PowerLoss::Tears { seed });
        let bytes = content(&disk, "f");
        assert!((100..=3100).contains(&bytes.len()));
        assert!(bytes.iter().take(100).all(|b| *b == 1), "what was synced stays");
        lengths.insert(bytes.len());
    }
    assert!(lengths.len() > 5);
}

#[test]
fn unlinked_files_keep_their_blocks_until_the_last_handle_closes() {
    let disk = disk();
    let file = disk.open("f", OpenMode::CreateNew).unwrap();
    file.write_at(&[1; 8192], 0).unwrap();
    disk.remove_file("f").unwrap();
    assert_eq!((disk.available_bytes(), disk.unlinked_open_bytes()), (MIB - 8192, 8192));
    drop(file);
    assert_eq!((disk.available_bytes(), disk.unlinked_open_bytes()), (MIB, 0));
}

#[test]
fn each_limit_has_its_cause() {
    type Change = fn(&mut MemoryDiskSettings);
    let cases: [(&str, DiskCause, Change); 3] = [
        ("quota", DiskCause::Quota, |s| s.quota_bytes = Some(8192)),
        ("size", DiskCause::Limit, |s| s.file_bytes_max = Some(8192)),
        ("capacity", DiskCause::Bytes, |s| s.capacity_bytes = 8192 + 4096 + 4095),
    ];
    for (name, cause, change) in cases {
        let disk = disk();
        disk.resize(|s| s.root_reserve_bytes = 4096);
        disk.resize(change);
        let file = disk.open("f", OpenMode::CreateNew).unwrap();
        let error = file.write_at(&[1; 10_000], 0).unwrap_err();
        assert_eq!(error, out_of_space(cause, "write", 8192), "{name}");
        assert_eq!(file.len().unwrap(), 8192);
        assert_eq!(file.allocate(8192, 1).unwrap_err(), out_of_space(cause, "allocate", 0), "{name}");
    }
}

#[test]
fn a_thin_device_takes_writes_and_fails_the_sync_then_is_read_only() {
    let disk = disk();
    disk.resize(|s| s.thin_bytes = Some(4096));
    let file = disk.open("f", OpenMode::CreateNew).unwrap();
    file.write_at(&[1; 8192], 0).unwrap();
    assert!(matches!(file.sync_data(), Err(DiskError::VolumeFailed { cause: FailureCause::SyncFailed, .. })));
    assert!(matches!(
        file.write_at(b"x", 0),
        Err(DiskError::VolumeFailed { cause: FailureCause::ReadOnlyFilesystem, .. })
    ));
}

#[test]
fn copy_on_write_needs_room_to_overwrite() {
    let disk = disk();
    disk.resize(|s| s.copy_on_write = true);
    let file = disk.open("f", OpenMode::CreateNew).unwrap();
    file.write_at(&[1; 4096], 0).unwrap();
    disk.take_all_bytes();
    assert!(!disk.reserves());
    assert!(file.write_at(&[2; 4096], 0).is_err());
    disk.release();
    file.write_at(&[2; 4096], 0).unwrap();
}

#[test]
fn a_greedy_writer_takes_what_is_given_back() {
    let disk = disk();
    let file = disk.open("f", OpenMode::CreateNew).unwrap();
    file.write_at(&[1; 65536], 0).unwrap();
    disk.set_greedy(true);
    file.set_len(0).unwrap();
    assert_eq!(disk.available_bytes(), 0);
    assert!(file.write_at(b"x", 0).is_err());
    assert!(disk.open("g", OpenMode::CreateNew).is_err());
}

#[test]
fn statvfs_can_lie_and_hang() {
    let disk = disk();
    let lie = SpaceSample { total_bytes: 1, available_bytes: 2, total_inodes: 0, available_inodes: 0 };
    disk.set_statvfs(StatvfsFault::Lies(lie));
    assert_eq!(disk.space().unwrap(), lie);
    disk.set_statvfs(StatvfsFault::Hangs);
    assert!(disk.hangs() && disk.space().is_err());
}

#[test]
fn the_kth_call_fails_once_or_from_then_on() {
    let (disk, faults) = FaultyDisk::new(std::sync::Arc::new(disk()));
    let scenario = |n: usize| {
        let file = disk.open(&format!("f{n}"), OpenMode::CreateNew)?;
        file.write_at(&[1; 100], 0)?;
        file.write_at(&[2; 100], 100)?;
        file.sync_data()
    };
    scenario(0).unwrap();
    assert_eq!(faults.calls(), 4);
    faults.arm(Fault { kind: FaultKind::ShortWrite, call: 2, then: Then::Works });
    assert_eq!(scenario(1).unwrap_err(), out_of_space(DiskCause::Bytes, "write", 50));
    scenario(2).unwrap();
    faults.arm(Fault { kind: FaultKind::NoSpace, call: 2, then: Then::StaysSo });
    assert!(scenario(3).is_err());
    assert!(scenario(4).is_err());
    faults.arm(Fault { kind: FaultKind::SyncIo, call: 2, then: Then::Works });
    scenario(5).unwrap();
    assert!(faults.fired().is_empty(), "a sync fault does not strike a write");
    faults.disarm();
    scenario(6).unwrap();
}
