//! A folder to measure in, volumes and batches.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use plimsoll_proto::batch::{BatchBuilder, Compression, NewRecord, ProducerSequence, Sequence};
use plimsoll_proto::ids::{
    ClusterId, LeaderEpoch, PartitionId, ProducerEpoch, ProducerId, SpuId, TopicId, VolumeId,
};
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::fs::real::RealDisk;
use plimsoll_storage::space::MarkSettings;
use plimsoll_storage::space::marks::{Mark, SoonMark};
use plimsoll_storage::volume::{Volume, VolumeSettings};
use rustix::fs::{Mode, OFlags};

use crate::rig::Rig;

pub(crate) const WALL_MS: u64 = 1_700_000_000_000;
pub(crate) const EPOCH: LeaderEpoch = LeaderEpoch(1);
pub(crate) const NOW: Duration = Duration::from_secs(1000);
/// Size of a batch of [`Batches`].
pub(crate) const BATCH_BYTES: usize = 64 << 10;
/// Records in it.
pub(crate) const BATCH_RECORDS: u32 = 64;

/// A folder of its own, gone when dropped.
pub(crate) struct Lab {
    path: PathBuf,
    /// What it lies on, if that was made for it.
    rig: Option<Rig>,
}

impl Lab {
    /// In `PLIMSOLL_BENCH_DIR`, else in the folder for temporary files.
    pub(crate) fn new() -> Self {
        let top = std::env::var_os("PLIMSOLL_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        Self::within(&top)
    }

    pub(crate) fn within(top: &Path) -> Self {
        let path = top.join(format!("plimsoll-bench.{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the folder to measure in can be made");
        Self { path, rig: None }
    }

    /// Where files cost no disk: what is measured is our own work and the kernel's.
    pub(crate) fn in_memory() -> Self {
        const ROOM: u64 = 1 << 30;
        let shared = Path::new("/dev/shm");
        let room = rustix::fs::statvfs(shared).map_or(0, |found| found.f_bavail * found.f_frsize);
        if room >= ROOM && filesystem(shared) == "tmpfs" {
            return Self::within(shared);
        }
        match Rig::image(2048, &["mkfs.ext4", "-qF"], "loop") {
            Ok(rig) => {
                let mut lab = Self::within(&rig.path());
                lab.rig = Some(rig);
                lab
            }
            Err(_) => Self::new(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn volume(&self) -> Volume {
        open(&self.path.join("volume"))
    }

    /// An empty file for what ours is compared with.
    pub(crate) fn plain_file(&self) -> OwnedFd {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        rustix::fs::open(self.path.join("plain"), flags, Mode::from_raw_mode(0o600)).expect("a plain file")
    }

    /// The filesystem, for the line of the figure.
    pub(crate) fn filesystem(&self) -> String {
        filesystem(&self.path)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.rig.is_some() {
            // Goes as a whole.
            return;
        }
        // What is left behind is in a folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Name of the filesystem at `path` by its magic number of linux/magic.h.
pub(crate) fn filesystem(path: &Path) -> String {
    match rustix::fs::statfs(path).map(|found| found.f_type) {
        Ok(0xEF53) => "ext4".to_owned(),
        Ok(0x5846_5342) => "xfs".to_owned(),
        Ok(0x0102_1994) => "tmpfs".to_owned(),
        Ok(other) => format!("{other:#x}"),
        Err(error) => error.to_string(),
    }
}

/// Opens a volume whose levels stay out of the way however full the machine is.
pub(crate) fn open(dir: &Path) -> Volume {
    open_with(dir, |_| {})
}

pub(crate) fn open_with(dir: &Path, change: impl FnOnce(&mut VolumeSettings)) -> Volume {
    let disk: SharedDisk = Arc::new(RealDisk::open(dir).expect("the folder of the volume opens"));
    open_on(disk, change)
}

pub(crate) fn open_on(disk: SharedDisk, change: impl FnOnce(&mut VolumeSettings)) -> Volume {
    let mark = |percent, mib: u64| Mark { percent, bytes_max: mib << 20 };
    let soon = |percent, seconds| SoonMark { percent, time_to_full: Duration::from_secs(seconds) };
    let mut settings = VolumeSettings::new(ClusterId([1; 16]), SpuId(1), VolumeId([2; 16]));
    settings.reserve_bytes = Some(2 << 20);
    settings.marks = MarkSettings {
        reclaim: mark(3, 300),
        throttle: mark(2, 200),
        read_only: mark(1, 100),
        reclaim_soon: soon(5, 2),
        throttle_soon: soon(4, 1),
        exit: mark(1, 100),
        inodes_per_replica: 3,
    };
    change(&mut settings);
    let (volume, report) = Volume::open(disk, settings, NOW, WALL_MS).expect("the volume opens");
    assert!(report.failed.is_empty() && report.damaged.is_empty(), "{report:?}");
    volume
}

pub(crate) fn partition(index: u32) -> PartitionId {
    PartitionId { topic_id: TopicId([7; 16]), index }
}

/// Batches of one idempotent producer, one after the other; making them is not part of any figure.
pub(crate) struct Batches {
    sequence: u32,
    values: Vec<Vec<u8>>,
    idempotent: bool,
}

impl Batches {
    /// Of exactly [`BATCH_BYTES`]: [`BATCH_RECORDS`] records of 1 KiB with all that belongs to them.
    pub(crate) fn of_64_kib() -> Self {
        let count = usize::try_from(BATCH_RECORDS).expect("few");
        let mut batches = Self { sequence: 0, values: vec![vec![b'v'; 1000]; count], idempotent: true };
        let short = |batches: &Self| BATCH_BYTES - batches.build(0).len();
        while short(&batches) >= count {
            batches.values.iter_mut().for_each(|value| value.push(b'v'));
        }
        let rest = short(&batches);
        batches.values.iter_mut().take(rest).for_each(|value| value.push(b'v'));
        assert_eq!(batches.build(0).len(), BATCH_BYTES);
        batches
    }

    /// Of one record of so many bytes.
    pub(crate) fn of_one_record(bytes: usize) -> Self {
        Self { sequence: 0, values: vec![vec![b'v'; bytes]], idempotent: true }
    }

    /// Without a producer: the same batch may be appended again and again.
    pub(crate) fn anonymous(self) -> Self {
        Self { idempotent: false, ..self }
    }

    pub(crate) fn next(&mut self) -> BytesMut {
        let batch = self.build(self.sequence);
        self.sequence += u32::try_from(self.values.len()).expect("few");
        batch
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<BytesMut> {
        (0..count).map(|_| self.next()).collect()
    }

    fn build(&self, sequence: u32) -> BytesMut {
        let mut builder = BatchBuilder::with_capacity(Compression::None, BATCH_BYTES);
        for value in &self.values {
            let timestamp_ms = i64::try_from(WALL_MS).expect("small") + i64::from(sequence);
            let record = NewRecord { value: Some(value), timestamp_ms, ..NewRecord::default() };
            builder.push(&record).expect("a small record");
        }
        builder.set_producer(self.idempotent.then(|| ProducerSequence {
            id: ProducerId(1),
            epoch: ProducerEpoch(0),
            base: Sequence::ZERO.advance(sequence),
        }));
        builder.build().expect("a batch")
    }
}

/// Writes all of `bytes`.
pub(crate) fn plain_write(file: &OwnedFd, bytes: &[u8], at: u64) {
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::pwrite(file, &bytes[written..], at + wide(written)).expect("room");
    }
}

pub(crate) fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("usize is at most 64 bits")
}
