//! `plimsoll consume --group`: a member of a group that prints what it is given, or looks at what that would be.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write as _};

use futures::FutureExt as _;
use plimsoll_client::{
    Client, ConsumeError, Consumer, GroupError, Offset, OnTrimmed, PartitionId, StartAt, TopicId,
};
use plimsoll_proto::group::OFFSETS_TOPIC;

use super::format;
use crate::change::{Cluster, quoted};
use crate::exit::Outcome;
use crate::group::reset;
use crate::output::{quiet_pipe, say};

/// Records printed before they are committed at the latest.
const COMMIT_EVERY: u64 = 10_000;

pub(super) struct GroupRun<'a> {
    pub(super) client: Client,
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) start: StartAt,
    pub(super) on_trimmed: OnTrimmed,
    pub(super) count: Option<u64>,
    pub(super) format: &'a format::RecordFormat,
    pub(super) separator: &'a str,
    pub(super) cluster: Cluster,
}

/// What a group has committed.
type Committed = BTreeMap<PartitionId, Offset>;

/// What the group has committed. Nothing is made for a group that is not there.
pub(super) async fn committed(client: &Client, group: &str) -> Result<Committed, GroupError> {
    // The first group of a cluster makes this topic.
    if client.metadata().topic_by_name(OFFSETS_TOPIC).is_none() {
        return Ok(Committed::new());
    }
    client.group(group).committed().await
}

/// Lets a consumer go on where the group would, and says so.
pub(super) fn go_on(
    consumer: &mut Consumer,
    topic_id: Option<TopicId>,
    committed: &Committed,
    group: &str,
    undo: Option<String>,
) -> Result<(), ConsumeError> {
    let partitions = consumer.assigned();
    let mut known = 0;
    for index in &partitions {
        let partition = topic_id.map(|topic_id| PartitionId { topic_id, index: *index });
        if let Some(offset) = partition.and_then(|partition| committed.get(&partition)) {
            consumer.seek(*index, StartAt::Offset(*offset))?;
            known += 1;
        }
    }
    say(format!(
        "dry run: group {group} is not joined and nothing is committed; {known} of {} partitions are read from its \
         committed offsets, the others as --from says\nundo: {}",
        partitions.len(),
        undo.as_deref().unwrap_or("there is none")
    ));
    Ok(())
}

/// What brings back the offsets that a group had; of a group that had none, what forgets it.
pub(super) fn undo(group: &str, topic: &str, topic_id: Option<TopicId>, before: &Committed) -> Vec<String> {
    if before.is_empty() {
        return vec![format!("plimsoll group delete {}", quoted(group))];
    }
    let mut back: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for (partition, offset) in before.iter().filter(|(partition, _)| Some(partition.topic_id) == topic_id) {
        back.entry(offset.get()).or_default().push(partition.index);
    }
    back.into_iter().map(|(offset, partitions)| reset::command(group, topic, &partitions, offset)).collect()
}

/// What was printed is flushed, then committed: nothing that was not printed is ever skipped by the next member.
pub(super) async fn run(args: GroupRun<'_>) -> Outcome {
    let before = committed(&args.client, &args.group).await?;
    let undo = undo(&args.group, &args.topic, args.client.topic_id(&args.topic), &before);
    let undo = args.cluster.typed(undo);
    let builder = args.client.group(args.group.clone()).topics([args.topic]);
    let builder =
        builder.start(args.start).on_trimmed(args.on_trimmed).auto_commit(None).name("plimsoll consume");
    let mut consumer = builder.build().await?;
    // Now, because a signal is how it mostly ends.
    say(format!(
        "group {}: what is printed is committed; what it had before comes back by the undo, when its members have ended\nundo: {}",
        args.group,
        undo.as_deref().unwrap_or("there is none")
    ));
    let mut out = BufWriter::with_capacity(256 * 1024, io::stdout().lock());
    let (mut left, mut uncommitted) = (args.count, 0);
    while left != Some(0) {
        let next = match consumer.next().now_or_never() {
            Some(next) => next,
            None => {
                quiet_pipe(out.flush())?;
                if uncommitted > 0 {
                    consumer.commit().await?;
                    uncommitted = 0;
                }
                consumer.next().await
            }
        };
        let Some(record) = next else { break };
        let record = record?;
        quiet_pipe(format::write(&mut out, &record.topic, &record.record, args.format, args.separator))?;
        uncommitted += 1;
        if uncommitted >= COMMIT_EVERY {
            quiet_pipe(out.flush())?;
            consumer.commit().await?;
            uncommitted = 0;
        }
        left = left.map(|left| left - 1);
    }
    quiet_pipe(out.flush())?;
    consumer.commit().await?;
    Ok(consumer.close().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_undo_of_commits_brings_each_offset_back() {
        let (this, other) = (TopicId([1; 16]), TopicId([2; 16]));
        let at =
            |topic_id, index, offset| (PartitionId { topic_id, index }, Offset::new(offset).expect("small"));
        let undo = |before: &[(PartitionId, Offset)]| {
            undo("a b", "t", Some(this), &before.iter().copied().collect())
        };
        assert_eq!(undo(&[]), ["plimsoll group delete 'a b'"]);
        let reset = "plimsoll group reset 'a b' --topic t";
        let found = undo(&[at(this, 0, 7), at(this, 1, 3), at(this, 2, 7), at(other, 0, 9)]);
        assert_eq!(
            found,
            [format!("{reset} --partition 1 --to 3"), format!("{reset} --partition 0 --partition 2 --to 7"),]
        );
        // The group stays for the other topic, and no command takes single offsets away.
        assert!(undo(&[at(other, 0, 9)]).is_empty());
    }
}
