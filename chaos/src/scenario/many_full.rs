//! Several disks are full at once.

use std::time::Duration;

use plimsoll_client::TopicConfig;

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION, NO_REROUTE, Without};
use super::run::{Run, TOPIC, millis};
use crate::filler::Filler;
use crate::workload::LoadSpec;

/// Several fills at once have no single beginning.
const AT_ONCE: Without =
    &[(Bar::Detect, "several disks fill at once; see leader-full"), NO_REROUTE, EVERY_PARTITION];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("two-of-three-full", "two of three disks are full, min_in_sync is 2", |run| {
            Box::pin(two_of_three(run))
        })
        .without(AT_ONCE),
        Scenario::new("all-full-topic-deleted", "all disks are full, then one topic is deleted", |run| {
            Box::pin(all_then_topic_deleted(run))
        })
        .smoke()
        .without(AT_ONCE),
        Scenario::new("many-waiting-producers", "all disks are full and 100 producers wait", |run| {
            Box::pin(many_waiting(run))
        })
        .without(AT_ONCE),
        Scenario::new("thousand-waiting-producers", "all disks are full and 1,000 producers wait", |run| {
            Box::pin(thousand_waiting(run))
        })
        .without(AT_ONCE),
    ]
}

pub(super) async fn fill(run: &Run, spus: &[u32]) -> anyhow::Result<Vec<(u32, Filler)>> {
    let disks: Vec<_> = spus.iter().map(|spu| run.cluster.disk(*spu).clone()).collect();
    let fills = futures::future::join_all(disks.iter().map(|disk| run.fill(disk))).await;
    let mut fillers = Vec::new();
    for (spu, fill) in spus.iter().zip(fills) {
        fillers.push((*spu, fill?.0));
    }
    Ok(fillers)
}

pub(super) async fn refused_for_good(run: &mut Run, from: Duration) {
    let stopped = |run: &Run| run.first_refusal(from).is_some();
    let refused = run.until(Duration::from_secs(10), stopped).await;
    run.expect(refused.is_some(), || "no typed refusal within 10 s".to_owned());
    run.pause(3.0).await;
    let before = run.acked();
    run.pause(1.0).await;
    let during = run.acked() - before;
    run.expect(during == 0, || format!("{during} records acknowledged without enough disks"));
    if let Err(error) = run.probe_refusals(0, 120).await {
        run.expect(false, || format!("asking for refusals: {error:#}"));
    }
}

pub(super) async fn writable_after(run: &mut Run, removed: Duration) {
    run.lifted(removed);
    let again = run.until(Duration::from_secs(20), |run| run.first_ack(removed, |_| true).is_some()).await;
    run.bar(Bar::Recover, again.map(|at| millis(at.saturating_sub(removed))));
}

async fn two_of_three(run: &mut Run) -> anyhow::Result<()> {
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

async fn all_then_topic_deleted(run: &mut Run) -> anyhow::Result<()> {
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

async fn many_waiting(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 200, 512).await?;
    for _ in 1..100 {
        run.load(TOPIC, 5, 512).await?;
    }
    run.pause(2.0).await;
    all_wait(run, 12.0).await
}

/// Ten clients with a hundred producers each: within a client only one tries.
async fn thousand_waiting(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 100, 512).await?;
    let spec = LoadSpec::new(TOPIC, 1, 256);
    for number in 0..10 {
        let client = run.another_client().await?;
        // With the one that flows already a partition knows as many producers as it remembers.
        for _ in 0..if number == 0 { 99 } else { 100 } {
            run.load_from(&client, spec.clone()).await?;
        }
    }
    run.say(&format!("{} producers", run.loads.len()));
    run.pause(4.0).await;
    all_wait(run, 12.0).await
}

async fn all_wait(run: &mut Run, seconds: f64) -> anyhow::Result<()> {
    let from = run.now();
    let fillers = fill(run, &[1, 2, 3]).await?;
    refused_for_good(run, from).await;
    run.pause(seconds).await;
    let removed = run.now();
    drop(fillers);
    writable_after(run, removed).await;
    let all = |run: &Run| {
        run.loads.iter().all(|load| load.with_log(|log| log.acks.last().is_some_and(|ack| ack.at >= removed)))
    };
    let at = run.until(Duration::from_secs(20), all).await;
    run.figure("all_flow_ms", at.map(|at| millis(at.saturating_sub(removed))), Some(3_000));
    for spu in 1..=3 {
        run.end_episode(spu, from).await?;
    }
    Ok(())
}
