//! Full-disk proof: every call through the door fails once, with every kind of fault, and from then on.
//!
//! Afterwards nothing acknowledged is lost, nothing refused is visible, the offsets hold together; when space
//! is back the same handles accept writes; a failed device is Failed and says so; and a new process finds the
//! same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;

use super::world::*;
use crate::fs::classify::Operation;
use crate::fs::faulty::{Fault, FaultKind, Faults, FaultyDisk, Then};
use crate::fs::memory::{MemoryDisk, MemoryDiskSettings};
use crate::fs::{Disk, SharedDisk};
use crate::log::AppendError;
use crate::space::Observation;
use crate::volume::{ReplicaGuards, Volume};

mod scenarios;
mod start;

const KINDS: [FaultKind; 10] = [
    FaultKind::NoSpace,
    FaultKind::Quota,
    FaultKind::FileTooBig,
    FaultKind::ShortWrite,
    FaultKind::WriteIo,
    FaultKind::SyncIo,
    FaultKind::ReadIo,
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

/// What a scenario does before its calls are counted.
type Prepare = fn(&mut Volume, &mut Promises);

fn nothing(_: &mut Volume, _: &mut Promises) {}

/// Which calls were made, and which of them failed at least once: operation and kind of file.
#[derive(Default)]
struct Sites {
    /// When nothing fails.
    regular: BTreeSet<String>,
    /// Those, and the ones that are only met after a fault.
    seen: BTreeSet<String>,
    struck: BTreeSet<String>,
}

impl Sites {
    fn see(&mut self, faults: &Faults) {
        self.regular.extend(faults.trace().iter().map(site));
    }

    fn strike(&mut self, faults: &Faults) {
        let trace = faults.trace();
        self.seen.extend(trace.iter().map(site));
        for (call, _) in faults.fired() {
            let at = usize::try_from(call - 1).unwrap();
            self.struck.insert(site(&trace[at]));
        }
    }

    /// What `scripts/prove` adds up.
    fn tell(&self, name: &str, calls: u64, cases: u64) {
        println!("CASES full-disk {name} calls={calls} cases={cases}");
        for site in &self.seen {
            let struck = if self.struck.contains(site) { "struck" } else { "missed" };
            println!("SITE full-disk {struck} {site}");
        }
        let missed: Vec<_> = self.regular.difference(&self.struck).collect();
        assert!(missed.is_empty(), "{name}: every call is also made to fail, but for {missed:?}");
    }
}

fn site((operation, path): &(Operation, String)) -> String {
    let file = path.rsplit('/').next().unwrap_or_default();
    let kind = match file.rsplit_once('.') {
        Some((_, extension)) => format!(".{extension}"),
        None if file.starts_with("spare-") => "spare".to_owned(),
        None if path.contains('/') && !matches!(file, "checkpoint") => "partition".to_owned(),
        None if file.is_empty() => "root".to_owned(),
        None => file.to_owned(),
    };
    format!("{} {kind}", operation.name())
}

/// Runs `step` once for every call and kind; returns the number of cases in which a fault struck.
fn prove(name: &str, prepare: Prepare, step: Step) -> u64 {
    let mut sites = Sites::default();
    let calls = {
        let (mut bench, mut volume) = Bench::new();
        prepare(&mut volume, &mut bench.promises);
        bench.faults.reset();
        step(&mut volume, &mut bench.promises);
        sites.see(&bench.faults);
        bench.promises.check(&mut volume, name);
        bench.faults.calls()
    };
    assert!(calls > 0, "{name} goes through the door");
    let mut cases = 0;
    for kind in KINDS {
        for then in [Then::Works, Then::StaysSo] {
            for call in 1..=calls {
                cases += u64::from(one(name, prepare, step, Fault { kind, call, then }, &mut sites));
            }
        }
    }
    sites.tell(name, calls, cases);
    cases
}

fn one(name: &str, prepare: Prepare, step: Step, fault: Fault, sites: &mut Sites) -> bool {
    let what = format!("{name} {fault:?}");
    let (mut bench, mut volume) = Bench::new();
    prepare(&mut volume, &mut bench.promises);
    bench.faults.arm(fault);
    step(&mut volume, &mut bench.promises);
    sites.strike(&bench.faults);
    let fired = !bench.faults.fired().is_empty();
    bench.faults.disarm();
    if !fired {
        return false;
    }
    bench.promises.check(&mut volume, &what);
    let failed = volume.facts().failure.is_some();
    assert_eq!(failed, volume.level().level == DiskLevel::Failed, "{what}: it says so");
    match fault.kind {
        FaultKind::WriteIo | FaultKind::SyncIo | FaultKind::ReadOnlyFilesystem => {
            assert!(failed, "{what}: a device that fails is Failed");
        }
        FaultKind::NoSpace | FaultKind::Quota | FaultKind::FileTooBig | FaultKind::ShortWrite => {
            assert!(!failed, "{what}: full is not failed");
        }
        // What a read needed may be had otherwise, and some numbers pass by themselves.
        FaultKind::ReadIo | FaultKind::OutOfHandles | FaultKind::Unclassified | FaultKind::Dead => {}
    }
    if !failed {
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
