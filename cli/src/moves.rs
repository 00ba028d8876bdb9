//! `plimsoll partition reassign` and `plimsoll partition relief`.

use clap::Args;
use plimsoll_client::{SpuId, TopicInfo};
use plimsoll_host::Host;
use plimsoll_proto::v1::{MoveCause, PartitionMove, ReplicaAssignment};
use serde::Serialize;

use crate::change::{Change, ChangeArgs};
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};

#[derive(Debug, Args)]
pub(crate) struct ReassignArgs {
    /// The partition
    #[arg(value_name = "TOPIC/INDEX", value_parser = partition)]
    partition: (String, u32),
    /// Storage nodes that are to have a replica, in order of preference, such as 1,2,3
    #[arg(long, value_delimiter = ',', required_unless_present = "cancel", conflicts_with = "cancel")]
    to: Vec<u32>,
    /// Calls the move off; the replicas that were added go
    #[arg(long)]
    cancel: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReliefArgs {
    /// Calls every relief off that is under way
    #[arg(long)]
    cancel: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Serialize)]
struct Moves {
    moves: Vec<Moved>,
}

#[derive(Serialize)]
struct Moved {
    topic: String,
    partition: u32,
    from: Vec<u32>,
    to: Vec<u32>,
    cause: &'static str,
}

pub(crate) fn partition(text: &str) -> Result<(String, u32), String> {
    let wrong = || format!("'{text}' is not TOPIC/INDEX");
    let (topic, index) = text.rsplit_once('/').ok_or_else(wrong)?;
    let index = index.parse().map_err(|_| wrong())?;
    if topic.is_empty() { Err(wrong()) } else { Ok((topic.to_owned(), index)) }
}

fn spus(replicas: &[ReplicaAssignment]) -> Vec<u32> {
    replicas.iter().map(|replica| replica.spu_id).collect()
}

fn listed(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

impl From<PartitionMove> for Moved {
    fn from(from: PartitionMove) -> Self {
        Self {
            cause: match from.cause() {
                MoveCause::Unspecified => "unknown",
                MoveCause::Asked => "asked",
                MoveCause::Drain => "drain",
                MoveCause::Relief => "relief",
            },
            topic: from.topic,
            partition: from.partition,
            from: spus(&from.from),
            to: spus(&from.to),
        }
    }
}

impl Moved {
    fn text(&self) -> String {
        format!("{}/{} from {} to {}", self.topic, self.partition, listed(&self.from), listed(&self.to))
    }
}

pub(crate) async fn reassign(args: ReassignArgs, host: &Host) -> Outcome {
    let admin = args.connect.connect(host).await?.admin();
    let (topic, index) = args.partition;
    if args.cancel {
        if !args.change.dry_run {
            admin.cancel_reassign(topic.clone(), index).await?;
        }
        let of = |verb: &str| format!("{verb} off the move of {topic}/{index}");
        return Change::new(args.change, of("call"), of("called")).print(args.change);
    }
    if args.to.contains(&0) {
        return Err(Failure::new(Code::Usage, "--to: ids of storage nodes start at 1"));
    }
    let to = args.to.iter().copied().map(SpuId).collect();
    let moved = admin.reassign(topic.clone(), index, to, args.change.dry_run).await?.map(Moved::from);
    let what = moved.as_ref().map_or_else(|| format!("{topic}/{index}, which is there already"), Moved::text);
    let moves: Vec<Moved> = moved.into_iter().collect();
    let begun = !moves.is_empty();
    let (would, done) = (format!("move {what}"), format!("moving {what}"));
    let change = Change::with(args.change, would, done, Moves { moves });
    if begun {
        change.undo(format!("plimsoll partition reassign {topic}/{index} --cancel")).print(args.change)
    } else {
        change.print(args.change)
    }
}

pub(crate) async fn relief(args: ReliefArgs, host: &Host) -> Outcome {
    let admin = args.connect.connect(host).await?.admin();
    let moves: Vec<Moved> = match (args.cancel, args.change.dry_run) {
        (true, true) => admin.list_topics().await?.iter().flat_map(reliefs_back).collect(),
        (true, false) => admin.cancel_relief().await?.into_iter().map(Moved::from).collect(),
        (false, dry_run) => admin.relieve(dry_run).await?.into_iter().map(Moved::from).collect(),
    };
    let what = if moves.is_empty() {
        "nothing".to_owned()
    } else {
        moves.iter().map(Moved::text).collect::<Vec<_>>().join("; ")
    };
    let (would, done) = match (args.cancel, moves.is_empty()) {
        (true, true) => ("call off nothing".to_owned(), "no relief was under way".to_owned()),
        (true, false) => (format!("call off: back {what}"), format!("called off: back {what}")),
        (false, _) => (format!("move {what}"), format!("moving {what}")),
    };
    let undo = match (args.cancel, moves.is_empty()) {
        (_, true) => None,
        (true, false) => Some("plimsoll partition relief".to_owned()),
        (false, false) => Some("plimsoll partition relief --cancel".to_owned()),
    };
    Change::with(args.change, would, done, Moves { moves }).undo_all(undo).print(args.change)
}

/// The way back of each relief of a topic that is under way.
fn reliefs_back(topic: &TopicInfo) -> impl Iterator<Item = Moved> {
    topic.partitions.iter().filter_map(|partition| {
        let moving = partition.reassignment.as_ref()?;
        (moving.cause() == MoveCause::Relief).then(|| Moved {
            topic: topic.name.clone(),
            partition: partition.index,
            from: spus(&moving.to),
            to: spus(&moving.from),
            cause: "relief",
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_topic_and_index() {
        assert_eq!(partition("a.b/12"), Ok(("a.b".to_owned(), 12)));
        for wrong in ["a", "a/", "/1", "a/x", "a/-1"] {
            assert!(partition(wrong).is_err(), "{wrong}");
        }
    }
}
