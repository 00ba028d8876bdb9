//! Old data that pressure may delete, and a consumer group that has still to read it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use plimsoll_client::{GroupConsumer, OnPressure, TopicConfig};

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION, NO_REROUTE, Without};
use super::run::{Run, millis, records_in};
use crate::filler::Filler;
use crate::plain;

const TRIMMED: &str = "pinned";
const GROUP: &str = "slow";
/// Records that the group has read before the disks fill, of 16 KiB each.
const READ: u64 = 512;
const WRITTEN_BYTES: u64 = 32 << 20;
/// Nodes ask what groups have read every 10 s.
const HEARD: Duration = Duration::from_secs(12);

const PINNED: Without = &[
    (Bar::Detect, "several disks fill at once; see leader-full"),
    NO_REROUTE,
    (Bar::Recover, "the foreign files stay; room comes from what the group lets go"),
    EVERY_PARTITION,
];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "group-pins-old-data",
            "full disks are trimmed up to what a group has read, and no further until it reads on",
            |run| Box::pin(pinned(run)),
        )
        .without(PINNED),
        Scenario::new(
            "dead-group-pins-old-data",
            "the members of that group were killed; it is deleted in the end",
            |run| Box::pin(dead(run)),
        )
        .without(PINNED),
        Scenario::new(
            "topic-trims-past-groups",
            "the same where the topic allows to delete what the group has not read",
            |run| Box::pin(past(run)),
        )
        .without(PINNED),
    ]
}

/// A topic that pressure may trim, with data that nothing else makes expire.
async fn old_data(run: &mut Run, on_pressure: OnPressure) -> anyhow::Result<()> {
    let config = TopicConfig {
        partitions: 1,
        segment_bytes: 1 << 20,
        on_pressure: on_pressure.into(),
        ..TopicConfig::default()
    };
    run.plain_topic(TRIMMED, config).await?;
    run.write(TRIMMED, WRITTEN_BYTES).await
}

/// A member that has read and committed so far and now stands still.
async fn slow_member(run: &Run) -> anyhow::Result<GroupConsumer> {
    let group = run.client.group(GROUP);
    let mut member = group.topics([TRIMMED]).auto_commit(None).build().await?;
    read_to(run, &mut member, READ).await?;
    member.commit().await.context("a commit")?;
    Ok(member)
}

async fn read_to(run: &Run, member: &mut GroupConsumer, end: u64) -> anyhow::Result<()> {
    let reading = async {
        loop {
            let record = member.next().await.context("the stream of records ended")??;
            if record.record.offset.get() + 1 >= end {
                return anyhow::Ok(());
            }
        }
    };
    run.host.clock.timeout(Duration::from_secs(30), reading).await.context("not read in time")?
}

fn foreign_files(run: &Run) -> anyhow::Result<Vec<Filler>> {
    (1..=3).map(|spu| Filler::create(run.cluster.disk(spu))).collect()
}

/// They grow until so many percent of each disk are left.
fn leave(run: &Run, fillers: &mut [Filler], percent: u64) -> anyhow::Result<()> {
    for (spu, filler) in (1..).zip(fillers) {
        let disk = run.cluster.disk(spu);
        filler.take(disk.space()?.free_bytes.saturating_sub(disk.bytes() / 100 * percent))?;
    }
    run.say(&format!("{percent} % of every disk is left"));
    Ok(())
}

/// Whether records are acknowledged although the disks were full a second before.
async fn flows_after(run: &Run, full: Duration) -> bool {
    let after = full + Duration::from_secs(1);
    run.until(Duration::from_secs(10), |run| run.first_ack(after, |_| true).is_some()).await.is_some()
}

/// First offset that the leader still has.
async fn log_start(run: &Run) -> anyhow::Result<u64> {
    let image = run.client.metadata();
    let topic = image.topic_by_name(TRIMMED).context("the topic")?;
    let leader = topic.partitions.first().context("its partition")?.leader;
    let address = run.client.spu_address(plimsoll_client::SpuId(leader)).context("its leader")?;
    Ok(plain::ends(&run.host, &address, &topic.topic_id, 0).await?.log_start)
}

/// When more than `offset` was deleted, at most `limit` from now.
async fn trimmed_beyond(run: &Run, offset: u64, limit: Duration) -> anyhow::Result<Option<Duration>> {
    let deadline = run.now() + limit;
    while run.now() < deadline {
        if log_start(run).await? > offset {
            return Ok(Some(run.now()));
        }
        run.pause(0.05).await;
    }
    Ok(None)
}

