//! What a volume does when nothing is wrong.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use plimsoll_proto::batch::{BatchError, Sequence, iter_batches};
use plimsoll_proto::ids::{LeaderEpoch, SpuId};

use super::world::*;
use crate::fs::memory::{MemoryDisk, MemoryDiskSettings};
use crate::log::{AppendError, LogSettings, ReadError};
use crate::volume::{OpenError, Volume, VolumeSettings};

const NOW: Duration = Duration::from_secs(10);

fn fresh() -> (MemoryDisk, Volume) {
    let disk = MemoryDisk::new(MemoryDiskSettings::plain(64 << 20));
    let (mut volume, report) = open(shared(&disk), NOW);
    assert!(report.created);
    volume.create_partition(partition(0), small_segments(), NOW).unwrap();
    (disk, volume)
}

fn append(volume: &mut Volume, batch: BytesMut, epoch: u32) -> Result<crate::log::Appended, AppendError> {
    volume.append_as_leader(&partition(0), batch, LeaderEpoch(epoch), NOW, WALL_MS)
}

#[test]
fn what_is_appended_is_read_across_segments_and_reopening() {
    let (disk, mut volume) = fresh();
    let mut promises = Promises::default();
    for _ in 0..300 {
        promises.produce(&mut volume, &partition(0), 1000, NOW).unwrap();
    }
    assert!(volume.log(&partition(0)).unwrap().segments > 3);
    promises.check(&mut volume, "live");
    let before = volume.log(&partition(0)).unwrap();
    volume.close(WALL_MS).unwrap();
    assert_eq!(disk.open_handles(), 0);
    let (mut volume, report) = open(shared(&disk), NOW);
    assert!(report.clean && !report.page_cache_lost && report.cut.is_empty(), "{report:?}");
    promises.check(&mut volume, "reopened");
    let after = volume.log(&partition(0)).unwrap();
    assert_eq!((after.log_end, after.segments), (before.log_end, before.segments));
    assert_eq!(after.durable_end, after.log_end);
}

#[test]
fn a_read_never_cuts_a_batch_and_gives_one_that_is_larger_whole() {
    let (_disk, mut volume) = fresh();
    let big = vec![b'b'; 30_000];
    for values in [&[&b"a"[..], b"b", b"c"][..], &[&big], &[b"d"]] {
        append(&mut volume, batch(values, None), 1).unwrap();
    }
    let mut read = |from, limit, max_bytes| {
        let bytes = volume.read(&partition(0), offset(from), offset(limit), max_bytes).unwrap();
        iter_batches(&bytes).map(|b| b.unwrap().0.base_offset.get()).collect::<Vec<_>>()
    };
    assert_eq!(read(0, 5, 1), [0]);
    assert_eq!(read(0, 5, 200), [0]);
    assert_eq!(read(1, 5, 1 << 20), [0, 3, 4], "the batch that holds the offset comes whole");
    assert_eq!(read(3, 5, 10), [3]);
    assert_eq!(read(0, 4, 1 << 20), [0, 3]);
    assert_eq!(read(0, 2, 1 << 20), [] as [u64; 0], "no batch that ends beyond the limit");
    assert_eq!(read(5, 5, 100), [] as [u64; 0]);
    let beyond = volume.read(&partition(0), offset(6), offset(9), 100);
    assert!(matches!(beyond, Err(ReadError::OffsetNotAvailable { .. })));
}

#[test]
fn a_duplicate_gets_its_offset_and_a_gap_is_refused_also_after_reopening() {
    let (disk, mut volume) = fresh();
    for i in 0..4 {
        append(&mut volume, batch(&[b"v"], Some((5, 0, i))), 1).unwrap();
    }
    let gap = |result| {
        assert_eq!(result, Err(AppendError::OutOfOrderSequence { expected: Sequence::from_i32(4).unwrap() }))
    };
    gap(append(&mut volume, batch(&[b"v"], Some((5, 0, 9))), 1));
    drop(volume);
    let (mut volume, report) = open(shared(&disk), NOW);
    assert!(!report.clean);
    gap(append(&mut volume, batch(&[b"v"], Some((5, 0, 9))), 1));
    let again = append(&mut volume, batch(&[b"v"], Some((5, 0, 2))), 1).unwrap();
    assert!(again.duplicate);
    assert_eq!((again.base_offset, again.log_end), (offset(2), offset(4)));
    append(&mut volume, batch(&[b"v"], Some((5, 0, 4))), 1).unwrap();
    let fenced = {
        append(&mut volume, batch(&[b"v"], Some((5, 1, 0))), 1).unwrap();
        append(&mut volume, batch(&[b"v"], Some((5, 0, 5))), 1)
    };
    assert_eq!(fenced, Err(AppendError::ProducerFenced));
}

