//! `flush = ack`: one sync for all who wait, against one for each.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use plimsoll_storage::fs::real::RealDisk;
use plimsoll_storage::log::{FlushPolicy, LogSettings};

use crate::figure::{Bar, Pairs, median, tell, timed};
use crate::lab::{Batches, EPOCH, Lab, NOW, WALL_MS, open_on, partition, plain_write, wide};
use crate::slow::{SlowDisk, at_least};

/// Producers that wait at the same time, each for one batch.
const PRODUCERS: usize = 64;
/// What a sync of a fast disk takes.
const SYNC_MIN: Duration = Duration::from_micros(100);
/// What a sync of a slow one takes.
const SYNC_SLOW: Duration = Duration::from_millis(2);

pub(crate) fn figures(criterion: &mut Criterion) {
    let lab = Lab::new();
    figures_at(criterion, "commit_as_it_is", &lab, Duration::ZERO);
    figures_at(criterion, "commit", &lab, SYNC_MIN);
    figures_at(criterion, "commit_slow_disk", &lab, SYNC_SLOW);
}

/// With syncs that take at least `sync`, on either side: what a machine makes of a sync can't be chosen.
fn figures_at(criterion: &mut Criterion, name: &str, lab: &Lab, sync: Duration) {
    let sync_ms = sync_ms(lab, sync);
    for logs in [1, 8] {
        let mut pairs = Pairs::default();
        round_after_round(criterion, name, lab, (logs, sync), &mut pairs);
        let (ours, other) = pairs.seconds();
        let rate = |seconds: f64| PRODUCERS as f64 / seconds;
        let detail = format!(
            "batches_s={:.0} one_sync_each_s={:.0} sync_ms={sync_ms:.2} producers={PRODUCERS} logs={logs} filesystem={}",
            rate(ours),
            rate(other),
            lab.filesystem()
        );
        let (name, bar) = match logs {
            1 if sync_ms >= SYNC_MIN.as_secs_f64() * 1e3 => (name.to_owned(), Bar::AtLeast(20.0)),
            1 => (name.to_owned(), Bar::None),
            _ => (format!("{name}_over_{logs}_logs"), Bar::None),
        };
        tell(&name, &pairs.ratios(), bar, &detail);
    }
}

/// As the node's worker does it: all that waits is appended, then each log is synced once.
fn round_after_round(
    criterion: &mut Criterion,
    name: &str,
    lab: &Lab,
    (logs, sync): (u32, Duration),
    pairs: &mut Pairs,
) {
    let disk = RealDisk::open(&lab.path().join("volume")).expect("the folder opens");
    let mut volume = open_on(Arc::new(SlowDisk { inner: disk, sync }), |_| {});
    let settings = LogSettings { flush: FlushPolicy::Ack, ..LogSettings::default() };
    for index in 0..logs {
        volume.create_partition(partition(index), settings.clone(), NOW).expect("room for a log");
    }
    let mut batches: Vec<Batches> = (0..logs).map(|_| Batches::of_one_record(1024)).collect();
    let file = lab.plain_file();
    let mut at = 0;
    let bytes = wide(PRODUCERS * batches[0].next().len());
    batches[0] = Batches::of_one_record(1024);
    pairs.collect(criterion, (name, &format!("{logs} logs")), bytes, || {
        let ready: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let log = producer % batches.len();
                (u32::try_from(log).expect("few"), batches[log].next())
            })
            .collect();
        let plain: Vec<_> = ready.iter().map(|(_, batch)| batch.clone()).collect();
        let (ours, ()) = timed(|| {
            for (log, batch) in ready {
                volume.append_as_leader(&partition(log), batch, EPOCH, NOW, WALL_MS).expect("appended");
            }
            for log in 0..logs {
                volume.sync(&partition(log)).expect("synced");
            }
        });
        let (other, ()) = timed(|| {
            for batch in plain {
                plain_write(&file, &batch, at);
                at += wide(batch.len());
                plain_sync(&file, sync);
            }
        });
        (ours, other)
    });
    for index in 0..logs {
        volume.delete_partition(&partition(index)).expect("deleted");
    }
    drop(volume);
    std::fs::remove_dir_all(lab.path().join("volume")).expect("the volume can be removed");
}

/// Median time of a sync of 4 KiB.
fn sync_ms(lab: &Lab, sync: Duration) -> f64 {
    let file = lab.plain_file();
    let times: Vec<f64> = (0..20u64)
        .map(|i| {
            plain_write(&file, &[7; 4096], i * 4096);
            timed(|| plain_sync(&file, sync)).0.as_secs_f64() * 1e3
        })
        .collect();
    median(&times)
}

fn plain_sync(file: &OwnedFd, sync: Duration) {
    at_least(sync, || rustix::fs::fdatasync(file).expect("synced"));
}
