//! Several controllers in one process, over real loopback connections and real files.

mod cut_off;
mod five;
mod severable;
mod sick;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::{Host, Listener, ServerOptions, Task};
use plimsoll_proto::ids::ControllerId;
use plimsoll_proto::v1::{self, entry::Change};
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::fs::faulty::{Faults, FaultyDisk};
use plimsoll_storage::fs::real::RealDisk;

use tokio::sync::oneshot;

use super::handle::JournalState;
use super::journal::JournalSettings;
use super::metadata::{RocksSettings, RocksStore};
use super::testing::TempDir;
use super::wire::MESSAGE_BYTES_MAX;
use super::{DataDir, DataDirError, ProposeError, Proposed, RaftHandle, RaftSettings, start};
use crate::cluster::{Effect, Outcome, RULES_VERSION};

const LONG: Duration = Duration::from_secs(20);

struct Server {
    task: Task,
    shutdown: oneshot::Sender<()>,
}

impl Server {
    async fn end(mut self) {
        drop(self.shutdown);
        self.task.finished().await;
    }
}

struct Site {
    host: Host,
    id: ControllerId,
    dir: TempDir,
    peers: BTreeMap<ControllerId, String>,
    listener: Option<Listener>,
    running: Option<(RaftHandle, Server)>,
    tune: fn(&mut RaftSettings),
    journal_bytes: u64,
    /// Makes its disk fail.
    faults: Faults,
    disk: SharedDisk,
}

fn ids(count: u32) -> v1::Entry {
    let change = Change::AllocateProducerIds(v1::AllocateProducerIds { count });
    v1::Entry { rules: RULES_VERSION, change: Some(change), ..v1::Entry::default() }
}

fn first_id(proposed: &Proposed) -> u64 {
    match proposed.applied {
        Outcome::Changed(Effect::ProducerIds { first, .. }) => first,
        ref other => panic!("{other:?}"),
    }
}

impl Site {
    fn disk(&self) -> SharedDisk {
        self.disk.clone()
    }

    async fn start(&mut self) {
        let journal = JournalSettings { file_bytes: self.journal_bytes, ..JournalSettings::default() };
        let disk = self.disk();
        // The former lane may hold the lock for a moment.
        let (identity, journal) = loop {
            match DataDir::open(&disk, self.id, true, self.peers.keys().copied(), &journal) {
                Ok(opened) => break opened,
                Err(DataDirError::Locked { .. }) => self.host.clock.sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
        };
        let rocks = RocksSettings { margin_bytes: 1 << 20, ballast_bytes: 0, ..RocksSettings::default() };
        let store = RocksStore::new(disk, self.dir.path(), rocks);
        let mut settings = RaftSettings::new(self.id, self.peers.clone());
        settings.compact_entries = 50;
        settings.keep_entries = 5;
        settings.metadata_interval = Duration::from_millis(50);
        (self.tune)(&mut settings);
        let (handle, service) =
            start(&self.host, settings, Box::new(identity), Box::new(journal), Box::new(store), None)
                .await
                .expect("starts");
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => self.host.network.bind(&self.peers[&self.id]).await.expect("its port is free"),
        };
        let (shutdown, ending) = oneshot::channel::<()>();
        let vantage = service.vantage(&self.host);
        let server = plimsoll_host::server(&ServerOptions::default())
            .add_service(service.into_server(vantage))
            .serve_with_incoming_shutdown(listener.into_incoming(), async move { drop(ending.await) });
        let task = self.host.tasks.spawn("server", async move { drop(server.await) });
        self.running = Some((handle, Server { task, shutdown }));
    }

    fn handle(&self) -> &RaftHandle {
        &self.running.as_ref().expect("running").0
    }

    /// Ends it without a handover, as a crash does.
    async fn kill(&mut self) {
        let (handle, server) = self.running.take().expect("running");
        let lane = handle.commands.clone();
        lane.send(super::handle::Command::Stop).await.expect("running");
        lane.closed().await;
        server.end().await;
    }
}

async fn sites(count: u64) -> Vec<Site> {
    let mut sites = laid_out((0..count).map(|_| Host::real())).await;
    for site in &mut sites {
        site.start().await;
    }
    sites
}

