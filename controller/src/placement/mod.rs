//! Where new replicas go.
//!
//! Pure. A target is a volume that takes writes, at level Normal, of an online node whose facts are fresh.
//! Load is replicas per byte that is free, and a volume that fills counts for less; leaderships count per
//! replica. What is planned now already weighs for the next partition of the same topic.

mod moves;
#[cfg(test)]
mod moves_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{SpuId, VolumeId};
use plimsoll_proto::v1;

use crate::cluster::{ClusterState, Duty, SpuState};

pub use moves::{Move, drains, is_short, reassign, relief};

/// What nodes last reported of their volumes.
pub type Facts = BTreeMap<(SpuId, VolumeId), v1::VolumeFacts>;

/// A volume that would be full within this time counts for a quarter of its free bytes.
const FILLS_SOON_MS: u64 = 3_600_000;

/// A volume that may hold new replicas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Its node.
    pub spu: SpuId,
    /// The volume.
    pub volume: VolumeId,
    /// Failure domain of the node; empty for none, which is shared with nobody.
    pub rack: String,
    /// Free bytes, reduced for a volume that fills.
    pub weight: u64,
    /// Replicas it has.
    pub replicas: u64,
    /// Leaderships it has.
    pub leaders: u64,
}

/// No placement exists now. Nothing was changed; room, or another node, makes it possible later.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("replicas need nodes with room: {wanted} wanted, {available} there{}", Reasons(.excluded))]
pub struct NoPlacement {
    /// Replicas asked for.
    pub wanted: u32,
    /// Nodes with at least one target.
    pub available: u32,
    /// Which volumes are not targets, and why.
    pub excluded: Vec<Excluded>,
}

/// A volume that is no target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Excluded {
    /// Its node.
    pub spu: SpuId,
    /// Where it is mounted.
    pub path: String,
    /// Why.
    pub why: String,
}

struct Reasons<'a>(&'a [Excluded]);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, excluded) in self.0.iter().take(8).enumerate() {
            let lead = if i == 0 { ": not " } else { ", " };
            write!(f, "{lead}spu {} {} ({})", excluded.spu, excluded.path, excluded.why)?;
        }
        Ok(())
    }
}

/// Sorts volumes into targets and others.
pub fn targets(state: &ClusterState, facts: &Facts) -> (Vec<Target>, Vec<Excluded>) {
    let load = load(state);
    let (mut targets, mut excluded) = (Vec::new(), Vec::new());
    for (spu_id, spu) in state.spus() {
        for (volume_id, volume) in &spu.volumes {
            let reported = facts.get(&(*spu_id, *volume_id));
            let why = why_not(spu.state, spu.duty, volume.state.name(), reported);
            if let (None, Some(reported)) = (&why, reported) {
                let (replicas, leaders) = load.get(&(*spu_id, *volume_id)).copied().unwrap_or_default();
                targets.push(Target {
                    spu: *spu_id,
                    volume: *volume_id,
                    rack: spu.rack.clone(),
                    weight: weight(reported),
                    replicas: replicas.into(),
                    leaders: leaders.into(),
                });
            } else {
                let why = why.unwrap_or_default();
                excluded.push(Excluded { spu: *spu_id, path: volume.path.clone(), why });
            }
        }
    }
    (targets, excluded)
}

fn why_not(node: SpuState, duty: Duty, volume: &str, facts: Option<&v1::VolumeFacts>) -> Option<String> {
    if node != SpuState::Online {
        return Some(format!("node is {node}"));
    }
    if duty != Duty::Serving {
        return Some(format!("node is {duty}"));
    }
    if volume != "writable" {
        let level = facts.and_then(|facts| facts.level().known());
        let level = level.map(|level| format!(", level {level}")).unwrap_or_default();
        return Some(format!("volume is {volume}{level}"));
    }
    let Some(facts) = facts else { return Some("no facts yet".to_owned()) };
    match facts.level().known() {
        _ if facts.unknown => Some("sensor has no answer".to_owned()),
        None => Some("level not known".to_owned()),
        Some(DiskLevel::Normal) => None,
        Some(level) => Some(format!("level is {level}")),
    }
}

