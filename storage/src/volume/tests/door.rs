//! What a volume makes of single answers of the disk.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use plimsoll_proto::disk::{DiskCause, DiskLevel};
use plimsoll_proto::ids::LeaderEpoch;

use super::world::*;
use crate::fs::classify::Operation;
use crate::fs::faulty::{Fault, FaultKind, Faults, FaultyDisk, Then};
use crate::fs::memory::{MemoryDisk, MemoryDiskSettings};
use crate::fs::{Disk, DiskError, OpenMode};
use crate::log::AppendError;
use crate::space::Observation;
use crate::volume::{ReplicaGuards, Volume};

const NOW: Duration = Duration::from_secs(2);

fn fresh() -> (MemoryDisk, Faults, Volume) {
    let memory = MemoryDisk::new(MemoryDiskSettings::plain(64 << 20));
    let (disk, faults) = FaultyDisk::new(shared(&memory));
    let (mut volume, _) = open(Arc::new(disk), NOW);
    volume.create_partition(partition(0), small_segments(), NOW).unwrap();
    (memory, faults, volume)
}

fn append(volume: &mut Volume, batch: BytesMut) -> Result<crate::log::Appended, AppendError> {
    volume.append_as_leader(&partition(0), batch, LeaderEpoch(1), NOW, WALL_MS)
}

/// Samples and ticks for two seconds, a minute later.
fn recover(volume: &mut Volume, memory: &MemoryDisk) {
    for step in 1..=40 {
        let at = NOW + Duration::from_secs(60) + Duration::from_millis(50) * step;
        volume.observe(Observation::Sample(memory.space().unwrap()), at);
        volume.tick(at, WALL_MS, &ReplicaGuards::new());
    }
    assert!(volume.level().level < DiskLevel::ReadOnly, "{:?}", volume.level());
}

/// The kernel tells of a page that it could not write once and then counts it as clean: a second sync would
/// succeed without the data.
#[test]
fn a_sync_that_fails_once_is_not_tried_again() {
    let mut struck = 0;
    for call in 1..=4 {
        let (_memory, faults, mut volume) = fresh();
        append(&mut volume, batch(&[b"v"], None)).unwrap();
        faults.arm(Fault { kind: FaultKind::SyncIo, call, then: Then::Works });
        let synced = volume.sync(&partition(0));
        if faults.fired().is_empty() {
            continue;
        }
        struck += 1;
        assert!(matches!(synced, Err(DiskError::VolumeFailed { .. })), "{synced:?}");
        let view = volume.log(&partition(0)).unwrap();
        assert_eq!((view.durable_end, view.sync_failed), (offset(0), true));
        assert_eq!(volume.level().level, DiskLevel::Failed);
        assert!(volume.sync(&partition(0)).is_err());
        let trace = faults.trace();
        let syncs = trace.iter().filter(|(operation, path)| {
            matches!(operation, Operation::Sync | Operation::SyncDir) && path.starts_with("partitions/")
        });
        assert_eq!(syncs.count(), 1, "{trace:?}");
    }
    assert!(struck > 0);
}

#[test]
fn a_short_write_is_cut_before_its_refusal_is_told() {
    let path = format!("partitions/{}/{:020}.log", partition(0), 0);
    let length = |memory: &MemoryDisk| memory.open(&path, OpenMode::Read).unwrap().len().unwrap();
    let mut struck = 0;
    for call in 1..=6 {
        let (memory, faults, mut volume) = fresh();
        append(&mut volume, batch(&[b"first"], None)).unwrap();
        let before = length(&memory);
        faults.arm(Fault { kind: FaultKind::ShortWrite, call, then: Then::Works });
        let refused = append(&mut volume, batch(&[&[b'v'; 5000]], None));
        if faults.fired().is_empty() {
            continue;
        }
        struck += 1;
        assert!(matches!(refused, Err(AppendError::OutOfSpace { level: DiskLevel::ReadOnly, .. })));
        assert_eq!(length(&memory), before);
        recover(&mut volume, &memory);
        let next = append(&mut volume, batch(&[b"second"], None)).unwrap();
        assert_eq!(next.base_offset, offset(1));
        assert_eq!(length(&memory), volume.log(&partition(0)).unwrap().bytes);
    }
    assert!(struck > 0);
}

