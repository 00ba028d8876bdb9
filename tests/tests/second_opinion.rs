//! Where there is nobody else to ask, the other controllers say whether a storage node lives: the real servers over
//! simulated time, network and disks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_controller::cluster::SpuState;
use plimsoll_controller::raft_runtime::journal::JournalSettings;
use plimsoll_controller::raft_runtime::metadata::MemoryStore;
use plimsoll_controller::raft_runtime::{DataDir, RaftSettings, View};
use plimsoll_controller::session::SessionSettings;
use plimsoll_controller::{Controller, Parts};
use plimsoll_host::config::Secret;
use plimsoll_host::{Clock, Host, Random, Tasks};
use plimsoll_proto::ids::{ControllerId, SpuId};
use plimsoll_spu::{Spu, SpuSettings};
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings};
use plimsoll_tests::simulation::network;
use tokio::sync::watch;
use turmoil::Sim;

const DISK_BYTES: u64 = 64 << 20;
const WALL_MS: u64 = 1_767_225_600_000;
const SPU: SpuId = SpuId(1);
/// The cluster forms, or is whole again, within so long.
const FORMED: Duration = Duration::from_secs(20);

type Views = Rc<RefCell<BTreeMap<u64, watch::Receiver<Arc<View>>>>>;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn host(seed: u64) -> Host {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    let wall_ms = WALL_MS + u64::try_from(elapsed.as_millis()).unwrap_or(0);
    Host {
        clock: Clock::simulated(wall_ms),
        tasks: Tasks::one_thread(),
        random: Random::seeded(seed),
        network: network::simulated(),
    }
}

/// One storage node and some controllers.
struct World {
    sim: Sim<'static>,
    views: Views,
    controllers: u64,
    /// Ends the process of the storage node; its host stays.
    end: watch::Sender<bool>,
}

impl World {
    fn new(controllers: u64) -> Self {
        let mut sim = turmoil::Builder::new()
            .simulation_duration(s(300))
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(Duration::from_micros(200))
            .max_message_latency(Duration::from_millis(2))
            .tcp_capacity(4096)
            .rng_seed(1)
            .build();
        let views = Views::default();
        let addresses = |port: u16| (1..=controllers).map(move |n| (ControllerId(n), format!("c{n}:{port}")));
        for n in 1..=controllers {
            let views = Rc::clone(&views);
            let peers: BTreeMap<_, _> = addresses(7001).collect();
            sim.host(format!("c{n}"), move || run_controller(n, peers.clone(), Rc::clone(&views)));
        }
        let end = watch::Sender::new(false);
        let ending = end.clone();
        let known: Vec<String> = addresses(7001).map(|(_, address)| address).collect();
        sim.host("s1", move || run_spu(known.clone(), ending.subscribe()));
        let mut world = Self { sim, views, controllers, end };
        world.until("the node is online", FORMED, |view| view.state.spu_state(SPU) == SpuState::Online);
        world
    }

    /// What the leading controller has applied, and which it is.
    fn leading(&self) -> Option<(u64, Arc<View>)> {
        let views = self.views.borrow();
        let views = views.iter().map(|(n, view)| (*n, Arc::clone(&view.borrow())));
        views.filter(|(_, view)| view.is_leader).max_by_key(|(_, view)| view.term)
    }

    fn step(&mut self) {
        self.sim.step().expect("every server runs");
    }

    /// Steps until the leader's view is as told; how long that took.
    fn until(&mut self, what: &str, limit: Duration, holds: impl Fn(&View) -> bool) -> Duration {
        let start = self.sim.elapsed();
        while !self.leading().is_some_and(|(_, view)| holds(&view)) {
            let passed = self.sim.elapsed() - start;
            let state = self.leading().map(|(_, view)| view.state.spu_state(SPU));
            assert!(passed < limit, "{what}: not within {limit:?}, it is {state:?}: {:?}", self.states());
            self.step();
        }
        self.sim.elapsed() - start
    }

    fn until_offline(&mut self, limit: Duration) -> Duration {
        self.until("the node is offline", limit, |view| view.state.spu_state(SPU) == SpuState::Offline)
    }

    fn until_online(&mut self) {
        self.until("the node is back", FORMED, |view| view.state.spu_state(SPU) == SpuState::Online);
    }

    /// Every state that the node was ever in, and why.
    fn states(&self) -> Vec<(String, String)> {
        let Some((_, view)) = self.leading() else { return Vec::new() };
        let of_node = view.state.events_after(0).filter(|event| event.kind == "spu_state");
        of_node.map(|event| (event.to.clone(), event.reason.clone())).collect()
    }

    fn ended_by(&self) -> Option<String> {
        self.states().into_iter().rfind(|(to, _)| to == "offline").map(|(_, why)| why)
    }

