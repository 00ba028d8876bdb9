//! Consumer groups while every disk is full.

use std::time::Duration;

use anyhow::Context as _;

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION, NO_REROUTE};
use super::kills::serves_reads;
use super::many_full::{fill, refused_for_good, writable_after};
use super::run::{Run, TOPIC, millis};
use crate::members::GroupLoad;

/// Where offsets are committed.
const OFFSETS: &str = "__offsets";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "groups-commit-on-full-disks",
            "all disks are full; a new group reads, commits, changes members, and its coordinator is killed",
            |run| Box::pin(commits(run)),
        )
        .without(&[
            (Bar::Detect, "several disks fill at once; see leader-full"),
            NO_REROUTE,
            (Bar::LogLines, "a start while the disk is full is told, too"),
            EVERY_PARTITION,
        ]),
    ]
}

async fn commits(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 800, 512).await?;
    let mut followers = GroupLoad::new(&run.host, &run.client, "followers", TOPIC);
    followers.add_member().await?;
    followers.add_member().await?;
    let reads = run.until(Duration::from_secs(20), |_| followers.with_log(|log| log.partitions.len() == 3));
    reads.await.context("a group of two does not read everything within 20 s")?;
    // Enough for the second group to be busy with to the end.
    run.pause(8.0).await;
    let from = run.now();
    let fillers = fill(run, &[1, 2, 3]).await?;
    refused_for_good(run, from).await;

    // Everything is full: another group begins.
    let began = run.now();
    let mut late = GroupLoad::new(&run.host, &run.client, "late", TOPIC);
    late.set_pause(Duration::from_millis(5));
    late.add_member().await?;
    let commits =
        run.until(Duration::from_secs(15), |_| late.with_log(|log| log.commits_since(began)) >= 5).await;
    run.figure("commits_on_full_disks_ms", commits.map(|at| millis(at.saturating_sub(began))), Some(10_000));
    late.add_member().await?;
    run.say("a group that began on full disks commits, and gets a second member");
    run.pause(2.0).await;
    let spu = run.cluster.spu_ids().find(|spu| !run.led_by(OFFSETS, *spu).is_empty());
    let spu = spu.context("nobody coordinates groups")?;
    run.kill(spu);
    run.pause(3.0).await;
    let started = run.now();
    run.start_again(spu)?;
    serves_reads(run, spu, started).await?;
    let commits =
        run.until(Duration::from_secs(20), |_| late.with_log(|log| log.commits_since(started)) >= 5).await;
    run.figure("commits_again_ms", commits.map(|at| millis(at.saturating_sub(started))), Some(15_000));

    let removed = run.now();
    drop(fillers);
    writable_after(run, removed).await;
    run.pause(1.0).await;
    run.loads.iter().for_each(crate::workload::Load::stop);
    run.until(Duration::from_secs(30), |run| run.loads.iter().all(crate::workload::Load::finished)).await;
    late.set_pause(Duration::ZERO);
    for group in [&followers, &late] {
        judge(run, group).await?;
    }
    Ok(())
}

/// A group has been given everything, in order, and everything that it was told is committed is.
async fn judge(run: &mut Run, group: &GroupLoad) -> anyhow::Result<()> {
    let acked = run.acked();
    let all = run.until(Duration::from_secs(40), |_| group.with_log(|log| log.given() >= acked)).await;
    group.leave();
    run.until(Duration::from_secs(15), |_| group.has_left()).await;
    let (given, skipped, repeated, commits, failed, ended) = group.with_log(|log| {
        let sum =
            |count: fn(&crate::members::Delivered) -> u64| log.partitions.values().map(count).sum::<u64>();
        (
            log.given(),
            sum(|found| found.skipped),
            sum(|found| found.repeated),
            log.commits.len(),
            log.failed.clone(),
            log.ended.clone(),
        )
    });
    let name = group.name().to_owned();
    run.say(&format!(
        "group {name}: {given} given, {repeated} of them again, {commits} commits, {} not acknowledged: {}",
        failed.0,
        failed.1.unwrap_or_default()
    ));
    run.expect(all.is_some(), || format!("group {name} was given {given} of {acked} records"));
    run.expect(skipped == 0, || format!("group {name} was never given {skipped} records"));
    run.expect(ended.is_empty(), || format!("members of {name} ended: {ended:?}"));
    let lost = group.lost_commits().await?;
    run.expect(lost == 0, || format!("{lost} partitions of {name} lost a commit that was acknowledged"));
    Ok(())
}
