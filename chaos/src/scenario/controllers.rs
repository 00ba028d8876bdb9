//! The controllers' disks.

use std::time::Duration;

use plimsoll_client::TopicConfig;

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION, NO_REROUTE, NOTHING_FILLS};
use super::kills::serves_reads;
use super::many_full;
use super::run::{Run, TOPIC, millis};
use crate::cluster::{CONTROLLERS, Topology};
use crate::filler::Filler;
use crate::rig::VolumeSpec;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("controller-disk-full", "the disks of all controllers are full", |run| {
            Box::pin(disk_full(run))
        })
        .on(on_small_disks)
        .without(NOTHING_FILLS),
        Scenario::new(
            "controllers-share-full-disks",
            "controllers and storage nodes share disks, and all are full",
            |run| Box::pin(shared_disks_full(run)),
        )
        .on(on_disks_of_spus)
        .without(&[(Bar::Detect, "several disks fill at once"), NO_REROUTE, EVERY_PARTITION]),
    ]
}

fn on_disks_of_spus() -> Topology {
    Topology { controllers_with_spus: true, ..Topology::three_nodes(VolumeSpec::of_bytes(192 << 20)) }
}

/// A small disk of its own for each controller.
fn on_small_disks() -> Topology {
    Topology {
        controller_disk: Some(VolumeSpec::of_bytes(128 << 20)),
        ..Topology::three_nodes(VolumeSpec::of_bytes(96 << 20))
    }
}

/// Nothing is refused that frees space, and elections go on: a storage node that leads is killed and started, and a
/// controller.
async fn shared_disks_full(run: &mut Run) -> anyhow::Result<()> {
    run.plain_topic("spare", TopicConfig { partitions: 1, ..TopicConfig::default() }).await?;
    run.write("spare", 40 << 20).await?;
    run.flowing(3, 500, 512).await?;
    let from = run.now();
    let fillers = many_full::fill(run, &[1, 2, 3]).await?;
    many_full::refused_for_good(run, from).await;
    let refused = run.cluster.command_line(&["topic", "create", "more"]).await;
    let told = refused.map_or_else(|error| format!("{error:#}"), |_| "created".to_owned());
    run.expect(told.contains("CONTROLLER_DISK") || told.contains("disk"), || {
        format!("topic create with full controllers: {told}")
    });
    killed_and_started(run).await?;
    let spu = run.a_leader()?;
    run.kill(spu);
    run.pause(3.0).await;
    let started = run.now();
    run.start_again(spu)?;
    serves_reads(run, spu, started).await?;
    run.pause(1.0).await;
    run.cluster.command_line(&["topic", "delete", "spare"]).await?;
    let deleted = run.now();
    many_full::writable_after(run, deleted).await;
    drop(fillers);
    for spu in 1..=3 {
        run.end_episode(spu, deleted).await?;
    }
    Ok(())
}

/// The leading controller is killed and started while its disk has no room: another leads, and it comes back without
/// its metadata store, which would abort the process.
async fn killed_and_started(run: &mut Run) -> anyhow::Result<()> {
    let leader = run.leading_controller().await?;
    run.say(&format!("controller {leader} leads and is killed"));
    run.cluster.controller(leader).kill();
    let killed = run.now();
    let next = run.leading_controller().await?;
    run.figure("controller_replaced_ms", Some(millis(run.now().saturating_sub(killed))), Some(5_000));
    run.expect(next != leader, || format!("controller {leader} leads and does not run"));
    let applied = run.applied().await?;
    run.cluster.controller(leader).start()?;
    let started = run.now();
    let mut back = None;
    while back.is_none() && run.now() < started + Duration::from_secs(20) {
        run.pause(0.1).await;
        let status = run.client.admin().cluster_status().await?;
        let known = status.controllers.iter().find(|c| c.controller_id == u64::from(leader));
        if known.is_some_and(|c| c.reachable && c.applied_index >= applied) {
            back = Some(millis(run.now().saturating_sub(started)));
        }
    }
    run.figure("controller_back_ms", back, Some(10_000));
    run.cluster.check_alive()?;
    let log = std::fs::read_to_string(run.cluster.controller(leader).log())?;
    run.expect(log.contains("too little room to open the metadata store"), || {
        format!("controller {leader} opened its metadata store on a full disk")
    });
    Ok(())
}

async fn disk_full(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 500, 512).await?;
    let mut fillers = Vec::new();
    for id in 1..=CONTROLLERS {
        let Some(disk) = run.cluster.controller_disk(id).cloned() else { continue };
        let mut filler = Filler::create(&disk)?;
        while !filler.take(8 << 20)? {}
        fillers.push(filler);
    }
    run.say("the disks of all controllers are full");
    run.pause(3.0).await;
    let refused = run.cluster.command_line(&["topic", "create", "more"]).await;
    let told = refused.map_or_else(|error| format!("{error:#}"), |_| "created".to_owned());
    run.say(&format!("topic create: {told}"));
    run.expect(told.contains("CONTROLLER_DISK"), || format!("topic create with full controllers: {told}"));
    killed_and_started(run).await?;
    // Leaders still move: one storage node is killed.
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    let killed = run.now();
    run.kill(spu);
    let moved = run.until(Duration::from_secs(20), |run| {
        led.iter()
            .all(|index| run.first_ack(killed, |ack| ack.partition == *index && ack.spu != spu).is_some())
    });
    let moved = moved.await.map(|at| millis(at.saturating_sub(killed)));
    run.figure("replaced_ms", moved, Some(10_000));
    run.start_again(spu)?;
    run.pause(2.0).await;
    run.cluster.check_alive()?;
    drop(fillers);
    let freed = run.now();
    let mut created = None;
    while created.is_none() && run.now() < freed + Duration::from_secs(20) {
        if run.cluster.command_line(&["topic", "create", "again"]).await.is_ok() {
            created = Some(millis(run.now().saturating_sub(freed)));
        } else {
            run.pause(0.1).await;
        }
    }
    run.figure("create_again_ms", created, Some(5_000));
    Ok(())
}
