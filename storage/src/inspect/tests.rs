use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::records as oracle;
use plimsoll_proto::batch::{BatchBuilder, Compression, NewRecord, ProducerSequence, Sequence};
use plimsoll_proto::ids::{
    ClusterId, LeaderEpoch, PartitionId, ProducerEpoch, ProducerId, SpuId, TopicId, VolumeId,
};

use super::*;
use crate::fs::OpenMode;
use crate::fs::memory::{MemoryDisk, MemoryDiskSettings};
use crate::log::LogSettings;
use crate::offsets::{Change, OffsetValue};
use crate::segment::path_of;
use crate::volume::{Volume, VolumeSettings};

const NOW: Duration = Duration::from_secs(1);
const WALL_MS: u64 = 1_700_000_000_000;
const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn partition() -> PartitionId {
    PartitionId { topic_id: TopicId([7; 16]), index: 3 }
}

fn dir() -> String {
    format!("partitions/{}", partition())
}

/// A closed volume whose one log has several segments, of batches of every kind.
fn written() -> MemoryDisk {
    let disk = MemoryDisk::new(MemoryDiskSettings::plain(64 << 20));
    let settings = VolumeSettings::new(ClusterId([1; 16]), SpuId(3), VolumeId([2; 16]));
    let (mut volume, _) = Volume::open(Arc::new(disk.clone()), settings, NOW, WALL_MS).unwrap();
    let small = LogSettings { segment_bytes_max: 64 * 1024, ..LogSettings::default() };
    volume.create_partition(partition(), small, NOW).unwrap();
    let mut sequence = Sequence::ZERO;
    for number in 0..400u32 {
        let codec = CODECS[usize::try_from(number % 5).unwrap()];
        let mut builder = BatchBuilder::new(codec);
        let count = 1 + number % 3;
        for record in 0..count {
            // Hardly compressible, so that the segments fill.
            let value: Vec<u8> =
                (0..700u32).map(|i| ((i * i * (number * 3 + record + 1)) >> 7).to_le_bytes()[0]).collect();
            let headers: [(&str, Option<&[u8]>); 2] = [("first", Some(b"1")), ("none", None)];
            builder
                .push(&NewRecord {
                    key: (record == 0).then_some(&b"key"[..]),
                    value: (number % 7 != 0).then_some(&value[..]),
                    headers: &headers[..usize::try_from(record).unwrap().min(2)],
                    timestamp_ms: i64::from(number * 100 + record),
                })
                .unwrap();
        }
        if number % 2 == 0 {
            let (id, epoch) = (ProducerId(9), ProducerEpoch(1));
            builder.set_producer(Some(ProducerSequence { id, epoch, base: sequence }));
            sequence = sequence.advance(count);
        }
        let epoch = LeaderEpoch(1 + number / 150);
        volume.append_as_leader(&partition(), builder.build().unwrap(), epoch, NOW, WALL_MS).unwrap();
    }
    volume.close(WALL_MS).unwrap();
    disk
}

fn the_log(disk: &MemoryDisk) -> LogFiles {
    let logs = find_logs(disk).unwrap();
    assert_eq!(logs.len(), 1);
    assert_eq!(logs[0].partition, Some(partition()));
    logs[0].clone()
}

fn content(disk: &MemoryDisk, path: &str) -> Bytes {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    bytes.into()
}

fn change(disk: &MemoryDisk, path: &str, at: u64, to: &[u8]) {
    disk.open(path, OpenMode::Write).unwrap().write_at(to, at).unwrap();
}

/// Any tool that reads Kafka's segments reads these: an independent decoder finds what the dump shows.
#[test]
fn an_independent_decoder_reads_the_same_from_the_files() {
    let disk = written();
    let log = the_log(&disk);
    assert!(log.base_offsets.len() > 3);
    let mut expected = Vec::new();
    for base in &log.base_offsets {
        let mut bytes = content(&disk, &path_of(&log.dir, *base, FileKind::Log));
        while !bytes.is_empty() {
            expected.extend(oracle::RecordBatchDecoder::decode(&mut bytes).unwrap().records);
        }
    }
    let mut found = Vec::new();
    let walked = log.walk(&disk, |seen| {
        if let Seen::Batch(batch) = seen {
            assert_eq!(batch.sound, Ok(()));
            found.extend(batch.records().unwrap().map(|record| (batch.header, record.unwrap())));
        }
        std::ops::ControlFlow::Continue(())
    });
    walked.unwrap();
    assert_eq!(found.len(), expected.len());
    assert!(found.len() > 300);
    for ((header, record), other) in found.iter().zip(&expected) {
        assert_eq!(i64::try_from(record.offset.get()).unwrap(), other.offset);
        assert_eq!(record.timestamp_ms, other.timestamp);
        assert_eq!((&record.key, &record.value), (&other.key, &other.value));
        assert_eq!(header.leader_epoch.unwrap().0, u32::try_from(other.partition_leader_epoch).unwrap());
        assert_eq!(header.producer.map_or(-1, |producer| producer.id.0), other.producer_id);
        let headers: Vec<_> = other.headers.iter().map(|(k, v)| (k.as_bytes(), v.as_deref())).collect();
        let ours: Vec<_> = record.headers.iter().map(|h| (&h.key[..], h.value.as_deref())).collect();
        assert_eq!(ours, headers);
    }
}

