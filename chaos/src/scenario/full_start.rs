//! Disks that fill while a node starts, and logs that lie on them.

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION};
use super::kills::serves_reads;
use super::run::{Run, TOPIC, Whole};
use crate::cluster::Topology;
use crate::filler::Filler;
use crate::rig::VolumeSpec;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("full-during-start", "the disk fills while its node starts, five times", |run| {
            Box::pin(full_during_start(run))
        })
        .without(&[
            (Bar::Detect, "nothing is sent to a node that starts"),
            (Bar::Reroute, "a node that starts leads nothing"),
            EVERY_PARTITION,
        ])
        .whole(Whole::AfterHolds("a node that started five times in a row is held back")),
        Scenario::new("logs-on-the-full-disk", "the logs of the nodes lie on the disks that fill", |run| {
            Box::pin(logs_on_the_disk(run))
        })
        .on(|| Topology { logs_on_disks: true, ..Topology::three_nodes(VolumeSpec::of_bytes(96 << 20)) })
        .without(&[(Bar::LogLines, "lines that find no room are not written"), EVERY_PARTITION]),
    ]
}

async fn full_during_start(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 800, 512).await?;
    let spu = run.a_leader()?;
    let disk = run.cluster.disk(spu).clone();
    for round in 0..5u32 {
        run.kill(spu);
        run.pause(0.3).await;
        let mut filler = Filler::create(&disk)?;
        let free = disk.space()?.free_bytes;
        let started = run.now();
        run.start_again(spu)?;
        // The space goes at another moment of the start each time.
        run.pause(0.03 * f64::from(round)).await;
        filler.take(free)?;
        while !filler.take(16 << 20)? {}
        serves_reads(run, spu, started).await?;
        run.pause(0.5).await;
        filler.remove()?;
    }
    let from = run.now();
    let recover = run.recover_ms(spu, from).await;
    run.figure("in_sync_after_ms", recover, None);
    let in_sync = run.in_sync_ms(spu, from).await;
    // A node that came back five times is trusted after 40 s, and joins the sets then.
    run.figure("in_sync_ms", in_sync, Some(50_000));
    run.not_applicable(Bar::Recover.figure(), "five starts in a row are held back as flapping");
    run.not_applicable(Bar::LogLines.figure(), "five starts are no episode of a disk");
    Ok(())
}

async fn logs_on_the_disk(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 1_000, 512).await?;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    let disk = run.cluster.disk(spu).clone();
    let (filler, fill) = run.fill(&disk).await?;
    let detect = run.detect_ms(spu, &fill).await;
    run.bar(Bar::Detect, detect);
    let reroute = run.reroute_ms(&led, spu, &fill).await;
    run.bar(Bar::Reroute, reroute);
    run.expect_flow("with the log of a full node on its disk").await;
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(spu, removed).await;
    run.bar(Bar::Recover, recover);
    run.pause(1.0).await;
    Ok(())
}
