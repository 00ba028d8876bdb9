//! Disks that fail: failed is not full.

use std::time::Duration;

use anyhow::Context as _;
use plimsoll_client::{FlushPolicy, TopicConfig};

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION, NO_REROUTE, NOTHING_FILLS};
use super::kills::{answers, back_in_sync};
use super::run::{Run, TOPIC, Whole};
use crate::cluster::Topology;
use crate::nemesis::freeze::Frozen;
use crate::nemesis::injection::Injection;
use crate::nemesis::rot;
use crate::nemesis::short_writes::ShortWrites;
use crate::rig::{Filesystem, VolumeSpec};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("frozen-disk", "the disk of a leader answers nothing for 12 s", |run| {
            Box::pin(frozen(run))
        })
        .on(ext4)
        .without(NOTHING_FILLS),
        Scenario::new("sync-fails", "every sync of a leader answers EIO", |run| Box::pin(sync_fails(run)))
            .without(NOTHING_FILLS),
        Scenario::new("slow-syncs", "every sync of a leader takes 50 ms longer", |run| {
            Box::pin(slow_syncs(run))
        })
        .without(NOTHING_FILLS),
        Scenario::new("short-writes", "every third write of a leader takes half of its bytes", |run| {
            Box::pin(short_writes(run))
        })
        .without(NOTHING_FILLS),
        Scenario::new("disk-turns-read-only", "the kernel finds an error and writes no more", |run| {
            Box::pin(turns_read_only(run))
        })
        .on(ext4)
        .without(NOTHING_FILLS),
        Scenario::new(
            "power-loss-while-full",
            "a full node loses power, and what it had not synced",
            |run| Box::pin(power_loss_while_full(run)),
        )
        .on(ext4)
        .without(AFTER_POWER_LOSS),
        Scenario::new("power-loss-while-full-xfs", "the same on xfs", |run| {
            Box::pin(power_loss_while_full(run))
        })
        .on(|| Topology::three_nodes(VolumeSpec::of_bytes(320 << 20).on(Filesystem::Xfs)))
        .without(AFTER_POWER_LOSS),
        Scenario::new("power-loss-of-all", "all nodes lose power at once; flush = ack", |run| {
            Box::pin(power_loss_of_all(run))
        })
        .on(ext4)
        .without(NOTHING_FILLS),
        Scenario::new("rot-in-a-sealed-segment", "a bit flips in a sealed segment of a follower", |run| {
            Box::pin(rotten(run))
        })
        .without(NOTHING_FILLS),
        Scenario::new("directory-removed", "somebody deletes the data directory of a running node", |run| {
            Box::pin(directory_removed(run))
        })
        .without(NOTHING_FILLS)
        .whole(Whole::Never("the node without its files is killed and stays so")),
    ]
}

const AFTER_POWER_LOSS: super::Without = &[
    (Bar::Detect, "see leader-full"),
    NO_REROUTE,
    (Bar::LogLines, "a loss of power ends the episode"),
    EVERY_PARTITION,
];

fn ext4() -> Topology {
    Topology::three_nodes(VolumeSpec::of_bytes(96 << 20).on(Filesystem::Ext4))
}

async fn frozen(run: &mut Run) -> anyhow::Result<()> {
    const SECONDS: u32 = 12;
    run.flowing(3, 500, 512).await?;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    let disk = run.cluster.disk(spu).clone();
    let frozen = Frozen::start(&disk, SECONDS)?;
    let began = run.now();
    run.say(&format!("the disk of spu {spu} is frozen"));
    let moved = run.moved_ms(&led, spu, began, Duration::from_secs(11)).await;
    run.figure("replaced_ms", moved, Some(9_000));
    frozen.end();
    let thawed = run.now();
    run.say("it is thawed");
    let recover = run.recover_ms(spu, thawed).await;
    run.figure("writable_after_thaw_ms", recover, Some(20_000));
    let in_sync = run.in_sync_ms(spu, thawed).await;
    run.figure("in_sync_ms", in_sync, Some(30_000));
    run.expect_flow("after the disk is thawed").await;
    Ok(())
}

fn synced(partitions: u32) -> TopicConfig {
    TopicConfig { partitions, flush: FlushPolicy::Ack.into(), ..TopicConfig::default() }
}

