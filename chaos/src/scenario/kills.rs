//! Disks that are full, and processes that end.

use std::time::Duration;

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION, NO_REROUTE};
use super::run::{Run, TOPIC, millis};
use crate::plain;

const SEE_LEADER_FULL: &str = "see leader-full";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("kill-at-full", "kill -9 at 100 %, and a start with 0 bytes free", |run| {
            Box::pin(at_full(run))
        })
        .smoke()
        .without(&[(Bar::Reroute, SEE_LEADER_FULL), EVERY_PARTITION]),
        Scenario::new("full-and-leader-killed", "one disk is full when another leader is killed", |run| {
            Box::pin(full_and_leader_killed(run))
        })
        .without(&[(Bar::Detect, SEE_LEADER_FULL), NO_REROUTE, EVERY_PARTITION]),
        Scenario::new(
            "rolling-restart-while-full",
            "each node restarts in turn while one disk is full",
            |run| Box::pin(rolling_restart(run)),
        )
        .without(&[
            (Bar::Detect, SEE_LEADER_FULL),
            (Bar::Reroute, SEE_LEADER_FULL),
            (Bar::LogLines, "three restarts are no episode of a disk"),
            EVERY_PARTITION,
        ]),
        Scenario::new(
            "follower-full-during-catch-up",
            "a node that was away fills up while it catches up",
            |run| Box::pin(full_during_catch_up(run)),
        )
        .without(&[
            (Bar::Detect, "its own catching up fills the disk, at a speed that nobody sets"),
            (Bar::Reroute, "it leads nothing"),
            EVERY_PARTITION,
        ]),
    ]
}

/// Starts a node that ended, and waits until it serves reads and is in sync again.
pub(super) async fn back_in_sync(run: &mut Run, spu: u32, in_sync_max_ms: u64) -> anyhow::Result<()> {
    let started = run.now();
    run.start_again(spu)?;
    serves_reads(run, spu, started).await?;
    let in_sync = run.in_sync_ms(spu, started).await;
    run.figure("in_sync_ms", in_sync, Some(in_sync_max_ms));
    Ok(())
}

/// Waits until a node that was started serves reads; how long that took.
pub(super) async fn serves_reads(run: &mut Run, spu: u32, started: Duration) -> anyhow::Result<()> {
    answers(run, spu, started, 1).await
}

/// As [`serves_reads`], of a partition with at least so many records; none is fine for a node that had synced nothing.
pub(super) async fn answers(run: &mut Run, spu: u32, started: Duration, records: u64) -> anyhow::Result<()> {
    const LIMIT: Duration = Duration::from_secs(20);
    let image = run.client.metadata();
    let topic = image.topic_by_name(TOPIC).map(|topic| topic.topic_id.clone()).unwrap_or_default();
    let mut last = "no attempt".to_owned();
    while run.now() < started + LIMIT {
        run.cluster.check_alive()?;
        if let Some(address) = run.client.spu_address(plimsoll_client::SpuId(spu)) {
            match plain::ends(&run.host, &address, &topic, 0).await {
                Ok(ends) if ends.high_watermark >= records => {
                    let took = millis(run.now().saturating_sub(started));
                    run.figure("serves_reads_ms", Some(took), Some(5_000));
                    return Ok(());
                }
                Ok(_) => last = "no records".to_owned(),
                Err(error) => last = format!("{error:#}"),
            }
        }
        run.pause(0.05).await;
    }
    anyhow::bail!("spu {spu} serves no reads {} s after its start: {last}", LIMIT.as_secs())
}

async fn at_full(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 1_000, 512).await?;
    let spu = run.a_leader()?;
    let from = run.now();
    let disk = run.cluster.disk(spu).clone();
    let (mut filler, fill) = run.fill(&disk).await?;
    let detect = run.detect_ms(spu, &fill).await;
    run.bar(Bar::Detect, detect);
    for _ in 0..2 {
        run.kill(spu);
        filler.take(16 << 20)?;
        let free = disk.space()?.free_bytes;
        run.expect(free == 0, || format!("{free} bytes are free at the start"));
        let started = run.now();
        run.start_again(spu)?;
        serves_reads(run, spu, started).await?;
    }
    run.pause(1.0).await;
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(spu, removed).await;
    run.bar(Bar::Recover, recover);
    // Two starts are more than the lines of an episode.
    run.end_episode(spu, from.max(removed)).await
}

