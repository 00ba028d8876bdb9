//! `plimsoll disk plan` and `plimsoll disk reclaim`.

use std::collections::BTreeMap;

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use plimsoll_client::{Client, GroupError, MetadataImage, NodeError, Offset, PartitionId, Reason, TopicId};
use plimsoll_host::Host;
use plimsoll_host::config::ByteSize;
use plimsoll_proto::v1::{PlanReclaimResponse, ReclaimOfLog, ReclaimReason};
use serde::Serialize;

use super::{Chosen, VolumeArgs, chosen};
use crate::change::{Change, ChangeArgs};
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{ShowArgs, print, say, table};

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// Of this storage node only
    #[arg(long)]
    spu: Option<u32>,
    /// Of this volume only, by its path or the beginning of its id
    #[arg(long, value_name = "PATH|ID")]
    volume: Option<String>,
    /// As if under pressure until so much is free on each volume; without it what retention alone allows
    #[arg(long, value_name = "SIZE")]
    target_free: Option<ByteSize>,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Args)]
pub(super) struct ReclaimArgs {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Until so much is free; only topics with --on-pressure trim lose records that have not expired
    #[arg(long, value_name = "SIZE")]
    target_free: ByteSize,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Serialize)]
struct Plans {
    volumes: Vec<Plan>,
}

#[derive(Serialize)]
struct Plan {
    spu: u32,
    volume: String,
    free_bytes: u64,
    capacity_bytes: u64,
    segments: u32,
    bytes: u64,
    inodes: u64,
    /// Wanted, but nothing allowed can give it.
    missing_bytes: u64,
    logs: Vec<Log>,
}

#[derive(Serialize)]
struct Log {
    topic: String,
    partition: u32,
    segments: u32,
    bytes: u64,
    reason: &'static str,
    log_start: u64,
    /// The oldest record kept.
    log_start_after: u64,
    records: u64,
    /// Lowest offset of the groups active in the last 24 hours.
    group_floor: Option<u64>,
    /// Records that such a group has not read and would lose.
    unread_records: u64,
    /// Every group that has not read all of what would go, active or not; absent when they were not asked.
    groups: Option<Vec<Reader>>,
}

/// A group that would lose records.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Reader {
    group: String,
    /// Where it goes on.
    committed: u64,
    /// Of those that are there.
    unread_records: u64,
}

/// What each group has committed.
type Committed = BTreeMap<String, BTreeMap<PartitionId, Offset>>;

/// Groups asked at once.
const GROUPS_AT_ONCE: usize = 8;

async fn committed(client: &Client) -> Result<Committed, GroupError> {
    let groups = client.list_groups().await?.into_iter().map(|group| group.group);
    committed_of(groups, async |group| client.group(group).committed().await).await
}

/// Asks several groups at once, in order of their names whoever answers first.
async fn committed_of(
    groups: impl IntoIterator<Item = String>,
    ask: impl AsyncFn(String) -> Result<BTreeMap<PartitionId, Offset>, GroupError>,
) -> Result<Committed, GroupError> {
    let ask = &ask;
    let asked = groups.into_iter().map(|group| async move {
        match ask(group.clone()).await {
            Ok(offsets) => Ok(Some((group, offsets))),
            // Deleted meanwhile.
            Err(error) if error.reason() == Some(Reason::UnknownGroup) => Ok(None),
            Err(error) => Err(error),
        }
    });
    let known = stream::iter(asked).buffer_unordered(GROUPS_AT_ONCE);
    known.try_filter_map(async |known| Ok(known)).try_collect().await
}

/// Asks the groups only where records would go. Failing that is told: the plan is good without them.
async fn committed_for<'a>(
    client: &Client,
    mut answers: impl Iterator<Item = &'a PlanReclaimResponse>,
) -> Option<Committed> {
    let loses = |log: &ReclaimOfLog| log.log_start_after > log.log_start_before;
    if !answers.any(|answer| answer.logs.iter().any(loses)) {
        return Some(Committed::new());
    }
    let told =
        |error: GroupError| say(format!("plimsoll: which groups would lose records is not known: {error}"));
    committed(client).await.map_err(told).ok()
}

/// Records from `floor` on that are there now and would not be there after it.
fn lost(log: &ReclaimOfLog, floor: u64) -> u64 {
    log.log_start_after.saturating_sub(floor.max(log.log_start_before))
}

fn readers(log: &ReclaimOfLog, committed: &Committed) -> Vec<Reader> {
    let Ok(topic_id) = TopicId::from_slice(&log.topic_id) else { return Vec::new() };
    let partition = PartitionId { topic_id, index: log.partition };
    let loses = |(group, offsets): (&String, &BTreeMap<PartitionId, Offset>)| {
        let committed = offsets.get(&partition)?.get();
        let unread_records = lost(log, committed);
        (unread_records > 0).then(|| Reader { group: group.clone(), committed, unread_records })
    };
    committed.iter().filter_map(loses).collect()
}

