//! Moving replicas as people ask for it.

use plimsoll_proto::ids::{PartitionId, SpuId, VolumeId};
use plimsoll_proto::v1::{self, ErrorDetail, Reason, entry::Change};

use super::shared::Shared;
use super::{answer, topics};
use crate::cluster::{ClusterState, MoveCause, Outcome, REPLICAS_MAX};
use crate::placement::{self, Move};

/// Moves one partition, plans it, or calls its move off.
pub(super) async fn reassign(
    shared: &Shared,
    request: v1::ReassignRequest,
) -> Result<v1::ReassignResponse, ErrorDetail> {
    let name = topics::name(&request.topic)?;
    let view = shared.leading()?;
    let (topic_id, topic) = view.state.topic_by_name(name.as_str()).ok_or_else(|| topics::unknown(&name))?;
    let id = PartitionId { topic_id, index: request.partition };
    if view.state.partition(id).is_none() {
        let text = format!("there is no partition {} of topic {name}", request.partition);
        return Err(ErrorDetail::not_written(Reason::UnknownPartition, text));
    }
    if request.cancel {
        let version = cancel(shared, &view.state, id).await?;
        return Ok(v1::ReassignResponse { r#move: None, version });
    }
    let to = wanted(&request.to, topic.config.min_in_sync)?;
    let since = shared.host.clock.now().saturating_sub(shared.settings.facts_fresh);
    let planned = placement::reassign(&view.state, &shared.facts.volumes(since), id, &to);
    let planned = planned.map_err(|error| {
        ErrorDetail::not_written(Reason::NoPlacement, error.to_string())
            .retry_after(shared.settings.facts_fresh)
    })?;
    let version = view.state.version().0;
    let Some(planned) = planned else { return Ok(v1::ReassignResponse { r#move: None, version }) };
    let shown = to_wire(&view.state, &planned);
    if request.dry_run {
        return Ok(v1::ReassignResponse { r#move: Some(shown), version });
    }
    let change = start(&view.state, &planned).ok_or_else(|| answer::invalid("the partition is gone"))?;
    let (version, _) = shared.change(change).await?;
    Ok(v1::ReassignResponse { r#move: Some(shown), version })
}

fn wanted(to: &[u32], min_in_sync: u32) -> Result<Vec<SpuId>, ErrorDetail> {
    let to: Vec<SpuId> = to.iter().copied().map(SpuId).collect();
    let count = u32::try_from(to.len()).unwrap_or(u32::MAX);
    let twice = (0..to.len()).any(|at| to[..at].contains(&to[at]));
    if twice || !(min_in_sync.max(1)..=REPLICAS_MAX).contains(&count) {
        return Err(answer::invalid(format!(
            "name each node once, and at least as many as must be in sync ({min_in_sync})"
        )));
    }
    Ok(to)
}

async fn cancel(shared: &Shared, state: &ClusterState, id: PartitionId) -> Result<u64, ErrorDetail> {
    let partition = state.partition(id).filter(|partition| partition.reassignment.is_some());
    let Some(partition) = partition else {
        let text = "the partition is not on its way anywhere";
        return Err(ErrorDetail::not_written(Reason::ExpectationFailed, text));
    };
    if partition.reassignment.as_ref().is_some_and(|moving| moving.cause == MoveCause::Relief) {
        shared.hold_relief();
    }
    let change = v1::CancelReassignment {
        topic_id: id.topic_id.to_bytes(),
        partition: id.index,
        partition_epoch: partition.partition_epoch.0,
        reason: "called off".to_owned(),
    };
    Ok(shared.change(Change::CancelReassignment(change)).await?.0)
}

/// Moves replicas off volumes short of room now, plans it, or calls it off.
pub(super) async fn relieve(
    shared: &Shared,
    request: v1::RelieveRequest,
) -> Result<v1::RelieveResponse, ErrorDetail> {
    let view = shared.leading()?;
    let mut version = view.state.version().0;
    let mut moves = Vec::new();
    if request.cancel {
        shared.hold_relief();
        let relieving: Vec<PartitionId> = view
            .state
            .partitions()
            .filter(|(_, _, p)| p.reassignment.as_ref().is_some_and(|m| m.cause == MoveCause::Relief))
            .map(|(id, _, _)| id)
            .collect();
        for id in relieving {
            let state = shared.raft.view().state.clone();
            let Some(moving) = state.partition(id).and_then(|p| p.reassignment.clone()) else { continue };
            let back = Move { partition: id, from: moving.to, to: moving.from, cause: moving.cause };
            version = cancel(shared, &state, id).await?;
            moves.push(to_wire(&state, &back));
        }
        return Ok(v1::RelieveResponse { moves, version });
    }
    let since = shared.host.clock.now().saturating_sub(shared.settings.facts_fresh);
    let facts = shared.facts.volumes(since);
    let short = short_volumes(&view.state, &facts);
    for planned in placement::relief(&view.state, &facts, &short, usize::MAX) {
        if !request.dry_run {
            let state = shared.raft.view().state.clone();
            let Some(change) = start(&state, &planned) else { continue };
            let proposed = shared.propose(change).await?;
            version = proposed.index;
            if !matches!(proposed.applied, Outcome::Changed(_)) {
                continue;
            }
        }
        moves.push(to_wire(&view.state, &planned));
    }
    Ok(v1::RelieveResponse { moves, version })
}

/// Every volume with so little room that replicas should leave it.
pub(super) fn short_volumes(
    state: &ClusterState,
    facts: &placement::Facts,
) -> std::collections::BTreeSet<(SpuId, VolumeId)> {
    let volumes = state.spus().iter().flat_map(|(id, spu)| spu.volumes.keys().map(|volume| (*id, *volume)));
    volumes.filter(|(spu, volume)| placement::is_short(state, facts, *spu, *volume)).collect()
}

/// The entry that begins a move; `None` when the partition is gone.
pub(super) fn start(state: &ClusterState, planned: &Move) -> Option<Change> {
    let partition = state.partition(planned.partition)?;
    Some(Change::StartReassignment(v1::StartReassignment {
        topic_id: planned.partition.topic_id.to_bytes(),
        partition: planned.partition.index,
        partition_epoch: partition.partition_epoch.0,
        to: assignments(&planned.to),
        cause: planned.cause.to_wire().into(),
    }))
}

fn to_wire(state: &ClusterState, planned: &Move) -> v1::PartitionMove {
    v1::PartitionMove {
        topic_id: planned.partition.topic_id.to_bytes(),
        topic: state.topic(planned.partition.topic_id).map(|topic| topic.name.clone()).unwrap_or_default(),
        partition: planned.partition.index,
        from: assignments(&planned.from),
        to: assignments(&planned.to),
        cause: planned.cause.to_wire().into(),
    }
}

fn assignments(places: &[(SpuId, VolumeId)]) -> Vec<v1::ReplicaAssignment> {
    let assignment = |(spu, volume): &(SpuId, VolumeId)| v1::ReplicaAssignment {
        spu_id: spu.0,
        volume_id: volume.to_bytes(),
    };
    places.iter().map(assignment).collect()
}
