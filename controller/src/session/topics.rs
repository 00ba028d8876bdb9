//! Creating and deleting topics.

use std::sync::Arc;

use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::group::{INTERNAL_PREFIX, OFFSETS_TOPIC, is_internal};
use plimsoll_proto::ids::{SpuId, TopicId, TopicName, VolumeId};
use plimsoll_proto::v1::{self, ErrorDetail, Reason, entry::Change};

use super::answer;
use super::shared::Shared;
use crate::cluster::{ClusterState, SpuState, with_defaults};
use crate::placement;
use crate::raft_runtime::View;

/// Creates a topic. Where nodes are still joining it waits for them a little, so that a topic can be created
/// right after a cluster was started.
pub(super) async fn create(
    shared: &Shared,
    request: v1::CreateTopicRequest,
) -> Result<v1::CreateTopicResponse, ErrorDetail> {
    let name = name(&request.name)?;
    let internal = is_internal(name.as_str());
    if internal && name.as_str() != OFFSETS_TOPIC {
        return Err(reserved(&name));
    }
    let wanted = if internal { offsets_config(0) } else { request.config.unwrap_or_default() };
    if wanted.offsets_area_bytes > 0 && !internal {
        return Err(answer::invalid("offsets_area_bytes is for the internal topic only"));
    }
    // Refuse what no number of nodes makes right, before waiting for any.
    with_defaults(wanted, 3).map_err(|error| answer::invalid(error.to_string()))?;
    shared.room_to_grow()?;
    let topic_id = TopicId(shared.host.random.id16());
    let deadline = shared.host.clock.now().saturating_add(shared.settings.placement_wait);
    loop {
        let view = shared.leading()?;
        if view.state.topic_by_name(name.as_str()).is_some() {
            return Err(exists(&name));
        }
        let late = shared.host.clock.now() >= deadline;
        match plan(shared, &view, wanted, late) {
            Ok(Some((mut config, partitions))) => {
                if internal {
                    config = offsets_config_for(shared, config, &partitions);
                }
                let entry = v1::CreateTopicEntry {
                    topic_id: topic_id.to_bytes(),
                    name: name.as_str().to_owned(),
                    config: Some(config),
                    partitions,
                };
                match shared.change(Change::CreateTopic(entry)).await {
                    Ok((version, _)) => {
                        return Ok(v1::CreateTopicResponse { topic_id: topic_id.to_bytes(), version });
                    }
                    Err(detail) if detail.reason() == Reason::TopicExists => return Err(exists(&name)),
                    // The picture changed under the plan: plan anew.
                    Err(detail) if detail.reason() == Reason::NoPlacement && !late => {}
                    Err(detail) => return Err(detail),
                }
            }
            Ok(None) => {}
            Err(refused) if late => return Err(refused),
            Err(refused) if refused.reason() != Reason::NoPlacement => return Err(refused),
            // Nodes may still register or join; where enough are there and have no room, time does not help.
            Err(refused) if !may_grow(shared, &view, wanted.replicas) => return Err(refused),
            Err(_) => {}
        }
        shared.host.clock.sleep(shared.settings.tick).await;
    }
}

type Plan = (v1::TopicConfig, Vec<v1::PartitionPlacement>);

/// The plan by what is known now; `None` while nodes that would count are still joining.
fn plan(
    shared: &Shared,
    view: &Arc<View>,
    wanted: v1::TopicConfig,
    late: bool,
) -> Result<Option<Plan>, ErrorDetail> {
    let since = shared.host.clock.now().saturating_sub(shared.settings.facts_fresh);
    let (targets, excluded) = placement::targets(&view.state, &shared.facts.volumes(since));
    let nodes = placement::nodes(&targets);
    // The first topic of a cluster that is just starting spreads over all of its nodes, not over the first one up.
    let waits = wanted.replicas == 0 || view.state.topics().is_empty();
    if waits && !late && (nodes == 0 || is_joining(&view.state)) {
        return Ok(None);
    }
    let config = with_defaults(wanted, nodes).map_err(|error| answer::invalid(error.to_string()))?;
    let placed = placement::place(config.partitions, config.replicas, targets, excluded);
    let placed = placed.map_err(|error| {
        ErrorDetail::not_written(Reason::NoPlacement, error.to_string())
            .retry_after(shared.settings.facts_fresh)
    })?;
    Ok(Some((config, placed)))
}

