//! A start on a failing disk, after a kill and after a power loss that tore the tail.

use super::*;
use crate::fs::memory::PowerLoss;

/// Opens after `loss` with a fault and closes again; returns the calls that were made, and whether one failed.
fn run(loss: Option<PowerLoss>, fault: Option<Fault>, sites: &mut Sites) -> (u64, bool) {
    let (mut bench, mut volume) = Bench::new();
    for index in 0..2 {
        volume.sync(&partition(index)).unwrap();
    }
    let synced = bench.promises.clone();
    for _ in 0..3 {
        let _ = bench.promises.produce(&mut volume, &partition(0), 1000, ms(3));
    }
    drop(volume);
    let promises = match loss {
        Some(loss) => {
            bench.memory.power_loss(loss);
            let mut promises = bench.promises.clone();
            promises.acked = synced.acked;
            promises
        }
        None => bench.promises.clone(),
    };
    match fault {
        Some(fault) => bench.faults.arm(fault),
        None => bench.faults.reset(),
    }
    let opened = Volume::open(Arc::clone(&bench.disk), settings(), ms(50_000), WALL_MS);
    let closed =
        opened.is_ok_and(|(volume, report)| report.failed.is_empty() && volume.close(WALL_MS).is_ok());
    let calls = bench.faults.calls();
    let struck = !bench.faults.fired().is_empty();
    match fault {
        Some(_) => sites.strike(&bench.faults),
        None => sites.see(&bench.faults),
    }
    bench.faults.disarm();
    let what = format!("start after {loss:?} with {fault:?}");
    assert_eq!(bench.memory.open_handles(), 0, "{what}");
    let (mut volume, report) = open(Arc::clone(&bench.disk), ms(60_000));
    assert!(!closed || report.clean, "{what}");
    assert!(report.damaged.is_empty() && report.failed.is_empty(), "{what}: {report:?}");
    promises.check(&mut volume, &what);
    let mut again = promises;
    for index in 0..2 {
        again.produce(&mut volume, &partition(index), 1000, ms(60_001)).unwrap();
    }
    again.check(&mut volume, &what);
    (calls, struck)
}

fn prove_start(name: &str, loss: Option<PowerLoss>) {
    let mut sites = Sites::default();
    let (calls, _) = run(loss, None, &mut sites);
    let mut cases = 0;
    for kind in KINDS {
        for then in [Then::Works, Then::StaysSo] {
            for call in 1..=calls {
                let (_, struck) = run(loss, Some(Fault { kind, call, then }), &mut sites);
                cases += u64::from(struck);
            }
        }
    }
    sites.tell(name, calls, cases);
}

#[test]
fn start_after_a_kill_and_close() {
    prove_start("start", None);
}

#[test]
fn start_after_a_power_loss() {
    prove_start("start-torn", Some(PowerLoss::Tears { seed: 5 }));
}
