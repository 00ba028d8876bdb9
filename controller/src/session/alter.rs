//! Topics that change while they are in use.

use plimsoll_proto::v1::{self, ErrorDetail, Reason, entry::Change};

use super::shared::Shared;
use super::{answer, topics};
use crate::cluster::{Mismatch, Outcome, altered};
use crate::placement;

/// How often a change is planned anew because somebody else was faster.
const ATTEMPTS: u32 = 5;

/// Changes the configuration of a topic.
pub(super) async fn alter(
    shared: &Shared,
    request: v1::AlterTopicRequest,
) -> Result<v1::AlterTopicResponse, ErrorDetail> {
    let name = topics::name(&request.name)?;
    topics::not_reserved(&name)?;
    shared.room_to_grow()?;
    for _ in 0..ATTEMPTS {
        let view = shared.leading()?;
        let (id, topic) = view.state.topic_by_name(name.as_str()).ok_or_else(|| topics::unknown(&name))?;
        let config = altered(&topic.config, &request).map_err(|error| answer::invalid(error.to_string()))?;
        if config == topic.config {
            let version = view.state.version().0;
            return Ok(v1::AlterTopicResponse { config: Some(config), version });
        }
        let entry = v1::AlterTopicEntry {
            topic_id: id.to_bytes(),
            expected: Some(topic.config),
            config: Some(config),
        };
        let proposed = shared.propose(Change::AlterTopic(entry)).await?;
        match proposed.applied {
            Outcome::Changed(_) => {
                return Ok(v1::AlterTopicResponse { config: Some(config), version: proposed.index });
            }
            Outcome::NoOp(Mismatch::OtherConfig) => {}
            Outcome::NoOp(Mismatch::UnknownPartition) => return Err(topics::unknown(&name)),
            Outcome::NoOp(mismatch) => return Err(answer::mismatch(mismatch)),
        }
    }
    Err(busy())
}

/// Adds partitions up to a total.
pub(super) async fn add_partitions(
    shared: &Shared,
    request: v1::AddPartitionsRequest,
) -> Result<v1::AddPartitionsResponse, ErrorDetail> {
    let name = topics::name(&request.name)?;
    topics::not_reserved(&name)?;
    shared.room_to_grow()?;
    for _ in 0..ATTEMPTS {
        let view = shared.leading()?;
        let (id, topic) = view.state.topic_by_name(name.as_str()).ok_or_else(|| topics::unknown(&name))?;
        let there = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        if request.total == there {
            return Ok(v1::AddPartitionsResponse { total: there, version: view.state.version().0 });
        }
        if request.total < there || request.total > crate::cluster::PARTITIONS_MAX {
            return Err(answer::invalid(format!(
                "the topic has {there} partitions; it can have more, up to {}, never fewer",
                crate::cluster::PARTITIONS_MAX
            )));
        }
        let since = shared.host.clock.now().saturating_sub(shared.settings.facts_fresh);
        let (targets, excluded) = placement::targets(&view.state, &shared.facts.volumes(since));
        let placed = placement::place(request.total - there, topic.config.replicas, targets, excluded)
            .map_err(|error| {
                ErrorDetail::not_written(Reason::NoPlacement, error.to_string())
                    .retry_after(shared.settings.facts_fresh)
            })?;
        let entry = v1::AddPartitionsEntry { topic_id: id.to_bytes(), expected: there, partitions: placed };
        let proposed = shared.propose(Change::AddPartitions(entry)).await?;
        match proposed.applied {
            Outcome::Changed(_) => {
                return Ok(v1::AddPartitionsResponse { total: request.total, version: proposed.index });
            }
            Outcome::NoOp(Mismatch::OtherConfig | Mismatch::PlacementChanged) => {}
            Outcome::NoOp(Mismatch::UnknownPartition) => return Err(topics::unknown(&name)),
            Outcome::NoOp(mismatch) => return Err(answer::mismatch(mismatch)),
        }
    }
    Err(busy())
}

fn busy() -> ErrorDetail {
    ErrorDetail::not_written(Reason::ExpectationFailed, "somebody else changes the topic at the same time")
}
