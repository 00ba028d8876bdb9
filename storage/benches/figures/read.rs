//! Reading from the page cache against `pread`, and finding an offset.

use std::collections::VecDeque;
use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use criterion::Criterion;
use plimsoll_proto::ids::Offset;
use plimsoll_storage::log::LogSettings;
use plimsoll_storage::volume::Volume;

use crate::figure::{Bar, Pairs, tell, timed};
use crate::lab::{
    BATCH_BYTES, BATCH_RECORDS, Batches, EPOCH, Lab, NOW, WALL_MS, partition, plain_write, wide,
};

/// Two full segments and a part of a third.
const BATCHES: usize = 320 * 16;
const SLICE_BYTES: usize = 1 << 20;
/// Slices that one of the two reads before it is the other's turn.
const TURN: usize = 8;
/// Slices that are still on their way to consumers.
const IN_FLIGHT: usize = 2;
const RECORDS: u64 = BATCHES as u64 * BATCH_RECORDS as u64;

pub(crate) fn figures(criterion: &mut Criterion) {
    let lab = Lab::new();
    let (mut volume, file) = filled(&lab, &mut Batches::of_64_kib(), BATCHES);
    let slices = BATCHES * BATCH_BYTES / SLICE_BYTES;
    let mut buffer = vec![0; SLICE_BYTES];
    let mut in_flight = VecDeque::new();
    let mut pairs = Pairs::default();
    pairs.collect(criterion, ("read", "1 MiB"), wide(BATCHES * BATCH_BYTES), || {
        let (mut ours, mut other) = (Duration::ZERO, Duration::ZERO);
        for turn in 0..slices / TURN {
            let at = turn * TURN;
            let mine = |volume: &mut Volume, in_flight: &mut VecDeque<Bytes>| {
                timed(|| (at..at + TURN).for_each(|slice| read_slice(volume, slice, in_flight))).0
            };
            let plain = |buffer: &mut [u8]| timed(|| (at..at + TURN).for_each(|i| pread(&file, buffer, i))).0;
            if turn % 2 == 0 {
                ours += mine(&mut volume, &mut in_flight);
                other += plain(&mut buffer);
            } else {
                other += plain(&mut buffer);
                ours += mine(&mut volume, &mut in_flight);
            }
        }
        (ours, other)
    });
    let (ours, other) = pairs.seconds();
    let rate = |seconds: f64| (BATCHES * BATCH_BYTES) as f64 / seconds / f64::from(1 << 20);
    let detail = format!(
        "read_mib_s={:.0} pread_mib_s={:.0} in_flight={IN_FLIGHT} filesystem={}",
        rate(ours),
        rate(other),
        lab.filesystem()
    );
    tell("read", &pairs.ratios(), Bar::AtLeast(0.8), &detail);
}

/// As a fetch does it: a slice from where the last one ended, kept until it is sent.
fn read_slice(volume: &mut Volume, slice: usize, in_flight: &mut VecDeque<Bytes>) {
    let from = wide(slice * SLICE_BYTES / BATCH_BYTES) * u64::from(BATCH_RECORDS);
    let bytes = volume.read(&partition(0), offset(from), offset(RECORDS), SLICE_BYTES).expect("records");
    assert_eq!(bytes.len(), SLICE_BYTES, "batches are cut to fit");
    in_flight.push_back(black_box(bytes));
    if in_flight.len() > IN_FLIGHT {
        in_flight.pop_front();
    }
}

fn pread(file: &OwnedFd, buffer: &mut [u8], slice: usize) {
    let at = wide(slice * SLICE_BYTES);
    let taken = rustix::io::pread(file, &mut *buffer, at).expect("readable");
    assert_eq!(taken, SLICE_BYTES);
    black_box(buffer);
}

/// A log and a plain file with the same bytes, both in the page cache.
fn filled(lab: &Lab, batches: &mut Batches, count: usize) -> (Volume, OwnedFd) {
    let mut volume = lab.volume();
    volume.create_partition(partition(0), LogSettings::default(), NOW).expect("room for a log");
    let file = lab.plain_file();
    let mut at = 0;
    for _ in 0..count {
        let batch = batches.next();
        plain_write(&file, &batch, at);
        at += wide(batch.len());
        volume.append_as_leader(&partition(0), batch, EPOCH, NOW, WALL_MS).expect("appended");
    }
    let end = volume.log(&partition(0)).expect("there").log_end;
    volume.set_high_watermark(&partition(0), end);
    (volume, file)
}

/// Finding the batch of a random offset. Measured with what comes with it: a read of the 16 KiB where it begins.
pub(crate) fn lookup_figures(criterion: &mut Criterion) {
    lookup(criterion, "lookup_us", Batches::of_64_kib(), BATCHES, u64::from(BATCH_RECORDS), Bar::AtMost(5.0));
    let small = Batches::of_one_record(1024);
    lookup(criterion, "lookup_small_batches_us", small, 300_000, 1, Bar::None);
}

fn lookup(criterion: &mut Criterion, name: &str, mut batches: Batches, count: usize, records: u64, bar: Bar) {
    // Short enough that most of them are not interrupted on a busy machine.
    const TIMES: u32 = 100;
    let lab = Lab::new();
    let (mut volume, _) = filled(&lab, &mut batches, count);
    let end = wide(count) * records;
    let mut random = 88_172_645_463_325_252u64;
    let mut micros = Vec::new();
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|rounds| {
            let mut sum = Duration::ZERO;
            for _ in 0..rounds {
                let (time, ()) = timed(|| {
                    for _ in 0..TIMES {
                        // xorshift64
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let at = random % end / records * records;
                        // A limit within the batch: nothing but its header is looked at.
                        let limit = if records > 1 { at + 1 } else { at + 2 };
                        let found = volume.read(&partition(0), offset(at), offset(limit.min(end)), 1);
                        black_box(found.expect("it is there"));
                    }
                });
                micros.push(time.as_secs_f64() * 1e6 / f64::from(TIMES));
                sum += time;
            }
            sum
        });
    });
    let detail = format!("log_mib={} filesystem={}", volume_mib(&volume), lab.filesystem());
    tell(name, &micros, bar, &detail);
}

fn volume_mib(volume: &Volume) -> u64 {
    volume.log(&partition(0)).map_or(0, |log| log.bytes >> 20)
}

fn offset(n: u64) -> Offset {
    Offset::new(n).expect("small")
}
