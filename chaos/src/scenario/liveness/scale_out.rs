//! A cluster that grows under load.

use std::time::Duration;

use plimsoll_client::{SpuId, TopicConfig};

use super::{Part, part};
use crate::rig::VolumeSpec;
use crate::scenario::run::{Run, millis};

pub(super) fn parts() -> Vec<Part> {
    vec![part("scale-out", "three nodes are added at once under load", 20, |run| Box::pin(three_more(run)))]
}

async fn three_more(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 500, 512).await?;
    let case = run.begin_case("three nodes are added").await?;
    let mut started = Vec::new();
    for _ in 0..3 {
        let at = run.now();
        started.push((run.add_spu(&[VolumeSpec::of_bytes(64 << 20)])?, at));
    }
    let all = |run: &Run| started.iter().all(|(spu, _)| run.online(*spu));
    let mut online = std::collections::BTreeMap::new();
    run.until(Duration::from_secs(30), |run| {
        for (spu, at) in &started {
            if run.online(*spu) {
                online.entry(*spu).or_insert_with(|| millis(run.now().saturating_sub(*at)));
            }
        }
        online.len() == started.len()
    })
    .await;
    for (spu, _) in &started {
        run.sample("added_online_ms", online.get(spu).copied(), 0..=5_000);
    }
    // A node that is online takes replicas, and stays.
    let config = TopicConfig { partitions: 6, ..TopicConfig::default() };
    run.plain_topic("wide", config).await?;
    let image = run.client.metadata();
    let on = |spu: &u32| {
        let partitions = image.topic_by_name("wide").map(|topic| topic.partitions.as_slice());
        let on_it = |replicas: &[plimsoll_proto::v1::ReplicaAssignment]| {
            replicas.iter().any(|replica| replica.spu_id == *spu)
        };
        partitions.unwrap_or_default().iter().any(|found| on_it(&found.replicas))
    };
    let forgotten: Vec<u32> = started.iter().map(|(spu, _)| *spu).filter(|spu| !on(spu)).collect();
    run.expect(forgotten.is_empty(), || format!("no replica is placed on {forgotten:?}"));
    run.write("wide", 64 << 10).await?;
    run.expect(all(run), || "a node that was added is no longer online".to_owned());
    let known = run.client.metadata().spus.keys().filter(|spu| **spu >= SpuId(1)).count();
    run.expect(known == 6, || format!("{known} nodes are known, not 6"));
    for spu in 1..=6 {
        run.expect_never_offline(spu, &case).await?;
    }
    run.expect_flow("after the cluster has grown").await;
    run.end_case(&case);
    Ok(())
}
