//! Links that are cut, most of them in one direction.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Part, part};
use crate::cluster::{CONTROLLERS, Cluster, Topology};
use crate::rig::VolumeSpec;
use crate::rig::network::OWN_ADDRESS;
use crate::scenario::run::{Run, TOPIC};

pub(super) fn parts() -> Vec<Part> {
    vec![
        part("silent", "nobody reaches a node, and it reaches nobody", 3, |run| Box::pin(silent(run)))
            .on(hosts),
        part("mute", "what a node sends arrives nowhere", 1, |run| Box::pin(mute(run))).on(hosts),
        part("unheard", "what a node sends arrives at no controller for 25 s", 1, |run| {
            Box::pin(for_a_while(run, Direction::ToControllers, 2))
        })
        .on(hosts),
        part("deaf", "what controllers send does not arrive at a node for 25 s", 1, |run| {
            Box::pin(for_a_while(run, Direction::FromControllers, 2))
        })
        .on(hosts),
        part("unheard-for-good", "what a node sends arrives at no controller for 50 s", 1, |run| {
            Box::pin(for_good(run, Direction::ToControllers))
        })
        .on(hosts),
        part("deaf-for-good", "what controllers send does not arrive at a node for 50 s", 1, |run| {
            Box::pin(for_good(run, Direction::FromControllers))
        })
        .on(hosts),
        part("peers", "what a node sends does not arrive at another one", 1, |run| {
            Box::pin(between_peers(run, 3))
        })
        .on(hosts),
    ]
}

fn hosts() -> Topology {
    Topology { network: true, ..Topology::three_nodes(VolumeSpec::of_bytes(96 << 20)) }
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    ToControllers,
    FromControllers,
}

fn controllers() -> Vec<Ipv4Addr> {
    (1..=CONTROLLERS).map(Cluster::controller_host).collect()
}

fn all_but(spu: u32) -> Vec<Ipv4Addr> {
    let others = (1..=3).filter(|other| *other != spu).map(Cluster::spu_host);
    controllers().into_iter().chain(others).chain([OWN_ADDRESS]).collect()
}

fn cut(run: &Run, spu: u32, direction: Direction) -> anyhow::Result<()> {
    let host = Cluster::spu_host(spu);
    for controller in controllers() {
        match direction {
            Direction::ToControllers => run.cluster.lan()?.cut(host, controller)?,
            Direction::FromControllers => run.cluster.lan()?.cut(controller, host)?,
        }
    }
    Ok(())
}

async fn silent(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 150, 256).await?;
    let spu = run.a_leader()?;
    replaced(run, spu, "is cut off", |run| {
        run.cluster.lan()?.separate(&[Cluster::spu_host(spu)], &all_but(spu))
    })
    .await
}

async fn mute(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 150, 256).await?;
    let spu = run.a_leader()?;
    replaced(run, spu, "is mute", |run| run.cluster.lan()?.mute(Cluster::spu_host(spu), &all_but(spu))).await
}

/// A node that nobody hears is as good as dead.
async fn replaced(
    run: &mut Run,
    spu: u32,
    what: &str,
    cut: impl FnOnce(&Run) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let led = run.led_by(TOPIC, spu);
    let before = run.incarnation(spu);
    run.silence(spu);
    let case = run.begin_case(&format!("spu {spu} {what}")).await?;
    let (began, wall_ms) = (run.now(), run.host.clock.wall_ms());
    cut(run)?;
    let moved = run.moved_ms(&led, spu, began, Duration::from_secs(40)).await;
    run.sample("silent_replaced_ms", moved, 6_000..=10_000);
    run.pause(2.0).await;
    let offline = run.expect_offline_once(spu, &case, "silent", wall_ms).await?;
    run.sample("silent_offline_ms", offline, 6_000..=10_000);
    heal(run, spu, before).await?;
    run.end_case(&case);
    Ok(())
}

/// The network is whole again, and the node is back as a new run without a restart.
async fn heal(run: &mut Run, spu: u32, before: u64) -> anyhow::Result<()> {
    let healed = run.now();
    run.cluster.lan()?.heal()?;
    let again = |run: &Run| run.incarnation(spu) > before && run.online(spu);
    let again = run.until(Duration::from_secs(40), again).await;
    run.expect(again.is_some(), || format!("spu {spu} is not online again, as a new run"));
    let in_sync = run.in_sync_ms(spu, healed).await;
    run.sample("healed_in_sync_ms", in_sync, 0..=40_000);
    run.expect_flow("after the network is whole again").await;
    Ok(())
}

