//! The servers of a simulated run: their real code over simulated time, network and disks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_controller::raft_runtime::DataDir;
use plimsoll_controller::raft_runtime::RaftSettings;
use plimsoll_controller::raft_runtime::journal::JournalSettings;
use plimsoll_controller::raft_runtime::metadata::MemoryStore;
use plimsoll_controller::session::SessionSettings;
use plimsoll_controller::{Controller, Parts};
use plimsoll_host::{Clock, Host, Random, Tasks};
use plimsoll_proto::ids::ControllerId;
use plimsoll_spu::{Spu, SpuSettings};
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings};

use super::faults::{Node, Plan};
use super::network;
use super::told::Shared;

/// Simulated wall time at the start of every run: 2026-01-01.
pub(super) const EPOCH_MS: u64 = 1_767_225_600_000;
const DISK_BYTES: u64 = 64 << 20;
/// How long a volume is short of room before replicas leave it, where runs are short.
const RELIEF_AFTER: Duration = Duration::from_secs(1);
/// How soon a process notices that its disk answers again.
const HANG_POLL: Duration = Duration::from_millis(10);

/// Size of every disk.
pub(super) fn disk_bytes() -> u64 {
    DISK_BYTES
}

/// A new disk with the habits of the plan.
pub(super) fn disk(plan: &Plan, node: Node) -> MemoryDisk {
    let mut settings = MemoryDiskSettings::plain(DISK_BYTES);
    settings.entries_need_block = plan.entries_need_block;
    settings.copy_on_write = plan.copy_on_write && matches!(node, Node::Spu(_));
    MemoryDisk::new(settings)
}

/// What a simulated host has of its machine.
pub(super) fn host(seed: u64) -> Host {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    let wall_ms = EPOCH_MS + u64::try_from(elapsed.as_millis()).unwrap_or(0);
    Host {
        clock: Clock::simulated(wall_ms),
        tasks: Tasks::one_thread(),
        random: Random::seeded(seed ^ u64::try_from(elapsed.as_micros()).unwrap_or(0)),
        network: network::simulated(),
    }
}

/// Addresses of the controllers.
pub(super) fn controllers() -> Vec<String> {
    Node::CONTROLLERS.iter().map(|node| format!("{node}:7001")).collect()
}

/// Runs a server until it is killed. One that ends by itself is told, and waits to be killed.
pub(super) async fn run(node: Node, seed: u64, disk: MemoryDisk, told: Shared) -> turmoil::Result {
    // A process whose disk hangs stays in its first system call until the disk answers.
    while disk.hangs() {
        host(seed).clock.sleep(HANG_POLL).await;
    }
    if told.borrow_mut().plant_panic.then_some(node) == Some(Node::Spu(1)) {
        host(seed).tasks.spawn("planted", async { panic!("planted") }).detach();
    }
    let session = session(&told);
    let ended = match node {
        Node::Controller(n) => run_controller(n, seed, disk, session, &told).await,
        Node::Spu(n) => run_spu(n, seed, disk, &told).await,
        Node::Producers | Node::Reader => Ok(()),
    };
    {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        let why = ended.err().map_or_else(|| "without a reason".to_owned(), |error| error.to_string());
        let mut told = told.borrow_mut();
        told.ended.insert(node);
        told.nodes.remove(&node);
        if told.damaged.contains(&node) {
            told.line(at, format!("{node} ended on a broken disk: {why}"));
        } else {
            told.broken(at, format!("{node} ended: {why}"));
        }
    }
    std::future::pending().await
}

/// The disks are small: the internal topic is only part of worlds with groups.
fn session(told: &Shared) -> SessionSettings {
    let told = told.borrow();
    let mut session = SessionSettings { offsets_topic_early: told.grouped, ..SessionSettings::default() };
    if told.relieved {
        session.relief_after = RELIEF_AFTER;
    }
    session
}

async fn run_controller(
    n: u8,
    seed: u64,
    disk: MemoryDisk,
    session: SessionSettings,
    told: &Shared,
) -> turmoil::Result {
    let host = host(seed);
    let id = ControllerId(n.into());
    let peers: BTreeMap<_, _> = (1..=3u64).map(ControllerId).zip(controllers()).collect();
    let shared: SharedDisk = Arc::new(disk);
    let journal_settings = JournalSettings { file_bytes: 2 << 20, ..JournalSettings::default() };
    let (identity, journal) = DataDir::open(&shared, id, true, peers.keys().copied(), &journal_settings)?;
    let parts = Parts {
        identity: Box::new(identity),
        journal: Box::new(journal),
        store: Box::<MemoryStore>::default(),
        disk: Some(Arc::clone(&shared)),
    };
    let listener = host.network.bind("0.0.0.0:7001").await?;
    let raft = RaftSettings::new(id, peers);
    let running = Controller::start_with(host, raft, session, parts, listener).await?;
    told.borrow_mut().truth.add_view(Node::Controller(n), running.raft().watch());
    std::future::pending::<()>().await;
    drop(running);
    Ok(())
}

async fn run_spu(n: u8, seed: u64, disk: MemoryDisk, told: &Shared) -> turmoil::Result {
    let settings = SpuSettings {
        id: n.into(),
        data_dirs: vec![format!("/s{n}").into()],
        listen: "0.0.0.0:7301".to_owned(),
        advertise: Some(format!("s{n}:7301")),
        controllers: controllers(),
        ..SpuSettings::default()
    };
    let running = Spu::start(host(seed), settings, vec![Arc::new(disk) as SharedDisk]).await?;
    told.borrow_mut().nodes.insert(Node::Spu(n), running.node().clone());
    Err(running.failed().await.into())
}
