//! `plimsoll disk plan` and `plimsoll disk reclaim`.

use clap::Args;
use plimsoll_client::{MetadataImage, NodeError, TopicId};
use plimsoll_host::Host;
use plimsoll_host::config::ByteSize;
use plimsoll_proto::v1::{PlanReclaimResponse, ReclaimReason};
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
}

impl Plan {
    fn new(volume: &Chosen, plan: PlanReclaimResponse, image: &MetadataImage) -> Self {
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
                unread_records: group_floor.map_or(0, |floor| log.log_start_after.saturating_sub(floor)),
                group_floor,
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
        text
    }
}

pub(super) async fn plan(args: PlanArgs, host: &Host) -> Outcome {
    let client = args.connect.connect(host).await?;
    let image = client.metadata();
    let target = args.target_free.map_or(0, |size| size.0);
    let mut volumes = Vec::new();
    let mut last = None;
    for volume in chosen(&image, args.spu, args.volume.as_deref())? {
        match client.node(volume.spu).plan_reclaim(volume.volume_id.clone(), target).await {
            Ok(plan) => volumes.push(Plan::new(&volume, plan, &image)),
            Err(error) => {
                say(format!("plimsoll: {error}"));
                last = Some(error);
            }
        }
    }
    let plans = Plans { volumes };
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
    let plan = Plan::new(&volume, answer, &image);
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
