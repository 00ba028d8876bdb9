//! Reservation proof: random fills of real filesystems, with a foreign writer racing for the last byte.
//!
//! An append may be refused when its blocks can't be had. Once they were, its write must not meet a full disk: the
//! door counts those that do. Where allocation does not reserve (btrfs), such a write was not acknowledged, was cut,
//! and made the volume read-only in the same call.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

mod rig;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use plimsoll_proto::batch::iter_batches;
use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{ClusterId, LeaderEpoch, Offset, SpuId, VolumeId};
use plimsoll_storage::fs::real::RealDisk;
use plimsoll_storage::fs::{
    DirEntry, Disk, DiskError, DiskFile, LockGuard, MountIdentity, OpenMode, SpaceSample,
};
use plimsoll_storage::log::{AppendError, LogSettings};
use plimsoll_storage::space::Observation;
use plimsoll_storage::volume::{ReplicaGuards, Volume, VolumeSettings};
use rig::Rig;
use rig::life::{Random, WALL_MS, batch, partition};
use rustix::fs::{Mode, OFlags};

const BATCH_BYTES: [usize; 4] = [500, 8_000, 60_000, 400_000];
/// Longer than recoveries are counted for: none of them is held.
const BETWEEN_FILLS: Duration = Duration::from_secs(700);

/// Counts writes to logs that meet a full disk: their blocks had been allocated before.
struct CountingDisk {
    inner: RealDisk,
    met: Arc<AtomicU64>,
}

struct CountingFile {
    inner: Box<dyn DiskFile>,
    met: Option<Arc<AtomicU64>>,
}

impl Disk for CountingDisk {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Box<dyn DiskFile>, DiskError> {
        let inner = self.inner.open(path, mode)?;
        // A spare becomes a log while it is open.
        let log = path.ends_with(".log") || path.contains("spare-segment");
        let met = log.then(|| Arc::clone(&self.met));
        Ok(Box::new(CountingFile { inner, met }))
    }
    fn list(&self, dir: &str) -> Result<Vec<DirEntry>, DiskError> {
        self.inner.list(dir)
    }
    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.inner.create_dir(dir)
    }
    fn remove_file(&self, path: &str) -> Result<(), DiskError> {
        self.inner.remove_file(path)
    }
    fn remove_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.inner.remove_dir(dir)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.inner.rename(from, to)
    }
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.inner.sync_dir(dir)
    }
    fn space(&self) -> Result<SpaceSample, DiskError> {
        self.inner.space()
    }
    fn reserves(&self) -> bool {
        self.inner.reserves()
    }
    fn mount_identity(&self) -> MountIdentity {
        self.inner.mount_identity()
    }
    fn lock(&self, path: &str) -> Result<Box<dyn LockGuard>, DiskError> {
        self.inner.lock(path)
    }
    fn label(&self) -> String {
        self.inner.label()
    }
}

impl DiskFile for CountingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        self.inner.read_at(buf, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        let result = self.inner.write_at(bytes, offset);
        if let (Some(met), Err(DiskError::OutOfSpace { .. })) = (&self.met, &result) {
            met.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
    fn sync_data(&self) -> Result<(), DiskError> {
        self.inner.sync_data()
    }
    fn set_len(&self, len: u64) -> Result<(), DiskError> {
        self.inner.set_len(len)
    }
    fn allocate(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.inner.allocate(offset, len)
    }
    fn len(&self) -> Result<u64, DiskError> {
        self.inner.len()
    }
    fn allocated_bytes(&self) -> Result<u64, DiskError> {
        self.inner.allocated_bytes()
    }
}

/// Takes all it can get until told to stop, in pieces that leave ever smaller rests.
fn foreign(disk: &RealDisk, stop: &AtomicBool) {
    let file = match disk.open("foreign", OpenMode::CreateNew) {
        Err(DiskError::AlreadyExists { .. }) => disk.open("foreign", OpenMode::Write).unwrap(),
        other => other.unwrap(),
    };
    let piece = vec![b'f'; 256 * 1024];
    let (mut at, mut size) = (0u64, piece.len());
    while !stop.load(Ordering::Relaxed) {
        match file.write_at(&piece[..size], at) {
            Ok(()) => at += u64::try_from(size).unwrap(),
            Err(DiskError::OutOfSpace { written, .. }) => {
                at += written;
                size = if size > 512 { size / 2 } else { piece.len() };
                std::thread::yield_now();
            }
            Err(other) => panic!("{other}"),
        }
    }
    // Truncating needs a block of its own on a full copy-on-write filesystem.
    if file.set_len(0).is_err() {
        drop(file);
        disk.remove_file("foreign").unwrap();
    }
}

#[derive(Default)]
struct Tally {
    appended: u64,
    refused: u64,
}

struct Fill<'a> {
    volume: &'a mut Volume,
    batches: &'a [BytesMut],
    met: &'a AtomicU64,
    now: Duration,
    reserves: bool,
}

