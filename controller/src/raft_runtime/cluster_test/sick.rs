//! One of three whose disk takes nothing (one that leads), or has failed (one that follows): it neither leads nor votes,
//! and the others go on.

use plimsoll_storage::fs::faulty::{Fault, FaultKind, Then};

use super::*;

/// Several election timeouts: who could be elected would be.
const ELECTIONS: Duration = Duration::from_secs(4);

async fn until(site: &Site, what: &str, wanted: impl FnMut(&Arc<super::super::View>) -> bool) {
    let mut view = site.handle().watch();
    let reached = site.host.clock.timeout(LONG, view.wait_for(wanted)).await;
    drop(reached.expect(what).expect("it runs"));
}

/// The disk of this site fails while an entry comes; it takes no part any more.
async fn falls_ill(sites: &[Site], sick: usize, kind: FaultKind) {
    let led = leader(sites).await;
    sites[sick].faults.arm(Fault { kind, call: 1, then: Then::StaysSo });
    let proposed = sites[led].handle().propose(ids(10), Duration::from_millis(200)).await;
    if sick == led {
        // Whether the others have it is open; it can't be known here.
        assert_eq!(proposed.err(), Some(ProposeError::TimedOut));
    }
    until(&sites[sick], "it says so", |view| view.journal != JournalState::Healthy).await;
    let view = sites[sick].handle().view();
    assert_eq!((view.leader, view.is_leader), (None, false), "who follows it is told to go elsewhere");
}

/// The others lead, write and read; without one of them nobody does, for the sick one does not vote.
async fn others_go_on_until_they_are_too_few(sites: &mut [Site], sick: usize) -> usize {
    let last = propose(sites).await;
    for at in (0..3).filter(|at| *at != sick) {
        let read = sites[at].handle().read_barrier(LONG).await.expect("a majority answers");
        assert!(read >= last.index);
    }
    let refused = sites[sick].handle().read_barrier(LONG).await;
    assert!(matches!(refused, Err(ProposeError::Disk { .. })), "{refused:?}");
    let view = sites[sick].handle().view();
    assert!(view.leader.is_none() && view.applied_index < last.index, "it hears of nothing");

    let led = leader(sites).await;
    assert_ne!(led, sick);
    sites[led].kill().await;
    let left = 3 - sick - led;
    until(&sites[left], "it misses its leader", |view| view.leader.is_none()).await;
    let elected = sites[left].host.clock.timeout(ELECTIONS, leader(sites)).await;
    assert!(elected.is_err(), "one vote of three elected {elected:?}");
    led
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_journal_takes_nothing_neither_leads_nor_votes_until_it_does() {
    let mut sites = sites(3).await;
    propose(&sites).await;
    let sick = leader(&sites).await;
    falls_ill(&sites, sick, FaultKind::NoSpace).await;
    let killed = others_go_on_until_they_are_too_few(&mut sites, sick).await;
    sites[sick].faults.disarm();
    let last = propose(&sites).await;
    applied(&sites[sick], last.index).await;
    until(&sites[sick], "it hears of a leader", |view| view.leader.is_some()).await;
    sites[killed].start().await;
    applied(&sites[killed], last.index).await;
    end(sites).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_sync_failed_neither_leads_nor_votes_until_it_is_started_again() {
    let mut sites = sites(3).await;
    propose(&sites).await;
    let sick = (leader(&sites).await + 1) % 3;
    falls_ill(&sites, sick, FaultKind::SyncIo).await;
    sites[sick].faults.disarm();
    let killed = others_go_on_until_they_are_too_few(&mut sites, sick).await;
    sites[sick].kill().await;
    sites[sick].start().await;
    let last = propose(&sites).await;
    applied(&sites[sick], last.index).await;
    sites[killed].start().await;
    applied(&sites[killed], last.index).await;
    end(sites).await;
}