async fn full_and_leader_killed(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 1_000, 512).await?;
    let full = run.a_leader()?;
    let from = run.now();
    let disk = run.cluster.disk(full).clone();
    let (filler, _) = run.fill(&disk).await?;
    run.until(Duration::from_secs(5), |run| run.led_by(TOPIC, full).is_empty()).await;
    let killed = (1..=3).find(|spu| *spu != full && !run.led_by(TOPIC, *spu).is_empty()).unwrap_or(1);
    run.kill(killed);
    run.say(&format!(
        "spu {full} is full, spu {killed} is killed: one writable copy is left of min_in_sync 2"
    ));
    run.pause(8.0).await;
    let started = run.now();
    run.start_again(killed)?;
    let again = run.until(Duration::from_secs(30), |run| run.first_ack(started, |_| true).is_some()).await;
    run.figure("writable_after_start_ms", again.map(|at| millis(at.saturating_sub(started))), None);
    run.pause(1.0).await;
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(full, removed).await;
    run.bar(Bar::Recover, recover);
    run.end_episode(full, from).await
}

async fn rolling_restart(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 1_000, 512).await?;
    let full = run.a_leader()?;
    let disk = run.cluster.disk(full).clone();
    let (filler, _) = run.fill(&disk).await?;
    run.until(Duration::from_secs(5), |run| run.led_by(TOPIC, full).is_empty()).await;
    let mut longest = 0;
    for spu in 1..=3 {
        let stopping = run.now();
        run.silence(spu);
        run.cluster.spu(spu).terminate();
        let ended = run.wait_ended(spu).await?;
        run.expect(ended == Some(0), || format!("spu {spu} ended with {ended:?} after SIGTERM"));
        longest = longest.max(millis(run.now().saturating_sub(stopping)));
        let started = run.now();
        run.start_again(spu)?;
        serves_reads(run, spu, started).await?;
        let again =
            run.until(Duration::from_secs(30), |run| run.first_ack(started, |_| true).is_some()).await;
        run.expect(again.is_some(), || format!("nothing is acknowledged after the restart of spu {spu}"));
        run.pause(2.0).await;
    }
    run.figure("longest_stop_ms", Some(longest), Some(6_000));
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(full, removed).await;
    run.bar(Bar::Recover, recover);
    Ok(())
}

async fn full_during_catch_up(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 1_500, 2_048).await?;
    let spu = run.a_leader()?;
    run.kill(spu);
    run.pause(8.0).await;
    // Less than what it missed is left above its mark.
    let disk = run.cluster.disk(spu).clone();
    let mut filler = crate::filler::Filler::create(&disk)?;
    let keep = disk.bytes() / 10;
    let take = disk.space()?.free_bytes.saturating_sub(keep);
    filler.take(take)?;
    let from = run.now();
    run.start_again(spu)?;
    let full = run.until(Duration::from_secs(40), |run| {
        let image = run.client.metadata();
        let info = image.spus.get(&plimsoll_client::SpuId(spu));
        info.is_some_and(|info| {
            info.volumes.iter().any(|found| found.state() == plimsoll_client::VolumeState::WriteOffline)
        })
    });
    let full = full.await;
    run.figure("full_after_ms", full.map(|at| millis(at.saturating_sub(from))), None);
    run.pause(2.0).await;
    let before = run.acked();
    run.pause(1.0).await;
    let on = run.acked() - before;
    run.expect(on > 0, || "the other two acknowledge nothing".to_owned());
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(spu, removed).await;
    run.bar(Bar::Recover, recover);
    let in_sync = run.until(Duration::from_secs(30), |run| {
        let image = run.client.metadata();
        image
            .topic_by_name(TOPIC)
            .is_some_and(|topic| topic.partitions.iter().all(|found| found.in_sync.contains(&spu)))
    });
    let in_sync = in_sync.await.map(|at| millis(at.saturating_sub(removed)));
    run.figure("in_sync_ms", in_sync, None);
    run.end_episode(spu, removed).await
}