/// Other nodes and clients reach it: it is not dead, and goes on to lead.
async fn for_a_while(run: &mut Run, direction: Direction, times: u32) -> anyhow::Result<()> {
    const SECONDS: u32 = 25;
    run.flowing(3, 150, 256).await?;
    let spu = run.a_leader()?;
    for _ in 0..run.times(times) {
        let led = run.led_by(TOPIC, spu);
        let before = run.incarnation(spu);
        let case = run.begin_case(&format!("{direction:?} of spu {spu} is cut for {SECONDS} s")).await?;
        cut(run, spu, direction)?;
        for _ in 0..5 {
            let from = run.now();
            run.pause(f64::from(SECONDS) / 5.0).await;
            let flows = |index: &u32| {
                let by_it = run.first_ack(from, |ack| ack.partition == *index && ack.spu == spu);
                by_it.is_some()
            };
            let stands_still: Vec<&u32> = led.iter().filter(|index| !flows(index)).collect();
            let stands_still = format!("{stands_still:?}");
            run.expect(stands_still == "[]", || {
                format!("partitions {stands_still} of spu {spu} stand still, or are led by another")
            });
        }
        let healed = run.now();
        run.cluster.lan()?.heal()?;
        let online = run.until(Duration::from_secs(20), |run| run.online(spu)).await;
        run.expect(online.is_some(), || format!("spu {spu} is not online again"));
        run.expect(run.incarnation(spu) == before, || format!("spu {spu} had to register anew"));
        let in_sync = run.in_sync_ms(spu, healed).await;
        run.sample("unheard_in_sync_ms", in_sync, 0..=30_000);
        run.expect_never_offline(spu, &case).await?;
        run.end_case(&case);
    }
    Ok(())
}

/// After half a minute more than a silent one it is replaced, as a node that no controller reaches: it can neither be
/// told anything nor change a set.
async fn for_good(run: &mut Run, direction: Direction) -> anyhow::Result<()> {
    run.flowing(3, 150, 256).await?;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    let before = run.incarnation(spu);
    run.silence(spu);
    let case = run.begin_case(&format!("{direction:?} of spu {spu} is cut for good")).await?;
    let (began, wall_ms) = (run.now(), run.host.clock.wall_ms());
    cut(run, spu, direction)?;
    let moved = run.moved_ms(&led, spu, began, Duration::from_secs(60)).await;
    run.sample("unheard_replaced_ms", moved, 36_000..=45_000);
    run.pause(3.0).await;
    let offline = run.expect_offline_once(spu, &case, "answers, but sends no heartbeats", wall_ms).await?;
    run.sample("unheard_offline_ms", offline, 36_000..=43_000);
    heal(run, spu, before).await?;
    run.end_case(&case);
    Ok(())
}

/// Both go on to be heard by the controllers; where one follows the other it leaves the set, and nothing stands still.
async fn between_peers(run: &mut Run, times: u32) -> anyhow::Result<()> {
    run.flowing(3, 150, 256).await?;
    for number in 0..run.times(times) {
        let (from, to) = (number % 3 + 1, (number + 1) % 3 + 1);
        let case = run.begin_case(&format!("what spu {from} sends does not arrive at spu {to}")).await?;
        let began = run.now();
        run.cluster.lan()?.cut(Cluster::spu_host(from), Cluster::spu_host(to))?;
        run.pause(12.0).await;
        let since = run.now();
        let all =
            |run: &Run| (0..3u32).all(|index| run.first_ack(since, |ack| ack.partition == index).is_some());
        let flows = run.until(Duration::from_secs(5), all).await;
        run.expect(flows.is_some(), || format!("a partition stands still while {from} -> {to} is cut"));
        let gap = longest_gap(run, began);
        run.sample("peer_cut_standstill_ms", Some(gap), 0..=10_000);
        let healed = run.now();
        run.cluster.lan()?.heal()?;
        for spu in [from, to] {
            let in_sync = run.in_sync_ms(spu, healed).await;
            run.sample("peer_in_sync_ms", in_sync, 0..=30_000);
            run.expect_never_offline(spu, &case).await?;
        }
        run.end_case(&case);
    }
    Ok(())
}

/// The longest time since `from` that a partition of the judged topic was without an acknowledgement.
fn longest_gap(run: &Run, from: Duration) -> u64 {
    let mut longest = Duration::ZERO;
    for index in 0..3u32 {
        let mut last = from;
        while let Some(at) = run.first_ack(last + Duration::from_millis(1), |ack| ack.partition == index) {
            longest = longest.max(at.saturating_sub(last));
            last = at;
        }
    }
    crate::scenario::run::millis(longest)
}