    /// From now on nothing arrives between the node and the leading controller, or all of them.
    fn cut_off(&self, from_all: bool) -> Vec<String> {
        let leader = self.leading().expect("somebody leads").0;
        let cut = (1..=self.controllers).filter(|n| from_all || *n == leader).map(|n| format!("c{n}"));
        let cut: Vec<String> = cut.collect();
        cut.iter().for_each(|name| self.sim.hold(name.as_str(), "s1"));
        cut
    }

    fn connect(&self, cut: Vec<String>) {
        cut.into_iter().for_each(|name| self.sim.release(name, "s1"));
    }
}

async fn run_controller(n: u64, peers: BTreeMap<ControllerId, String>, views: Views) -> turmoil::Result {
    let host = host(n);
    let disk: SharedDisk = Arc::new(MemoryDisk::new(MemoryDiskSettings::plain(DISK_BYTES)));
    let journal = JournalSettings { file_bytes: 2 << 20, ..JournalSettings::default() };
    let (identity, journal) = DataDir::open(&disk, ControllerId(n), true, peers.keys().copied(), &journal)?;
    let parts = Parts {
        identity: Box::new(identity),
        journal: Box::new(journal),
        store: Box::<MemoryStore>::default(),
        disk: Some(disk),
    };
    let listener = host.network.bind("0.0.0.0:7001").await?;
    let mut raft = RaftSettings::new(ControllerId(n), peers);
    raft.peer_token = Some(Secret("known to controllers only".to_owned()));
    let running = Controller::start_with(host, raft, SessionSettings::default(), parts, listener).await?;
    views.borrow_mut().insert(n, running.raft().watch());
    std::future::pending::<()>().await;
    drop(running);
    Ok(())
}

async fn run_spu(controllers: Vec<String>, mut end: watch::Receiver<bool>) -> turmoil::Result {
    let settings = SpuSettings {
        id: SPU.0,
        data_dirs: vec!["/s1".into()],
        listen: "0.0.0.0:7301".to_owned(),
        advertise: Some("s1:7301".to_owned()),
        controllers,
        ..SpuSettings::default()
    };
    let disk: SharedDisk = Arc::new(MemoryDisk::new(MemoryDiskSettings::plain(DISK_BYTES)));
    let running = Spu::start(host(100), settings, vec![disk]).await?;
    tokio::select! {
        why = running.failed() => return Err(why.into()),
        _ = end.wait_for(|end| *end) => {}
    }
    // As when it is killed: nothing is said to anybody, and nothing listens any more.
    drop(running);
    std::future::pending().await
}

#[test]
fn a_node_that_only_the_leader_does_not_reach_is_not_dead() {
    let mut world = World::new(3);
    let cut = world.cut_off(false);
    // Silence alone is believed after 9 s; the others say that it answers.
    let until = world.sim.elapsed() + s(25);
    while world.sim.elapsed() < until {
        world.step();
    }
    let (_, view) = world.leading().expect("somebody leads");
    assert_eq!(view.state.spu_state(SPU), SpuState::Suspect, "{:?}", world.states());
    world.connect(cut);
    world.until_online();
    assert_eq!(world.ended_by(), None, "{:?}", world.states());
}

#[test]
fn a_node_that_answers_others_but_sends_no_heartbeats_is_replaced_after_the_hold() {
    let mut world = World::new(3);
    let cut = world.cut_off(false);
    let after = world.until_offline(s(60));
    assert!((s(38)..s(41)).contains(&after), "{after:?}: 9 s, and 30 s more while it answers");
    assert_eq!(world.ended_by().as_deref(), Some("answers, but sends no heartbeats"));
    world.connect(cut);
    world.until_online();
}

#[test]
fn a_node_that_nobody_hears_is_offline_as_soon_as_silence_says_it() {
    let mut world = World::new(3);
    world.cut_off(true);
    let after = world.until_offline(s(60));
    assert!((s(8)..s(10)).contains(&after), "{after:?}");
    assert_eq!(world.ended_by().as_deref(), Some("silent"));
}

#[test]
fn a_killed_node_is_offline_at_once_where_another_controller_sees_its_port_refuse_too() {
    for controllers in [1, 3] {
        let mut world = World::new(controllers);
        world.end.send_replace(true);
        let after = world.until_offline(s(60));
        let why = world.ended_by();
        if controllers == 1 {
            assert!((s(8)..s(10)).contains(&after), "{after:?}: one that refuses is one vantage point");
            assert_eq!(why.as_deref(), Some("silent"));
        } else {
            assert!(after < s(2), "{after:?}");
            assert_eq!(why.as_deref(), Some("port refuses"));
        }
    }
}
