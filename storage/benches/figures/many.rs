//! Ten thousand partitions on one volume: what an idle one keeps in memory, and how many files are ever open.

use std::path::Path;
use std::time::Duration;

use plimsoll_proto::ids::Offset;
use plimsoll_storage::log::LogSettings;
use plimsoll_storage::volume::{ReplicaGuards, Volume};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::figure::{Bar, tell};
use crate::lab::{Batches, EPOCH, Lab, NOW, WALL_MS, open_with, partition};

const PARTITIONS: u32 = 10_000;
/// The soft limit that a process gets by default.
const FILES_MAX: u64 = 1024;
/// Of each log; with segments of 64 KiB three of them are sealed.
const BATCHES_EACH: usize = 4;

/// What was seen.
pub(crate) struct Seen {
    /// Resident bytes that each partition added.
    pub(crate) bytes_each: f64,
    /// Most files that were open at once.
    pub(crate) files: usize,
}

pub(crate) fn figures() {
    let lab = Lab::in_memory();
    let seen = run(lab.path(), PARTITIONS);
    let detail = format!("partitions={PARTITIONS} filesystem={}", lab.filesystem());
    tell("idle_partition_kib", &[seen.bytes_each / 1024.0], Bar::AtMost(16.0), &detail);
    tell("open_files", &[f64::from(u32::try_from(seen.files).expect("few"))], Bar::AtMost(1024.0), &detail);
}

/// Makes, writes, reads, syncs, rests, closes and opens so many partitions below `dir` with no more than [`FILES_MAX`]
/// files.
pub(crate) fn run(dir: &Path, partitions: u32) -> Seen {
    let former = getrlimit(Resource::Nofile);
    let maximum = former.maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(FILES_MAX), maximum }).expect("limits may be lowered");
    let dir = dir.join("many");
    let mut files = 0;
    let mut volume = open(&dir);
    let before = resident_bytes();
    let batches = Batches::of_one_record(40 << 10).take(BATCHES_EACH + 1);
    for index in 0..partitions {
        let settings = LogSettings { segment_bytes_max: 64 << 10, ..LogSettings::default() };
        volume.create_partition(partition(index), settings, NOW).expect("room for a log");
        for batch in &batches[..BATCHES_EACH] {
            volume.append_as_leader(&partition(index), batch.clone(), EPOCH, NOW, WALL_MS).expect("appended");
        }
        watch_files(index, &mut files);
    }
    for index in 0..partitions {
        read_whole(&mut volume, index);
        watch_files(index, &mut files);
    }
    for index in 0..partitions {
        volume.sync(&partition(index)).expect("synced");
        watch_files(index, &mut files);
    }
    let now = rest(&mut volume, NOW);
    let bytes_each = (resident_bytes() - before) / f64::from(partitions);
    for index in 0..partitions {
        read_whole(&mut volume, index);
        watch_files(index, &mut files);
    }
    rest(&mut volume, now);
    volume.close(WALL_MS).expect("closed");
    let mut volume = open(&dir);
    for index in 0..partitions {
        let last = batches[BATCHES_EACH].clone();
        volume.append_as_leader(&partition(index), last, EPOCH, NOW, WALL_MS).expect("appended");
        read_whole(&mut volume, index);
        watch_files(index, &mut files);
    }
    drop(volume);
    setrlimit(Resource::Nofile, former).expect("and raised again");
    Seen { bytes_each, files }
}

fn open(dir: &Path) -> Volume {
    open_with(dir, |_| {})
}

fn read_whole(volume: &mut Volume, index: u32) {
    let log = partition(index);
    let view = volume.log(&log).expect("there");
    let mut from = view.log_start;
    while from < view.log_end {
        let bytes = volume.read(&log, from, view.log_end, 32 << 10).expect("records");
        assert!(!bytes.is_empty(), "a read below the end gives something");
        from = Offset::new(from.get() + 1).expect("small");
    }
}

/// Lets the upkeep find that nothing happens any more.
fn rest(volume: &mut Volume, mut now: Duration) -> Duration {
    // A turn takes some; enough of them, and no partition is left.
    for _ in 0..volume.partitions().len() / 4 + 100 {
        now += Duration::from_secs(1);
        let since = u64::try_from((now - NOW).as_millis()).expect("small");
        volume.tick(now, WALL_MS + since, &ReplicaGuards::new());
    }
    now
}

fn watch_files(index: u32, most: &mut usize) {
    if index.is_multiple_of(97) {
        *most = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count).max(*most);
    }
}

/// From `/proc/self/status`, which counts in KiB.
fn resident_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("a Linux process");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of its own");
    let kib = line.trim().trim_end_matches(" kB").parse::<u32>().expect("a number");
    f64::from(kib) * 1024.0
}