#[test]
fn what_a_volume_leaves_is_sound() {
    let disk = written();
    let found = the_log(&disk).verify(&disk).unwrap();
    assert_eq!(found.findings, []);
    assert_eq!((found.batches, found.log_start, found.records), (400, Offset::ZERO, found.log_end.get()));
    assert!(found.segments > 3 && found.bytes > 100_000);
}

#[test]
fn damage_is_found_and_named() {
    let logs = the_log(&written()).base_offsets;
    let path = |number: usize, kind| path_of(&dir(), logs[number], kind);
    let last = logs.len() - 1;
    type Damage<'a> = (&'a str, Box<dyn Fn(&MemoryDisk) + 'a>, FindingKind);
    let flip = |number: usize, kind, at: u64| {
        let path = path(number, kind);
        move |disk: &MemoryDisk| {
            let byte = content(disk, &path)[usize::try_from(at).unwrap()];
            change(disk, &path, at, &[byte ^ 1]);
        }
    };
    let cases: [Damage<'_>; 12] = [
        ("a record", Box::new(flip(1, FileKind::Log, 200)), FindingKind::Batch),
        ("a magic byte", Box::new(flip(1, FileKind::Log, 16)), FindingKind::Batch),
        ("a length", Box::new(flip(1, FileKind::Log, 8)), FindingKind::Batch),
        ("a base offset", Box::new(flip(1, FileKind::Log, 7)), FindingKind::Offsets),
        ("an epoch", Box::new(flip(1, FileKind::Log, 15)), FindingKind::Epoch),
        ("a record of the last segment", Box::new(flip(last, FileKind::Log, 100)), FindingKind::Batch),
        ("an index entry", Box::new(flip(1, FileKind::Index, 96 + 3)), FindingKind::Index),
        ("an index header", Box::new(flip(1, FileKind::Index, 3)), FindingKind::Index),
        ("a time index entry", Box::new(flip(1, FileKind::TimeIndex, 96 + 12)), FindingKind::Index),
        (
            "a segment that is gone",
            Box::new(|disk| disk.remove_file(&path(1, FileKind::Log)).unwrap()),
            FindingKind::Offsets,
        ),
        (
            "a tail that is gone",
            Box::new(|disk| {
                disk.open(&path(last, FileKind::Log), OpenMode::Write).unwrap().set_len(70).unwrap()
            }),
            FindingKind::Batch,
        ),
        (
            "both slots of the checkpoint",
            Box::new(|disk| {
                for at in [30, 4096 + 30] {
                    change(disk, &format!("{}/checkpoint", dir()), at, &[0x5a; 8]);
                }
            }),
            FindingKind::Checkpoint,
        ),
    ];
    for (what, damage, kind) in cases {
        let disk = written();
        damage(&disk);
        let found = the_log(&disk).verify(&disk).unwrap();
        assert!(found.is_damaged(), "{what}");
        assert!(found.findings.iter().any(|finding| finding.kind == kind), "{what}: {:?}", found.findings);
    }
}

#[test]
fn a_torn_tail_is_no_damage_and_damage_before_something_sound_is_no_tail() {
    let disk = written();
    let log = the_log(&disk);
    let path = path_of(&log.dir, *log.base_offsets.last().unwrap(), FileKind::Log);
    let end = u64::try_from(content(&disk, &path).len()).unwrap();
    change(&disk, &path, end, &[0x5a; 700]);
    let found = log.verify(&disk).unwrap();
    assert!(!found.is_damaged());
    let kinds: Vec<_> = found.findings.iter().map(|finding| (finding.kind, finding.position)).collect();
    assert_eq!(kinds, [(FindingKind::TornTail, Some(end))]);
    // The same without a checkpoint that would vouch for the batches: the last one may be torn, no other.
    disk.remove_file(&format!("{}/checkpoint", dir())).unwrap();
    disk.open(&path, OpenMode::Write).unwrap().set_len(end - 1).unwrap();
    assert!(!log.verify(&disk).unwrap().is_damaged());
    change(&disk, &path, 100, &[0xff]);
    assert!(log.verify(&disk).unwrap().is_damaged());
}

