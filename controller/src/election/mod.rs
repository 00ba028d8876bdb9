//! Who leads a partition and who is in its in-sync set, given the state of nodes and volumes.
//!
//! Pure. [`settle`] brings one partition to its normal form; it is a fixed point, so applying it once more
//! changes nothing. The rules, in order:
//!
//! 1. A leader stays while its node is live, its volume takes writes and its page cache is whole.
//! 2. Otherwise leadership moves to an in-sync replica on a writable volume of a live node, by state of the
//!    node, then by replica order. Without one a leader on a full volume stays, serves reads and refuses.
//! 3. Where the leader can't even serve reads (its node is offline, its volume failed or stalled, its page cache
//!    lost), an eligible replica outside of the set leads, then anybody complete who can be read from.
//! 4. A replica that lost its page cache does not lead while another may come back that did not: a member or an
//!    eligible one. When none is left and all have reported, the greatest (leader epoch, log end) leads, and the
//!    partition notes that committed records may be lost.
//! 5. Under a live leader, members on offline nodes or failed volumes, and members that lost their page
//!    cache, leave the set; members on full or stalled volumes leave it while `min_in_sync` remain. The
//!    leader never leaves, so the set is never empty.
//! 6. Who leaves a set below its minimum stays eligible, since a set below its minimum commits nothing
//!    ([`remember_eligible`]).

mod eligible;
mod risk;
mod slow_return;

use plimsoll_proto::ids::{LeaderEpoch, PartitionEpoch, SpuId, VolumeId};
use plimsoll_proto::v1;

use crate::cluster::{ClusterState, Duty, Partition, Replica, SpuState, VolumeState};

pub use eligible::remember_eligible;
pub use risk::{Candidates, at_risk, candidates, is_clean};
pub use slow_return::{LeaderMove, VolumeLevels, next_leader_move};

/// The partition after the rules above. Epochs are left to [`raise_epochs`], so that the steps of one entry raise
/// them once.
pub fn settle(state: &ClusterState, rules: impl Into<Rules>, partition: &Partition) -> Partition {
    let rules = rules.into();
    let mut next = partition.clone();
    choose_leader(state, rules, &mut next);
    if next.leader_spu().is_some_and(|leader| state.spu_state(leader).is_live()) {
        dismiss_members(state, rules, &mut next);
    }
    remember_eligible(rules.min_in_sync, partition, &mut next);
    next
}

/// What a topic asks of its sets and leaders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Members that a set needs to commit.
    pub min_in_sync: u32,
    /// Its replicas live in the physical reserve: a full volume is as good as another.
    pub in_reserve: bool,
}

impl From<u32> for Rules {
    fn from(min_in_sync: u32) -> Self {
        Self { min_in_sync, in_reserve: false }
    }
}

impl From<&v1::TopicConfig> for Rules {
    fn from(config: &v1::TopicConfig) -> Self {
        Self { min_in_sync: config.min_in_sync, in_reserve: config.offsets_area_bytes > 0 }
    }
}

impl Rules {
    /// Whether replicas on the volume take what these topics write.
    pub fn takes_writes(self, state: &ClusterState, spu: SpuId, volume: VolumeId) -> bool {
        match state.volume(spu, volume).map(|volume| &volume.state) {
            Some(VolumeState::Writable) => true,
            Some(VolumeState::WriteOffline { .. }) => self.in_reserve,
            Some(VolumeState::Stalled { .. } | VolumeState::Failed { .. }) | None => false,
        }
    }
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
    debug_assert!(after.eligible.is_disjoint(&after.in_sync), "members are not eligible besides");
    after
}

/// Whether the replica may be given the leadership: in sync, cache whole, writable volume, live node.
pub fn is_eligible(state: &ClusterState, partition: &Partition, replica: &Replica) -> bool {
    partition.in_sync.contains(&replica.spu)
        && replica.cache_lost.is_none()
        && state.is_writable(replica.spu, replica.volume)
        && state.spu_state(replica.spu).is_live()
}

