//! A leader that is cut off and does not know it yet.

use super::severable::Cut;
use super::*;

/// Three sites whose leader believes in itself for at least three seconds after it was cut off.
async fn patient() -> (Vec<Site>, Vec<Cut>, usize) {
    let cuts: Vec<Cut> = (0..3).map(|_| Cut::default()).collect();
    let mut sites = laid_out(cuts.iter().map(Cut::host)).await;
    for site in &mut sites {
        site.tune = |settings| settings.election_tick = 60;
        site.start().await;
    }
    propose(&sites).await;
    let led = leader(&sites).await;
    (sites, cuts, led)
}

fn add(site: &Site, id: u64) -> v1::Entry {
    let member = |id: u64, address: String| v1::ControllerMember { controller_id: id, address };
    let mut controllers: Vec<_> =
        site.peers.iter().map(|(id, address)| member(id.0, address.clone())).collect();
    controllers.push(member(id, format!("127.0.0.1:{id}")));
    let expected = site.peers.keys().map(|id| id.0).collect();
    let change = Change::SetControllers(v1::SetControllers { expected, controllers });
    v1::Entry { change: Some(change), ..ids(1) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_reads_only_what_a_majority_confirms() {
    let (sites, cuts, led) = patient().await;
    let alone = sites[led].handle().clone();
    alone.read_barrier(LONG).await.expect("a majority answers");
    cuts[led].set(true);
    assert!(alone.view().is_leader, "it does not know yet");
    let read = alone.read_barrier(Duration::from_secs(2)).await;
    assert!(matches!(read, Err(ProposeError::TimedOut | ProposeError::NoQuorum)), "{read:?}");
    // The others may have gone on meanwhile; back with them it reads again.
    cuts[led].set(false);
    let last = propose(&sites).await;
    let again = async {
        loop {
            match alone.read_barrier(Duration::from_secs(1)).await {
                Ok(read) if read >= last.index => return,
                Ok(_) | Err(ProposeError::TimedOut | ProposeError::NoQuorum) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    sites[led].host.clock.timeout(LONG, again).await.expect("it reads again");
    end(sites).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_controller_does_not_join_while_the_first_is_under_way() {
    let (sites, cuts, led) = patient().await;
    let alone = sites[led].handle().clone();
    cuts[led].set(true);
    // Appended, and nobody confirms it.
    let first = alone.propose(add(&sites[led], 4), Duration::from_millis(200)).await;
    assert_eq!(first.err(), Some(ProposeError::TimedOut));
    let second = alone.propose(add(&sites[led], 5), LONG).await;
    assert_eq!(second.err(), Some(ProposeError::Overloaded), "at once, and nothing was proposed");
    end(sites).await;
}