async fn inject(run: &mut Run, spu: u32, rule: &str) -> anyhow::Result<Injection> {
    let pid = run.cluster.spu(spu).pid().context("the node runs")?;
    let mut injection = Injection::attach(pid, rule)?;
    let on = run.until(Duration::from_secs(10), |_| injection.is_on(pid)).await;
    if injection.gave_up() || on.is_none() {
        return Err(crate::rig::Missing::because("strace may not attach here"));
    }
    run.say(&format!("{rule} in spu {spu}"));
    Ok(injection)
}

async fn killed_and_back(run: &mut Run, spu: u32) -> anyhow::Result<()> {
    run.kill(spu);
    run.pause(1.0).await;
    back_in_sync(run, spu, 30_000).await
}

async fn sync_fails(run: &mut Run) -> anyhow::Result<()> {
    run.flowing_of(synced(3), 300, 512).await?;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    let injection = inject(run, spu, "fdatasync,fsync:error=EIO").await?;
    let began = run.now();
    let moved = run.moved_ms(&led, spu, began, Duration::from_secs(20)).await;
    run.figure("replaced_ms", moved, Some(5_000));
    run.expect(!run.writable(spu), || "a volume whose syncs fail is called writable".to_owned());
    injection.end();
    run.expect_flow("after a sync has failed").await;
    // A failed sync is final for this process; its replacement starts from what is durable.
    killed_and_back(run, spu).await
}

async fn slow_syncs(run: &mut Run) -> anyhow::Result<()> {
    run.flowing_of(synced(3), 300, 512).await?;
    let spu = run.a_leader()?;
    let injection = inject(run, spu, "fdatasync,fsync:delay_enter=50000").await?;
    let acked = run.acked_in(10.0).await;
    run.expect(acked > 0, || "nothing is acknowledged while one disk is slow".to_owned());
    run.expect(run.writable(spu), || "a slow disk is called failed".to_owned());
    injection.end();
    let fast = run.now();
    let in_sync = run.in_sync_ms(spu, fast).await;
    run.figure("in_sync_ms", in_sync, Some(20_000));
    Ok(())
}

async fn short_writes(run: &mut Run) -> anyhow::Result<()> {
    run.flowing_of(synced(3), 300, 512).await?;
    let spu = run.a_leader()?;
    let pid = run.cluster.spu(spu).pid().context("the node runs")?;
    let mut short = ShortWrites::attach(pid)?;
    let on = run.until(Duration::from_secs(10), |_| short.is_on(pid)).await;
    if short.gave_up() || on.is_none() {
        return Err(crate::rig::Missing::because("a process can't be traced here"));
    }
    run.say(&format!("every third write of spu {spu} takes half of its bytes"));
    let acked = run.acked_in(10.0).await;
    run.expect(acked > 1_000, || format!("{acked} records acknowledged in 10 s of short writes"));
    run.expect(run.writable(spu), || "a disk that writes in parts is called failed".to_owned());
    let cut = short.end()?;
    run.expect(cut > 100, || format!("{cut} writes were cut"));
    run.figure("writes_cut", Some(cut), None);
    // What it wrote in parts is what it reads after a kill.
    killed_and_back(run, spu).await
}

async fn turns_read_only(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 500, 512).await?;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    let disk = run.cluster.disk(spu).clone();
    disk.turn_read_only()?;
    let began = run.now();
    run.say(&format!("the disk of spu {spu} is read-only"));
    let moved = run.moved_ms(&led, spu, began, Duration::from_secs(20)).await;
    run.figure("replaced_ms", moved, Some(10_000));
    run.say(&format!("volume of spu {spu}: {:?}", run.volume_state(spu)));
    run.expect_flow("after a disk has turned read-only").await;
    run.cluster.check_alive()?;
    run.kill(spu);
    disk.repair()?;
    back_in_sync(run, spu, 30_000).await
}