fn choose_leader(state: &ClusterState, rules: Rules, partition: &mut Partition) {
    let current = partition.leader_spu();
    let standing = current.and_then(|spu| partition.replica(spu)).map(|r| standing(state, rules, r));
    let elected = match standing {
        Some(Standing::Good) => current,
        Some(Standing::Leaving) => candidate(state, rules, partition, |s| s < SpuState::Suspect).or(current),
        Some(Standing::Full) => candidate(state, rules, partition, SpuState::is_live).or(current),
        Some(Standing::Away) => complete_candidate(state, rules, partition).or(current),
        Some(Standing::CacheLost) | None => complete_candidate(state, rules, partition)
            .or_else(|| member(state, partition, |_| true))
            .or_else(|| greatest_after_cache_loss(state, partition)),
    };
    if let Some(elected) = elected.filter(|elected| !partition.in_sync.contains(elected)) {
        // Members that lost their page cache may hold less than it does.
        let lost = |spu: &SpuId| partition.replica(*spu).is_none_or(|replica| replica.cache_lost.is_some());
        let whole = partition.in_sync.iter().copied().filter(|spu| !lost(spu)).chain([elected]).collect();
        partition.in_sync = whole;
        partition.eligible.remove(&elected);
    }
    partition.leader = elected.and_then(|spu| Some((spu, state.incarnation(spu)?)));
}

enum Standing {
    Good,
    /// Fine, but about to stop.
    Leaving,
    /// Serves reads, takes no writes.
    Full,
    /// Does not even serve reads.
    Away,
    CacheLost,
}

fn standing(state: &ClusterState, rules: Rules, leader: &Replica) -> Standing {
    let node = state.spu_state(leader.spu);
    if leader.cache_lost.is_some() {
        return Standing::CacheLost;
    }
    if !node.is_live() {
        return Standing::Away;
    }
    match state.volume(leader.spu, leader.volume).map(|volume| &volume.state) {
        None | Some(VolumeState::Failed { .. } | VolumeState::Stalled { .. }) => Standing::Away,
        Some(VolumeState::WriteOffline { .. }) if !rules.in_reserve => Standing::Full,
        Some(VolumeState::Writable | VolumeState::WriteOffline { .. }) if node == SpuState::Draining => {
            Standing::Leaving
        }
        Some(VolumeState::Writable | VolumeState::WriteOffline { .. }) => Standing::Good,
    }
}

/// The best replica that holds everything committed and can be read from: members before eligible ones, but first
/// of all on a volume that takes writes.
fn complete_candidate(state: &ClusterState, rules: Rules, partition: &Partition) -> Option<SpuId> {
    let writable = |replica: &Replica| rules.takes_writes(state, replica.spu, replica.volume);
    let readable = |replica: &Replica| {
        let volume = state.volume(replica.spu, replica.volume).map(|volume| &volume.state);
        matches!(volume, Some(VolumeState::Writable | VolumeState::WriteOffline { .. }))
    };
    member(state, partition, writable)
        .or_else(|| eligible_one(state, partition, writable))
        .or_else(|| member(state, partition, readable))
        .or_else(|| eligible_one(state, partition, readable))
}

fn member(state: &ClusterState, partition: &Partition, fit: impl Fn(&Replica) -> bool) -> Option<SpuId> {
    best(state, partition, |replica| partition.in_sync.contains(&replica.spu) && fit(replica))
}

fn eligible_one(
    state: &ClusterState,
    partition: &Partition,
    fit: impl Fn(&Replica) -> bool,
) -> Option<SpuId> {
    best(state, partition, |replica| partition.eligible.contains(&replica.spu) && fit(replica))
}