impl Fill<'_> {
    /// Appends until the disk refuses a few times.
    fn run(&mut self, random: &mut Random, tally: &mut Tally, what: &str) {
        let mut refusals = 0;
        while refusals < 3 {
            let choice = usize::try_from(random.below(u64::try_from(self.batches.len()).unwrap())).unwrap();
            let before = self.volume.log(&partition(0)).unwrap().log_end;
            let lied = self.met.load(Ordering::Relaxed);
            let batch = self.batches[choice].clone();
            let result =
                self.volume.append_as_leader(&partition(0), batch, LeaderEpoch(1), self.now, WALL_MS);
            let lied = self.met.load(Ordering::Relaxed) - lied;
            let after = self.volume.log(&partition(0)).unwrap().log_end;
            match result {
                Ok(appended) => {
                    assert_eq!((appended.base_offset, lied), (before, 0), "{what}");
                    tally.appended += 1;
                }
                Err(AppendError::OutOfSpace { .. }) => {
                    assert_eq!(before, after, "{what}: a refusal changes nothing");
                    assert!(
                        self.volume.level().level >= DiskLevel::ReadOnly || lied == 0,
                        "{what}: the level changes in the same call"
                    );
                    refusals += 1;
                    tally.refused += 1;
                }
                Err(other) => panic!("{what}: {other}"),
            }
            assert!(!self.reserves || lied == 0, "{what}: ENOSPC after admission");
        }
    }
}

fn check_readable(volume: &mut Volume, what: &str) {
    let view = volume.log(&partition(0)).unwrap();
    let mut from = view.log_start;
    while from < view.log_end {
        let bytes = volume.read(&partition(0), from, view.log_end, 1 << 20).unwrap();
        for item in iter_batches(&bytes) {
            let (header, _) = item.unwrap();
            assert_eq!(header.base_offset, from, "{what}");
            from = header.end_offset();
        }
    }
}

fn prove(name: &str, rig: Result<Rig, String>, quick: u64, full: u64) {
    let rig = match rig {
        Ok(rig) => rig,
        Err(reason) => return println!("SKIPPED reservation-{name}: {reason}"),
    };
    let fills = if std::env::var_os("PLIMSOLL_PROVE_FULL").is_some() { full } else { quick };
    let seed = std::env::var("PLIMSOLL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let (tally, met, reserves) = fill(name, &rig.path(), fills, seed);
    let count = if reserves { "met_enospc" } else { "lied" };
    println!(
        "CASES reservation {name} cases={fills} {count}={met} appended={} refused={} seed={seed}",
        tally.appended, tally.refused
    );
    assert!(tally.refused >= fills * 3 && tally.appended >= fills, "{name} fills the disk");
}

fn fill(name: &str, root: &Path, fills: u64, seed: u64) -> (Tally, u64, bool) {
    let met = Arc::new(AtomicU64::new(0));
    let disk = CountingDisk { inner: RealDisk::open(&root.join("volume")).unwrap(), met: Arc::clone(&met) };
    let reserves = disk.reserves();
    let outside = RealDisk::open(root).unwrap();
    let settings = VolumeSettings::new(ClusterId([1; 16]), SpuId(3), VolumeId([2; 16]));
    let mut now = Duration::from_secs(1);
    let (mut volume, _) = Volume::open(Arc::new(disk), settings, now, WALL_MS).unwrap();
    let keep = LogSettings { retention_age_max: None, ..LogSettings::default() };
    volume.create_partition(partition(0), keep, now).unwrap();
    let batches: Vec<BytesMut> = BATCH_BYTES.into_iter().map(|bytes| batch(&vec![b'v'; bytes])).collect();
    let mut random = Random(seed | 1);
    let mut tally = Tally::default();
    for number in 0..fills {
        let what = format!("PLIMSOLL_SEED={seed} scripts/prove reservation: {name}, fill {number}");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| foreign(&outside, &stop));
            // Stops the foreign writer also when an assertion fails.
            let _stop = StopOnDrop(&stop);
            let mut fill = Fill { volume: &mut volume, batches: &batches, met: &met, now, reserves };
            fill.run(&mut random, &mut tally, &what);
        });
        check_readable(&mut volume, &what);
        let end: Offset = volume.log(&partition(0)).unwrap().log_end;
        volume.set_high_watermark(&partition(0), end);
        volume.trim_head(&partition(0), end).unwrap();
        now += BETWEEN_FILLS;
        let recovered = (0..100).any(|turn| {
            now += Duration::from_millis(50);
            if turn % 25 == 24 {
                // What was freed counts on btrfs only once a transaction has ended, which may be 30 s later.
                let dir = rustix::fs::open(root, OFlags::DIRECTORY, Mode::empty()).unwrap();
                rustix::fs::syncfs(dir).unwrap();
            }
            volume.observe(Observation::Sample(outside.space().unwrap()), now);
            volume.tick(now, WALL_MS, &ReplicaGuards::new());
            volume.level().level < DiskLevel::ReadOnly
        });
        assert!(recovered, "{what}: writable again, not {:?}", volume.level());
    }
    (tally, met.load(Ordering::Relaxed), reserves)
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn tmpfs() {
    prove("tmpfs", Rig::tmpfs(24), 60, 8000);
}

#[test]
fn ext4() {
    let mkfs = ["mkfs.ext4", "-qF", "-m", "5", "-N", "256"];
    prove("ext4", Rig::image(32, &mkfs, "loop,resuid=1234"), 20, 1800);
}

#[test]
fn btrfs() {
    prove("btrfs", Rig::image(160, &["mkfs.btrfs", "-q", "--mixed"], "loop"), 3, 200);
}