/// Sites on these hosts, with their ports bound, not started.
async fn laid_out(hosts: impl IntoIterator<Item = Host>) -> Vec<Site> {
    let mut bound = Vec::new();
    for host in hosts {
        let listener = host.network.bind("127.0.0.1:0").await.expect("a free port");
        bound.push((host, listener));
    }
    let address = |listener: &Listener| listener.local_addr().expect("bound").to_string();
    let addresses = bound.iter().map(|(_, listener)| address(listener));
    let peers: BTreeMap<_, _> = (1..).map(ControllerId).zip(addresses).collect();
    let site = |(id, (host, listener))| {
        let dir = TempDir::new("raft");
        let (disk, faults) = FaultyDisk::new(Arc::new(RealDisk::open(dir.path()).expect("a directory")));
        Site {
            host,
            id,
            dir,
            peers: peers.clone(),
            listener: Some(listener),
            running: None,
            tune: |_| {},
            journal_bytes: 1 << 20,
            faults,
            disk: Arc::new(disk),
        }
    };
    peers.keys().copied().zip(bound).map(site).collect()
}

/// Which of the running ones leads.
async fn leader(sites: &[Site]) -> usize {
    let wait = async {
        loop {
            let leads =
                |site: &Site| site.running.as_ref().is_some_and(|(handle, _)| handle.view().is_leader);
            if let Some(at) = sites.iter().position(leads) {
                return at;
            }
            sites[0].host.clock.sleep(Duration::from_millis(10)).await;
        }
    };
    sites[0].host.clock.timeout(LONG, wait).await.expect("somebody leads")
}

/// Proposes at whoever leads until it is applied.
async fn propose(sites: &[Site]) -> Proposed {
    propose_entry(sites, ids(10)).await
}