async fn power_loss_while_full(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 500, 512).await?;
    let spu = run.a_leader()?;
    let disk = run.cluster.disk(spu).clone();
    let (mut filler, _) = run.fill(&disk).await?;
    run.until(Duration::from_secs(5), |run| !run.writable(spu)).await;
    filler.let_go()?;
    run.kill(spu);
    disk.lose_power()?;
    run.say(&format!("spu {spu} has lost power; {} bytes are free", disk.space()?.free_bytes));
    let started = run.now();
    run.start_again(spu)?;
    // What was not synced is gone, and there is no room to fetch it again.
    answers(run, spu, started, 0).await?;
    run.pause(1.0).await;
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(spu, removed).await;
    run.bar(Bar::Recover, recover);
    let in_sync = run.in_sync_ms(spu, removed).await;
    run.figure("in_sync_ms", in_sync, Some(30_000));
    Ok(())
}

async fn power_loss_of_all(run: &mut Run) -> anyhow::Result<()> {
    run.flowing_of(synced(3), 500, 512).await?;
    run.pause(2.0).await;
    for spu in 1..=3 {
        run.kill(spu);
    }
    for spu in 1..=3 {
        run.cluster.disk(spu).lose_power()?;
    }
    run.say("all nodes have lost power");
    run.pause(1.0).await;
    let started = run.now();
    for spu in 1..=3 {
        run.start_again(spu)?;
    }
    let again = run.until(Duration::from_secs(40), |run| run.first_ack(started, |_| true).is_some()).await;
    let again = again.map(|at| super::run::millis(at.saturating_sub(started)));
    run.figure("writable_after_start_ms", again, Some(30_000));
    for spu in 1..=3 {
        let in_sync = run.in_sync_ms(spu, started).await;
        run.expect(in_sync.is_some(), || format!("spu {spu} is not in sync 40 s later"));
    }
    Ok(())
}

/// The copy is damaged; the node lives on, others serve, and the damage is not passed on.
async fn rotten(run: &mut Run) -> anyhow::Result<()> {
    let config = TopicConfig { partitions: 1, segment_bytes: 1 << 20, ..TopicConfig::default() };
    run.flowing_of(config, 800, 2_048).await?;
    run.pause(3.0).await;
    let leader = run.a_leader()?;
    let spu = (1..=3).find(|spu| *spu != leader).unwrap_or(1);
    let disk = run.cluster.disk(spu).clone();
    let segments = rot::sealed_segments(disk.data());
    let segment = segments.first().context("no segment was sealed")?;
    run.kill(spu);
    rot::flip_a_bit(segment)?;
    run.say(&format!("a bit has flipped in a segment of spu {spu}"));
    let started = run.now();
    run.start_again(spu)?;
    let in_sync = run.in_sync_ms(spu, started).await;
    run.figure("in_sync_ms", in_sync, Some(30_000));
    run.excuse(spu, "a segment of its copy is damaged");
    let read = run.read_copy(spu).await;
    run.say(&format!(
        "reading its copy: {}",
        read.as_ref().map_or_else(|error| format!("{error:#}"), |count| format!("{count} records"))
    ));
    run.expect_flow("with a damaged copy").await;
    run.cluster.check_alive()
}

async fn directory_removed(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 500, 512).await?;
    let spu = run.a_leader()?;
    let data = run.cluster.disk(spu).data().to_owned();
    for entry in std::fs::read_dir(&data)?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            std::fs::remove_dir_all(&path)?;
        } else {
            rustix::fs::unlink(&path)?;
        }
    }
    run.say(&format!("everything of spu {spu} is deleted"));
    run.excuse(spu, "its files were deleted while they were open");
    let deleted = run.now();
    // What it takes from now on is kept by nobody.
    let noticed = run.until(Duration::from_secs(12), |run| !run.writable(spu)).await;
    let noticed = noticed.map(|at| super::run::millis(at.saturating_sub(deleted)));
    run.figure("noticed_ms", noticed, Some(10_000));
    run.say(&format!("volume of spu {spu}: {:?}", run.volume_state(spu)));
    run.expect_flow("after the files of one node are gone").await;
    run.cluster.check_alive()?;
    run.kill(spu);
    let killed = run.now();
    let others = run.until(Duration::from_secs(20), |run| {
        (0..3).all(|index| run.first_ack(killed, |ack| ack.partition == index && ack.spu != spu).is_some())
    });
    let others = others.await;
    run.expect(others.is_some(), || "the others do not take over".to_owned());
    Ok(())
}
