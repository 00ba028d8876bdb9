//! Crash proof: the process or the machine dies at every call.
//!
//! A killed process loses nothing that was acknowledged; a machine that loses power loses nothing that was
//! synced; neither ever shows what was refused.

use std::sync::Arc;
use std::time::Duration;

use super::world::*;
use crate::fs::SharedDisk;
use crate::fs::faulty::{Fault, FaultKind, FaultyDisk, Then};
use crate::fs::memory::{MemoryDisk, MemoryDiskSettings, PowerLoss};
use crate::volume::{ReplicaGuards, Volume};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Some life; returns what was acknowledged, and what of it a sync covers.
fn live(volume: &mut Volume) -> (Promises, Promises) {
    let mut acked = Promises::default();
    let mut synced = Promises::default();
    let mut clock = 10;
    for round in 0..4u64 {
        for index in 0..2 {
            for _ in 0..25 {
                clock += 1;
                let _ = acked.produce(volume, &partition(index), 1500, ms(clock));
            }
            if volume.sync(&partition(index)).is_ok()
                && let Some(values) = acked.acked.get(&partition(index))
            {
                synced.acked.insert(partition(index), values.clone());
            }
        }
        clock += 11_000;
        volume.tick(ms(clock), WALL_MS + clock, &ReplicaGuards::new());
        match round {
            1 => {
                let _ = volume.trim_head(&partition(0), offset(30));
            }
            2 => {
                // Whatever comes of it, the cut records promise nothing any more.
                let _ = volume.truncate_tail(&partition(1), offset(60));
                acked.forget(&partition(1), 60);
                synced.forget(&partition(1), 60);
            }
            _ => {}
        }
    }
    synced.refused = acked.refused.clone();
    (acked, synced)
}

fn run(call: Option<u64>, loss: Option<PowerLoss>) -> u64 {
    let memory = MemoryDisk::new(MemoryDiskSettings::plain(64 << 20));
    let (disk, faults) = FaultyDisk::new(shared(&memory));
    let disk: SharedDisk = Arc::new(disk);
    let (mut volume, _) = open(Arc::clone(&disk), ms(1));
    for index in 0..2 {
        volume.create_partition(partition(index), small_segments(), ms(1)).unwrap();
    }
    match call {
        Some(call) => faults.arm(Fault { kind: FaultKind::Dead, call, then: Then::StaysSo }),
        None => faults.reset(),
    }
    let (acked, synced) = live(&mut volume);
    let calls = faults.calls();
    faults.disarm();
    drop(volume);
    let promises = match loss {
        Some(loss) => {
            memory.power_loss(loss);
            &synced
        }
        None => &acked,
    };
    let what = format!("dead from call {call:?}, {loss:?}");
    let (mut volume, report) = open(Arc::clone(&disk), ms(1));
    assert!(report.damaged.is_empty() && report.failed.is_empty(), "{what}: {report:?}");
    promises.check(&mut volume, &what);
    let mut after = promises.clone();
    for index in 0..2 {
        after.produce(&mut volume, &partition(index), 100, ms(2)).unwrap();
        volume.sync(&partition(index)).unwrap();
    }
    drop(volume);
    if let Some(loss) = loss {
        memory.power_loss(loss);
    }
    let (mut volume, _) = open(Arc::clone(&disk), ms(1));
    after.check(&mut volume, &format!("{what}, and once more"));
    calls
}

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    let calls = run(None, None);
    for call in 1..=calls {
        run(Some(call), None);
    }
    println!("CASES crash kill cases={calls}");
}

#[test]
fn a_power_loss_loses_nothing_synced() {
    let calls = run(None, Some(PowerLoss::LosesAllUnsynced));
    for call in 1..=calls {
        run(Some(call), Some(PowerLoss::LosesAllUnsynced));
    }
    println!("CASES crash power-loss cases={calls}");
}

#[test]
fn a_power_loss_that_tears_loses_nothing_synced() {
    let calls = run(None, Some(PowerLoss::Tears { seed: 1 }));
    let seeds = if in_full() { 20 } else { 2 };
    for call in 1..=calls {
        for seed in 0..seeds {
            run(Some(call), Some(PowerLoss::Tears { seed: call * 31 + seed }));
        }
    }
    println!("CASES crash torn cases={}", calls * seeds);
}
