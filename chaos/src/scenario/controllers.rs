//! The controllers' disks.

use std::time::Duration;

use super::run::{Run, TOPIC, millis};
use crate::cluster::{CONTROLLERS, Topology};
use crate::filler::Filler;
use crate::rig::VolumeSpec;

/// A small disk of its own for each controller.
pub(super) fn on_small_disks() -> Topology {
    Topology {
        controller_disk: Some(VolumeSpec::of_bytes(128 << 20)),
        ..Topology::three_nodes(VolumeSpec::of_bytes(96 << 20))
    }
}

pub(super) async fn disk_full(run: &mut Run) -> anyhow::Result<()> {
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
    run.cluster.spu(spu).kill();
    let moved = run.until(Duration::from_secs(20), |run| {
        led.iter()
            .all(|index| run.first_ack(killed, |ack| ack.partition == *index && ack.spu != spu).is_some())
    });
    let moved = moved.await.map(|at| millis(at.saturating_sub(killed)));
    run.figure("replaced_ms", moved, Some(10_000));
    run.cluster.spu(spu).start()?;
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
