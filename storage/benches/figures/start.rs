//! How long a volume takes to open.

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use criterion::{Criterion, SamplingMode};
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::fs::real::RealDisk;
use plimsoll_storage::log::LogSettings;
use plimsoll_storage::volume::Volume;

use crate::figure::{Bar, tell, timed};
use crate::lab::{Batches, EPOCH, Lab, NOW, WALL_MS, open_on, partition};
use crate::sparse::SparseDisk;

const PARTITIONS: u32 = 1000;
/// In batches of nearly 1 MiB: 20 GiB in all.
const BATCHES_EACH: usize = 21;
/// Three segments each, two of them sealed.
const SEGMENT_BYTES: u64 = 8 << 20;

pub(crate) fn figures(criterion: &mut Criterion) {
    let lab = Lab::in_memory();
    let dir = lab.path().join("volume");
    let mut volume = open(&dir);
    fill(&mut volume);
    let bytes: u64 = (0..PARTITIONS).filter_map(|i| volume.log(&partition(i))).map(|log| log.bytes).sum();
    let segments: usize =
        (0..PARTITIONS).filter_map(|i| volume.log(&partition(i))).map(|log| log.segments).sum();
    volume.close(WALL_MS).expect("closed");
    let detail = format!(
        "partitions={PARTITIONS} segments={segments} gib={:.1} filesystem={}",
        bytes as f64 / f64::from(1 << 30),
        lab.filesystem()
    );
    let clean = opened_again(criterion, "start", &dir, |volume| volume.close(WALL_MS).expect("closed"));
    tell("start_s", &clean, Bar::AtMost(1.0), &detail);
    // Killed, each log with a batch that no checkpoint knows.
    let batch = Batches::of_one_record(1024).anonymous().next();
    let killed = opened_again(criterion, "start after a kill", &dir, |mut volume| {
        for index in 0..PARTITIONS {
            append(&mut volume, index, batch.clone());
        }
    });
    tell("start_after_kill_s", &killed, Bar::AtMost(1.0), &detail);
}

/// Seconds that opening takes, each time after `end` has ended the run before.
fn opened_again(criterion: &mut Criterion, name: &str, dir: &Path, mut end: impl FnMut(Volume)) -> Vec<f64> {
    end(open(dir));
    let mut seconds = Vec::new();
    let mut group = criterion.benchmark_group("start");
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    let (time, volume) = timed(|| open(dir));
                    assert_eq!(volume.partitions().len(), usize::try_from(PARTITIONS).expect("few"));
                    end(volume);
                    seconds.push(time.as_secs_f64());
                    time
                })
                .sum()
        });
    });
    group.finish();
    seconds
}

fn open(dir: &Path) -> Volume {
    let disk: SharedDisk = Arc::new(SparseDisk(RealDisk::open(dir).expect("the folder opens")));
    open_on(disk, |_| {})
}

fn fill(volume: &mut Volume) {
    let settings = LogSettings { segment_bytes_max: SEGMENT_BYTES, ..LogSettings::default() };
    let batch = Batches::of_one_record((1 << 20) - 100).anonymous().next();
    for index in 0..PARTITIONS {
        volume.create_partition(partition(index), settings.clone(), NOW).expect("room for a log");
        for _ in 0..BATCHES_EACH {
            append(volume, index, batch.clone());
        }
    }
}

fn append(volume: &mut Volume, index: u32, batch: BytesMut) {
    volume.append_as_leader(&partition(index), batch, EPOCH, NOW, WALL_MS).expect("appended");
}
