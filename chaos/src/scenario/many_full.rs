//! Several disks are full at once.

use std::time::Duration;

use plimsoll_client::TopicConfig;

use super::run::{Run, TOPIC, millis};
use crate::filler::Filler;

async fn fill(run: &Run, spus: &[u32]) -> anyhow::Result<Vec<(u32, Filler)>> {
    let disks: Vec<_> = spus.iter().map(|spu| run.cluster.disk(*spu).clone()).collect();
    let fills = futures::future::join_all(disks.iter().map(|disk| run.fill(disk))).await;
    let mut fillers = Vec::new();
    for (spu, fill) in spus.iter().zip(fills) {
        fillers.push((*spu, fill?.0));
    }
    Ok(fillers)
}

async fn refused_for_good(run: &mut Run, from: Duration) {
    let stopped = |run: &Run| run.first_refusal(from).is_some();
    let refused = run.until(Duration::from_secs(10), stopped).await;
    run.expect(refused.is_some(), || "no typed refusal within 10 s".to_owned());
    run.pause(3.0).await;
    let before = run.acked();
    run.pause(1.0).await;
    let during = run.acked() - before;
    run.expect(during == 0, || format!("{during} records acknowledged without enough disks"));
}

async fn writable_after(run: &mut Run, removed: Duration) {
    let again = run.until(Duration::from_secs(20), |run| run.first_ack(removed, |_| true).is_some()).await;
    run.figure("recover_ms", again.map(|at| millis(at.saturating_sub(removed))), Some(2_000));
}

pub(super) async fn two_of_three(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 1_000, 512).await?;
    let from = run.now();
    let fillers = fill(run, &[1, 2]).await?;
    refused_for_good(run, from).await;
    let acked = run.acked();
    let caught_up = run.until(Duration::from_secs(5), |run| run.read() >= acked).await;
    run.expect(caught_up.is_some(), || "reads stopped".to_owned());
    let removed = run.now();
    for (_, filler) in fillers {
        filler.remove()?;
    }
    writable_after(run, removed).await;
    run.end_episode(1, from).await?;
    run.end_episode(2, from).await
}

pub(super) async fn all_then_topic_deleted(run: &mut Run) -> anyhow::Result<()> {
    run.plain_topic("spare", TopicConfig { partitions: 1, ..TopicConfig::default() }).await?;
    run.write("spare", 20 << 20).await?;
    run.flowing(3, 1_000, 512).await?;
    let from = run.now();
    let fillers = fill(run, &[1, 2, 3]).await?;
    refused_for_good(run, from).await;
    for arguments in [&["topic", "list"][..], &["topic", "describe", TOPIC], &["disk"]] {
        run.cluster.command_line(arguments).await?;
    }
    run.cluster.command_line(&["topic", "delete", "spare"]).await?;
    let deleted = run.now();
    writable_after(run, deleted).await;
    drop(fillers);
    for spu in 1..=3 {
        run.end_episode(spu, from).await?;
    }
    Ok(())
}

pub(super) async fn many_waiting(run: &mut Run) -> anyhow::Result<()> {
    const PRODUCERS: u64 = 100;
    const WAIT_S: u64 = 10;
    run.flowing(3, 200, 512).await?;
    for _ in 1..PRODUCERS {
        run.load(TOPIC, 5, 512).await?;
    }
    run.pause(2.0).await;
    let from = run.now();
    let fillers = fill(run, &[1, 2, 3]).await?;
    refused_for_good(run, from).await;
    let waiting = run.now();
    run.pause(10.0).await;
    let refused: u64 = run
        .loads
        .iter()
        .map(|load| load.with_log(|log| log.refused.iter().filter(|(at, _, _)| *at >= waiting).count()))
        .map(|count| u64::try_from(count).unwrap_or(u64::MAX))
        .sum();
    let mut reasons: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
    for load in &run.loads {
        load.with_log(|log| {
            for (_, _, reason) in log.refused.iter().filter(|(at, _, _)| *at >= waiting) {
                *reasons.entry(plimsoll_proto::status::reason_name(*reason).to_owned()).or_default() += 1;
            }
        });
    }
    run.say(&format!("{refused} refusals of {PRODUCERS} waiting producers in {WAIT_S} s: {reasons:?}"));
    // Per producer and for each of the three partitions it waits for.
    run.figure("refused_per_100_waits_s", Some(refused * 100 / (PRODUCERS * 3 * WAIT_S)), Some(20));
    let removed = run.now();
    drop(fillers);
    writable_after(run, removed).await;
    let all = |run: &Run| {
        run.loads.iter().all(|load| load.with_log(|log| log.acks.last().is_some_and(|ack| ack.at >= removed)))
    };
    let at = run.until(Duration::from_secs(20), all).await;
    run.figure("all_flow_ms", at.map(|at| millis(at.saturating_sub(removed))), None);
    for spu in 1..=3 {
        run.end_episode(spu, from).await?;
    }
    Ok(())
}