async fn propose_entry(sites: &[Site], entry: v1::Entry) -> Proposed {
    let wait = async {
        loop {
            let at = leader(sites).await;
            match sites[at].handle().propose(entry.clone(), Duration::from_secs(5)).await {
                Ok(proposed) => return proposed,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        }
    };
    sites[0].host.clock.timeout(LONG, wait).await.expect("somebody leads")
}

async fn applied(site: &Site, index: u64) {
    let mut view = site.handle().watch();
    let wait = view.wait_for(|view| view.applied_index >= index);
    drop(site.host.clock.timeout(LONG, wait).await.expect("it catches up").expect("it runs"));
}

/// RocksDB must be closed before the process ends: its static destructors crash under a running thread.
async fn end(mut sites: Vec<Site>) {
    for site in sites.iter_mut().filter(|site| site.running.is_some()) {
        site.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_elect_replicate_survive_the_leader_and_restart_from_disk() {
    let mut sites = sites(3).await;
    let first = propose(&sites).await;
    for site in &sites {
        applied(site, first.index).await;
    }
    let clusters: Vec<_> = sites.iter().map(|site| site.handle().view().cluster_id).collect();
    assert!(
        clusters[0].is_some() && clusters.iter().all(|id| *id == clusters[0]),
        "one cluster: {clusters:?}"
    );

    let led = leader(&sites).await;
    let follower = (led + 1) % 3;
    let refused = sites[follower].handle().propose(ids(1), LONG).await;
    let hint = (sites[led].id, sites[led].peers[&sites[led].id].clone());
    assert_eq!(refused.err(), Some(ProposeError::NotLeader { leader: Some(hint) }));
    let seen = sites[follower].handle().read_barrier(LONG).await.expect("a majority lives");
    assert!(seen >= first.index);

    sites[led].kill().await;
    let second = propose(&sites).await;
    assert!(first_id(&second) >= first_id(&first) + 10, "what was acknowledged is there");
    sites[led].start().await;
    applied(&sites[led], second.index).await;

    for site in &mut sites {
        site.kill().await;
    }
    for site in &mut sites {
        site.start().await;
    }
    let third = propose(&sites).await;
    assert!(first_id(&third) >= first_id(&second) + 10);
    assert_eq!(sites[0].handle().view().cluster_id, clusters[0]);
    end(sites).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_away_for_long_catches_up_by_snapshot() {
    let mut sites = sites(3).await;
    propose(&sites).await;
    let away = (leader(&sites).await + 1) % 3;
    sites[away].kill().await;
    let mut last = propose(&sites).await;
    for _ in 0..150 {
        last = propose(&sites).await;
    }
    sites[away].start().await;
    applied(&sites[away], last.index).await;
    let led = leader(&sites).await;
    assert_eq!(sites[away].handle().view().state, sites[led].handle().view().state);
    // And it can be relied upon: without one of the others there is still a majority.
    let other = (0..3).find(|at| *at != away && *at != led).expect("three");
    sites[other].kill().await;
    assert!(first_id(&propose(&sites).await) > first_id(&last));
    end(sites).await;
}

/// Makes the state larger by `bytes`: an event with a long reason.
fn long_reason(from: v1::SpuDuty, to: v1::SpuDuty, incarnation: u64, bytes: usize) -> v1::Entry {
    let change = Change::SetSpuDuty(v1::SetSpuDuty {
        spu_id: 1,
        incarnation,
        expected: from.into(),
        wanted: to.into(),
        reason: "r".repeat(bytes),
        force: false,
    });
    v1::Entry { change: Some(change), ..ids(1) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_larger_than_any_message_arrives() {
    let mut sites = laid_out((0..3).map(|_| Host::real())).await;
    for site in &mut sites {
        site.journal_bytes = 32 << 20;
        site.tune = |settings| settings.compact_entries = 10;
        site.start().await;
    }
    propose(&sites).await;
    let away = (leader(&sites).await + 1) % 3;
    sites[away].kill().await;
    let node = Change::RegisterSpu(crate::cluster::testing::registration(1, 1));
    let registered = propose_entry(&sites, v1::Entry { change: Some(node), ..ids(1) }).await;
    let (mut from, mut to) = (v1::SpuDuty::Serving, v1::SpuDuty::Cordoned);
    let mut last = registered.index;
    while sites[leader(&sites).await].handle().view().state.encode_snapshot().len() <= MESSAGE_BYTES_MAX {
        last = propose_entry(&sites, long_reason(from, to, registered.index, 256 << 10)).await.index;
        std::mem::swap(&mut from, &mut to);
    }
    // Past the next snapshot of the others: the log alone does not hold what it missed.
    for _ in 0..20 {
        last = propose(&sites).await.index;
    }
    sites[away].start().await;
    applied(&sites[away], last).await;
    let led = leader(&sites).await;
    assert_eq!(sites[away].handle().view().state, sites[led].handle().view().state);
    end(sites).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_and_two_of_three_gone_means_no_quorum() {
    let mut sites = sites(3).await;
    propose(&sites).await;
    let led = leader(&sites).await;
    let heir = (led + 1) % 3;
    let (from, to) = (sites[led].handle().clone(), sites[heir].id);
    assert!(from.transfer_leader(to, LONG).await);
    propose(&sites).await;
    let led = leader(&sites).await;
    for at in (0..3).filter(|at| *at != led) {
        sites[at].kill().await;
    }
    let alone = sites[led].handle().clone();
    let open = alone.propose(ids(1), Duration::from_millis(300)).await;
    assert_eq!(open.err(), Some(ProposeError::TimedOut), "appended, then nobody answered");
    let mut view = alone.watch();
    let stepped_down = view.wait_for(|view| view.leader.is_none());
    drop(sites[led].host.clock.timeout(LONG, stepped_down).await.expect("it steps down"));
    assert_eq!(alone.propose(ids(1), LONG).await.err(), Some(ProposeError::NoQuorum));
    assert_eq!(alone.read_barrier(LONG).await.err(), Some(ProposeError::NoQuorum));
    end(sites).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_newer_rules_stops_a_controller_before_it_diverges() {
    let mut sites = sites(1).await;
    let last = propose(&sites).await;
    let newer = v1::Entry { rules: RULES_VERSION + 1, ..ids(10) };
    let answer = sites[0].handle().propose(newer, Duration::from_millis(200)).await;
    assert!(answer.is_err(), "{answer:?}");
    for again in [false, true] {
        if again {
            sites[0].kill().await;
            sites[0].start().await;
        }
        let mut view = sites[0].handle().watch();
        let stopped = view.wait_for(|view| matches!(view.journal, JournalState::Failed(_)));
        let stopped = sites[0].host.clock.timeout(LONG, stopped).await.expect("it stops").expect("it runs");
        let (journal, applied, leads) = (stopped.journal.clone(), stopped.applied_index, stopped.is_leader);
        let JournalState::Failed(why) = journal else { panic!("checked above") };
        assert!(why.contains("upgrade this controller"), "{why}");
        assert!(applied >= last.index && !leads);
        drop(stopped);
        // What it has applied can be read.
        assert_eq!(sites[0].handle().view().state.no_ops(), 0);
    }
    end(sites).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_metadata_store_is_rebuilt_and_a_lost_journal_is_not() {
    let mut sites = sites(1).await;
    let mut last = propose(&sites).await;
    for _ in 0..120 {
        last = propose(&sites).await;
    }
    let (handle, server) = sites[0].running.take().expect("running");
    handle.stop(LONG).await;
    server.end().await;
    super::testing::overwrite_all(sites[0].disk().as_ref(), "metadata", b"rot");
    sites[0].start().await;
    assert!(first_id(&propose(&sites).await) > first_id(&last));
    sites[0].kill().await;
    sites[0].disk().remove_file("journal/a.log").expect("there");
    let site = &sites[0];
    let refused =
        DataDir::open(&site.disk(), site.id, true, site.peers.keys().copied(), &JournalSettings::default());
    assert!(refused.err().expect("refused").to_string().contains("journal/a.log is missing"));
    end(sites).await;
}