/// Up to what the group has read everything is given for room, then nothing more, however much is missing.
async fn full_up_to_the_group(run: &mut Run) -> anyhow::Result<Vec<Filler>> {
    run.pause(HEARD.as_secs_f64()).await;
    let full = run.now();
    let mut fillers = foreign_files(run)?;
    leave(run, &mut fillers, 3)?;
    let trimmed = trimmed_beyond(run, 0, Duration::from_secs(10)).await?;
    run.figure("trimmed_ms", trimmed.map(|at| millis(at.saturating_sub(full))), Some(5_000));
    let flows = flows_after(run, full).await;
    run.expect(flows, || "what the group has read does not make room".to_owned());
    // From now on every byte that becomes free is taken.
    let from = run.now();
    while run.now() < from + HEARD {
        for filler in &mut fillers {
            filler.take(1 << 20)?;
        }
        run.pause(0.05).await;
    }
    let start = log_start(run).await?;
    run.say(&format!("deleted up to {start}; the group has read {READ}"));
    run.judge_starts(TRIMMED, |_| READ).await?;
    run.expect(start <= READ, || format!("records from {READ} on were deleted before the group read them"));
    let last = run.now() - Duration::from_secs(2);
    let acked = run.first_ack(last, |_| true);
    run.expect(acked.is_none(), || "full disks with nothing to give acknowledge".to_owned());
    let refused = run.first_refusal(from);
    run.expect(refused.is_some(), || "no typed refusal with nothing to give".to_owned());
    Ok(fillers)
}

/// The foreign files stay: what comes back was held by the group.
async fn room_again(run: &mut Run, let_go: Duration, from: Duration) -> anyhow::Result<()> {
    let again = run.until(Duration::from_secs(30), |run| run.first_ack(let_go, |_| true).is_some()).await;
    run.figure("room_after_group_ms", again.map(|at| millis(at.saturating_sub(let_go))), Some(15_000));
    for spu in 1..=3 {
        run.end_episode(spu, from).await?;
    }
    run.judge_starts(TRIMMED, |_| records_in(WRITTEN_BYTES)).await
}

async fn pinned(run: &mut Run) -> anyhow::Result<()> {
    old_data(run, OnPressure::Trim).await?;
    run.flowing(3, 300, 512).await?;
    let mut member = slow_member(run).await?;
    let from = run.now();
    let fillers = full_up_to_the_group(run).await?;
    read_to(run, &mut member, records_in(WRITTEN_BYTES)).await?;
    member.commit().await.context("a commit on full disks")?;
    run.say("the group has read everything");
    let committed = run.now();
    room_again(run, committed, from).await?;
    drop(fillers);
    run.lifted(run.now());
    drop(member.close().await);
    Ok(())
}

async fn dead(run: &mut Run) -> anyhow::Result<()> {
    old_data(run, OnPressure::Trim).await?;
    run.flowing(3, 300, 512).await?;
    drop(slow_member(run).await?.close().await);
    // One that never gets to its first commit.
    let mut child =
        run.cluster.start_command(&["consume", TRIMMED, "--group", GROUP, "--from", "earliest"])?;
    let joined = run.now();
    while run.client.group(GROUP).describe().await?.members.is_empty() {
        if run.now() > joined + Duration::from_secs(15) {
            bail!("the member does not join within 15 s");
        }
        run.pause(0.1).await;
    }
    child.kill().await.context("kill a member")?;
    run.say("the only member of the group is killed");
    let from = run.now();
    let fillers = full_up_to_the_group(run).await?;
    run.cluster.command_line(&["group", "delete", GROUP]).await?;
    run.say("the group is deleted");
    let deleted = run.now();
    room_again(run, deleted, from).await?;
    drop(fillers);
    run.lifted(run.now());
    Ok(())
}

async fn past(run: &mut Run) -> anyhow::Result<()> {
    old_data(run, OnPressure::TrimPastGroups).await?;
    run.flowing(3, 300, 512).await?;
    let mut member = slow_member(run).await?;
    run.pause(HEARD.as_secs_f64()).await;
    let from = run.now();
    let mut fillers = foreign_files(run)?;
    // Twice: what the group has read is not enough for both.
    for time in ["first", "second"] {
        leave(run, &mut fillers, 3)?;
        let flows = flows_after(run, run.now()).await;
        run.expect(flows, || format!("full for the {time} time, the disks are given no room"));
    }
    let start = log_start(run).await?;
    run.say(&format!("deleted up to {start}; the group has read {READ}"));
    run.expect(start > READ, || format!("deleted up to {start} only, although the topic allows more"));
    // The member goes on with the first record that there is, or with what it had read ahead.
    let next = run.host.clock.timeout(Duration::from_secs(10), member.next()).await;
    let next = next.context("the member is given nothing more")?.context("its stream ended")??;
    run.expect(next.record.offset.get() >= READ, || {
        format!("the member was given {} again", next.record.offset)
    });
    drop(fillers);
    run.lifted(run.now());
    drop(member.close().await);
    for spu in 1..=3 {
        run.end_episode(spu, from).await?;
    }
    run.judge_starts(TRIMMED, |_| records_in(WRITTEN_BYTES)).await
}
