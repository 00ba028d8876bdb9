//! One disk is full.

use std::time::Duration;

use anyhow::Context as _;

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION};
use super::run::{Run, TOPIC};
use crate::cluster::Topology;
use crate::rig::VolumeSpec;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("leader-full", "the disk of a leader is filled, then freed", |run| {
            Box::pin(leader_full(run))
        })
        .smoke()
        .without(&[EVERY_PARTITION]),
        Scenario::new("one-of-two-volumes-full", "one of a node's two disks is full", |run| {
            Box::pin(one_of_two_volumes(run))
        })
        .on(two_volumes_each)
        .without(&[
            (Bar::Detect, "leaders of the full disk may move before anything is refused; see leader-full"),
            (Bar::Reroute, "see leader-full"),
            (Bar::Unaffected, "the other disk is judged by acknowledgements of its leaders"),
        ]),
    ]
}

pub(super) async fn leader_full(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 1_000, 512).await?;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    let (from, before) = (run.now(), run.applied().await?);
    let disk = run.cluster.disk(spu).clone();
    let (filler, fill) = run.fill(&disk).await?;
    let detect = run.detect_ms(spu, &fill).await;
    run.bar(Bar::Detect, detect);
    let reroute = run.reroute_ms(&led, spu, &fill).await;
    run.bar(Bar::Reroute, reroute);
    run.pause(2.0).await;
    let entries = run.offline_entries(spu, before).await?;
    run.expect(entries == 1, || format!("{entries} write-offline entries for one fill, not 1"));
    let read = run.read();
    run.pause(1.0).await;
    let now = run.read();
    run.expect(now > read, || "the consumer stands still while one disk is full".to_owned());
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(spu, removed).await;
    run.bar(Bar::Recover, recover);
    run.end_episode(spu, from).await
}

/// Two disks in each node.
fn two_volumes_each() -> Topology {
    Topology { spus: vec![vec![VolumeSpec::of_bytes(96 << 20); 2]; 3], ..Topology::default() }
}

async fn one_of_two_volumes(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(6, 1_000, 512).await?;
    let spu = run.a_leader()?;
    let disk = run.cluster.disks(spu)[0].clone();
    let path = disk.data().display().to_string();
    let volume = run.facts(spu).await?.into_iter().find(|found| found.path.starts_with(&path));
    let volume = volume.context("the volume that is filled")?.volume_id;
    let image = run.client.metadata();
    let partitions = image.topic_by_name(TOPIC).context("the topic")?.partitions.clone();
    let there: Vec<u32> = partitions
        .iter()
        .filter(|found| {
            found.replicas.iter().any(|replica| replica.spu_id == spu && replica.volume_id == volume)
        })
        .map(|found| found.index)
        .collect();
    let kept: Vec<u32> = run.led_by(TOPIC, spu).into_iter().filter(|index| !there.contains(index)).collect();
    run.expect(!kept.is_empty(), || format!("spu {spu} leads nothing on its other disk: {partitions:?}"));
    let from = run.now();
    let (filler, _) = run.fill(&disk).await?;
    run.until(Duration::from_secs(5), |run| !run.writable(spu)).await;
    run.pause(1.5).await;
    let after = run.now();
    let refused = run.loads[0]
        .with_log(|log| log.refused.iter().filter(|found| found.at > after && found.spu == spu).count());
    run.until(Duration::from_secs(3), |run| {
        kept.iter()
            .all(|index| run.first_ack(after, |ack| ack.partition == *index && ack.spu == spu).is_some())
    })
    .await;
    for index in &kept {
        let goes_on = run.first_ack(after, |ack| ack.partition == *index && ack.spu == spu).is_some();
        run.expect(goes_on, || {
            format!("spu {spu} no longer acknowledges partition {index}, which is on its other disk")
        });
    }
    run.expect(refused == 0, || format!("{refused} refusals of spu {spu} after its leaders had moved"));
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(spu, removed).await;
    run.bar(Bar::Recover, recover);
    run.end_episode(spu, from).await
}
