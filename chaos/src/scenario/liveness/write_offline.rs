//! A disk that fills: one committed entry, whoever dies meanwhile, and a writable leader elsewhere.

use std::time::Duration;

use super::{Part, part};
use crate::scenario::run::{Run, TOPIC, millis};

/// At most twice for each disk: later recoveries of a disk are held.
const FILLS: u32 = 6;

pub(super) fn parts() -> Vec<Part> {
    vec![
        part("leader-full-again", "the disk of a leader is filled, and freed", 2, |run| {
            Box::pin(async move {
                run.flowing(3, 300, 256).await?;
                full(run, FILLS).await
            })
        }),
        part("write-offline-interrupted", "the leading controller is killed while a disk fills", 4, |run| {
            Box::pin(async move {
                run.flowing(3, 150, 256).await?;
                controller_killed(run, FILLS).await
            })
        }),
    ]
}

async fn full(run: &mut Run, times: u32) -> anyhow::Result<()> {
    for number in 0..run.times(times) {
        let spu = run.leading_again(number % 3 + 1).await?;
        let led = run.led_by(TOPIC, spu);
        let disk = run.cluster.disk(spu).clone();
        let case = run.begin_case(&format!("the disk of spu {spu} fills")).await?;
        let (filler, fill) = run.fill(&disk).await?;
        let began = fill.began().unwrap_or_else(|| run.now());
        let moved = run.moved_ms(&led, spu, began, Duration::from_secs(15)).await;
        run.sample("full_to_writable_leader_ms", moved, 0..=2_000);
        one_entry(run, spu, case.applied).await?;
        freed(run, spu, filler).await?;
        run.end_case(&case);
    }
    Ok(())
}

/// At a moment that the seed chooses, within 200 ms of the mark.
pub(super) async fn controller_killed(run: &mut Run, times: u32) -> anyhow::Result<()> {
    const WITHIN_MS: u64 = 200;
    for number in 0..run.times(times) {
        let spu = run.leading_again(number % 3 + 1).await?;
        let led = run.led_by(TOPIC, spu);
        let disk = run.cluster.disk(spu).clone();
        let leader = run.leading_controller().await?;
        let after = Duration::from_millis(run.random.below(WITHIN_MS));
        let what =
            format!("the disk of spu {spu} fills; controller {leader} is killed {after:?} behind the mark");
        let case = run.begin_case(&what).await?;
        let mark = disk.space()?.capacity_bytes / 16;
        let killing = async {
            while disk.space().is_ok_and(|space| space.free_bytes > mark) {
                run.host.clock.sleep(Duration::from_millis(2)).await;
            }
            run.host.clock.sleep(after).await;
            run.cluster.strike_controller(leader);
        };
        let (filled, ()) = tokio::join!(run.fill(&disk), killing);
        let (filler, fill) = filled?;
        run.cluster.controller(leader).kill();
        let began = fill.began().unwrap_or_else(|| run.now());
        let moved = run.moved_ms(&led, spu, began, Duration::from_secs(20)).await;
        run.sample("interrupted_to_writable_leader_ms", moved, 0..=15_000);
        one_entry(run, spu, case.applied).await?;
        run.cluster.controller(leader).start()?;
        freed(run, spu, filler).await?;
        run.end_case(&case);
    }
    Ok(())
}

async fn one_entry(run: &mut Run, spu: u32, applied: u64) -> anyhow::Result<()> {
    let offline = run.until(Duration::from_secs(15), |run| !run.writable(spu)).await;
    run.expect(offline.is_some(), || format!("the volume of spu {spu} did not go offline for writes"));
    // A second one would come with the next heartbeats.
    run.pause(1.5).await;
    let events = run.events_after(applied).await?;
    let entries = events.iter().filter(|event| {
        event.kind == "volume_state" && event.spu_id == spu && event.to.starts_with("write_offline")
    });
    let entries = u64::try_from(entries.count())?;
    run.sample("write_offline_entries", Some(entries), 1..=1);
    Ok(())
}

async fn freed(run: &mut Run, spu: u32, filler: crate::filler::Filler) -> anyhow::Result<()> {
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(spu, removed).await;
    run.sample("freed_to_writable_ms", recover, 0..=15_000);
    let in_sync = run.until(Duration::from_secs(30), |run| run.in_sync(spu)).await;
    let in_sync = in_sync.map(|at| millis(at.saturating_sub(removed)));
    run.sample("freed_in_sync_ms", in_sync, 0..=30_000);
    Ok(())
}
