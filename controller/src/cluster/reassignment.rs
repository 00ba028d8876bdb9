//! Partitions that move to other nodes: replicas are added, and the old ones go once the new ones are in sync.
//!
//! ```text
//! replicas  1 2 3  --start--> 1 2 3 4 5  (4, 5 catch up, join the set)  --finish--> 1 4 5
//!                                        --cancel--> 1 2 3
//! ```
//! Adding replicas begins a new leader epoch. What a leader knows of a follower counts within one epoch only, so
//! nothing that a node told of a replica it had before, and that is deleted, can count for the new one.

use std::collections::BTreeSet;

use plimsoll_proto::ids::{LeaderEpoch, PartitionEpoch, PartitionId, SpuId, VolumeId};
use plimsoll_proto::v1;

use super::apply::{Applying, Effect, expect, partition_id};
use super::expectation::Mismatch;
use super::node::{Duty, SpuState};
use super::partition::{MoveCause, Partition, Reassignment, Replica};
use super::state::ClusterState;
use super::topic::REPLICAS_MAX;
use crate::election;

impl ClusterState {
    /// Whether every new replica is in sync, and enough of them can be written, so that the old ones may go.
    pub fn may_finish(&self, min_in_sync: u32, partition: &Partition) -> bool {
        let Some(moving) = &partition.reassignment else { return false };
        let led = partition.leader_spu().is_some_and(|leader| self.spu_state(leader).is_live());
        let in_sync = moving.to.iter().all(|(spu, _)| partition.in_sync.contains(spu));
        let fit = moving.to.iter().filter(|(spu, volume)| {
            self.spu_state(*spu).is_live()
                && self.is_writable(*spu, *volume)
                && partition.replica(*spu).is_some_and(|replica| replica.cache_lost.is_none())
        });
        led && in_sync && fit.count() >= usize::try_from(min_in_sync).unwrap_or(usize::MAX).max(1)
    }

    /// Whether a node may be given new replicas on this volume, as far as was agreed on.
    pub fn may_hold_new(&self, spu: SpuId, volume: VolumeId) -> bool {
        matches!(self.spu_state(spu), SpuState::Online | SpuState::Suspect)
            && self.duty(spu) == Duty::Serving
            && self.is_writable(spu, volume)
    }
}

/// The partition without the replicas that were added.
///
/// # Errors
/// `NoMove`; `LastCopy` when only added ones live and are in sync.
pub(super) fn called_off(state: &ClusterState, partition: &Partition) -> Result<Partition, Mismatch> {
    let moving = partition.reassignment.as_ref().ok_or(Mismatch::NoMove)?;
    let mut next = with_replicas(partition, &moving.from);
    let lives = |spu: &SpuId| state.spu_state(*spu).is_live();
    let kept = next.in_sync.iter().any(lives) || !partition.in_sync.iter().any(lives);
    expect(kept && !next.in_sync.is_empty(), Mismatch::LastCopy)?;
    next.reassignment = None;
    Ok(next)
}

/// Just these replicas, in this order; the in-sync set loses the others.
fn with_replicas(partition: &Partition, places: &[(SpuId, VolumeId)]) -> Partition {
    let mut next = partition.clone();
    let kept = |(spu, volume): &(SpuId, VolumeId)| {
        partition.replica(*spu).cloned().unwrap_or(Replica { spu: *spu, volume: *volume, cache_lost: None })
    };
    next.replicas = places.iter().map(kept).collect();
    next.in_sync.retain(|spu| places.iter().any(|(kept, _)| kept == spu));
    next.eligible.retain(|spu| places.iter().any(|(kept, _)| kept == spu));
    next
}