/// Whether a moment may bring more nodes to place on: some are still joining, fewer are online than are wanted,
/// this leader has not heard of all of them yet, or the way a volume fills just now raised its level.
fn may_grow(shared: &Shared, view: &View, wanted: u32) -> bool {
    let online: Vec<SpuId> = view
        .state
        .spus()
        .iter()
        .filter(|(_, spu)| spu.state == SpuState::Online)
        .map(|(id, _)| *id)
        .collect();
    is_joining(&view.state)
        || u32::try_from(online.len()).unwrap_or(u32::MAX) < wanted.max(1)
        || online.iter().any(|id| shared.facts.get(*id).is_none_or(|heard| is_filling(&heard.volumes)))
}

fn is_filling(volumes: &[v1::VolumeFacts]) -> bool {
    let filling = |facts: &v1::VolumeFacts| {
        matches!(facts.level().known(), Some(DiskLevel::Reclaim | DiskLevel::Throttle))
    };
    volumes.iter().any(filling)
}

fn is_joining(state: &ClusterState) -> bool {
    state.spus().values().any(|spu| spu.state == SpuState::Joining)
}

/// Partitions of the internal topic: so many nodes share the coordination of groups.
const OFFSETS_PARTITIONS: u32 = 4;
/// An area takes this part of the smallest volume that holds one.
const AREA_SHARE: u64 = 512;
const AREA_BYTES: std::ops::RangeInclusive<u64> = (256 << 10)..=(16 << 20);

/// The internal topic: on up to three nodes, synced before each acknowledgement.
fn offsets_config(offsets_area_bytes: u64) -> v1::TopicConfig {
    v1::TopicConfig {
        partitions: OFFSETS_PARTITIONS,
        flush: v1::FlushPolicy::Ack.into(),
        batch_bytes_max: 16 << 20,
        offsets_area_bytes,
        ..v1::TopicConfig::default()
    }
}

/// Areas as large as the smallest of the volumes allows: all copies of a partition have the same size.
fn offsets_config_for(
    shared: &Shared,
    config: v1::TopicConfig,
    placed: &[v1::PartitionPlacement],
) -> v1::TopicConfig {
    let since = shared.host.clock.now().saturating_sub(shared.settings.facts_fresh);
    let facts = shared.facts.volumes(since);
    let capacity = |replica: &v1::ReplicaAssignment| {
        let volume = VolumeId::from_slice(&replica.volume_id).ok()?;
        Some(facts.get(&(SpuId(replica.spu_id), volume))?.capacity_bytes)
    };
    let smallest = placed.iter().flat_map(|p| &p.replicas).filter_map(capacity).min().unwrap_or(0);
    let bytes = (smallest / AREA_SHARE).clamp(*AREA_BYTES.start(), *AREA_BYTES.end()).next_multiple_of(4096);
    v1::TopicConfig { offsets_area_bytes: bytes, ..config }
}

/// Refuses what only the system itself does to its topics.
pub(super) fn not_reserved(name: &TopicName) -> Result<(), ErrorDetail> {
    if is_internal(name.as_str()) { Err(reserved(name)) } else { Ok(()) }
}

fn reserved(name: &TopicName) -> ErrorDetail {
    let message = format!("{name} is reserved: names that begin with {INTERNAL_PREFIX} are the system's own");
    ErrorDetail::not_written(Reason::InvalidTopic, message)
}

/// Deletes a topic by name.
pub(super) async fn delete(
    shared: &Shared,
    request: v1::DeleteTopicRequest,
) -> Result<v1::DeleteTopicResponse, ErrorDetail> {
    let name = name(&request.name)?;
    not_reserved(&name)?;
    let view = shared.leading()?;
    let (id, _) = view.state.topic_by_name(name.as_str()).ok_or_else(|| unknown(&name))?;
    let change = Change::DeleteTopic(v1::DeleteTopicEntry { topic_id: id.to_bytes() });
    match shared.change(change).await {
        Ok((version, _)) => Ok(v1::DeleteTopicResponse { version }),
        // Somebody else deleted it in between.
        Err(detail) if detail.reason() == Reason::ExpectationFailed => Err(unknown(&name)),
        Err(detail) => Err(detail),
    }
}

pub(super) fn name(name: &str) -> Result<TopicName, ErrorDetail> {
    TopicName::new(name).map_err(|error| ErrorDetail::not_written(Reason::InvalidTopic, error.to_string()))
}

pub(super) fn unknown(name: &TopicName) -> ErrorDetail {
    ErrorDetail::not_written(Reason::UnknownTopic, format!("there is no topic {name}"))
}

fn exists(name: &TopicName) -> ErrorDetail {
    ErrorDetail::not_written(Reason::TopicExists, format!("topic {name} exists"))
}
