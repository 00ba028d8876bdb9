//! No inodes.

use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::kills::serves_reads;
use super::run::{Run, millis};
use crate::cluster::Topology;
use crate::rig::VolumeSpec;

/// Disks with room for files of some partitions, and a few more.
pub(super) fn few_inodes() -> Topology {
    Topology::three_nodes(VolumeSpec::of_bytes(96 << 20).with_inodes(400))
}

pub(super) async fn kill_at_zero(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 500, 512).await?;
    let spu = run.a_leader()?;
    let from = run.now();
    let folder = run.cluster.disk(spu).folder().join("foreign");
    std::fs::create_dir_all(&folder)?;
    let mut made = 0u32;
    let began = run.now();
    loop {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::open(folder.join(made.to_string()), flags, Mode::RUSR) {
            Ok(_) => made += 1,
            Err(Errno::NOSPC) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    run.say(&format!("{made} foreign files: no inode is left on the disk of spu {spu}"));
    let refused =
        run.until(Duration::from_secs(10), |run| run.first_refusal(began).is_some() || !run.writable(spu));
    let refused = refused.await;
    run.figure("detect_ms", refused.map(|at| millis(at.saturating_sub(began))), Some(1_500));
    run.cluster.spu(spu).kill();
    let left = run.cluster.disk(spu).space()?.free_inodes;
    let started = run.now();
    run.cluster.spu(spu).start()?;
    serves_reads(run, spu, started).await?;
    run.say(&format!("started with {left:?} inodes free"));
    run.pause(1.0).await;
    std::fs::remove_dir_all(&folder)?;
    let removed = run.now();
    let recover = run.recover_ms(spu, removed).await;
    run.figure("recover_ms", recover, Some(2_000));
    run.end_episode(spu, from.max(removed)).await
}
