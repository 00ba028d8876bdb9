//! Building the simulated hosts and stepping them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_controller::raft_runtime::DataDir;
use plimsoll_controller::raft_runtime::RaftSettings;
use plimsoll_controller::raft_runtime::journal::JournalSettings;
use plimsoll_controller::raft_runtime::metadata::MemoryStore;
use plimsoll_controller::session::SessionSettings;
use plimsoll_controller::{Controller, Parts};
use plimsoll_history::{History, check};
use plimsoll_host::{Clock, Host, Random, Tasks};
use plimsoll_proto::ids::ControllerId;
use plimsoll_spu::{Spu, SpuSettings};
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings};

use super::client::{Client, Told};
use super::faults::{Fault, schedule};
use super::network;

/// Simulated wall time at the start of every run: 2026-01-01.
const EPOCH_MS: u64 = 1_767_225_600_000;
/// A run that takes longer than this in simulated time hangs.
const LIMIT: Duration = Duration::from_secs(180);
const SPU_DISK_BYTES: u64 = 64 << 20;
const CONTROLLER_DISK_BYTES: u64 = 16 << 20;

/// Task numbers are counted for the whole process, so runs must not overlap.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
/// A power of two that is at least the number of lists that tokio spreads the tasks of a runtime over (4 for one
/// thread, `runtime/task/list.rs`).
const TASK_LISTS: u64 = 64;

/// When a host is killed, tokio drops its tasks list by list, and which list a task is in depends on its number.
/// Every run therefore starts at a number that is a multiple of the lists.
fn align_task_ids() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers needs nothing from the system");
    let number = || {
        let id = runtime.handle().spawn(async {}).id().to_string();
        id.parse::<u64>().expect("a task id shows as a number")
    };
    while number() % TASK_LISTS != TASK_LISTS - 1 {}
}

/// What a run showed.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed it came from.
    pub seed: u64,
    /// Everything that happened, a line each with its simulated time: the same seed gives the same lines.
    pub lines: Vec<String>,
    /// Promises that were broken; empty in a good run.
    pub violations: Vec<String>,
    /// Records acknowledged.
    pub acked: u64,
    /// Records of which the producer was told that they were not written.
    pub refused: u64,
    /// Faults that were injected.
    pub faults: u64,
}

/// Runs one seed to its end.
///
/// # Errors
/// What kept the run from ending: a host that failed, or more than [`LIMIT`] of simulated time.
pub fn run(seed: u64) -> anyhow::Result<Report> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    align_task_ids();
    let random = Random::seeded(seed);
    let faults = schedule(&random);
    let told = Rc::new(RefCell::new(Told::default()));
    let mut sim = turmoil::Builder::new()
        .simulation_duration(LIMIT)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(Duration::from_millis(5))
        .tcp_capacity(4096)
        .rng_seed(seed)
        .build();

    let mut spu_disks = Vec::new();
    for n in 1..=3 {
        let disk = MemoryDisk::new(MemoryDiskSettings::plain(CONTROLLER_DISK_BYTES));
        let host_seed = random.next_u64();
        sim.host(format!("c{n}"), move || run_controller(n, host_seed, disk.clone()));
    }
    for n in 1..=3 {
        let disk = MemoryDisk::new(MemoryDiskSettings::plain(SPU_DISK_BYTES));
        spu_disks.push(disk.clone());
        let host_seed = random.next_u64();
        sim.host(format!("s{n}"), move || run_spu(n, host_seed, disk.clone()));
    }
    let client_seed = random.next_u64();
    let client_told = Rc::clone(&told);
    sim.client("client", async move {
        let client = Client::connect(host(client_seed), client_told).await?;
        client.run().await?;
        Ok(())
    });

    let mut due = faults.iter().peekable();
    loop {
        while let Some((_, fault)) = due.next_if(|(at, _)| *at <= sim.elapsed()) {
            told.borrow_mut().line(sim.elapsed(), format!("fault {fault:?}"));
            inject(&mut sim, &spu_disks, *fault);
        }
        let done = sim.step().map_err(|error| anyhow::anyhow!("seed {seed}: {error}"))?;
        if done {
            break;
        }
        anyhow::ensure!(sim.elapsed() < LIMIT, "seed {seed}: not done after {LIMIT:?} of simulated time");
    }
    drop(sim);
    let told = told.take();
    let history: History = told.events.into_iter().collect();
    let violations = check(&history).iter().map(|violation| format!("{violation:?}")).collect();
    let faults = u64::try_from(faults.len()).unwrap_or(u64::MAX);
    Ok(Report { seed, lines: told.lines, violations, acked: told.acked, refused: told.refused, faults })
}

fn inject(sim: &mut turmoil::Sim<'_>, disks: &[MemoryDisk], fault: Fault) {
    let spu = |n: usize| format!("s{}", n + 1);
    let controller = |n: usize| format!("c{}", n + 1);
    match fault {
        Fault::Fill(n) => {
            disks[n].set_greedy(true);
            disks[n].take_all_bytes();
        }
        Fault::Free(n) => {
            disks[n].set_greedy(false);
            disks[n].release();
        }
        Fault::KillSpu(n) => sim.crash(spu(n)),
        Fault::StartSpu(n) => sim.bounce(spu(n)),
        Fault::KillController(n) => sim.crash(controller(n)),
        Fault::StartController(n) => sim.bounce(controller(n)),
        Fault::Cut(a, b) => sim.partition(spu(a), spu(b)),
        Fault::Heal(a, b) => sim.repair(spu(a), spu(b)),
    }
}

fn host(seed: u64) -> Host {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    let wall_ms = EPOCH_MS + u64::try_from(elapsed.as_millis()).unwrap_or(0);
    Host {
        clock: Clock::simulated(wall_ms),
        tasks: Tasks::one_thread(),
        random: Random::seeded(seed ^ u64::try_from(elapsed.as_micros()).unwrap_or(0)),
        network: network::simulated(),
    }
}

pub(super) fn controllers() -> Vec<String> {
    (1..=3).map(|n| format!("c{n}:7001")).collect()
}

async fn run_controller(n: u64, seed: u64, disk: MemoryDisk) -> turmoil::Result {
    let host = host(seed);
    let id = ControllerId(n);
    let peers: BTreeMap<_, _> = (1..=3u64).map(ControllerId).zip(controllers()).collect();
    let shared: SharedDisk = Arc::new(disk);
    let journal_settings = JournalSettings { file_bytes: 2 << 20, ..JournalSettings::default() };
    let (identity, journal) = DataDir::open(&shared, id, true, peers.keys().copied(), &journal_settings)?;
    let parts = Parts {
        identity: Box::new(identity),
        journal: Box::new(journal),
        store: Box::<MemoryStore>::default(),
    };
    let listener = host.network.bind("0.0.0.0:7001").await?;
    let raft = RaftSettings::new(id, peers);
    let running = Controller::start_with(host, raft, SessionSettings::default(), parts, listener).await?;
    std::future::pending::<()>().await;
    drop(running);
    Ok(())
}

async fn run_spu(n: u32, seed: u64, disk: MemoryDisk) -> turmoil::Result {
    let settings = SpuSettings {
        id: n,
        data_dirs: vec![format!("/s{n}").into()],
        listen: "0.0.0.0:7301".to_owned(),
        advertise: Some(format!("s{n}:7301")),
        controllers: controllers(),
        ..SpuSettings::default()
    };
    let running = Spu::start(host(seed), settings, vec![Arc::new(disk) as SharedDisk]).await?;
    std::future::pending::<()>().await;
    drop(running);
    Ok(())
}
