//! A volume on a real disk, and what it has acknowledged.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use plimsoll_proto::batch::{BatchBuilder, Compression, Limits, NewRecord, iter_batches, records};
use plimsoll_proto::disk::{DiskCause, DiskLevel};
use plimsoll_proto::ids::{ClusterId, LeaderEpoch, Offset, PartitionId, SpuId, TopicId, VolumeId};
use plimsoll_storage::fs::real::RealDisk;
use plimsoll_storage::fs::{Disk, OpenMode};
use plimsoll_storage::log::{AppendError, Appended, LogSettings};
use plimsoll_storage::space::Observation;
use plimsoll_storage::volume::{OpenReport, ReplicaGuards, Volume, VolumeSettings};

pub(crate) const WALL_MS: u64 = 1_700_000_000_000;

pub(crate) fn partition(index: u32) -> PartitionId {
    PartitionId { topic_id: TopicId([7; 16]), index }
}

/// xorshift64*: repeatable from its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % n
    }
}

/// A batch of one record.
pub(crate) fn batch(value: &[u8]) -> BytesMut {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(&NewRecord { value: Some(value), timestamp_ms: 1000, ..NewRecord::default() }).unwrap();
    builder.build().unwrap()
}

/// See the module.
pub(crate) struct Life {
    path: PathBuf,
    /// A second handle on the same filesystem, for samples and the foreign writer.
    pub(crate) outside: RealDisk,
    pub(crate) volume: Volume,
    pub(crate) opened: OpenReport,
    pub(crate) now: Duration,
    /// Numbers of the values that were acknowledged, by partition and offset.
    pub(crate) acked: BTreeMap<(u32, u64), u64>,
    /// Those from which on a loss of the page cache may have taken them, by partition.
    unsynced: BTreeMap<(u32, u64), u64>,
    made: u64,
}

impl Life {
    /// A volume in a directory of the filesystem at `root`, with two partitions.
    pub(crate) fn begin(root: &Path) -> Self {
        let path = root.join("volume");
        let (volume, opened) = open(&path, Duration::from_secs(1));
        let outside = RealDisk::open(root).unwrap();
        let now = Duration::from_secs(1);
        let mut life = Self {
            path,
            outside,
            volume,
            opened,
            now,
            acked: BTreeMap::new(),
            unsynced: BTreeMap::new(),
            made: 0,
        };
        life.configure();
        life
    }

    fn configure(&mut self) {
        for index in 0..2 {
            let keep =
                LogSettings { retention_age_max: None, segment_bytes_max: 1 << 20, ..LogSettings::default() };
            self.volume.create_partition(partition(index), keep, self.now).unwrap();
        }
    }

    /// The process ends, in order or not, and another one opens the volume after `between`.
    pub(crate) fn again(self, in_order: bool, between: impl FnOnce()) -> Self {
        let Self { path, outside, volume, now, acked, unsynced, made, .. } = self;
        if in_order {
            volume.close(WALL_MS).unwrap();
        } else {
            drop(volume);
        }
        let root = outside.label();
        drop(outside);
        between();
        let now = now + Duration::from_secs(700);
        let (volume, opened) = open(&path, now);
        let outside = RealDisk::open(Path::new(&root)).unwrap();
        Self { path, outside, volume, opened, now, acked, unsynced, made }
    }

    /// Appends one record of about so many bytes.
    pub(crate) fn produce(&mut self, index: u32, bytes: usize) -> Result<Appended, AppendError> {
        self.made += 1;
        let mut value = self.made.to_be_bytes().to_vec();
        value.resize(bytes.max(8), 7);
        let result =
            self.volume.append_as_leader(&partition(index), batch(&value), LeaderEpoch(1), self.now, WALL_MS);
        if let Ok(appended) = &result {
            self.acked.insert((index, appended.base_offset.get()), self.made);
        }
        result
    }

    /// Appends until something is refused.
    pub(crate) fn fill(&mut self, bytes: usize) -> AppendError {
        for _ in 0..1_000_000 {
            if let Err(error) = self.produce(0, bytes) {
                return error;
            }
        }
        panic!("the disk never fills");
    }

    /// A foreign writer takes all but so many bytes of what is available.
    pub(crate) fn leave(&self, bytes: u64) {
        let file = self.outside.open("foreign", OpenMode::CreateNew).unwrap();
        let available = self.outside.space().unwrap().available_bytes;
        file.allocate(0, available.saturating_sub(bytes)).unwrap();
    }

