//! Five controllers: two may be gone, three may not, and one that was cut off disturbs nobody when it is back.

use super::severable::Cut;
use super::*;

fn running(sites: &[Site]) -> impl Iterator<Item = usize> {
    (0..sites.len()).filter(|at| sites[*at].running.is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_go_on_without_two_and_wait_without_three() {
    let mut sites = sites(5).await;
    let mut last = propose(&sites).await;
    let mut dead = Vec::new();
    // Whoever leads, twice.
    for _ in 0..2 {
        let led = leader(&sites).await;
        sites[led].kill().await;
        dead.push(led);
        let next = propose(&sites).await;
        assert!(first_id(&next) >= first_id(&last) + 10, "what was acknowledged is there");
        last = next;
    }
    for at in running(&sites) {
        applied(&sites[at], last.index).await;
    }

    let led = leader(&sites).await;
    sites[led].kill().await;
    dead.push(led);
    for at in running(&sites) {
        let mut view = sites[at].handle().watch();
        let alone = view.wait_for(|view| view.leader.is_none());
        drop(sites[at].host.clock.timeout(LONG, alone).await.expect("nobody leads").expect("it runs"));
        let refused = sites[at].handle().propose(ids(1), LONG).await.err();
        assert!(
            matches!(refused, Some(ProposeError::NoQuorum | ProposeError::NotLeader { leader: None })),
            "two of five decide nothing: {refused:?}"
        );
    }

    for at in dead {
        sites[at].start().await;
    }
    let end_of_all = propose(&sites).await;
    assert!(first_id(&end_of_all) >= first_id(&last) + 10);
    for site in &sites {
        applied(site, end_of_all.index).await;
    }
    let states: Vec<_> = sites.iter().map(|site| site.handle().view().state.clone()).collect();
    assert!(states.iter().all(|state| *state == states[0]));
    end(sites).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_cut_off_does_not_depose_the_leader_when_it_is_back() {
    let cuts: Vec<Cut> = (0..5).map(|_| Cut::default()).collect();
    let mut sites = laid_out(cuts.iter().map(Cut::host)).await;
    for site in &mut sites {
        // A busy machine must not look like a leader that is gone.
        site.tune = |settings| settings.election_tick = 60;
        site.start().await;
    }
    propose(&sites).await;
    let led = leader(&sites).await;
    let away = (led + 1) % 5;
    let clock = sites[led].host.clock.clone();
    let before = sites[led].handle().view();

    cuts[away].set(true);
    // It has asked for votes by then.
    let mut view = sites[away].handle().watch();
    let lonely = view.wait_for(|view| view.leader.is_none());
    drop(clock.timeout(LONG, lonely).await.expect("it misses its leader").expect("it runs"));
    let mut last = propose(&sites).await;
    for _ in 0..20 {
        last = propose(&sites).await;
    }
    assert!(sites[away].handle().view().applied_index < last.index, "it is cut off");
    cuts[away].set(false);

    applied(&sites[away], last.index).await;
    let next = sites[led].handle().propose(ids(10), LONG).await.expect("the leader is the same");
    applied(&sites[away], next.index).await;
    for (at, site) in sites.iter().enumerate() {
        let view = site.handle().view();
        assert_eq!((view.term, view.leader), (before.term, Some(sites[led].id)), "controller {at}");
    }
    assert_eq!(sites[led].handle().view().leader_since, before.leader_since);
    end(sites).await;
}
