//! Checking what came from outside, before anything is done with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_proto::group;
use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId, TopicId};
use plimsoll_proto::v1::{self, ErrorDetail, Reason};

use super::group::Heartbeat;

const TEXT_BYTES_MAX: usize = 256;
const TOPICS_MAX: usize = 256;
const PARTITIONS_MAX: usize = 16_384;
const SESSION_MS: std::ops::RangeInclusive<u32> = 1000..=300_000;
const TIMEOUT_MS_DEFAULT: u32 = 10_000;
const TIMEOUT_MS_MAX: u32 = 60_000;

/// One offset to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) offset: Offset,
    pub(super) leader_epoch: LeaderEpoch,
}

fn invalid(message: impl Into<String>) -> ErrorDetail {
    ErrorDetail::not_written(Reason::InvalidArgument, message)
}

pub(super) fn name(name: &str) -> Result<(), ErrorDetail> {
    group::check_name(name).map_err(|error| invalid(error.to_string()))
}

fn text(what: &str, text: &str) -> Result<(), ErrorDetail> {
    if text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(invalid(format!("{what} is longer than 256 bytes or has a control character")))
}

pub(super) fn heartbeat(request: v1::GroupHeartbeatRequest) -> Result<(String, Heartbeat), ErrorDetail> {
    name(&request.group)?;
    text("member_id", &request.member_id)?;
    text("client", &request.client)?;
    if request.member_id.is_empty() {
        return Err(invalid("member_id is empty"));
    }
    if !SESSION_MS.contains(&request.session_timeout_ms) {
        return Err(invalid(format!(
            "session_timeout_ms must be {} to {}",
            SESSION_MS.start(),
            SESSION_MS.end()
        )));
    }
    if request.topics.len() > TOPICS_MAX {
        return Err(invalid("more than 256 topics"));
    }
    let session = Duration::from_millis(u64::from(request.session_timeout_ms));
    let beat = Heartbeat {
        owned: partitions(&request.owned)?,
        member_id: request.member_id,
        member_epoch: request.member_epoch,
        sequence: request.sequence,
        heard_sequence: request.heard_sequence,
        leave: request.leave,
        topics: request.topics.into_iter().collect(),
        session,
        // A member that is held longer than this would seem silent.
        wait_max: Duration::from_millis(u64::from(request.wait_ms_max)).min(session / 3),
        client: request.client,
    };
    Ok((request.group, beat))
}

pub(super) fn partitions(listed: &[v1::TopicPartitions]) -> Result<BTreeSet<PartitionId>, ErrorDetail> {
    let mut partitions = BTreeSet::new();
    for topic in listed {
        let topic_id = TopicId::from_slice(&topic.topic_id).map_err(|error| invalid(error.to_string()))?;
        partitions.extend(topic.partitions.iter().map(|index| PartitionId { topic_id, index: *index }));
    }
    if partitions.len() > PARTITIONS_MAX {
        return Err(invalid("more than 16384 partitions"));
    }
    Ok(partitions)
}

pub(super) fn by_topic(partitions: &BTreeSet<PartitionId>) -> Vec<v1::TopicPartitions> {
    let mut topics: BTreeMap<TopicId, Vec<u32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(partition.topic_id).or_default().push(partition.index);
    }
    let topic =
        |(id, partitions): (TopicId, Vec<u32>)| v1::TopicPartitions { topic_id: id.to_bytes(), partitions };
    topics.into_iter().map(topic).collect()
}

pub(super) fn commits(listed: &[v1::CommittedOffset]) -> Result<BTreeMap<PartitionId, Commit>, ErrorDetail> {
    let mut commits = BTreeMap::new();
    if listed.is_empty() || listed.len() > PARTITIONS_MAX {
        return Err(invalid("a commit is of 1 to 16384 offsets"));
    }
    for commit in listed {
        let topic_id = TopicId::from_slice(&commit.topic_id).map_err(|error| invalid(error.to_string()))?;
        let offset = Offset::new(commit.offset).map_err(|error| invalid(error.to_string()))?;
        let partition = PartitionId { topic_id, index: commit.partition };
        let leader_epoch = LeaderEpoch(commit.leader_epoch);
        if commits.insert(partition, Commit { offset, leader_epoch }).is_some() {
            return Err(invalid(format!("{partition} is named twice")));
        }
    }
    Ok(commits)
}

pub(super) fn timeout(timeout_ms: u32) -> Duration {
    let ms = if timeout_ms == 0 { TIMEOUT_MS_DEFAULT } else { timeout_ms.min(TIMEOUT_MS_MAX) };
    Duration::from_millis(u64::from(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_field_is_refused() {
        let good = v1::GroupHeartbeatRequest {
            group: "g".to_owned(),
            member_id: "m".to_owned(),
            session_timeout_ms: 10_000,
            wait_ms_max: 60_000,
            ..Default::default()
        };
        let (_, beat) = heartbeat(good.clone()).expect("good");
        assert!(beat.wait_max < beat.session);
        let bad: [v1::GroupHeartbeatRequest; 6] = [
            v1::GroupHeartbeatRequest { group: String::new(), ..good.clone() },
            v1::GroupHeartbeatRequest { member_id: String::new(), ..good.clone() },
            v1::GroupHeartbeatRequest { member_id: "a\n".to_owned(), ..good.clone() },
            v1::GroupHeartbeatRequest { session_timeout_ms: 10, ..good.clone() },
            v1::GroupHeartbeatRequest { topics: vec!["t".to_owned(); 300], ..good.clone() },
            v1::GroupHeartbeatRequest { owned: vec![v1::TopicPartitions::default()], ..good },
        ];
        for request in bad {
            let refused = heartbeat(request.clone()).expect_err("bad");
            assert_eq!(refused.reason(), Reason::InvalidArgument, "{request:?}");
        }
        let commit = v1::CommittedOffset { topic_id: vec![1; 16].into(), ..Default::default() };
        assert!(commits(&[]).is_err() && commits(&[commit.clone(), commit.clone()]).is_err());
        assert!(commits(&[v1::CommittedOffset { offset: u64::MAX, ..commit }]).is_err());
    }
}