    /// The foreign writer gives back what it took. xfs frees the blocks of a removed file some time later, on a
    /// thread of its own: this waits until they are seen.
    pub(crate) fn give_back(&self) {
        let file = self.outside.open("foreign", OpenMode::Read).unwrap();
        let taken = file.allocated_bytes().unwrap();
        drop(file);
        let before = self.outside.space().unwrap().available_bytes;
        self.outside.remove_file("foreign").unwrap();
        let root =
            rustix::fs::open(self.outside.label(), rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty());
        let root = root.unwrap();
        for _ in 0..1000 {
            rustix::fs::syncfs(&root).unwrap();
            if self.outside.space().unwrap().available_bytes > before + taken / 2 {
                return;
            }
        }
        panic!("a removed file gives nothing back");
    }

    pub(crate) fn end(&self, index: u32) -> Offset {
        self.volume.log(&partition(index)).unwrap().log_end
    }

    pub(crate) fn level(&self) -> DiskLevel {
        self.volume.level().level
    }

    /// Takes a sample, without waiting for anything.
    pub(crate) fn sample(&mut self) {
        self.volume.observe(Observation::Sample(self.outside.space().unwrap()), self.now);
        self.volume.tick(self.now, WALL_MS, &ReplicaGuards::new());
    }

    /// Samples as the owner of a full volume does; `None` when records are not taken again within two seconds.
    pub(crate) fn recover(&mut self) -> Option<Duration> {
        let from = self.now;
        for _ in 0..40 {
            self.now += Duration::from_millis(50);
            self.sample();
            if self.level() < DiskLevel::ReadOnly {
                return Some(self.now - from);
            }
        }
        None
    }

    /// Everything acknowledged from the log start on is there, at its offset, and nothing else is.
    pub(crate) fn check(&mut self, what: &str) {
        for index in 0..2 {
            self.check_one(index, what);
        }
        self.settle();
    }

    fn check_one(&mut self, index: u32, what: &str) {
        let Some(view) = self.volume.log(&partition(index)) else { return };
        let mut from = view.log_start;
        while from < view.log_end {
            let bytes = self.volume.read(&partition(index), from, view.log_end, 1 << 20).unwrap();
            for item in iter_batches(&bytes) {
                let (header, bytes) = item.unwrap();
                assert_eq!(header.base_offset, from, "{what}: offsets are without gap");
                for record in records(&bytes, &Limits::REPLICA).unwrap() {
                    let record = record.unwrap();
                    let number = u64::from_be_bytes(record.value.unwrap()[..8].try_into().unwrap());
                    let at = (index, record.offset.get());
                    let known = self.acked.get(&at).or_else(|| self.unsynced.get(&at));
                    assert_eq!(known, Some(&number), "{what}: what lies at {} of {index}", record.offset);
                }
                from = header.end_offset();
            }
        }
        let last = self.acked.range((index, 0)..(index + 1, 0)).next_back();
        if let Some((&(_, offset), _)) = last {
            assert!(offset < view.log_end.get(), "{what}: acknowledged offset {offset} of {index} is lost");
        }
    }

    /// Forgets what was acknowledged from an offset on: it promises nothing any more.
    pub(crate) fn forget(&mut self, index: u32, from: Offset) {
        self.acked.retain(|&(of, offset), _| of != index || offset < from.get());
    }

    /// What no sync covers may be gone after a loss of the page cache; what is left of it is what was written.
    pub(crate) fn forget_beyond_the_sync(&mut self, index: u32, durable: Offset) {
        let beyond = self.acked.split_off(&(index, durable.get()));
        self.unsynced.retain(|&(of, _), _| of != index);
        for (at, number) in beyond {
            if at.0 == index {
                self.unsynced.insert(at, number)
            } else {
                self.acked.insert(at, number)
            };
        }
    }

    /// What a loss of the page cache left is there for good, and what it took promises nothing any more.
    fn settle(&mut self) {
        for ((index, offset), number) in std::mem::take(&mut self.unsynced) {
            if self.volume.log(&partition(index)).is_some_and(|view| offset < view.log_end.get()) {
                self.acked.insert((index, offset), number);
            }
        }
    }
}

fn open(path: &Path, now: Duration) -> (Volume, OpenReport) {
    let disk = RealDisk::open(path).unwrap();
    let settings = VolumeSettings::new(ClusterId([1; 16]), SpuId(3), VolumeId([2; 16]));
    let (volume, opened) = Volume::open(Arc::new(disk), settings, now, WALL_MS).unwrap();
    assert!(opened.failed.is_empty() && opened.damaged.is_empty(), "{opened:?}");
    (volume, opened)
}

/// A refusal for want of space that names what ran out, at the level that it led to in the same call.
pub(crate) fn is_full(error: &AppendError, expected: DiskCause) -> bool {
    matches!(error, AppendError::OutOfSpace { cause, level: DiskLevel::ReadOnly, .. } if *cause == expected)
}
