//! `plimsoll group reset`.

use std::collections::BTreeMap;

use clap::Args;
use plimsoll_client::{Client, Offset, PartitionId, Reason};
use plimsoll_host::Host;
use plimsoll_host::config::Span;
use serde::Serialize;

use super::name_of;
use crate::change::{Change, ChangeArgs, quoted};
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    group: String,
    /// Where to: earliest, latest, an offset, a time ago such as 1h, or @MS for milliseconds since 1970
    #[arg(long, value_parser = to)]
    to: To,
    /// Of this topic; every topic with a committed offset when not given
    #[arg(long)]
    topic: Option<String>,
    /// Of this partition only, with --topic; repeat it for more
    #[arg(long = "partition", requires = "topic")]
    partitions: Vec<u32>,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Where a group is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Earliest,
    Latest,
    Offset(u64),
    Ago(u64),
    At(i64),
}

fn to(text: &str) -> Result<To, String> {
    let wrong = || "earliest, latest, an offset, a time ago such as 1h, or @MILLISECONDS".to_owned();
    match text {
        "earliest" => return Ok(To::Earliest),
        "latest" => return Ok(To::Latest),
        _ => {}
    }
    if let Some(ms) = text.strip_prefix('@') {
        return ms.parse().map(To::At).map_err(|_| wrong());
    }
    if let Ok(Ok(offset)) = text.parse().map(Offset::new) {
        return Ok(To::Offset(offset.get()));
    }
    let ago = text.parse::<Span>().map_err(|_| wrong())?;
    Ok(To::Ago(u64::try_from(ago.0.as_millis()).unwrap_or(u64::MAX)))
}

#[derive(Serialize)]
struct Reset {
    offsets: Vec<ResetTo>,
}

#[derive(Serialize)]
struct ResetTo {
    topic: String,
    partition: u32,
    from: Option<u64>,
    to: u64,
}

pub(super) async fn reset(args: ResetArgs, host: &Host) -> Outcome {
    let client = args.connect.connect(host).await?;
    let group = client.group(args.group.clone());
    // Refused at once while the group is in use, also as a dry run.
    let is_new = match group.describe().await {
        Ok(described) if !described.members.is_empty() => {
            let members = described.members.len();
            let why = format!("group {} has {members} members; stop them first", args.group);
            return Err(Failure::new(Code::Failed, why));
        }
        Ok(_) => false,
        Err(error) if error.reason() == Some(Reason::UnknownGroup) && args.topic.is_some() => true,
        Err(error) => return Err(error.into()),
    };
    let committed = group.committed().await?;
    let mut offsets = BTreeMap::new();
    let mut changes = Vec::new();
    for partition in partitions(&client, &args, &committed)? {
        let to = target(&client, partition, args.to, host.clock.wall_ms()).await?;
        offsets.insert(partition, to);
        changes.push(ResetTo {
            topic: name_of(&client, partition.topic_id),
            partition: partition.index,
            from: committed.get(&partition).map(|offset| offset.get()),
            to: to.get(),
        });
    }
    if !args.change.dry_run {
        group.reset(offsets).await?;
    }
    let what = text(&args.group, &changes, is_new);
    let undo = if is_new {
        vec![format!("plimsoll group delete {}", quoted(&args.group))]
    } else {
        undo(&args.group, &changes)
    };
    Change::with(args.change, format!("reset {what}"), format!("reset {what}"), Reset { offsets: changes })
        .undo_all(undo)
        .print(args.change)
}

fn text(group: &str, changes: &[ResetTo], is_new: bool) -> String {
    let mut text = format!("group {group} in {} partitions", changes.len());
    for change in changes {
        let from = change.from.map_or_else(|| "nothing".to_owned(), |from| from.to_string());
        text.push_str(&format!("\n  {}/{}: {from} -> {}", change.topic, change.partition, change.to));
    }
    let new = changes.iter().filter(|change| change.from.is_none()).count();
    if new > 0 && !is_new {
        text.push_str(&format!("\n  {new} had no offset, and no command gives them none again"));
    }
    text
}

