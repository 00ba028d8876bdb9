//! Who leads a partition and who is in its in-sync set, given the state of nodes and volumes.
//!
//! Pure. [`settle`] brings one partition to its normal form; it is a fixed point, so applying it once more
//! changes nothing. The rules, in order:
//!
//! 1. A leader stays while its node is live, its volume takes writes and its page cache is whole.
//! 2. Otherwise leadership moves to an in-sync replica on a writable volume of a live node, by state of the
//!    node, then by replica order. Without one the leader stays, serves reads and refuses.
//! 3. A replica that lost its page cache does not lead while another may come back that did not. When every
//!    member lost it and all have reported, the greatest (leader epoch, log end) leads.
//! 4. Under a live leader, members on offline nodes or failed volumes, and members that lost their page
//!    cache, leave the set; members on full or stalled volumes leave it while `min_in_sync` remain. The
//!    leader never leaves, so the set is never empty.

mod slow_return;

use plimsoll_proto::ids::{LeaderEpoch, PartitionEpoch, SpuId};

use crate::cluster::{ClusterState, Partition, Replica, SpuState, VolumeState};

pub use slow_return::{LeaderMove, VolumeLevels, next_leader_move};

/// The partition after the rules above. Epochs are left to [`raise_epochs`], so that the steps of one entry raise
/// them once.
pub fn settle(state: &ClusterState, min_in_sync: u32, partition: &Partition) -> Partition {
    let mut next = partition.clone();
    choose_leader(state, &mut next);
    if next.leader_spu().is_some_and(|leader| state.spu_state(leader).is_live()) {
        dismiss_members(state, min_in_sync, &mut next);
    }
    next
}

/// Raises the epochs of `after` where it differs from `before`.
pub fn raise_epochs(before: &Partition, mut after: Partition) -> Partition {
    if after.leader != before.leader {
        after.leader_epoch = LeaderEpoch(before.leader_epoch.0.saturating_add(1));
    }
    if after != *before {
        after.partition_epoch = PartitionEpoch(before.partition_epoch.0.saturating_add(1));
    }
    debug_assert!(!after.in_sync.is_empty(), "an in-sync set is never empty");
    debug_assert!(after.leader_spu().is_none_or(|leader| after.in_sync.contains(&leader)));
    after
}

/// Whether the replica may be given the leadership: in sync, cache whole, writable volume, live node.
pub fn is_eligible(state: &ClusterState, partition: &Partition, replica: &Replica) -> bool {
    partition.in_sync.contains(&replica.spu)
        && replica.cache_lost.is_none()
        && state.is_writable(replica.spu, replica.volume)
        && state.spu_state(replica.spu).is_live()
}

fn choose_leader(state: &ClusterState, partition: &mut Partition) {
    let current = partition.leader_spu();
    let standing = current.and_then(|spu| partition.replica(spu)).map(|r| standing(state, r));
    let elected = match standing {
        Some(Standing::Good) => current,
        Some(Standing::Leaving) => candidate(state, partition, |s| s < SpuState::Suspect).or(current),
        Some(Standing::Unfit) => candidate(state, partition, SpuState::is_live).or(current),
        Some(Standing::CacheLost) | None => candidate(state, partition, SpuState::is_live)
            .or_else(|| readable_candidate(state, partition))
            .or_else(|| greatest_after_cache_loss(state, partition)),
    };
    partition.leader = elected.and_then(|spu| Some((spu, state.incarnation(spu)?)));
}

enum Standing {
    Good,
    /// Fine, but about to stop.
    Leaving,
    Unfit,
    CacheLost,
}

fn standing(state: &ClusterState, leader: &Replica) -> Standing {
    let node = state.spu_state(leader.spu);
    if leader.cache_lost.is_some() {
        Standing::CacheLost
    } else if !node.is_live() || !state.is_writable(leader.spu, leader.volume) {
        Standing::Unfit
    } else if node == SpuState::Draining {
        Standing::Leaving
    } else {
        Standing::Good
    }
}

/// How willingly a node in that state is given leaderships; lower is better.
fn rank(state: SpuState) -> u8 {
    match state {
        SpuState::Joining | SpuState::Online => 0,
        SpuState::Suspect => 1,
        SpuState::Draining => 2,
        SpuState::Offline => 3,
    }
}

fn candidate(state: &ClusterState, partition: &Partition, fit: impl Fn(SpuState) -> bool) -> Option<SpuId> {
    partition
        .replicas
        .iter()
        .filter(|replica| is_eligible(state, partition, replica) && fit(state.spu_state(replica.spu)))
        .min_by_key(|replica| rank(state.spu_state(replica.spu)))
        .map(|replica| replica.spu)
}

/// Where nobody leads, a member on a full volume is better than none: it serves reads.
fn readable_candidate(state: &ClusterState, partition: &Partition) -> Option<SpuId> {
    partition
        .replicas
        .iter()
        .filter(|replica| partition.in_sync.contains(&replica.spu) && replica.cache_lost.is_none())
        .filter(|replica| state.spu_state(replica.spu).is_live())
        .min_by_key(|replica| rank(state.spu_state(replica.spu)))
        .map(|replica| replica.spu)
}

/// The replica with the most, once every member of the set reported that it lost its page cache. It leads
/// alone: the others rejoin when they have caught up with it.
fn greatest_after_cache_loss(state: &ClusterState, partition: &mut Partition) -> Option<SpuId> {
    let lost = |spu: &SpuId| partition.replica(*spu).and_then(|replica| replica.cache_lost);
    if !partition.in_sync.iter().all(|spu| lost(spu).is_some()) {
        return None;
    }
    let greatest = partition.replicas.iter().filter_map(|replica| replica.cache_lost).max()?;
    let winner = partition
        .replicas
        .iter_mut()
        .find(|replica| replica.cache_lost == Some(greatest) && state.spu_state(replica.spu).is_live())?;
    winner.cache_lost = None;
    partition.in_sync = [winner.spu].into();
    Some(winner.spu)
}

fn dismiss_members(state: &ClusterState, min_in_sync: u32, partition: &mut Partition) {
    let minimum = usize::try_from(min_in_sync).unwrap_or(usize::MAX);
    for replica in partition.replicas.iter().rev() {
        if partition.leader_spu() == Some(replica.spu) || !partition.in_sync.contains(&replica.spu) {
            continue;
        }
        let remaining = partition.in_sync.len() - 1;
        let leaves = match state.volume(replica.spu, replica.volume).map(|volume| &volume.state) {
            None | Some(VolumeState::Failed { .. }) => true,
            _ if !state.spu_state(replica.spu).is_live() || replica.cache_lost.is_some() => true,
            Some(VolumeState::WriteOffline { .. } | VolumeState::Stalled { .. }) => remaining >= minimum,
            Some(VolumeState::Writable) => false,
        };
        if leaves {
            partition.in_sync.remove(&replica.spu);
        }
    }
}
