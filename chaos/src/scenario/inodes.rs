//! No inodes.

use std::time::Duration;

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION};
use super::kills::serves_reads;
use super::run::{Run, millis};
use crate::cluster::Topology;
use crate::nemesis::inodes::InodeFiller;
use crate::rig::{Filesystem, VolumeSpec};

pub(super) fn scenarios() -> Vec<Scenario> {
    const SEE: (Bar, &str) = (Bar::Reroute, "see leader-full");
    vec![
        Scenario::new("kill-at-zero-inodes", "no inode left, kill -9, and a start without one", |run| {
            Box::pin(kill_at_zero(run))
        })
        .on(few_inodes)
        .without(&[SEE, EVERY_PARTITION]),
        Scenario::new(
            "zero-inodes-ext4",
            "no inode left on an ext4, kill -9, and a start without one",
            |run| Box::pin(kill_at_zero(run)),
        )
        .on(few_inodes_on_ext4)
        .without(&[SEE, EVERY_PARTITION]),
    ]
}

fn few_inodes_on_ext4() -> Topology {
    Topology::three_nodes(VolumeSpec::of_bytes(96 << 20).with_inodes(400).on(Filesystem::Ext4))
}

/// Disks with room for files of some partitions, and a few more.
fn few_inodes() -> Topology {
    Topology::three_nodes(VolumeSpec::of_bytes(96 << 20).with_inodes(400))
}

async fn kill_at_zero(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 500, 512).await?;
    let spu = run.a_leader()?;
    let from = run.now();
    let began = run.now();
    let filler = InodeFiller::fill(run.cluster.disk(spu))?;
    run.say(&format!("{} foreign files: no inode is left on the disk of spu {spu}", filler.made()));
    let refused =
        run.until(Duration::from_secs(10), |run| run.first_refusal(began).is_some() || !run.writable(spu));
    let refused = refused.await;
    run.bar(Bar::Detect, refused.map(|at| millis(at.saturating_sub(began))));
    run.kill(spu);
    let left = run.cluster.disk(spu).space()?.free_inodes;
    let started = run.now();
    run.start_again(spu)?;
    serves_reads(run, spu, started).await?;
    run.say(&format!("started with {left:?} inodes free"));
    run.pause(1.0).await;
    filler.remove()?;
    let removed = run.now();
    let recover = run.recover_ms(spu, removed).await;
    run.bar(Bar::Recover, recover);
    run.end_episode(spu, from.max(removed)).await
}
