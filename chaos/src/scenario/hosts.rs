//! Processes that stand still, starve, run out of memory, or live in another time.

use std::time::Duration;

use plimsoll_client::TopicConfig;

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION, NOTHING_FILLS};
use super::kills::back_in_sync;
use super::run::{Run, TOPIC, millis};
use crate::cluster::Topology;
use crate::nemesis::pressure::Squeezed;
use crate::plain;
use crate::rig::VolumeSpec;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("paused-for-five-seconds", "a leader stands still for 5 s and goes on", |run| {
            Box::pin(paused(run, 5.0))
        })
        .without(NOTHING_FILLS),
        Scenario::new("paused-for-fifteen-seconds", "a leader stands still until it is replaced", |run| {
            Box::pin(paused(run, 15.0))
        })
        .without(NOTHING_FILLS),
        Scenario::new("out-of-memory", "the kernel kills a leader that takes too much memory", |run| {
            Box::pin(out_of_memory(run))
        })
        .without(NOTHING_FILLS),
        Scenario::new("little-processor", "a leader gets a tenth of a processor", |run| {
            Box::pin(little_processor(run))
        })
        .without(NOTHING_FILLS),
        Scenario::new("clock-jumps-a-day", "the wall clock of a leader jumps a day ahead and back", |run| {
            Box::pin(clock_jumps(run))
        })
        .on(|| Topology { clocks: true, ..Topology::three_nodes(VolumeSpec::of_bytes(96 << 20)) })
        .without(&[
            (Bar::Detect, "no disk fills"),
            (Bar::Reroute, "no disk fills"),
            (Bar::Recover, "no disk fills"),
            (Bar::LogLines, "no disk fills, so there is no episode"),
            (Bar::OpenFiles, "it makes some sixty segments"),
            EVERY_PARTITION,
        ]),
    ]
}

async fn paused(run: &mut Run, seconds: f64) -> anyhow::Result<()> {
    run.flowing(3, 500, 512).await?;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    // Shorter than the deadline of silence it is no reason to declare anybody dead.
    let replaced = seconds > 10.0;
    if replaced {
        run.silence(spu);
    }
    let paused = run.now();
    run.cluster.spu(spu).pause();
    run.say(&format!("spu {spu} stands still"));
    if replaced {
        let moved = run.moved_ms(&led, spu, paused, Duration::from_secs(25)).await;
        run.figure("replaced_ms", moved, Some(16_000));
    }
    let left = seconds - (run.now().saturating_sub(paused)).as_secs_f64();
    run.pause(left.max(0.0)).await;
    let went_on = run.now();
    run.cluster.spu(spu).go_on();
    run.say(&format!("spu {spu} goes on"));
    let in_sync = run.in_sync_ms(spu, went_on).await;
    run.figure("in_sync_ms", in_sync, Some(20_000));
    run.expect_flow("after a paused node has gone on").await;
    Ok(())
}

async fn out_of_memory(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 1_000, 4_096).await?;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    let Some(pid) = run.cluster.spu(spu).pid() else { anyhow::bail!("spu {spu} does not run") };
    run.silence(spu);
    let squeezed = Squeezed::memory(pid, 2 << 20)?;
    let began = run.now();
    // What it holds is charged where it was taken; the next megabytes are too many.
    if !run.ended_within(spu, Duration::from_secs(20)).await? {
        squeezed.end();
        return Err(crate::rig::Missing::because("the kernel does not kill for 2 MiB of new memory"));
    }
    run.say(&format!("spu {spu} was killed by the kernel"));
    squeezed.end();
    let moved = run.moved_ms(&led, spu, began, Duration::from_secs(20)).await;
    run.figure("replaced_ms", moved, Some(10_000));
    back_in_sync(run, spu, 20_000).await
}

/// It is slow, and not dead.
async fn little_processor(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 300, 512).await?;
    let spu = run.a_leader()?;
    let Some(pid) = run.cluster.spu(spu).pid() else { anyhow::bail!("spu {spu} does not run") };
    let squeezed = Squeezed::processor(pid, 10)?;
    run.say(&format!("spu {spu} gets a tenth of a processor"));
    let acked = run.acked_in(15.0).await;
    run.expect(acked > 0, || "nothing is acknowledged while one node is slow".to_owned());
    squeezed.end();
    let freed = run.now();
    let in_sync = run.in_sync_ms(spu, freed).await;
    run.figure("in_sync_ms", in_sync, Some(20_000));
    Ok(())
}

/// A clock that is wrong makes nothing older than it is.
async fn clock_jumps(run: &mut Run) -> anyhow::Result<()> {
    const DAY_S: i64 = 86_400;
    let config = TopicConfig {
        partitions: 3,
        retention_ms: millis(Duration::from_secs(3_600)),
        segment_bytes: 1 << 20,
        ..TopicConfig::default()
    };
    run.flowing_of(config, 900, 4_096).await?;
    let spu = run.a_leader()?;
    run.pause(3.0).await;
    run.cluster.wall_clock(spu)?.set_offset_s(DAY_S)?;
    run.say(&format!("for spu {spu} it is tomorrow"));
    run.pause(8.0).await;
    run.expect_flow("a day ahead").await;
    let image = run.client.metadata();
    let topic = image.topic_by_name(TOPIC).map(|topic| topic.topic_id.clone()).unwrap_or_default();
    for spu in 1..=3 {
        let Some(address) = run.client.spu_address(plimsoll_client::SpuId(spu)) else { continue };
        for partition in 0..3 {
            let start = plain::ends(&run.host, &address, &topic, partition).await?.log_start;
            run.expect(start == 0, || {
                format!("spu {spu} has deleted records below {start} that were a minute old")
            });
        }
    }
    run.cluster.wall_clock(spu)?.set_offset_s(0)?;
    run.say("and today again");
    run.pause(4.0).await;
    run.expect_flow("after the clock is right again").await;
    let now = run.now();
    let in_sync = run.in_sync_ms(spu, now).await;
    run.figure("in_sync_ms", in_sync, Some(10_000));
    Ok(())
}
