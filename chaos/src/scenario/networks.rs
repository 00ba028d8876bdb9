//! Hosts that cannot reach each other.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION, NOTHING_FILLS};
use super::run::{Run, TOPIC};
use crate::cluster::{CONTROLLERS, Cluster, Topology};
use crate::rig::VolumeSpec;
use crate::rig::network::OWN_ADDRESS;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("leader-cut-off", "nobody reaches one node, and it reaches nobody", |run| {
            Box::pin(cut_off(run, Cut::Everything))
        })
        .on(hosts)
        .without(NOTHING_FILLS),
        Scenario::new("leader-cut-off-one-way", "what one node sends arrives nowhere", |run| {
            Box::pin(cut_off(run, Cut::WhatItSends))
        })
        .on(hosts)
        .without(NOTHING_FILLS),
        Scenario::new(
            "controllers-cut-off",
            "one node reaches no controller; clients and peers reach it",
            |run| Box::pin(without_controllers(run)),
        )
        .on(hosts)
        .without(NOTHING_FILLS),
        Scenario::new("full-and-cut-off", "one disk is full while another node is cut off", |run| {
            Box::pin(full_and_cut_off(run))
        })
        .on(hosts)
        .without(&[
            (Bar::Detect, "see leader-full"),
            (Bar::Reroute, "one writable copy is left of min_in_sync 2"),
            EVERY_PARTITION,
        ]),
        Scenario::new("slow-link", "one node sends 256 kbit a second", |run| Box::pin(slow_link(run)))
            .on(hosts)
            .without(NOTHING_FILLS),
    ]
}

fn hosts() -> Topology {
    Topology { network: true, ..Topology::three_nodes(VolumeSpec::of_bytes(96 << 20)) }
}

#[derive(Clone, Copy)]
enum Cut {
    Everything,
    WhatItSends,
}

fn controllers() -> Vec<Ipv4Addr> {
    (1..=CONTROLLERS).map(Cluster::controller_host).collect()
}

fn all_but(spu: u32) -> Vec<Ipv4Addr> {
    let others = (1..=3).filter(|other| *other != spu).map(Cluster::spu_host);
    controllers().into_iter().chain(others).chain([OWN_ADDRESS]).collect()
}

async fn cut_off(run: &mut Run, what: Cut) -> anyhow::Result<()> {
    run.flowing(3, 500, 512).await?;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    run.silence(spu);
    let host = Cluster::spu_host(spu);
    let cut = run.now();
    match what {
        Cut::Everything => run.cluster.lan()?.separate(&[host], &all_but(spu))?,
        Cut::WhatItSends => run.cluster.lan()?.mute(host, &all_but(spu))?,
    }
    run.say(&format!("spu {spu} is cut off"));
    let moved = run.moved_ms(&led, spu, cut, Duration::from_secs(40)).await;
    // A silent node is replaced within 10 s, and the client notices a silent connection within 6 s.
    run.figure("replaced_ms", moved, Some(16_000));
    run.pause(2.0).await;
    let healed = run.now();
    run.cluster.lan()?.heal()?;
    run.say("the network is whole");
    let in_sync = run.in_sync_ms(spu, healed).await;
    run.figure("in_sync_ms", in_sync, Some(30_000));
    run.expect_flow("after the network is whole again").await;
    Ok(())
}

/// Its peers reach it, so it is not dead: it goes on to lead, and its followers confirm its epoch.
async fn without_controllers(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 500, 512).await?;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    run.cluster.lan()?.separate(&[Cluster::spu_host(spu)], &controllers())?;
    run.say(&format!("spu {spu} reaches no controller"));
    for _ in 0..6 {
        let from = run.now();
        run.pause(3.0).await;
        let flows = led.iter().all(|index| run.first_ack(from, |ack| ack.partition == *index).is_some());
        run.expect(flows, || format!("a partition of spu {spu} stands still"));
    }
    let healed = run.now();
    run.cluster.lan()?.heal()?;
    run.say("the network is whole");
    let in_sync = run.in_sync_ms(spu, healed).await;
    run.figure("in_sync_ms", in_sync, Some(30_000));
    run.expect_flow("after the network is whole again").await;
    Ok(())
}

async fn full_and_cut_off(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 500, 512).await?;
    let full = run.a_leader()?;
    let (from, before) = (run.now(), run.applied().await?);
    let disk = run.cluster.disk(full).clone();
    let (filler, _) = run.fill(&disk).await?;
    run.until(Duration::from_secs(5), |run| run.led_by(TOPIC, full).is_empty()).await;
    let away = (1..=3).find(|spu| *spu != full && !run.led_by(TOPIC, *spu).is_empty()).unwrap_or(1);
    run.silence(away);
    run.cluster.lan()?.separate(&[Cluster::spu_host(away)], &all_but(away))?;
    run.say(&format!("spu {full} is full, spu {away} is cut off"));
    run.pause(12.0).await;
    run.cluster.lan()?.heal()?;
    let healed = run.now();
    let again = run.until(Duration::from_secs(30), |run| run.first_ack(healed, |_| true).is_some()).await;
    run.expect(again.is_some(), || "nothing is acknowledged after the network is whole again".to_owned());
    run.pause(1.0).await;
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(full, removed).await;
    run.bar(Bar::Recover, recover);
    run.end_episode(full, from).await?;
    // A disk, a node and their returns are four; an entry may be between two of them.
    let changes = run.set_changes(before).await?;
    run.figure("set_changes", Some(changes), Some(8));
    Ok(())
}

async fn slow_link(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 500, 1_024).await?;
    let spu = (1..=3).max_by_key(|spu| run.led_by(TOPIC, *spu).len()).unwrap_or(1);
    run.silence(spu);
    run.cluster.lan()?.slow_down(Cluster::spu_host(spu), 256)?;
    run.say(&format!("spu {spu} sends 256 kbit a second"));
    run.pause(15.0).await;
    let healed = run.now();
    run.cluster.lan()?.heal()?;
    let in_sync = run.in_sync_ms(spu, healed).await;
    run.figure("in_sync_ms", in_sync, Some(30_000));
    run.expect_flow("after the link is fast again").await;
    Ok(())
}
