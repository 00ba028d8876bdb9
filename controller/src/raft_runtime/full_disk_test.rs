//! A controller alone on a disk that a foreign writer fills, and on one that fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::Host;
use plimsoll_proto::ids::ControllerId;
use plimsoll_proto::v1::{self, entry::Change};
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::fs::faulty::{Fault, FaultKind, FaultyDisk, Then};
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings, PowerLoss};

use super::journal::JournalSettings;
use super::journal::proofs::vouched_and_written;
use super::metadata::MemoryStore;
use super::{DataDir, JournalState, ProposeError, RaftHandle, RaftSettings, start};
use crate::cluster::RULES_VERSION;

const LONG: Duration = Duration::from_secs(20);

fn entry() -> v1::Entry {
    let change = Change::AllocateProducerIds(v1::AllocateProducerIds { count: 1 });
    v1::Entry { rules: RULES_VERSION, change: Some(change), ..v1::Entry::default() }
}

async fn run(host: &Host, disk: &SharedDisk, store: &MemoryStore) -> RaftHandle {
    let id = ControllerId(1);
    let settings = JournalSettings { file_bytes: 1 << 20, ..JournalSettings::default() };
    let (identity, journal) = DataDir::open(disk, id, true, [id], &settings).expect("opens");
    let mut settings = RaftSettings::new(id, BTreeMap::from([(id, "127.0.0.1:1".to_owned())]));
    settings.disk_retry = Duration::from_millis(50);
    settings.metadata_interval = Duration::from_millis(50);
    let store = Box::new(store.clone());
    let (handle, _) =
        start(host, settings, Box::new(identity), Box::new(journal), store, None).await.expect("starts");
    leads(host, &handle).await;
    handle
}

async fn leads(host: &Host, handle: &RaftHandle) {
    let mut view = handle.watch();
    let led = view.wait_for(|view| view.is_leader);
    drop(host.clock.timeout(LONG, led).await.expect("it leads").expect("it runs"));
}

fn disk() -> (MemoryDisk, SharedDisk) {
    let memory = MemoryDisk::new(MemoryDiskSettings::plain(8 << 20));
    (memory.clone(), Arc::new(memory))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_elects_and_commits_at_zero_bytes_and_zero_inodes() {
    let (host, store) = (Host::real(), MemoryStore::default());
    let (memory, disk) = disk();
    run(&host, &disk, &store).await.stop(LONG).await;
    memory.take_all_bytes();
    memory.take_all_inodes();
    memory.set_greedy(true);
    store.set_full(true);
    let mut last = 0;
    for _ in 0..3 {
        let handle = run(&host, &disk, &store).await;
        // Many times what a journal file holds: it compacts in place.
        let mut waiting = Vec::new();
        for _ in 0..200 {
            waiting.clear();
            waiting.extend((0..50).map(|_| handle.propose(entry(), LONG)));
            for proposed in futures::future::join_all(waiting.drain(..)).await {
                last = proposed.expect("committed").index;
            }
        }
        let view = handle.view();
        assert!(view.applied_index >= last && view.journal == JournalState::Healthy);
        handle.stop(LONG).await;
        memory.power_loss(PowerLoss::LosesAllUnsynced);
    }
    let handle = run(&host, &disk, &store).await;
    assert!(handle.view().applied_index >= last, "nothing that was acknowledged is gone");
}

/// Commit indexes are written without a sync. At rest, and at the end, they have had it: whatever rots then is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_at_rest_vouches_for_all_that_was_written() {
    let (host, store) = (Host::real(), MemoryStore::default());
    let (memory, disk) = disk();
    let handle = run(&host, &disk, &store).await;
    handle.propose(entry(), LONG).await.expect("healthy");
    let at_rest = async {
        while !vouches_for_all(&disk) {
            host.clock.sleep(Duration::from_millis(10)).await;
        }
    };
    host.clock.timeout(LONG, at_rest).await.expect("by itself");
    handle.propose(entry(), LONG).await.expect("healthy");
    handle.stop(LONG).await;
    assert!(vouches_for_all(&disk));
    memory.power_loss(PowerLoss::LosesAllUnsynced);
    assert!(vouches_for_all(&disk));
}

fn vouches_for_all(disk: &SharedDisk) -> bool {
    let (vouched, written) = vouched_and_written(disk);
    vouched == written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_takes_nothing_freezes_the_controller_until_it_does() {
    let (host, store) = (Host::real(), MemoryStore::default());
    let (_, disk) = disk();
    let (faulty, faults) = FaultyDisk::new(disk);
    let disk: SharedDisk = Arc::new(faulty);
    let handle = run(&host, &disk, &store).await;
    let before = handle.propose(entry(), LONG).await.expect("healthy");
    faults.arm(Fault { kind: FaultKind::NoSpace, call: 1, then: Then::StaysSo });
    let open = handle.propose(entry(), Duration::from_millis(200)).await;
    assert_eq!(open.err(), Some(ProposeError::TimedOut), "nobody knows yet");
    let mut view = handle.watch();
    let frozen = view.wait_for(|view| view.journal == JournalState::OutOfRoom && !view.is_leader);
    drop(host.clock.timeout(LONG, frozen).await.expect("it says so"));
    let refused = handle.propose(entry(), LONG).await.err();
    assert!(matches!(refused, Some(ProposeError::Disk { .. })), "{refused:?}");
    assert!(handle.view().applied_index >= before.index, "reads go on");
    faults.disarm();
    leads(&host, &handle).await;
    handle.propose(entry(), LONG).await.expect("by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_its_part_in_consensus_and_loses_nothing() {
    let (host, store) = (Host::real(), MemoryStore::default());
    let (memory, disk) = disk();
    let handle = run(&host, &disk, &store).await;
    let before = handle.propose(entry(), LONG).await.expect("healthy");
    memory.set_sync_fails(true);
    assert_eq!(handle.propose(entry(), Duration::from_millis(200)).await.err(), Some(ProposeError::TimedOut));
    memory.set_sync_fails(false);
    let refused = handle.propose(entry(), LONG).await.err();
    assert!(matches!(refused, Some(ProposeError::Disk { .. })), "the sync is not tried again: {refused:?}");
    let view = handle.view();
    assert!(
        matches!(view.journal, JournalState::Failed(_))
            && !view.is_leader
            && view.applied_index >= before.index
    );
    handle.stop(LONG).await;
    memory.power_loss(PowerLoss::LosesAllUnsynced);
    let again = run(&host, &disk, &store).await;
    assert!(again.view().applied_index >= before.index);
}
