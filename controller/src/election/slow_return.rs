//! One leadership at a time: back to the preferred replica, and away from filling volumes.

use std::collections::BTreeMap;

use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{PartitionId, SpuId, VolumeId};

use super::is_eligible;
use crate::cluster::{ClusterState, Duty, Partition, Replica, SpuState};

/// Levels of volumes as last heard; a volume that is missing was not heard of.
pub type VolumeLevels = BTreeMap<(SpuId, VolumeId), DiskLevel>;

/// A leadership to move by a committed entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaderMove {
    /// The partition.
    pub partition: PartitionId,
    /// Who is to lead it.
    pub to: SpuId,
    /// Why, for events.
    pub reason: &'static str,
}

/// The next leadership worth moving: relief of filling volumes before a return to the preferred replica.
///
/// A target is online, eligible and on a volume known to be at Normal or Reclaim, so that a leadership does
/// not come to a volume that is about to give it away.
pub fn next_leader_move(state: &ClusterState, levels: &VolumeLevels) -> Option<LeaderMove> {
    let mut preferred = None;
    for (id, topic, partition) in state.partitions() {
        let Some(leader) = partition.leader_spu().and_then(|spu| partition.replica(spu)) else { continue };
        // What lives in the reserve does not make way.
        let in_reserve = topic.config.offsets_area_bytes > 0;
        if level(levels, leader) == Some(DiskLevel::Throttle) && !in_reserve {
            if let Some(to) = relief(state, levels, partition, leader) {
                return Some(LeaderMove { partition: id, to, reason: "volume is filling" });
            }
        } else if preferred.is_none() {
            preferred = partition
                .replicas
                .first()
                .filter(|first| first.spu != leader.spu && is_target(state, levels, partition, first))
                .map(|first| LeaderMove {
                    partition: id,
                    to: first.spu,
                    reason: "preferred replica is back",
                });
        }
    }
    preferred
}

fn relief(
    state: &ClusterState,
    levels: &VolumeLevels,
    partition: &Partition,
    leader: &Replica,
) -> Option<SpuId> {
    partition
        .replicas
        .iter()
        .filter(|replica| replica.spu != leader.spu && is_target(state, levels, partition, replica))
        .min_by_key(|replica| level(levels, replica))
        .map(|replica| replica.spu)
}

fn is_target(state: &ClusterState, levels: &VolumeLevels, partition: &Partition, replica: &Replica) -> bool {
    is_eligible(state, partition, replica)
        && state.spu_state(replica.spu) == SpuState::Online
        && state.duty(replica.spu) == Duty::Serving
        && level(levels, replica).is_some_and(|level| level <= DiskLevel::Reclaim)
}

fn level(levels: &VolumeLevels, replica: &Replica) -> Option<DiskLevel> {
    levels.get(&(replica.spu, replica.volume)).copied()
}
