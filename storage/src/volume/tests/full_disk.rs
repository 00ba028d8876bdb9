//! Full-disk proof: every call through the door fails once, with every kind of fault, and from then on.
//!
//! Afterwards nothing acknowledged is lost, nothing refused is visible, the offsets hold together; when space
//! is back the same handles accept writes; a failed device is Failed and says so; and a new process finds the
//! same.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;

use super::world::*;
use crate::fs::faulty::{Fault, FaultKind, Faults, FaultyDisk, Then};
use crate::fs::memory::{MemoryDisk, MemoryDiskSettings};
use crate::fs::{Disk, SharedDisk};
use crate::log::{AppendError, LogSettings};
use crate::space::Observation;
use crate::volume::{ReplicaGuards, Volume};

const KINDS: [FaultKind; 9] = [
    FaultKind::NoSpace,
    FaultKind::Quota,
    FaultKind::FileTooBig,
    FaultKind::ShortWrite,
    FaultKind::WriteIo,
    FaultKind::SyncIo,
    FaultKind::ReadOnlyFilesystem,
    FaultKind::OutOfHandles,
    FaultKind::Unclassified,
];

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A volume behind a door that can fail.
struct Bench {
    memory: MemoryDisk,
    disk: SharedDisk,
    faults: Faults,
    promises: Promises,
}

type Step = fn(&mut Volume, &mut Promises);

impl Bench {
    fn new() -> (Self, Volume) {
        let memory = MemoryDisk::new(MemoryDiskSettings::plain(64 << 20));
        let (disk, faults) = FaultyDisk::new(shared(&memory));
        let disk: SharedDisk = Arc::new(disk);
        let (mut volume, _) = open(Arc::clone(&disk), ms(1));
        let mut promises = Promises::default();
        for index in 0..2 {
            volume.create_partition(partition(index), small_segments(), ms(1)).unwrap();
            for _ in 0..70 {
                promises.produce(&mut volume, &partition(index), 1000, ms(2)).unwrap();
            }
        }
        (Self { memory, disk, faults, promises }, volume)
    }
}

/// Runs `step` once for every call and kind; returns the number of cases in which a fault struck.
fn prove(name: &str, step: Step) -> u64 {
    let calls = {
        let (mut bench, mut volume) = Bench::new();
        bench.faults.reset();
        step(&mut volume, &mut bench.promises);
        bench.faults.calls()
    };
    assert!(calls > 0, "{name} goes through the door");
    let mut cases = 0;
    for kind in KINDS {
        for then in [Then::Works, Then::StaysSo] {
            for call in 1..=calls {
                cases += u64::from(one(name, step, Fault { kind, call, then }));
            }
        }
    }
    println!("full-disk {name}: calls={calls} cases={cases}");
    cases
}

fn one(name: &str, step: Step, fault: Fault) -> bool {
    let what = format!("{name} {fault:?}");
    let (mut bench, mut volume) = Bench::new();
    bench.faults.arm(fault);
    step(&mut volume, &mut bench.promises);
    let fired = !bench.faults.fired().is_empty();
    bench.faults.disarm();
    if !fired {
        return false;
    }
    bench.promises.check(&mut volume, &what);
    if volume.level().level != DiskLevel::Failed {
        accepts_again(&mut volume, &mut bench, &what);
        bench.promises.check(&mut volume, &what);
    } else {
        let refused = bench.promises.produce(&mut volume, &partition(0), 100, ms(60_000));
        assert!(
            matches!(refused, Err(AppendError::VolumeFailed { written: false, .. } | AppendError::NotFound)),
            "{what}: {refused:?}"
        );
    }
    drop(volume);
    assert_eq!(bench.memory.open_handles(), 0, "{what}");
    let (mut volume, report) = open(Arc::clone(&bench.disk), ms(100_000));
    assert!(report.damaged.is_empty() && report.failed.is_empty(), "{what}: {report:?}");
    bench.promises.check(&mut volume, &format!("{what}, opened again"));
    true
}