#[test]
fn a_log_before_its_first_checkpoint_is_not_damaged() {
    let disk = written();
    let path = format!("{}/checkpoint", dir());
    let bytes = content(&disk, &path).len();
    change(&disk, &path, 0, &vec![0; bytes]);
    assert_eq!(the_log(&disk).verify(&disk).unwrap().findings, []);
    change(&disk, &path, 8, &[1]);
    assert!(the_log(&disk).verify(&disk).unwrap().is_damaged());
}

#[test]
fn a_directory_of_something_else_has_no_log() {
    let disk = MemoryDisk::new(MemoryDiskSettings::plain(1 << 20));
    assert_eq!(find_logs(&disk).unwrap(), []);
    disk.create_dir("partitions").unwrap();
    disk.create_dir("partitions/notes").unwrap();
    assert_eq!(find_logs(&disk).unwrap(), []);
}

/// The area of a group's offsets after so many commits, in a ring small enough to be trimmed on the way.
fn committed(commits: u64) -> MemoryDisk {
    let disk = MemoryDisk::new(MemoryDiskSettings::plain(64 << 20));
    let settings = VolumeSettings::new(ClusterId([1; 16]), SpuId(3), VolumeId([2; 16]));
    let (mut volume, _) = Volume::open(Arc::new(disk.clone()), settings, NOW, WALL_MS).unwrap();
    let area = LogSettings { offsets_area_bytes: Some(64 << 10), ..LogSettings::default() };
    volume.create_partition(partition(), area, NOW).unwrap();
    for to in 0..commits {
        let value = OffsetValue {
            offset: Offset::new(to).unwrap(),
            leader_epoch: LeaderEpoch(1),
            owner_epoch: 1,
            committed_ms: WALL_MS,
        };
        let change = Change::Offset { group: "g".to_owned(), partition: partition(), value: Some(value) };
        volume.commit_offsets(&partition(), &[change], LeaderEpoch(1), NOW, WALL_MS).unwrap();
        let end = volume.sync(&partition()).unwrap();
        volume.set_high_watermark(&partition(), end);
        volume.settle_offsets(&partition()).unwrap();
    }
    volume.close(WALL_MS).unwrap();
    disk
}

#[test]
fn the_offsets_of_groups_are_sound_until_they_are_damaged() {
    for commits in [0, 1, 2000] {
        let disk = committed(commits);
        let found = the_log(&disk);
        let verified = found.verify(&disk).unwrap();
        assert_eq!((found.is_area, verified.findings.as_slice()), (true, &[][..]), "{commits}");
        assert!(verified.log_end.get() >= commits, "{verified:?}");
        let mut batches = 0;
        let count = |seen: Seen<'_>| {
            batches += u64::from(matches!(seen, Seen::Batch(batch) if batch.sound.is_ok()));
            ControlFlow::Continue(())
        };
        found.walk(&disk, count).unwrap();
        assert_eq!(batches, verified.batches);
    }
    // One byte of the newest batch, of a slot's head, and of whose it is.
    let (ring, checkpoint) = (format!("{}/offsets-area", dir()), format!("{}/checkpoint", dir()));
    let disk = committed(3);
    let mut last = 0;
    let note = |seen: Seen<'_>| {
        if let Seen::Batch(batch) = seen {
            last = batch.position;
        }
        ControlFlow::Continue(())
    };
    the_log(&disk).walk(&disk, note).unwrap();
    change(&disk, &ring, last + 70, &[0xff]);
    let verified = the_log(&disk).verify(&disk).unwrap();
    assert_eq!(verified.findings.iter().map(|f| f.kind).collect::<Vec<_>>(), [FindingKind::Offsets]);
    assert_eq!(verified.findings[0].offset, Some(verified.log_end));

    let disk = committed(3);
    let bytes = content(&disk, &checkpoint).len();
    change(&disk, &checkpoint, 0, &vec![9; bytes]);
    let verified = the_log(&disk).verify(&disk).unwrap();
    assert_eq!(verified.findings.iter().map(|f| f.kind).collect::<Vec<_>>(), [FindingKind::Checkpoint]);
    let stranger = LogFiles {
        partition: Some(PartitionId { topic_id: TopicId([8; 16]), index: 0 }),
        ..the_log(&committed(3))
    };
    assert!(stranger.verify(&committed(3)).unwrap().is_damaged());
    // What is left of one that is being deleted, and one whose creation never ended.
    let disk = committed(3);
    disk.remove_file(&ring).unwrap();
    assert!(!the_log(&disk).verify(&disk).unwrap().is_damaged());
    let disk = committed(3);
    disk.remove_file(&checkpoint).unwrap();
    assert!(!the_log(&disk).verify(&disk).unwrap().is_damaged());
}
