//! Replicas that move to a node whose disk is nearly full.

use std::time::Duration;

use anyhow::Context as _;
use plimsoll_client::VolumeState;
use plimsoll_proto::v1::DiskLevel;

use super::Scenario;
use super::bars::Bar;
use super::run::{Run, TOPIC, millis};
use crate::cluster::Topology;
use crate::filler::Filler;
use crate::rig::VolumeSpec;
use crate::workload::LoadSpec;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "reassign-near-the-mark",
            "a replica moves to a node without room for it, is called off, and moves again",
            |run| Box::pin(near_the_mark(run)),
        )
        .on(|| Topology { spus: vec![vec![VolumeSpec::of_bytes(96 << 20)]; 4], ..Topology::default() })
        .without(&[
            (Bar::Detect, "its own catching up fills the disk, at a speed that nobody sets"),
            (Bar::Reroute, "it leads nothing"),
            (Bar::Unaffected, "the leader's disk has room all the time; the flow is watched"),
        ]),
    ]
}

/// Nodes with a replica of the judged topic's only partition.
fn on(run: &Run) -> Vec<u32> {
    let image = run.client.metadata();
    let partition = image.topic_by_name(TOPIC).and_then(|topic| topic.partitions.first());
    let replicas = partition.map(|partition| partition.replicas.as_slice()).unwrap_or_default();
    replicas.iter().map(|replica| replica.spu_id).collect()
}

/// Milliseconds until exactly these have one, at most 40 s.
async fn moved_to(run: &Run, wanted: &[u32], from: Duration) -> Option<u64> {
    let same = |run: &Run| {
        let mut found = on(run);
        found.sort_unstable();
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        found == wanted
    };
    run.until(Duration::from_secs(40), same).await.map(|at| millis(at.saturating_sub(from)))
}

/// Whether a node's volume gets to such a level within 15 s.
async fn gets_to(run: &Run, spu: u32, wanted: impl Fn(DiskLevel) -> bool) -> anyhow::Result<bool> {
    let deadline = run.now() + Duration::from_secs(15);
    while run.now() < deadline {
        if run.facts(spu).await?.iter().all(|facts| wanted(facts.level())) {
            return Ok(true);
        }
        run.pause(0.1).await;
    }
    Ok(false)
}

async fn near_the_mark(run: &mut Run) -> anyhow::Result<()> {
    const LARGE: usize = 256 << 10;
    const RECORDS: u64 = 140;
    run.flowing(1, 300, 512).await?;
    run.load_of(LoadSpec::new(TOPIC, 60, LARGE)).await?;
    let enough = |run: &Run| run.loads[1].acked() >= RECORDS;
    run.until(Duration::from_secs(40), enough).await.context("35 MiB are not written within 40 s")?;
    run.loads[1].stop();
    let before = on(run);
    let target =
        run.cluster.spu_ids().find(|spu| !before.contains(spu)).context("every node has a replica")?;
    let after: Vec<u32> = before.iter().take(2).copied().chain([target]).collect();
    let (to, partition) = (format!("{},{},{target}", after[0], after[1]), format!("{TOPIC}/0"));
    let reassign = ["partition", "reassign", &partition, "--to", &to];

    // Below the mark of Reclaim a volume takes no new replica.
    let from = run.now();
    let disk = run.cluster.disk(target).clone();
    let mut filler = Filler::create(&disk)?;
    filler.take(disk.space()?.free_bytes.saturating_sub(disk.bytes() / 100 * 12))?;
    let short = gets_to(run, target, |level| level >= DiskLevel::Reclaim).await?;
    run.expect(short, || format!("with 12 % left spu {target} has room, as it says"));
    let told = run.cluster.command_line(&reassign).await;
    let told = told.map_or_else(|error| format!("{error:#}"), |_| "taken".to_owned());
    run.expect(told.contains("NO_PLACEMENT"), || format!("a move to a disk at its mark: {told}"));

    // Above all marks, also those by how fast a disk fills, and with less room than the replica takes.
    filler.give_back(disk.bytes() / 100 * 22)?;
    let room = gets_to(run, target, |level| level == DiskLevel::Normal).await?;
    run.expect(room, || format!("with 34 % left spu {target} is short of room, as it says"));
    run.cluster.command_line(&reassign).await?;
    stuck(run, target, &before).await;
    run.cluster.command_line(&["partition", "reassign", &partition, "--cancel"]).await?;
    let cancelled = run.now();
    let back = moved_to(run, &before, cancelled).await;
    run.figure("called_off_ms", back, Some(5_000));
    let room = gets_to(run, target, |level| level == DiskLevel::Normal).await?;
    run.expect(room, || format!("spu {target} keeps what was called off"));

    run.cluster.command_line(&reassign).await?;
    stuck(run, target, &before).await;
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(target, removed).await;
    run.bar(Bar::Recover, recover);
    let moved = moved_to(run, &after, removed).await;
    run.figure("moved_ms", moved, Some(20_000));
    let in_sync = run.in_sync_ms(target, removed).await;
    run.figure("in_sync_ms", in_sync, Some(20_000));
    run.end_episode(target, from).await
}

/// The target is full, the others have what they had, and records go on.
async fn stuck(run: &mut Run, target: u32, before: &[u32]) {
    let full =
        run.until(Duration::from_secs(20), |run| run.volume_state(target) == VolumeState::WriteOffline);
    let full = full.await;
    run.expect(full.is_some(), || format!("spu {target} takes more than it has room for"));
    run.expect_flow("while a move waits for room").await;
    let now = on(run);
    run.expect(before.iter().all(|spu| now.contains(spu)), || {
        format!("a copy went before the new one was whole: {before:?} became {now:?}")
    });
}