/// With room, the same handles take records again within two seconds.
fn accepts_again(volume: &mut Volume, bench: &mut Bench, what: &str) {
    let from = ms(60_000);
    for step in 0..40 {
        let at = from + ms(50) * step;
        volume.observe(Observation::Sample(bench.memory.space().unwrap()), at);
        volume.tick(at, WALL_MS + 60_000, &ReplicaGuards::new());
    }
    let at = from + ms(2000);
    for partition in volume.partitions() {
        let again = bench.promises.produce(volume, &partition, 1000, at);
        assert!(again.is_ok(), "{what}: {again:?} at {:?}", volume.level());
    }
}

#[test]
fn produce_and_roll() {
    let cases = prove("produce", |volume, promises| {
        for i in 0..70 {
            let _ = promises.produce(volume, &partition(0), 1000, ms(3000 + i));
        }
    });
    assert!(cases > 500, "{cases}");
}

#[test]
fn checkpoint_sync_and_retention() {
    prove("upkeep", |volume, promises| {
        let settings = LogSettings { retention_bytes_max: Some(0), ..small_segments() };
        volume.configure(&partition(1), settings);
        volume.set_high_watermark(&partition(1), offset(70));
        for step in 0..3 {
            let _ = promises.produce(volume, &partition(0), 1000, ms(20_000));
            let _ = volume.sync(&partition(0));
            volume.tick(ms(20_000 * (step + 1)), WALL_MS + 20_000 * (step + 1), &ReplicaGuards::new());
        }
    });
}

#[test]
fn trim_and_restart() {
    prove("trim", |volume, _| {
        let _ = volume.trim_head(&partition(0), offset(66));
        let _ = volume.trim_head(&partition(0), offset(70));
        let _ = volume.trim_head(&partition(1), offset(500));
    });
}

#[test]
fn truncate() {
    prove("truncate", |volume, promises| {
        for to in [68, 30] {
            // A cut that failed may have been made in part: what lay behind it promises nothing.
            match volume.truncate_tail(&partition(0), offset(to)) {
                Ok(()) => promises.cut(&partition(0), to),
                Err(_) => promises.forget(&partition(0), to),
            }
        }
        let _ = promises.produce(volume, &partition(0), 1000, ms(3000));
    });
}

#[test]
fn create_and_delete() {
    prove("delete", |volume, promises| {
        // A deletion that was asked for promises nothing of the partition any more.
        promises.acked.remove(&partition(1));
        let _ = volume.delete_partition(&partition(1));
        if volume.create_partition(partition(2), small_segments(), ms(3000)).is_ok() {
            let _ = promises.produce(volume, &partition(2), 1000, ms(3000));
        }
    });
}

#[test]
fn start_after_a_crash_and_close() {
    let run = |fault: Option<Fault>| {
        let (bench, volume) = Bench::new();
        drop(volume);
        match fault {
            Some(fault) => bench.faults.arm(fault),
            None => bench.faults.reset(),
        }
        let opened = Volume::open(Arc::clone(&bench.disk), settings(), ms(50_000), WALL_MS);
        let closed =
            opened.is_ok_and(|(volume, report)| report.failed.is_empty() && volume.close(WALL_MS).is_ok());
        let calls = bench.faults.calls();
        bench.faults.disarm();
        assert_eq!(bench.memory.open_handles(), 0, "{fault:?}");
        let (mut volume, report) = open(Arc::clone(&bench.disk), ms(60_000));
        assert!(!closed || report.clean, "{fault:?}");
        assert!(report.damaged.is_empty() && report.failed.is_empty(), "{fault:?}: {report:?}");
        bench.promises.check(&mut volume, &format!("start {fault:?}"));
        calls
    };
    let calls = run(None);
    for kind in KINDS.into_iter().chain([FaultKind::ReadIo]) {
        for call in 1..=calls {
            run(Some(Fault { kind, call, then: Then::Works }));
        }
    }
}
