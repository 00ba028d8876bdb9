//! `flush = ack`: one sync for all who wait, against one for each.

use std::time::Duration;

use criterion::Criterion;
use plimsoll_storage::log::{FlushPolicy, LogSettings};

use crate::figure::{Bar, Pairs, median, tell, timed};
use crate::lab::{Batches, EPOCH, Lab, NOW, WALL_MS, partition, plain_write, wide};
use crate::rig::Rig;

/// Producers that wait at the same time, each for one batch.
const PRODUCERS: usize = 64;
/// A sync that is faster than this is no disk's.
const SYNC_MIN: Duration = Duration::from_micros(100);

pub(crate) fn figures(criterion: &mut Criterion) {
    figures_at(criterion, "commit", &Lab::new());
    // As fast as a disk gets: the image is in memory, the filesystem and its journal are real.
    match Rig::image(512, &["mkfs.ext4", "-qF"], "loop") {
        Ok(rig) => figures_at(criterion, "commit_fast_disk", &Lab::within(&rig.path())),
        Err(reason) => println!("SKIPPED figure-commit_fast_disk: {reason}"),
    }
}

fn figures_at(criterion: &mut Criterion, name: &str, lab: &Lab) {
    let sync_ms = sync_ms(lab);
    if sync_ms < SYNC_MIN.as_secs_f64() * 1e3 {
        let micros = sync_ms * 1e3;
        return println!(
            "SKIPPED figure-{name}: a sync takes {micros:.0} us here, which is not that of a disk"
        );
    }
    for logs in [1, 8] {
        let mut pairs = Pairs::default();
        round_after_round(criterion, name, lab, logs, &mut pairs);
        let (ours, other) = pairs.seconds();
        let rate = |seconds: f64| PRODUCERS as f64 / seconds;
        let detail = format!(
            "batches_s={:.0} one_sync_each_s={:.0} sync_ms={sync_ms:.2} producers={PRODUCERS} logs={logs} filesystem={}",
            rate(ours),
            rate(other),
            lab.filesystem()
        );
        let (name, bar) = match logs {
            1 => (name.to_owned(), Bar::AtLeast(20.0)),
            _ => (format!("{name}_over_{logs}_logs"), Bar::None),
        };
        tell(&name, &pairs.ratios(), bar, &detail);
    }
}

/// As the node's worker does it: all that waits is appended, then each log is synced once.
fn round_after_round(criterion: &mut Criterion, name: &str, lab: &Lab, logs: u32, pairs: &mut Pairs) {
    let mut volume = lab.volume();
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
                rustix::fs::fdatasync(&file).expect("synced");
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
fn sync_ms(lab: &Lab) -> f64 {
    let file = lab.plain_file();
    let times: Vec<f64> = (0..20u64)
        .map(|i| {
            plain_write(&file, &[7; 4096], i * 4096);
            timed(|| rustix::fs::fdatasync(&file).expect("synced")).0.as_secs_f64() * 1e3
        })
        .collect();
    median(&times)
}