impl Applying<'_> {
    pub(super) fn start_reassignment(&mut self, change: &v1::StartReassignment) -> Result<Effect, Mismatch> {
        let (id, partition) = self.at_epoch(&change.topic_id, change.partition, change.partition_epoch)?;
        let cause = MoveCause::from_wire(change.cause()).ok_or(Mismatch::Malformed)?;
        expect(partition.reassignment.is_none(), Mismatch::MoveUnderWay)?;
        let to = self.checked_places(id, partition, &change.to)?;
        let from = partition.places();
        expect(from != to, Mismatch::Unchanged)?;
        let mut next = partition.clone();
        let added: Vec<_> = to.iter().filter(|(spu, _)| !partition.is_on(*spu)).copied().collect();
        next.replicas.extend(added.iter().map(|(spu, volume)| Replica {
            spu: *spu,
            volume: *volume,
            cache_lost: None,
        }));
        next.reassignment = Some(Reassignment { to, from, cause, since_index: self.index });
        let mut next = election::raise_epochs(partition, self.state.settled(id, &next));
        if !added.is_empty() {
            next.leader_epoch = LeaderEpoch(partition.leader_epoch.0.saturating_add(1));
        }
        self.store_move(id, next, "reassignment_started", cause.name());
        Ok(Effect::Done)
    }

    pub(super) fn finish_reassignment(
        &mut self,
        change: &v1::FinishReassignment,
    ) -> Result<Effect, Mismatch> {
        let (id, partition) = self.at_epoch(&change.topic_id, change.partition, change.partition_epoch)?;
        let moving = partition.reassignment.clone().ok_or(Mismatch::NoMove)?;
        let minimum = self.state.topic(id.topic_id).map_or(1, |topic| topic.config.min_in_sync);
        expect(self.state.may_finish(minimum, partition), Mismatch::NotInSyncYet)?;
        let mut next = with_replicas(partition, &moving.to);
        next.reassignment = None;
        let next = election::raise_epochs(partition, self.state.settled(id, &next));
        self.store_move(id, next, "reassignment_finished", moving.cause.name());
        Ok(Effect::Done)
    }

    pub(super) fn cancel_reassignment(
        &mut self,
        change: &v1::CancelReassignment,
    ) -> Result<Effect, Mismatch> {
        let (id, partition) = self.at_epoch(&change.topic_id, change.partition, change.partition_epoch)?;
        let next = called_off(self.state, partition)?;
        let next = election::raise_epochs(partition, self.state.settled(id, &next));
        self.store_move(id, next, "reassignment_cancelled", &change.reason);
        Ok(Effect::Done)
    }

    fn at_epoch(
        &self,
        topic_id: &[u8],
        index: u32,
        epoch: u32,
    ) -> Result<(PartitionId, &Partition), Mismatch> {
        let id = partition_id(topic_id, index)?;
        let partition = self.state.partition(id).ok_or(Mismatch::UnknownPartition)?;
        expect(partition.partition_epoch == PartitionEpoch(epoch), Mismatch::StalePartitionEpoch)?;
        Ok((id, partition))
    }

    /// Replicas that stay keep their volume; those that come need a node and a volume that may hold new ones.
    fn checked_places(
        &self,
        id: PartitionId,
        partition: &Partition,
        to: &[v1::ReplicaAssignment],
    ) -> Result<Vec<(SpuId, VolumeId)>, Mismatch> {
        let minimum = self.state.topic(id.topic_id).map_or(1, |topic| topic.config.min_in_sync).max(1);
        let count = u32::try_from(to.len()).unwrap_or(u32::MAX);
        expect((minimum..=REPLICAS_MAX).contains(&count), Mismatch::Malformed)?;
        let mut seen = BTreeSet::new();
        let mut places = Vec::new();
        for assignment in to {
            let spu = SpuId(assignment.spu_id);
            let volume = VolumeId::from_slice(&assignment.volume_id).map_err(|_| Mismatch::Malformed)?;
            expect(seen.insert(spu), Mismatch::Malformed)?;
            let fit = match partition.replica(spu) {
                Some(replica) => replica.volume == volume,
                None => self.state.may_hold_new(spu, volume),
            };
            expect(fit, Mismatch::PlacementChanged)?;
            places.push((spu, volume));
        }
        Ok(places)
    }

    /// Stores the partition and tells of the move, then of what it did to leader and set.
    pub(super) fn store_move(&mut self, id: PartitionId, after: Partition, kind: &str, reason: &str) {
        let listed = |partition: Option<&Partition>| {
            let ids = partition.map(|p| p.replicas.iter().map(|r| r.spu.to_string()).collect::<Vec<_>>());
            ids.unwrap_or_default().join(",")
        };
        self.event(v1::ClusterEvent {
            kind: kind.to_owned(),
            topic_id: id.topic_id.to_bytes(),
            partition: id.index,
            from: listed(self.state.partition(id)),
            to: listed(Some(&after)),
            reason: reason.to_owned(),
            ..Default::default()
        });
        self.store_partition(id, after, reason);
    }
}
