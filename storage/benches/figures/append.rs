//! Appending to the page cache against `write(2)`, and what admission costs.

use std::hint::black_box;
use std::time::Duration;

use bytes::BytesMut;
use criterion::Criterion;
use plimsoll_proto::disk::{DiskCause, WriteClass};
use plimsoll_proto::ids::VolumeId;
use plimsoll_storage::log::LogSettings;
use plimsoll_storage::space::{SpaceLedger, Verdict};
use plimsoll_storage::volume::Volume;

use crate::figure::{Bar, Pairs, tell, timed};
use crate::lab::{BATCH_BYTES, Batches, EPOCH, Lab, NOW, WALL_MS, partition, plain_write, wide};

/// Batches that one of the two takes before it is the other's turn: 1 MiB.
const TURN: usize = 16;
/// Turns in a round: 160 MiB, so that every round rolls a segment of the default 128 MiB.
const TURNS: usize = 160;
const ROUND_BYTES: u64 = 160 << 20;

pub(crate) fn figures(criterion: &mut Criterion) {
    let lab = Lab::new();
    let mut volume = lab.volume();
    let log = partition(0);
    volume.create_partition(log, LogSettings::default(), NOW).expect("room for a log");
    let mut batches = Batches::of_64_kib();
    let mut now = NOW;
    let mut pairs = Pairs::default();
    pairs.collect(criterion, ("append", "64 KiB"), ROUND_BYTES, || {
        let file = lab.plain_file();
        let (mut ours, mut other) = (Duration::ZERO, Duration::ZERO);
        for turn in 0..TURNS {
            now += Duration::from_millis(1);
            let made = batches.take(TURN);
            let copied = made.clone();
            // Every other turn the other one goes first, and has the bytes that were made first.
            if turn % 2 == 0 {
                ours += append(&mut volume, made, now);
                other += write(&file, copied, turn);
            } else {
                other += write(&file, made, turn);
                ours += append(&mut volume, copied, now);
            }
        }
        let end = volume.log(&log).expect("there").log_end;
        volume.set_high_watermark(&log, end);
        volume.trim_head(&log, end).expect("trimming needs no space");
        (ours, other)
    });
    let (ours, other) = pairs.seconds();
    let rate = |seconds: f64| ROUND_BYTES as f64 / seconds / f64::from(1 << 20);
    let detail = format!(
        "append_mib_s={:.0} write_mib_s={:.0} filesystem={}",
        rate(ours),
        rate(other),
        lab.filesystem()
    );
    tell("append", &pairs.ratios(), Bar::AtLeast(0.8), &detail);
}

fn append(volume: &mut Volume, batches: Vec<BytesMut>, now: Duration) -> Duration {
    timed(|| {
        for batch in batches {
            // Admission is asked twice in the node's worker: whether to hold the batch, and before its append.
            for _ in 0..2 {
                let verdict = volume.admit(WriteClass::Produce, wide(batch.len()), Duration::ZERO, now);
                assert_eq!(black_box(verdict), Verdict::Accept);
            }
            volume.append_as_leader(&partition(0), batch, EPOCH, now, WALL_MS).expect("appended");
        }
    })
    .0
}

fn write(file: &std::os::fd::OwnedFd, batches: Vec<BytesMut>, turn: usize) -> Duration {
    timed(|| {
        for (i, batch) in batches.into_iter().enumerate() {
            plain_write(file, &batch, wide((turn * TURN + i) * BATCH_BYTES));
        }
    })
    .0
}

/// Ledger and admission for one batch, as the node's worker and the volume ask them.
pub(crate) fn admission_figures(criterion: &mut Criterion) {
    // Short enough that most of them are not interrupted on a busy machine.
    const TIMES: u32 = 1000;
    let lab = Lab::new();
    let volume = lab.volume();
    let id = VolumeId([2; 16]);
    let mut ledger = SpaceLedger::new(id, 2 << 20);
    ledger.observe(1 << 40, 1 << 41, DiskCause::Bytes, 0);
    let bytes = wide(BATCH_BYTES);
    let mut nanos = Vec::new();
    criterion.bench_function("admission", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut sum = Duration::ZERO;
            for _ in 0..rounds {
                let (time, ()) = timed(|| {
                    for _ in 0..TIMES {
                        for _ in 0..2 {
                            black_box(volume.admit(
                                WriteClass::Produce,
                                black_box(bytes),
                                Duration::ZERO,
                                NOW,
                            ));
                        }
                        let taken = ledger.reserve(black_box(id), WriteClass::Produce, black_box(bytes));
                        ledger.commit(taken.expect("room"), bytes);
                    }
                });
                ledger.observe(1 << 40, 1 << 41, DiskCause::Bytes, ledger.committed_total());
                nanos.push(time.as_secs_f64() * 1e9 / f64::from(TIMES));
                sum += time;
            }
            sum
        });
    });
    tell("admission_ns", &nanos, Bar::AtMost(200.0), "admit=2 reserve=1 commit=1");
}