#[test]
fn bad_batches_change_nothing() {
    let (_disk, mut volume) = fresh();
    let good = batch(&[b"v"], None);
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(matches!(
        append(&mut volume, flipped, 1),
        Err(AppendError::Corrupt(BatchError::Checksum { .. }))
    ));
    let mut longer = good.clone();
    longer.extend_from_slice(b"x");
    assert!(matches!(
        append(&mut volume, longer, 1),
        Err(AppendError::Corrupt(BatchError::TrailingBytes { .. }))
    ));
    let huge = vec![0u8; 2 << 20];
    assert_eq!(append(&mut volume, batch(&[&huge], None), 1), Err(AppendError::TooLarge { limit: 1 << 20 }));
    append(&mut volume, good.clone(), 4).unwrap();
    let stale = AppendError::StaleEpoch { given: LeaderEpoch(3), current: LeaderEpoch(4) };
    assert_eq!(append(&mut volume, good.clone(), 3), Err(stale));
    let missing = volume.append_as_leader(&partition(9), good, LeaderEpoch(1), NOW, WALL_MS);
    assert_eq!(missing, Err(AppendError::NotFound));
    assert_eq!(volume.log(&partition(0)).unwrap().log_end, offset(1));
}

#[test]
fn a_follower_copies_byte_for_byte_and_only_what_continues_its_log() {
    let (_disk, mut leader) = fresh();
    let (_other, mut follower) = fresh();
    for i in 0..50 {
        append(&mut leader, batch(&[b"v"], Some((5, 0, i))), 1 + u32::try_from(i).unwrap() / 20).unwrap();
    }
    let all = leader.read(&partition(0), offset(0), offset(50), 1 << 20).unwrap();
    let copied = follower.append_as_follower(&partition(0), all.clone(), NOW, WALL_MS).unwrap();
    assert_eq!(copied.log_end, offset(50));
    assert_eq!(follower.read(&partition(0), offset(0), offset(50), 1 << 20).unwrap(), all);
    let again = follower.append_as_follower(&partition(0), all.clone(), NOW, WALL_MS);
    assert!(matches!(again, Err(AppendError::NotContiguous { .. })));
    let cut = follower.append_as_follower(&partition(0), all.slice(..all.len() - 1), NOW, WALL_MS);
    assert!(matches!(cut, Err(AppendError::Corrupt(_))));
    let end = follower.log(&partition(0)).unwrap().log_end;
    append(&mut leader, batch(&[b"v"], None), 3).unwrap();
    let mut flipped = BytesMut::from(&leader.read(&partition(0), end, offset(51), 1 << 20).unwrap()[..]);
    *flipped.last_mut().unwrap() ^= 1;
    let flipped = follower.append_as_follower(&partition(0), flipped.freeze(), NOW, WALL_MS);
    assert!(matches!(flipped, Err(AppendError::Corrupt(BatchError::Checksum { .. }))), "{flipped:?}");
    leader.truncate_tail(&partition(0), end).unwrap();
    for volume in [&leader, &follower] {
        assert_eq!(volume.epoch_end(&partition(0), LeaderEpoch(1)), Some((LeaderEpoch(1), offset(20))));
        assert_eq!(volume.epoch_end(&partition(0), LeaderEpoch(3)), Some((LeaderEpoch(3), offset(50))));
        assert_eq!(volume.epoch_end(&partition(0), LeaderEpoch(4)), None);
    }
    let duplicate = append(&mut follower, batch(&[b"v"], Some((5, 0, 48))), 4).unwrap();
    assert!(duplicate.duplicate, "the state of producers travels with the log");
}

#[test]
fn heads_are_trimmed_by_segment_and_reads_below_say_where_to_go_on() {
    let (disk, mut volume) = fresh();
    let mut promises = Promises::default();
    for _ in 0..300 {
        promises.produce(&mut volume, &partition(0), 1000, NOW).unwrap();
    }
    let before = disk.available_bytes();
    let freed = volume.trim_head(&partition(0), offset(150)).unwrap();
    assert!(freed >= 100_000);
    assert!(disk.available_bytes() >= before + 100_000);
    let view = volume.log(&partition(0)).unwrap();
    assert_eq!((view.log_start, view.high_watermark), (offset(150), offset(150)));
    let read = volume.read(&partition(0), offset(10), offset(300), 1000);
    assert_eq!(trimmed(read), Some(offset(150)));
    promises.check(&mut volume, "trimmed");
    drop(volume);
    let (mut volume, _) = open(shared(&disk), NOW);
    assert_eq!(volume.log(&partition(0)).unwrap().log_start, offset(150));
    promises.check(&mut volume, "trimmed and reopened");
    // All of it, then beyond the end.
    volume.trim_head(&partition(0), offset(300)).unwrap();
    assert_eq!(volume.log(&partition(0)).unwrap().bytes, 0);
    promises.produce(&mut volume, &partition(0), 100, NOW).unwrap();
    volume.trim_head(&partition(0), offset(1000)).unwrap();
    let appended = promises.produce(&mut volume, &partition(0), 100, NOW).unwrap();
    assert_eq!(appended.base_offset, offset(1000));
    promises.check(&mut volume, "restarted");
    drop(volume);
    let (mut volume, report) = open(shared(&disk), NOW);
    assert!(report.damaged.is_empty(), "{report:?}");
    promises.check(&mut volume, "restarted and reopened");
}

