//! Which replicas go where: off nodes that are drained, off volumes short of room, and where somebody says.
//!
//! Pure. A plan replaces replicas one for one and keeps the order of preference. Targets are the same as for new
//! replicas: volumes at level Normal of online nodes that serve.

use std::collections::BTreeSet;

use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{PartitionId, SpuId, VolumeId};

use super::{Excluded, Facts, NoPlacement, Target, pick, targets};
use crate::cluster::{ClusterState, Duty, MoveCause, Partition, VolumeState};

/// A partition that is to have other replicas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// The partition.
    pub partition: PartitionId,
    /// Where its replicas are.
    pub from: Vec<(SpuId, VolumeId)>,
    /// Where they are to be, in order of preference.
    pub to: Vec<(SpuId, VolumeId)>,
    /// Why.
    pub cause: MoveCause,
}

/// Whether a volume has so little room that replicas should leave it: at Throttle or ReadOnly, or write-offline.
/// A failed volume is not short of room.
pub fn is_short(state: &ClusterState, facts: &Facts, spu: SpuId, volume: VolumeId) -> bool {
    let offline = state
        .volume(spu, volume)
        .is_some_and(|volume| matches!(volume.state, VolumeState::WriteOffline { .. }));
    let level = facts.get(&(spu, volume)).filter(|facts| !facts.unknown).and_then(|f| f.level().known());
    let failed =
        state.volume(spu, volume).is_some_and(|volume| matches!(volume.state, VolumeState::Failed { .. }));
    !failed && (offline || matches!(level, Some(DiskLevel::Throttle | DiskLevel::ReadOnly)))
}

/// Moves that put the partition on these nodes. `None` when it is there already.
///
/// # Errors
/// [`NoPlacement`] when a node that has no replica yet can't hold a new one.
pub fn reassign(
    state: &ClusterState,
    facts: &Facts,
    partition: PartitionId,
    to: &[SpuId],
) -> Result<Option<Move>, NoPlacement> {
    let (targets, excluded) = targets(state, facts);
    let Some(current) = state.partition(partition) else { return Ok(None) };
    let mut places = Vec::new();
    for spu in to {
        let place = current.replica(*spu).map(|replica| replica.volume).or_else(|| {
            let own: Vec<Target> = targets.iter().filter(|target| target.spu == *spu).cloned().collect();
            pick(&own, &BTreeSet::new(), &BTreeSet::new()).map(|best| own[best].volume)
        });
        match place {
            Some(volume) => places.push((*spu, volume)),
            None => return Err(no_room(*spu, to.len(), excluded)),
        }
    }
    let from = current.places();
    let cause = MoveCause::Asked;
    Ok((from != places).then_some(Move { partition, from, to: places, cause }))
}

fn no_room(spu: SpuId, wanted: usize, excluded: Vec<Excluded>) -> NoPlacement {
    let mut excluded: Vec<_> = excluded.into_iter().filter(|excluded| excluded.spu == spu).collect();
    if excluded.is_empty() {
        excluded.push(Excluded { spu, path: String::new(), why: "no such node is registered".to_owned() });
    }
    let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
    NoPlacement { wanted, available: wanted.saturating_sub(1), excluded }
}

/// Moves off nodes that are drained, at most `limit`.
pub fn drains(state: &ClusterState, facts: &Facts, limit: usize) -> Vec<Move> {
    if limit == 0 || !state.spus().values().any(|spu| spu.duty == Duty::Draining) {
        return Vec::new();
    }
    let leaves = |spu: SpuId, _: VolumeId| state.duty(spu) == Duty::Draining;
    plan(state, facts, MoveCause::Drain, limit, leaves)
}

/// Moves off the given volumes, at most `limit` and one for each of them; none off a volume that a move leaves
/// already.
pub fn relief(
    state: &ClusterState,
    facts: &Facts,
    short: &BTreeSet<(SpuId, VolumeId)>,
    limit: usize,
) -> Vec<Move> {
    let mut open = short.clone();
    for (_, _, partition) in state.partitions() {
        if let Some(moving) = &partition.reassignment {
            open.retain(|place| !moving.from.contains(place) || moving.to.contains(place));
        }
    }
    if limit == 0 || open.is_empty() {
        return Vec::new();
    }
    let mut moves: Vec<Move> = Vec::new();
    // Replicas that only follow go first: leaderships make way by themselves.
    for leading in [false, true] {
        for (spu, volume) in &open {
            let place = (*spu, *volume);
            let leaves_it = |planned: &Move| planned.from.contains(&place) && !planned.to.contains(&place);
            let done = moves.iter().any(leaves_it);
            if done || moves.len() >= limit {
                continue;
            }
            let leaves = |s: SpuId, v: VolumeId| (s, v) == (*spu, *volume);
            let one = plan_where(state, facts, MoveCause::Relief, 1, leaves, |partition: &Partition| {
                (partition.leader_spu() == Some(*spu)) == leading
            });
            let taken = |new: &Move| moves.iter().any(|old| old.partition == new.partition);
            let new: Vec<Move> = one.into_iter().filter(|new| !taken(new)).collect();
            moves.extend(new);
        }
    }
    moves
}

fn plan(
    state: &ClusterState,
    facts: &Facts,
    cause: MoveCause,
    limit: usize,
    leaves: impl Fn(SpuId, VolumeId) -> bool,
) -> Vec<Move> {
    plan_where(state, facts, cause, limit, leaves, |_| true)
}

fn plan_where(
    state: &ClusterState,
    facts: &Facts,
    cause: MoveCause,
    limit: usize,
    leaves: impl Fn(SpuId, VolumeId) -> bool,
    concerned: impl Fn(&Partition) -> bool,
) -> Vec<Move> {
    let (mut targets, _) = targets(state, facts);
    targets.retain(|target| !leaves(target.spu, target.volume));
    let mut moves = Vec::new();
    for (id, _, partition) in state.partitions() {
        if moves.len() >= limit {
            break;
        }
        let leaving = partition.replicas.iter().any(|replica| leaves(replica.spu, replica.volume));
        if !leaving || partition.reassignment.is_some() || !concerned(partition) {
            continue;
        }
        let to = substituted(state, partition, &mut targets, &leaves);
        let from = partition.places();
        if from != to {
            moves.push(Move { partition: id, from, to, cause });
        }
    }
    moves
}

/// The replicas with a target in the place of each that leaves; one without a target stays.
fn substituted(
    state: &ClusterState,
    partition: &Partition,
    targets: &mut [Target],
    leaves: &impl Fn(SpuId, VolumeId) -> bool,
) -> Vec<(SpuId, VolumeId)> {
    let mut taken: BTreeSet<SpuId> = partition.replicas.iter().map(|replica| replica.spu).collect();
    let rack = |spu: SpuId| state.spu(spu).map_or("", |spu| spu.rack.as_str());
    let mut racks: BTreeSet<String> = partition
        .replicas
        .iter()
        .filter(|replica| !leaves(replica.spu, replica.volume))
        .map(|replica| rack(replica.spu).to_owned())
        .collect();
    let mut to = Vec::new();
    for replica in &partition.replicas {
        let best = leaves(replica.spu, replica.volume).then(|| {
            let racks: BTreeSet<&str> = racks.iter().map(String::as_str).collect();
            pick(targets, &taken, &racks)
        });
        match best.flatten() {
            Some(best) => {
                let target = &mut targets[best];
                target.replicas += 1;
                taken.insert(target.spu);
                racks.insert(target.rack.clone());
                to.push((target.spu, target.volume));
            }
            None => to.push((replica.spu, replica.volume)),
        }
    }
    to
}