/// The one on the best node among those with a whole page cache on live nodes; earlier replicas first.
fn best(state: &ClusterState, partition: &Partition, fit: impl Fn(&Replica) -> bool) -> Option<SpuId> {
    partition
        .replicas
        .iter()
        .filter(|replica| replica.cache_lost.is_none() && state.spu_state(replica.spu).is_live())
        .filter(|replica| fit(replica))
        .min_by_key(|replica| rank(state, replica.spu))
        .map(|replica| replica.spu)
}

/// How willingly a node is given leaderships; lower is better.
fn rank(state: &ClusterState, spu: SpuId) -> u8 {
    match state.spu_state(spu) {
        SpuState::Online if state.duty(spu) == Duty::Serving => 0,
        // It may be gone in a moment, and with it the leadership.
        SpuState::Joining if state.duty(spu) == Duty::Serving => 1,
        SpuState::Joining | SpuState::Online => 2,
        SpuState::Suspect => 3,
        SpuState::Draining => 4,
        SpuState::Offline => 5,
    }
}

fn candidate(
    state: &ClusterState,
    rules: Rules,
    partition: &Partition,
    fit: impl Fn(SpuState) -> bool,
) -> Option<SpuId> {
    let fit = |replica: &Replica| {
        rules.takes_writes(state, replica.spu, replica.volume) && fit(state.spu_state(replica.spu))
    };
    member(state, partition, fit)
}

/// The replica with the most, once nobody complete is left whose page cache may be whole, and all have reported. It
/// leads alone: the others rejoin when they have caught up with it.
fn greatest_after_cache_loss(state: &ClusterState, partition: &mut Partition) -> Option<SpuId> {
    let lost = |spu: &SpuId| partition.replica(*spu).and_then(|replica| replica.cache_lost);
    if !partition.in_sync.iter().chain(&partition.eligible).all(|spu| lost(spu).is_some()) {
        return None;
    }
    let greatest = partition.replicas.iter().filter_map(|replica| replica.cache_lost).max()?;
    let winner = partition
        .replicas
        .iter()
        .find(|replica| replica.cache_lost == Some(greatest) && state.spu_state(replica.spu).is_live())?
        .spu;
    lead_alone(partition, winner);
    Some(winner)
}

/// Makes the partition that of one replica, whatever it lacks. To be followed by the change of its leader, which
/// raises the leader epoch to the one noted here.
pub(crate) fn lead_alone(partition: &mut Partition, winner: SpuId) {
    for replica in partition.replicas.iter_mut().filter(|replica| replica.spu == winner) {
        replica.cache_lost = None;
    }
    partition.in_sync = [winner].into();
    partition.eligible.clear();
    partition.lossy_epoch = LeaderEpoch(partition.leader_epoch.0.saturating_add(1));
}

fn dismiss_members(state: &ClusterState, rules: Rules, partition: &mut Partition) {
    let minimum = usize::try_from(rules.min_in_sync).unwrap_or(usize::MAX);
    let leader = partition.leader_spu();
    let volume = |replica: &Replica| state.volume(replica.spu, replica.volume).map(|volume| &volume.state);
    // Those that are no help first: they must not count as remaining below.
    for replica in partition.replicas.iter().filter(|replica| Some(replica.spu) != leader) {
        let broken = matches!(volume(replica), None | Some(VolumeState::Failed { .. }));
        if broken || !state.spu_state(replica.spu).is_live() || replica.cache_lost.is_some() {
            partition.in_sync.remove(&replica.spu);
        }
    }
    for replica in partition.replicas.iter().rev().filter(|replica| Some(replica.spu) != leader) {
        let slow = match volume(replica) {
            Some(VolumeState::WriteOffline { .. }) => !rules.in_reserve,
            Some(VolumeState::Stalled { .. }) => true,
            Some(VolumeState::Writable | VolumeState::Failed { .. }) | None => false,
        };
        if slow && partition.in_sync.contains(&replica.spu) && partition.in_sync.len() > minimum {
            partition.in_sync.remove(&replica.spu);
        }
    }
}
