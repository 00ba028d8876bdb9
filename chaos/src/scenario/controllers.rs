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

/// Nothing is refused that frees space, and elections go on: the node of the first controller is killed with it.
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