/// Blocks are had before the first byte is written: while a foreign writer takes all that is free, it is the
/// allocation that is refused, never the write.
#[test]
fn a_full_disk_is_met_by_the_allocation_and_never_by_the_write() {
    let (memory, faults, mut volume) = fresh();
    append(&mut volume, batch(&[b"v"], None)).unwrap();
    memory.set_greedy(true);
    faults.reset();
    let refused = loop {
        match append(&mut volume, batch(&[&[b'v'; 5000]], None)) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::OutOfSpace { .. }), "{refused:?}");
    let trace = faults.trace();
    let last =
        trace.iter().rfind(|(operation, _)| matches!(operation, Operation::Write | Operation::Allocate));
    assert!(matches!(last, Some((Operation::Allocate, _))), "{trace:?}");
}

#[test]
fn a_refusal_consumes_no_sequence_and_what_follows_does_not_overtake_it() {
    let (memory, _, mut volume) = fresh();
    append(&mut volume, batch(&[b"0"], Some((9, 0, 0)))).unwrap();
    memory.set_greedy(true);
    let big = vec![b'v'; 100_000];
    // Until the blocks that were had already are used up.
    let mut sequence = 1;
    while let Ok(appended) = append(&mut volume, batch(&[&big], Some((9, 0, sequence)))) {
        assert!(!appended.duplicate);
        sequence += 1;
    }
    memory.set_greedy(false);
    memory.release();
    recover(&mut volume, &memory);
    let overtaking = append(&mut volume, batch(&[b"next"], Some((9, 0, sequence + 1))));
    assert!(matches!(overtaking, Err(AppendError::OutOfOrderSequence { .. })), "{overtaking:?}");
    let resent = append(&mut volume, batch(&[&big], Some((9, 0, sequence)))).unwrap();
    assert!(!resent.duplicate);
    append(&mut volume, batch(&[b"next"], Some((9, 0, sequence + 1)))).unwrap();
}

/// The trial repeats what failed: a small file would pass at once, and the next append be refused again.
#[test]
fn a_limit_on_the_size_of_files_holds_until_it_is_lifted() {
    let (memory, _, mut volume) = fresh();
    memory.resize(|s| s.file_bytes_max = Some(20_480));
    let value = vec![b'v'; 6000];
    let refused = loop {
        match append(&mut volume, batch(&[&value], None)) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let is_limit = |error: &AppendError| {
        matches!(error, AppendError::OutOfSpace { cause: DiskCause::Limit, level: DiskLevel::ReadOnly, .. })
    };
    assert!(is_limit(&refused), "{refused:?}");
    let end = volume.log(&partition(0)).unwrap().log_end;
    assert_eq!(end, offset(3));
    for step in 1..=100 {
        let at = NOW + Duration::from_millis(50) * step;
        volume.observe(Observation::Sample(memory.space().unwrap()), at);
        assert_eq!(volume.level().level, DiskLevel::ReadOnly);
    }
    memory.resize(|s| s.file_bytes_max = None);
    recover(&mut volume, &memory);
    assert_eq!(append(&mut volume, batch(&[&value], None)).unwrap().base_offset, end);
}

/// Bytes of a file that somebody holds open are not free when its name is gone.
#[test]
fn readers_are_closed_before_a_segment_is_unlinked() {
    let (memory, _, mut volume) = fresh();
    let mut promises = Promises::default();
    for _ in 0..300 {
        promises.produce(&mut volume, &partition(0), 1000, NOW).unwrap();
    }
    assert_eq!(read_all(&mut volume, &partition(0), None).len(), 300);
    let before = memory.available_bytes();
    let freed = volume.trim_head(&partition(0), offset(150)).unwrap();
    assert_eq!(memory.unlinked_open_bytes(), 0);
    assert!(freed > 100_000 && memory.available_bytes() >= before + freed);
}

/// Whole segments go; of the one that is appended to, nothing does.
#[test]
fn a_head_is_trimmed_within_the_active_segment_without_losing_the_rest() {
    let (_memory, _, mut volume) = fresh();
    let mut promises = Promises::default();
    for _ in 0..10 {
        promises.produce(&mut volume, &partition(0), 100, NOW).unwrap();
    }
    for to in [1, 5, 9] {
        assert_eq!(volume.trim_head(&partition(0), offset(to)), Ok(0));
        promises.check(&mut volume, "trimmed");
        assert_eq!(volume.log(&partition(0)).unwrap().log_start, offset(to));
    }
    assert_eq!(read_all(&mut volume, &partition(0), None).len(), 1);
}