impl Plan {
    fn new(
        volume: &Chosen,
        plan: PlanReclaimResponse,
        image: &MetadataImage,
        committed: Option<&Committed>,
    ) -> Self {
        let logs = plan.logs.into_iter().map(|log| {
            let topic = TopicId::from_slice(&log.topic_id).ok().and_then(|id| image.topics.get(&id));
            let group_floor = log.group_floor_plus_1.checked_sub(1);
            let reason = match log.reason() {
                ReclaimReason::Unspecified => "unknown",
                ReclaimReason::LeaderLogStart => "leader's log start",
                ReclaimReason::Age => "age",
                ReclaimReason::Size => "size",
                ReclaimReason::Pressure => "pressure",
            };
            Log {
                topic: topic.map_or_else(|| crate::words::hex(&log.topic_id), |topic| topic.name.clone()),
                partition: log.partition,
                segments: log.segments,
                bytes: log.bytes,
                reason,
                log_start: log.log_start_before,
                log_start_after: log.log_start_after,
                records: log.log_start_after.saturating_sub(log.log_start_before),
                unread_records: group_floor.map_or(0, |floor| lost(&log, floor)),
                group_floor,
                groups: committed.map(|committed| readers(&log, committed)),
            }
        });
        Self {
            spu: volume.spu.0,
            volume: volume.path.clone(),
            free_bytes: plan.free_bytes,
            capacity_bytes: plan.capacity_bytes,
            segments: plan.segments,
            bytes: plan.bytes,
            inodes: plan.inodes,
            missing_bytes: plan.missing_bytes,
            logs: logs.collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "spu {} {}: {} of {} free; {} in {} segments would go",
            self.spu,
            self.volume,
            ByteSize(self.free_bytes),
            ByteSize(self.capacity_bytes),
            ByteSize(self.bytes),
            self.segments
        );
        if self.missing_bytes > 0 {
            let missing = ByteSize(self.missing_bytes);
            text.push_str(&format!("; {missing} more are wanted than may be deleted"));
        }
        text.push('\n');
        if !self.logs.is_empty() {
            let rows: Vec<Vec<String>> = self
                .logs
                .iter()
                .map(|log| {
                    vec![
                        format!("{}/{}", log.topic, log.partition),
                        log.segments.to_string(),
                        ByteSize(log.bytes).to_string(),
                        log.reason.to_owned(),
                        log.log_start.to_string(),
                        log.log_start_after.to_string(),
                        log.records.to_string(),
                        log.unread_records.to_string(),
                    ]
                })
                .collect();
            let header = [
                "partition",
                "segments",
                "bytes",
                "why",
                "oldest now",
                "oldest kept",
                "records",
                "unread by groups",
            ];
            text.push_str(&table(&header, &rows));
        }
        text.push_str(&self.readers_table());
        text
    }

    /// Which group would lose how much.
    fn readers_table(&self) -> String {
        let mut rows = Vec::new();
        for log in &self.logs {
            for reader in log.groups.iter().flatten() {
                rows.push(vec![
                    reader.group.clone(),
                    format!("{}/{}", log.topic, log.partition),
                    reader.committed.to_string(),
                    reader.unread_records.to_string(),
                ]);
            }
        }
        if rows.is_empty() {
            return String::new();
        }
        let header = ["group", "partition", "committed", "unread records that would go"];
        format!("\n{}", table(&header, &rows))
    }
}

pub(super) async fn plan(args: PlanArgs, host: &Host) -> Outcome {
    let client = args.connect.connect(host).await?;
    let image = client.metadata();
    let target = args.target_free.map_or(0, |size| size.0);
    let mut answers = Vec::new();
    let mut last = None;
    for volume in chosen(&image, args.spu, args.volume.as_deref())? {
        match client.node(volume.spu).plan_reclaim(volume.volume_id.clone(), target).await {
            Ok(answer) => answers.push((volume, answer)),
            Err(error) => {
                say(format!("plimsoll: {error}"));
                last = Some(error);
            }
        }
    }
    let committed = committed_for(&client, answers.iter().map(|(_, answer)| answer)).await;
    let plan = |(volume, answer)| Plan::new(&volume, answer, &image, committed.as_ref());
    let plans = Plans { volumes: answers.into_iter().map(plan).collect() };
    print(args.show, &plans, |plans| plans.volumes.iter().map(Plan::text).collect::<Vec<_>>().join("\n"))?;
    // Each was told; the others were shown.
    last.map_or(Ok(()), |error| Err(Failure { message: String::new(), ..Failure::from(error) }))
}

