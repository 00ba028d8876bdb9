//! The same on filesystems that behave differently when they are full.

use std::time::Duration;

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION};
use super::one_full::leader_full;
use super::run::{Run, TOPIC, Whole};
use crate::cluster::Topology;
use crate::nemesis::ballast::Ballast;
use crate::rig::{Filesystem, VolumeSpec};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("leader-full-ext4", "as leader-full, on ext4 with 10 % kept for another user", |run| {
            Box::pin(leader_full(run))
        })
        .on(|| Topology::three_nodes(VolumeSpec::of_bytes(96 << 20).on(Filesystem::Ext4).reserving(10)))
        .without(&[EVERY_PARTITION]),
        Scenario::new("leader-full-xfs", "as leader-full, on xfs", |run| Box::pin(leader_full(run)))
            .on(|| Topology::three_nodes(VolumeSpec::of_bytes(320 << 20).on(Filesystem::Xfs)))
            .without(&[EVERY_PARTITION]),
        Scenario::new("quota-reached-btrfs", "a quota is reached on a btrfs that says it has room", |run| {
            Box::pin(quota_reached(run))
        })
        .on(|| Topology::three_nodes(VolumeSpec::of_bytes(96 << 20).on(Filesystem::BtrfsQuota)))
        .without(&[
            (Bar::Detect, "no figure of the kernel tells of the quota; the first allocation that fails does"),
            EVERY_PARTITION,
        ]),
        Scenario::new("thin-volume", "a volume that promises more than there is", |run| {
            Box::pin(thin_volume(run))
        })
        .on(|| {
            let disk = VolumeSpec::of_bytes(64 << 20);
            Topology {
                spus: vec![vec![disk], vec![disk], vec![disk.on(Filesystem::Thin)]],
                ..Topology::default()
            }
        })
        .without(&[
            (Bar::Detect, "statvfs claims room to the end; the failed sync is the first sign"),
            (Bar::Reroute, "judged by acknowledgements that go on"),
            (Bar::Recover, "a failed volume comes back with a restart of the node"),
            (Bar::LogLines, "it fails and does not return to Normal"),
            EVERY_PARTITION,
        ])
        .whole(Whole::Never("the volume that failed stays out until its node starts again")),
    ]
}

async fn quota_reached(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 1_500, 4_096).await?;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    let from = run.now();
    let disk = run.cluster.disk(spu).clone();
    let (filler, fill) = run.fill(&disk).await?;
    let refused = run.until(Duration::from_secs(20), |run| !run.writable(spu)).await;
    run.expect(refused.is_some(), || "the quota was not noticed within 20 s".to_owned());
    let reroute = run.reroute_ms(&led, spu, &fill).await;
    run.bar(Bar::Reroute, reroute);
    run.expect_flow("with one quota reached").await;
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(spu, removed).await;
    run.bar(Bar::Recover, recover);
    run.end_episode(spu, from).await
}

/// What the node writes goes nowhere. The others go on, and nothing that was acknowledged is lost.
async fn thin_volume(run: &mut Run) -> anyhow::Result<()> {
    const LIAR: u32 = 3;
    run.flowing(3, 1_000, 1_024).await?;
    let disk = run.cluster.disk(LIAR).clone();
    let ballast = Ballast::write(&disk, 64 << 20)?;
    run.say(&format!("{} bytes written to spu {LIAR}: {}", ballast.bytes(), ballast.how_it_ended()));
    let failed = run.until(Duration::from_secs(60), |run| !run.writable(LIAR)).await;
    run.say(&format!("volume of spu {LIAR}: {:?}", run.volume_state(LIAR)));
    run.expect(failed.is_some(), || "a volume whose writes go nowhere is still called writable".to_owned());
    run.expect_flow("after a thin volume has failed").await;
    run.excuse(LIAR, "its volume holds what the image below it could not");
    Ok(())
}
