//! Disks that answer nothing.

use std::time::Duration;

use anyhow::Context as _;

use super::{Part, part};
use crate::cluster::Topology;
use crate::nemesis::freeze::Frozen;
use crate::rig::{Filesystem, VolumeSpec};
use crate::scenario::run::{Run, TOPIC, millis};

/// 5 s, counted from the last turn that the volume's worker finished, which was shortly before.
const STALLED_AFTER_MS: u64 = 4_900;

pub(super) fn parts() -> Vec<Part> {
    vec![
        part("frozen-volume", "one of a node's two disks is frozen for 12 s", 1, |run| {
            Box::pin(one_volume(run, 6))
        })
        .on(two_disks_each),
        part("frozen-node", "all disks of a node are frozen for 40 s", 1, |run| {
            Box::pin(all_volumes(run, 3))
        })
        .on(two_disks_each),
    ]
}

/// Something that can be frozen.
fn two_disks_each() -> Topology {
    let disk = VolumeSpec::of_bytes(96 << 20).on(Filesystem::Ext4);
    Topology { spus: vec![vec![disk; 2]; 3], ..Topology::default() }
}

async fn one_volume(run: &mut Run, times: u32) -> anyhow::Result<()> {
    const SECONDS: u32 = 12;
    run.flowing(6, 200, 256).await?;
    for number in 0..run.times(times) {
        let spu = number % 3 + 1;
        let disk = run.cluster.disks(spu)[0].clone();
        let path = disk.data().display().to_string();
        let volume = run.facts(spu).await?.into_iter().find(|found| found.path.starts_with(&path));
        let volume = volume.context("the volume that is frozen")?.volume_id;
        let there = partitions_on(run, spu, &volume);
        let led = |run: &Run| there.iter().any(|index| run.led_by(TOPIC, spu).contains(index));
        let leads = run.until(Duration::from_secs(30), led).await;
        run.expect(leads.is_some(), || format!("spu {spu} leads nothing on {path}"));
        let case = run.begin_case(&format!("{} of spu {spu} is frozen for {SECONDS} s", disk.name())).await?;
        let began = run.now();
        let frozen = Frozen::start(&disk, SECONDS)?;
        let moved = run.until(Duration::from_secs(11), |run| !led(run)).await;
        let moved = moved.map(|at| millis(at.saturating_sub(began)));
        run.sample("frozen_leaders_moved_ms", moved, STALLED_AFTER_MS..=7_000);
        let left = run.until(Duration::from_secs(4), |run| !any_in_sync(run, spu, &there)).await;
        let left = left.map(|at| millis(at.saturating_sub(began)));
        // Followers that fell behind may have left on that account before.
        run.sample("frozen_left_sets_ms", left, 0..=7_000);
        let kept = run.led_by(TOPIC, spu);
        let from = run.now();
        run.until(Duration::from_secs(3), |run| all_acknowledge(run, &kept, from)).await;
        run.expect(all_acknowledge(run, &kept, from), || format!("the other disk of spu {spu} stands still"));
        let rest = Duration::from_secs(SECONDS.into()).saturating_sub(run.now().saturating_sub(began));
        run.pause(rest.as_secs_f64()).await;
        frozen.end();
        let thawed = run.now();
        let recover = run.recover_ms(spu, thawed).await;
        run.sample("thawed_writable_ms", recover, 0..=20_000);
        let in_sync = run.in_sync_ms(spu, thawed).await;
        run.sample("thawed_in_sync_ms", in_sync, 0..=30_000);
        run.expect_never_offline(spu, &case).await?;
        run.end_case(&case);
    }
    Ok(())
}

async fn all_volumes(run: &mut Run, times: u32) -> anyhow::Result<()> {
    const SECONDS: u32 = 40;
    run.flowing(6, 100, 256).await?;
    for number in 0..run.times(times) {
        let spu = number % 3 + 1;
        run.silence(spu);
        let before = run.incarnation(spu);
        let pid = run.cluster.spu(spu).pid();
        let disks = run.cluster.disks(spu).to_vec();
        let case = run.begin_case(&format!("all disks of spu {spu} are frozen for {SECONDS} s")).await?;
        let (began, wall_ms) = (run.now(), run.host.clock.wall_ms());
        let frozen = disks.iter().map(|disk| Frozen::start(disk, SECONDS)).collect::<Result<Vec<_>, _>>()?;
        run.pause(f64::from(SECONDS) - 1.0).await;
        run.expect(!run.online(spu), || format!("spu {spu} is called online while all its disks are frozen"));
        let flows = run.first_ack(began + Duration::from_secs(30), |_| true).is_some();
        run.expect(flows, || "the other nodes acknowledge nothing".to_owned());
        let rest = Duration::from_secs(SECONDS.into()).saturating_sub(run.now().saturating_sub(began));
        run.pause(rest.as_secs_f64()).await;
        frozen.into_iter().for_each(Frozen::end);
        let thawed = run.now();
        let again = |run: &Run| run.incarnation(spu) > before && run.online(spu) && run.writable(spu);
        let again = run.until(Duration::from_secs(60), again).await;
        let again = again.map(|at| millis(at.saturating_sub(thawed)));
        run.sample("stalled_node_online_ms", again, 0..=30_000);
        let same = run.cluster.spu(spu).pid() == pid;
        run.expect(same, || format!("spu {spu} was started again"));
        let in_sync = run.in_sync_ms(spu, thawed).await;
        run.sample("stalled_node_in_sync_ms", in_sync, 0..=40_000);
        let offline = run.expect_offline_once(spu, &case, "disk_stall", wall_ms).await?;
        run.sample("disk_stall_offline_ms", offline, 20_000..=23_000);
        run.end_case(&case);
    }
    Ok(())
}

/// Partitions of the judged topic with a replica on a volume.
fn partitions_on(run: &Run, spu: u32, volume: &[u8]) -> Vec<u32> {
    let image = run.client.metadata();
    let partitions = image.topic_by_name(TOPIC).map(|topic| topic.partitions.clone()).unwrap_or_default();
    let there = partitions.iter().filter(|found| {
        found.replicas.iter().any(|replica| replica.spu_id == spu && replica.volume_id == volume)
    });
    there.map(|found| found.index).collect()
}

fn any_in_sync(run: &Run, spu: u32, partitions: &[u32]) -> bool {
    let image = run.client.metadata();
    image.topic_by_name(TOPIC).is_some_and(|topic| {
        let among = topic.partitions.iter().filter(|found| partitions.contains(&found.index));
        among.into_iter().any(|found| found.in_sync.contains(&spu))
    })
}

fn all_acknowledge(run: &Run, partitions: &[u32], from: Duration) -> bool {
    partitions.iter().all(|index| run.first_ack(from, |ack| ack.partition == *index).is_some())
}