fn weight(facts: &v1::VolumeFacts) -> u64 {
    let soon = facts.time_to_full_ms > 0 && facts.time_to_full_ms < FILLS_SOON_MS;
    (if soon { facts.free_bytes / 4 } else { facts.free_bytes }).max(1)
}

/// Replicas and leaderships of each volume that has any, as committed.
pub fn load(state: &ClusterState) -> BTreeMap<(SpuId, VolumeId), (u32, u32)> {
    let mut load = BTreeMap::<_, (u32, u32)>::new();
    for (_, _, partition) in state.partitions() {
        for replica in &partition.replicas {
            let entry = load.entry((replica.spu, replica.volume)).or_default();
            entry.0 += 1;
            entry.1 += u32::from(partition.leader_spu() == Some(replica.spu));
        }
    }
    load
}

/// How many nodes have at least one target.
pub fn nodes(targets: &[Target]) -> u32 {
    let nodes: BTreeSet<_> = targets.iter().map(|target| target.spu).collect();
    u32::try_from(nodes.len()).unwrap_or(u32::MAX)
}

/// Places every replica of a new topic: at most one of a partition on a node, different racks while there
/// are any, evenly by load. The first replica of a partition is the one that leads.
///
/// # Errors
/// [`NoPlacement`] when fewer nodes than replicas have a target.
pub fn place(
    partitions: u32,
    replicas: u32,
    mut targets: Vec<Target>,
    excluded: Vec<Excluded>,
) -> Result<Vec<v1::PartitionPlacement>, NoPlacement> {
    let available = nodes(&targets);
    if available < replicas || replicas == 0 {
        return Err(NoPlacement { wanted: replicas, available, excluded });
    }
    Ok((0..partitions).map(|_| place_one(replicas, &mut targets)).collect())
}

fn place_one(replicas: u32, targets: &mut [Target]) -> v1::PartitionPlacement {
    let mut chosen: Vec<usize> = Vec::new();
    for _ in 0..replicas {
        let taken: BTreeSet<_> = chosen.iter().map(|c| targets[*c].spu).collect();
        let racks: BTreeSet<_> = chosen.iter().map(|c| targets[*c].rack.as_str()).collect();
        let Some(best) = pick(targets, &taken, &racks) else { break };
        targets[best].replicas += 1;
        chosen.push(best);
    }
    // Leading costs a node its processor and network, not room: each leads its part of the replicas it has.
    chosen.sort_by_key(|i| {
        let target = &targets[*i];
        (share(target.leaders, target.replicas), share(target.replicas, target.weight), target.spu)
    });
    if let Some(first) = chosen.first() {
        targets[*first].leaders += 1;
    }
    let replicas = chosen
        .iter()
        .map(|i| v1::ReplicaAssignment {
            spu_id: targets[*i].spu.0,
            volume_id: targets[*i].volume.to_bytes(),
        })
        .collect();
    v1::PartitionPlacement { replicas }
}

/// The target with the least load on a node that is not taken, in a rack that is not taken while there is one.
fn pick(targets: &[Target], taken: &BTreeSet<SpuId>, racks: &BTreeSet<&str>) -> Option<usize> {
    (0..targets.len()).filter(|i| !taken.contains(&targets[*i].spu)).min_by_key(|i| {
        let target = &targets[*i];
        let rack_taken = !target.rack.is_empty() && racks.contains(target.rack.as_str());
        (rack_taken, share(target.replicas, target.weight), target.spu, target.volume)
    })
}

/// Load after one more, in units that compare: count per unit of weight.
fn share(count: u64, weight: u64) -> u128 {
    (u128::from(count) + 1) * (1 << 64) / u128::from(weight.max(1))
}

#[cfg(test)]
mod tests;