pub(super) async fn reclaim(args: ReclaimArgs, host: &Host) -> Outcome {
    let client = args.connect.connect(host).await?;
    let image = client.metadata();
    let volume = args.volume.choose(&image)?;
    let node = client.node(volume.spu);
    let target = args.target_free.0;
    let answer = match args.change.dry_run {
        true => node.plan_reclaim(volume.volume_id.clone(), target).await?,
        false => node.reclaim(volume.volume_id.clone(), target).await?,
    };
    // What is done must not wait for groups: they may be what the full disk is in the way of.
    let committed = match args.change.dry_run {
        true => committed_for(&client, std::iter::once(&answer)).await,
        false => None,
    };
    let plan = Plan::new(&volume, answer, &image, committed.as_ref());
    let what = format!(
        "{} in {} segments on spu {} {}",
        ByteSize(plan.bytes),
        plan.segments,
        volume.spu.0,
        volume.path
    );
    let missing = plan.missing_bytes;
    Change::with(args.change, format!("delete {what}"), format!("deleting {what}"), plan)
        .print(args.change)?;
    if missing == 0 {
        return Ok(());
    }
    let why = format!(
        "{} are missing to {} free, and nothing allowed can give them\nsee `plimsoll disk plan --spu {}`; shorten retention, allow trimming, or make room",
        ByteSize(missing),
        ByteSize(target),
        volume.spu.0
    );
    Err(Failure::new(Code::DiskFull, why))
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        let code = match &error {
            NodeError::Unknown(_) => Code::NotFound,
            NodeError::Unreachable { .. } => Code::NoConnection,
            NodeError::Refused { .. } => Code::Failed,
        };
        let remedy = match &error {
            NodeError::Unknown(_) => "\nsee which there are with `plimsoll spu list`",
            NodeError::Unreachable { .. } => "\nsee how it is with `plimsoll cluster status`",
            NodeError::Refused { .. } => "",
        };
        Self::new(code, format!("{error}{remedy}"))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use plimsoll_client::{ErrorDetail, Refusal, SpuId};
    use tokio::sync::Barrier;

    use super::*;

    /// A plan that takes the records from 100 up to 150 of a log whose lowest group is at `floor`.
    fn plan(floor: u64, groups: &[(&str, u64)]) -> Plan {
        let topic_id = TopicId([7; 16]);
        let log = ReclaimOfLog {
            topic_id: topic_id.to_bytes(),
            log_start_before: 100,
            log_start_after: 150,
            group_floor_plus_1: floor + 1,
            ..Default::default()
        };
        let other = PartitionId { topic_id, index: 1 };
        let offset = |offset| Offset::new(offset).expect("in range");
        let committed = groups.iter().map(|(group, at)| {
            let here = PartitionId { topic_id, index: 0 };
            ((*group).to_owned(), BTreeMap::from([(here, offset(*at)), (other, offset(0))]))
        });
        let volume = Chosen { spu: SpuId(1), volume_id: bytes::Bytes::new(), path: "/a".to_owned() };
        let answer = PlanReclaimResponse { logs: vec![log], ..Default::default() };
        Plan::new(&volume, answer, &MetadataImage::empty(), Some(&committed.collect()))
    }

    #[test]
    fn what_was_trimmed_before_is_not_lost_again() {
        for (floor, unread) in [(0, 50), (100, 50), (120, 30), (150, 0), (900, 0)] {
            assert_eq!(plan(floor, &[]).logs[0].unread_records, unread, "floor {floor}");
        }
    }

    #[tokio::test]
    async fn several_groups_are_asked_at_once_and_told_in_order() {
        let refused = |reason| GroupError::Refused(Refusal::new(ErrorDetail::not_written(reason, "why")));
        let (asked_now, asked_most) = (Cell::new(0), Cell::new(0));
        // Nobody is answered before so many are asked.
        let enough = Barrier::new(GROUPS_AT_ONCE);
        let ask = async |group: String| {
            asked_now.set(asked_now.get() + 1);
            asked_most.set(asked_most.get().max(asked_now.get()));
            enough.wait().await;
            asked_now.set(asked_now.get() - 1);
            if group == "3" { Err(refused(Reason::UnknownGroup)) } else { Ok(BTreeMap::new()) }
        };
        let all: Vec<String> = (0..2 * GROUPS_AT_ONCE).map(|name| format!("{name:x}")).collect();
        let committed = committed_of(all.iter().rev().cloned(), ask);
        let committed = Host::real().clock.timeout(Duration::from_secs(60), committed).await;
        let committed = committed.expect("not one after the other").expect("no error");
        let expected = all.iter().filter(|group| *group != "3");
        assert!(committed.keys().eq(expected), "{:?}", committed.keys());
        assert_eq!(asked_most.get(), GROUPS_AT_ONCE);

        let ask = async |_| Err(refused(Reason::InvalidArgument));
        let failed = committed_of(all, ask).await.expect_err("not known");
        assert_eq!(failed.reason(), Some(Reason::InvalidArgument));
    }

    #[test]
    fn each_group_is_named_with_what_it_would_lose() {
        let plan = plan(20, &[("behind", 20), ("done", 150), ("half", 125)]);
        let reader = |group: &str, committed, unread_records| Reader {
            group: group.to_owned(),
            committed,
            unread_records,
        };
        let expected = [reader("behind", 20, 50), reader("half", 125, 25)];
        assert_eq!(plan.logs[0].groups.as_deref(), Some(&expected[..]));
        let text = plan.text();
        assert!(text.contains("\nbehind ") && !text.contains("\ndone "), "{text}");
    }
}