/// What brings the old offsets back: one command for the partitions of a topic that were at the same offset. One that
/// has been trimmed since, or never was there, becomes the nearest that is there.
fn undo(group: &str, changes: &[ResetTo]) -> Vec<String> {
    let mut back: BTreeMap<(&str, u64), Vec<u32>> = BTreeMap::new();
    for change in changes {
        if let Some(from) = change.from.filter(|from| *from != change.to) {
            back.entry((&change.topic, from)).or_default().push(change.partition);
        }
    }
    back.into_iter().map(|((topic, from), partitions)| command(group, topic, &partitions, from)).collect()
}

/// What sets partitions of a topic to an offset.
pub(crate) fn command(group: &str, topic: &str, partitions: &[u32], to: u64) -> String {
    let partitions: String = partitions.iter().map(|index| format!(" --partition {index}")).collect();
    format!("plimsoll group reset {} --topic {}{partitions} --to {to}", quoted(group), quoted(topic))
}

/// The partitions that a reset is about.
fn partitions(
    client: &Client,
    args: &ResetArgs,
    committed: &BTreeMap<PartitionId, Offset>,
) -> Result<Vec<PartitionId>, Failure> {
    let Some(name) = &args.topic else {
        let image = client.metadata();
        return Ok(committed
            .keys()
            .filter(|partition| image.partition(partition).is_some())
            .copied()
            .collect());
    };
    let unknown = || {
        let why = format!("there is no topic {name}\nsee which there are with `plimsoll topic list`");
        Failure::new(Code::NotFound, why)
    };
    let topic_id = client.topic_id(name).ok_or_else(unknown)?;
    let image = client.metadata();
    let count = image.topics.get(&topic_id).map_or(0, |topic| topic.partitions.len());
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    if let Some(wrong) = args.partitions.iter().find(|index| **index >= count) {
        let why = format!("there is no partition {wrong}, topic {name} has {count}");
        return Err(Failure::new(Code::NotFound, why));
    }
    let wanted = |index: &u32| args.partitions.is_empty() || args.partitions.contains(index);
    Ok((0..count).filter(wanted).map(|index| PartitionId { topic_id, index }).collect())
}

/// The offset that a partition is reset to, within what is there.
async fn target(client: &Client, partition: PartitionId, to: To, now_ms: u64) -> Result<Offset, Failure> {
    let timestamp = match to {
        To::At(ms) => Some(ms),
        To::Ago(ms) => Some(i64::try_from(now_ms.saturating_sub(ms)).unwrap_or(i64::MAX)),
        To::Earliest | To::Latest | To::Offset(_) => None,
    };
    let ends = client.partition_ends(partition, timestamp).await?;
    let offset = match to {
        To::Earliest => ends.log_start,
        To::Latest => ends.high_watermark,
        To::Offset(offset) => offset.clamp(ends.log_start, ends.high_watermark),
        To::At(_) | To::Ago(_) => ends.offset_at_timestamp.unwrap_or(ends.high_watermark),
    };
    Offset::new(offset).map_err(|error| Failure::new(Code::Failed, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert_eq!(to("earliest"), Ok(To::Earliest));
        assert_eq!(to("17"), Ok(To::Offset(17)));
        assert_eq!(to("@5"), Ok(To::At(5)));
        assert_eq!(to("2s"), Ok(To::Ago(2000)));
        for bad in ["", "soon", "-1", "@x", "18446744073709551615"] {
            assert!(to(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_committed_comes_back_by_the_undo() {
        let change =
            |topic: &str, partition, from, to| ResetTo { topic: topic.to_owned(), partition, from, to };
        let changes = [
            change("t", 0, Some(5), 0),
            change("t", 1, Some(7), 0),
            change("t", 2, Some(5), 0),
            change("t", 3, None, 0),
            change("t", 4, Some(0), 0),
            change("u", 0, Some(5), 9),
        ];
        let expected = [
            "plimsoll group reset 'two words' --topic t --partition 0 --partition 2 --to 5",
            "plimsoll group reset 'two words' --topic t --partition 1 --to 7",
            "plimsoll group reset 'two words' --topic u --partition 0 --to 5",
        ];
        assert_eq!(undo("two words", &changes), expected);
        let text = text("two words", &changes, false);
        assert!(text.contains("  t/1: 7 -> 0\n"), "{text}");
        assert!(text.ends_with("  1 had no offset, and no command gives them none again"), "{text}");
        assert!(undo("g", &changes[3..5]).is_empty());
    }
}