#[test]
fn tails_are_truncated_and_sequences_come_back() {
    let (disk, mut volume) = fresh();
    let pad = vec![b'p'; 1000];
    for i in 0..300 {
        append(&mut volume, batch(&[&pad], Some((5, 0, i))), 1).unwrap();
    }
    for cut in [295, 120] {
        volume.truncate_tail(&partition(0), offset(cut)).unwrap();
        assert_eq!(volume.log(&partition(0)).unwrap().log_end, offset(cut));
        let next = i32::try_from(cut).unwrap();
        let duplicate = append(&mut volume, batch(&[&pad], Some((5, 0, next - 1))), 1).unwrap();
        assert!(duplicate.duplicate, "cut at {cut}");
        append(&mut volume, batch(&[&pad], Some((5, 0, next))), 2).unwrap();
        assert_eq!(volume.epoch_end(&partition(0), LeaderEpoch(1)), Some((LeaderEpoch(1), offset(cut))));
        volume.truncate_tail(&partition(0), offset(cut)).unwrap();
    }
    assert_eq!(read_all(&mut volume, &partition(0), None).len(), 120);
    drop(volume);
    let (mut volume, report) = open(shared(&disk), NOW);
    assert!(report.damaged.is_empty(), "{report:?}");
    assert_eq!(read_all(&mut volume, &partition(0), None).len(), 120);
}

#[test]
fn offsets_are_found_by_timestamp() {
    let (_disk, mut volume) = fresh();
    let mut builder_at = 0;
    for i in 0..200u32 {
        let mut builder = plimsoll_proto::batch::BatchBuilder::new(plimsoll_proto::batch::Compression::Zstd);
        for j in 0..3 {
            let record = plimsoll_proto::batch::NewRecord {
                value: Some(&[b'v'; 900]),
                timestamp_ms: i64::from(i * 30 + j * 10),
                ..Default::default()
            };
            builder.push(&record).unwrap();
            builder_at += 1;
        }
        append(&mut volume, builder.build().unwrap(), 1).unwrap();
    }
    assert_eq!(builder_at, 600);
    for (timestamp, found) in [
        (-5, Some(0)),
        (0, Some(0)),
        (1, Some(1)),
        (10, Some(1)),
        (3333, Some(334)),
        (5990, Some(599)),
        (5991, None),
    ] {
        assert_eq!(volume.offset_at(&partition(0), timestamp).unwrap(), found.map(offset), "{timestamp}");
    }
}

#[test]
fn a_deleted_partition_is_gone_and_can_be_made_again() {
    let (disk, mut volume) = fresh();
    append(&mut volume, batch(&[b"v"], None), 1).unwrap();
    assert!(volume.delete_partition(&partition(0)).unwrap() > 0);
    assert_eq!(volume.delete_partition(&partition(0)), Ok(0));
    assert!(volume.partitions().is_empty());
    volume.create_partition(partition(0), LogSettings::default(), NOW).unwrap();
    assert_eq!(volume.log(&partition(0)).unwrap().log_end, offset(0));
    drop(volume);
    let (volume, _) = open(shared(&disk), NOW);
    assert_eq!(volume.partitions(), [partition(0)]);
}

#[test]
fn a_directory_has_one_owner() {
    let (disk, volume) = fresh();
    let second = Volume::open(shared(&disk), settings(), NOW, WALL_MS);
    assert!(matches!(second, Err(OpenError::Locked { .. })));
    drop(volume);
    let foreign = VolumeSettings { spu_id: SpuId(99), ..settings() };
    let foreign = Volume::open(shared(&disk), foreign, NOW, WALL_MS);
    assert!(matches!(foreign, Err(OpenError::ForeignIdentity { found_spu: SpuId(3), .. })));
    assert!(open(shared(&disk), NOW).1.failed.is_empty());
}

#[test]
fn an_empty_follow_is_refused() {
    let (_disk, mut volume) = fresh();
    let nothing = volume.append_as_follower(&partition(0), Bytes::new(), NOW, WALL_MS);
    assert!(matches!(nothing, Err(AppendError::Corrupt(_))));
}
