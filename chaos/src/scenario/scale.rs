//! Clusters that grow while a disk is full.

use std::time::Duration;

use plimsoll_client::TopicConfig;

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION};
use super::run::{Run, TOPIC, millis};
use crate::cluster::Topology;
use crate::rig::VolumeSpec;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "scale-out-as-relief",
            "one of three disks is full; a fourth node takes new replicas and those of the full one",
            |run| Box::pin(scale_out(run)),
        )
        .on(|| Topology {
            controller_arguments: vec!["--relief-after", "3s"],
            ..Topology::three_nodes(VolumeSpec::of_bytes(96 << 20))
        })
        .without(&[
            (Bar::Detect, "see leader-full"),
            (Bar::Reroute, "see leader-full"),
            EVERY_PARTITION,
        ]),
    ]
}

async fn scale_out(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 500, 512).await?;
    let full = run.a_leader()?;
    let from = run.now();
    let disk = run.cluster.disk(full).clone();
    let (filler, _) = run.fill(&disk).await?;
    run.until(Duration::from_secs(5), |run| !run.writable(full)).await;
    let told =
        run.cluster.command_line(&["topic", "create", "early", "--replicas", "3", "--timeout", "2s"]).await;
    let told = told.map_or_else(|error| format!("{error:#}"), |_| "created".to_owned());
    run.expect(told.contains("NO_PLACEMENT"), || {
        format!("three replicas with two nodes that have room: {told}")
    });
    let added = run.now();
    let fresh = run.add_spu(&[VolumeSpec::of_bytes(96 << 20)])?;
    let mut created = None;
    while created.is_none() && run.now() < added + Duration::from_secs(20) {
        let config = TopicConfig { partitions: 4, ..TopicConfig::default() };
        match run.plain_topic("relief", config).await {
            Ok(()) => created = Some(millis(run.now().saturating_sub(added))),
            Err(_) => run.pause(0.2).await,
        }
    }
    run.figure("placed_after_ms", created, Some(8_000));
    let image = run.client.metadata();
    if let Some(topic) = image.topic_by_name("relief") {
        for partition in &topic.partitions {
            let on: Vec<u32> = partition.replicas.iter().map(|replica| replica.spu_id).collect();
            run.expect(!on.contains(&full), || {
                format!("partition {} was placed on the full spu {full}", partition.index)
            });
            run.expect(on.contains(&fresh), || {
                format!("partition {} was not placed on the new spu {fresh}: {on:?}", partition.index)
            });
        }
        run.write("relief", 1 << 20).await?;
    }
    // What was on the full disk leaves it by itself.
    let relieved = run.until(Duration::from_secs(60), |run| {
        let image = run.client.metadata();
        image.topic_by_name(TOPIC).is_some_and(|topic| {
            let on = |found: &plimsoll_proto::v1::PartitionInfo, spu| {
                found.replicas.iter().any(|replica| replica.spu_id == spu)
            };
            topic.partitions.iter().all(|found| !on(found, full) && on(found, fresh))
        })
    });
    let relieved = relieved.await.map(|at| millis(at.saturating_sub(added)));
    run.figure("relieved_ms", relieved, Some(40_000));
    run.expect_flow("after replicas have left the full disk").await;
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(full, removed).await;
    run.bar(Bar::Recover, recover);
    run.end_episode(full, from).await
}
