//! Disks at the mark, filled by the cluster itself, or with readers in what is deleted.

use std::time::Duration;

use plimsoll_client::TopicConfig;

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION, NO_REROUTE, Without};
use super::run::{Run, TOPIC, Whole, millis};
use crate::filler::Filler;

const OSCILLATES: Without = &[
    (Bar::Detect, "the mark is crossed again and again"),
    (Bar::Reroute, "the mark is crossed again and again"),
    (Bar::Recover, "recoveries are held on purpose"),
    EVERY_PARTITION,
];

const HELD: Whole = Whole::AfterHolds("a volume that comes and goes is held back longer each time");

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("oscillation-at-the-mark", "free space crosses the mark ten times a second", |run| {
            Box::pin(oscillation(run, 40))
        })
        .without(OSCILLATES)
        .whole(HELD),
        Scenario::new("oscillation-for-ten-minutes", "the same for ten minutes", |run| {
            Box::pin(oscillation(run, 600))
        })
        .within(Duration::from_secs(720))
        .without(OSCILLATES)
        .whole(HELD),
        Scenario::new(
            "batch-larger-than-what-is-left",
            "producers of large records fill the disks themselves",
            |run| Box::pin(large_batches(run)),
        )
        .without(&[
            (Bar::Detect, "the producers themselves fill the disks, at a speed that nobody sets"),
            NO_REROUTE,
            (Bar::LogLines, "all three disks stay near their marks"),
            EVERY_PARTITION,
        ]),
        Scenario::new(
            "reader-of-deleted-segments",
            "a slow reader is in segments that pressure deletes",
            |run| Box::pin(slow_reader(run)),
        )
        .without(&[
            (Bar::Detect, "nothing is refused"),
            (Bar::Reroute, "nothing is refused"),
            (Bar::Recover, "nothing is refused"),
            (Bar::LogLines, "the disks stay at Reclaim to the end"),
            EVERY_PARTITION,
        ]),
    ]
}

async fn oscillation(run: &mut Run, lasts_s: u64) -> anyhow::Result<()> {
    run.flowing(3, 300, 256).await?;
    let spu = run.a_leader()?;
    let (from, before) = (run.now(), run.applied().await?);
    let disk = run.cluster.disk(spu).clone();
    let mut filler = Filler::create(&disk)?;
    let mark = disk.bytes() / 20;
    let end = run.now() + Duration::from_secs(lasts_s);
    let mut below = false;
    while run.now() < end {
        // From well below the mark to beyond the exit mark, and back.
        below = !below;
        let wanted = if below { mark / 2 } else { mark * 3 };
        let free = disk.space()?.free_bytes;
        if free > wanted {
            filler.take(free - wanted)?;
        } else {
            filler.give_back(wanted - free)?;
        }
        run.pause(0.05).await;
    }
    filler.remove()?;
    run.lifted(run.now());
    run.poll_logs();
    let entries = run.offline_entries(spu, before).await?;
    run.figure("write_offline_entries", Some(entries), Some(10));
    run.end_oscillation(spu, from).await
}

async fn large_batches(run: &mut Run) -> anyhow::Result<()> {
    run.plain_topic("spare", TopicConfig { partitions: 1, ..TopicConfig::default() }).await?;
    run.write("spare", 16 << 20).await?;
    run.flowing(3, 300, 512).await?;
    // Room is left for a while only; what the producers hold when they stop must fit when it is given back.
    let mut fillers = Vec::new();
    for spu in 1..=3 {
        let disk = run.cluster.disk(spu).clone();
        let mut filler = Filler::create(&disk)?;
        filler.take(48 << 20)?;
        fillers.push(filler);
    }
    let from = run.now();
    run.load(TOPIC, 10, 900 << 10).await?;
    let refused = run.until(Duration::from_secs(60), |run| run.first_refusal(from).is_some()).await;
    run.expect(refused.is_some(), || "the disks do not fill".to_owned());
    run.pause(3.0).await;
    let least = (1..=3)
        .filter_map(|spu| run.cluster.disk(spu).space().ok().map(|space| space.free_bytes))
        .min()
        .unwrap_or(0);
    run.say(&format!("the least free of the three disks is {least} bytes"));
    run.expect(least > 0, || "a disk was filled to the last byte by the cluster itself".to_owned());
    run.loads[1].stop();
    run.cluster.command_line(&["topic", "delete", "spare"]).await?;
    let deleted = run.now();
    let again = run.until(Duration::from_secs(20), |run| run.first_ack(deleted, |_| true).is_some()).await;
    run.bar(Bar::Recover, again.map(|at| millis(at.saturating_sub(deleted))));
    drop(fillers);
    run.lifted(run.now());
    Ok(())
}

async fn slow_reader(run: &mut Run) -> anyhow::Result<()> {
    let config = TopicConfig {
        partitions: 1,
        retention_bytes: 8 << 20,
        segment_bytes: 1 << 20,
        ..TopicConfig::default()
    };
    run.flowing(3, 500, 512).await?;
    run.plain_topic("expiring", config).await?;
    run.write("expiring", 24 << 20).await?;
    run.reader("expiring", Some(Duration::from_millis(20)))?;
    run.pause(1.0).await;
    let from = run.now();
    let mut fillers = Vec::new();
    for spu in 1..=3 {
        let disk = run.cluster.disk(spu).clone();
        let mut filler = Filler::create(&disk)?;
        // To about 12 %: pressure deletes what exceeds retention, nothing is refused.
        let take = disk.space()?.free_bytes.saturating_sub(disk.bytes() / 100 * 12);
        filler.take(take)?;
        fillers.push(filler);
    }
    run.pause(6.0).await;
    let freed = run.cluster.disk(1).space()?.free_bytes;
    let floor = run.cluster.disk(1).bytes() / 100 * 12;
    run.expect(freed > floor, || format!("pressure has given nothing back: {freed} bytes free"));
    let refused = run.first_refusal(from);
    run.expect(refused.is_none(), || format!("refused although there was something to delete: {refused:?}"));
    drop(fillers);
    run.lifted(run.now());
    Ok(())
}
