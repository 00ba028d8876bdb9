//! Space that goes and comes at different speeds.

use std::time::Duration;

use anyhow::Context as _;
use plimsoll_client::TopicConfig;
use plimsoll_proto::v1::DiskCause;

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION};
use super::run::{Run, TOPIC};
use crate::filler::{Fill, Filler};
use crate::nemesis::size_limit::{SizeLimit, longest_log};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("slow-ramp", "a foreign file grows by 2 MiB a second through all marks", |run| {
            Box::pin(slow_ramp(run))
        })
        .without(&[
            (Bar::Detect, "leaders move at Throttle, before anything is refused"),
            (Bar::Reroute, "leaders move at Throttle, before anything is refused"),
            EVERY_PARTITION,
        ]),
        Scenario::new("fast-foreign-writer", "a foreign file grows by 500 MB a second", |run| {
            Box::pin(fast_writer(run))
        })
        .without(&[EVERY_PARTITION]),
        Scenario::new("grown-live", "a full disk becomes larger while it is mounted", |run| {
            Box::pin(grown_live(run))
        })
        .without(&[EVERY_PARTITION]),
        Scenario::new("shrunk-live", "a disk becomes smaller than what is on it needs", |run| {
            Box::pin(shrunk_live(run))
        })
        .without(&[EVERY_PARTITION]),
        Scenario::new("full-during-rolls", "a disk fills while segments roll twice a second", |run| {
            Box::pin(full_during_rolls(run))
        })
        .without(&[EVERY_PARTITION]),
        Scenario::new(
            "files-reach-a-size-limit",
            "a leader's files may grow no further: one write is cut short, the next gets EFBIG",
            |run| Box::pin(size_limit(run)),
        )
        .without(&[EVERY_PARTITION]),
    ]
}

async fn slow_ramp(run: &mut Run) -> anyhow::Result<()> {
    const BYTES_PER_TENTH: u64 = 2 << 20;
    run.flowing(3, 500, 512).await?;
    let spu = run.a_leader()?;
    let from = run.now();
    let disk = run.cluster.disk(spu).clone();
    let mut filler = Filler::create(&disk)?;
    filler.take(disk.space()?.free_bytes.saturating_sub(disk.bytes() / 100 * 33))?;
    while !filler.take(BYTES_PER_TENTH / 10)? {
        run.pause(0.1).await;
    }
    run.pause(1.0).await;
    run.expect(!run.writable(spu), || "a full disk is called writable".to_owned());
    run.expect_flow("with one full disk").await;
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(spu, removed).await;
    run.bar(Bar::Recover, recover);
    run.end_episode(spu, from).await
}

async fn fast_writer(run: &mut Run) -> anyhow::Result<()> {
    const BYTES_PER_S: u64 = 500_000_000;
    run.flowing(3, 1_000, 512).await?;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    let from = run.now();
    let disk = run.cluster.disk(spu).clone();
    let (filler, fill) = run.fill_at(&disk, BYTES_PER_S).await?;
    noticed(run, spu, &led, &fill).await;
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(spu, removed).await;
    run.bar(Bar::Recover, recover);
    run.end_episode(spu, from).await
}

async fn noticed(run: &mut Run, spu: u32, led: &[u32], fill: &Fill) {
    let detect = run.detect_ms(spu, fill).await;
    run.bar(Bar::Detect, detect);
    let reroute = run.reroute_ms(led, spu, fill).await;
    run.bar(Bar::Reroute, reroute);
    run.pause(1.0).await;
}

async fn grown_live(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 1_000, 512).await?;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    let from = run.now();
    let disk = run.cluster.disk(spu).clone();
    let (filler, fill) = run.fill(&disk).await?;
    noticed(run, spu, &led, &fill).await;
    let grown = run.now();
    disk.grow(disk.bytes() * 2)?;
    run.say("the disk is twice as large now");
    let recover = run.recover_ms(spu, grown).await;
    run.bar(Bar::Recover, recover);
    run.end_episode(spu, from).await?;
    drop(filler);
    Ok(())
}

async fn shrunk_live(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 1_000, 512).await?;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    let from = run.now();
    let disk = run.cluster.disk(spu).clone();
    let space = disk.space()?;
    let used = space.capacity_bytes.saturating_sub(space.free_bytes);
    disk.shrink(used + used / 100)?;
    run.say("the disk has become as small as what is on it");
    let shrunk = run.now();
    let fill = Fill { crossed: Some(shrunk), enospc: None, full: disk.space()? };
    noticed(run, spu, &led, &fill).await;
    let grown = run.now();
    disk.grow(space.capacity_bytes)?;
    let recover = run.recover_ms(spu, grown).await;
    run.bar(Bar::Recover, recover);
    run.end_episode(spu, from).await
}

async fn full_during_rolls(run: &mut Run) -> anyhow::Result<()> {
    let config = TopicConfig { partitions: 3, segment_bytes: 1 << 20, ..TopicConfig::default() };
    run.flowing_of(config, 1_500, 4_096).await?;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    let from = run.now();
    let disk = run.cluster.disk(spu).clone();
    let (filler, fill) = run.fill(&disk).await?;
    noticed(run, spu, &led, &fill).await;
    let removed = run.now();
    filler.remove()?;
    let recover = run.recover_ms(spu, removed).await;
    run.bar(Bar::Recover, recover);
    run.until(Duration::from_secs(5), |run| run.in_sync(spu)).await;
    run.end_episode(spu, from).await
}

async fn size_limit(run: &mut Run) -> anyhow::Result<()> {
    run.flowing(3, 1_000, 1_024).await?;
    run.pause(2.0).await;
    let spu = run.a_leader()?;
    let led = run.led_by(TOPIC, spu);
    let from = run.now();
    let disk = run.cluster.disk(spu).clone();
    let pid = run.cluster.spu(spu).pid().context("the node runs")?;
    let limit = SizeLimit::set(pid, longest_log(disk.data()) + 1_001)?;
    run.say(&format!("no file of spu {spu} may grow"));
    let fill = Fill { crossed: Some(run.now()), enospc: None, full: disk.space()? };
    noticed(run, spu, &led, &fill).await;
    let causes: Vec<_> = run.facts(spu).await?.iter().map(plimsoll_proto::v1::VolumeFacts::cause).collect();
    run.expect(causes == [DiskCause::Limit], || format!("the cause of the refusals is called {causes:?}"));
    run.expect(!run.writable(spu), || "a volume whose files may not grow is called writable".to_owned());
    let lifted = run.now();
    limit.lift();
    let recover = run.recover_ms(spu, lifted).await;
    run.bar(Bar::Recover, recover);
    run.end_episode(spu, from).await
}
