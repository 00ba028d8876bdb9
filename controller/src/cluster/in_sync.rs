//! Another in-sync set, as a leader asks for it.

use std::collections::BTreeSet;

use plimsoll_proto::ids::{Incarnation, LeaderEpoch, PartitionEpoch, PartitionId, SpuId};
use plimsoll_proto::v1;

use super::apply::{expect, partition_id};
use super::expectation::Mismatch;
use super::partition::Partition;
use super::state::ClusterState;
use crate::election;

impl ClusterState {
    /// The partition as the entry would leave it. Sessions ask this before they propose: a leader that asks again
    /// and again for what can't be costs no entries.
    ///
    /// # Errors
    /// The expectation of the entry that does not hold.
    pub fn with_in_sync(&self, change: &v1::SetInSync) -> Result<(PartitionId, Partition), Mismatch> {
        let id = partition_id(&change.topic_id, change.partition)?;
        let partition = self.partition(id).ok_or(Mismatch::UnknownPartition)?;
        let leader = (SpuId(change.leader), Incarnation(change.leader_incarnation));
        let led =
            partition.leader == Some(leader) && partition.leader_epoch == LeaderEpoch(change.leader_epoch);
        expect(led, Mismatch::StaleLeaderEpoch)?;
        expect(
            partition.partition_epoch == PartitionEpoch(change.partition_epoch),
            Mismatch::StalePartitionEpoch,
        )?;
        let mut next = partition.clone();
        next.in_sync = self.checked_members(self.rules(id), partition, &change.in_sync)?;
        expect(next.in_sync.contains(&leader.0), Mismatch::IneligibleMember)?;
        if change.fence {
            expect(next.in_sync == partition.in_sync, Mismatch::Malformed)?;
            next.partition_epoch = PartitionEpoch(partition.partition_epoch.0.saturating_add(1));
            return Ok((id, next));
        }
        for replica in next.replicas.iter_mut().filter(|replica| next.in_sync.contains(&replica.spu)) {
            replica.cache_lost = None;
        }
        election::remember_eligible(self.min_in_sync(id), partition, &mut next);
        expect(next != *partition, Mismatch::Unchanged)?;
        Ok((id, election::raise_epochs(partition, self.settled(id, &next))))
    }

    /// The entry that makes sure that `change` can't be applied any more; `None` when it never can. What stands in
    /// its way now, such as a full volume, may pass while a copy of it is still on its way.
    pub fn fence(&self, change: &v1::SetInSync) -> Option<v1::SetInSync> {
        let partition = self.partition(partition_id(&change.topic_id, change.partition).ok()?)?;
        let (leader, leader_incarnation) = partition.leader?;
        let current = partition.partition_epoch == PartitionEpoch(change.partition_epoch)
            && leader == SpuId(change.leader)
            && leader_incarnation == Incarnation(change.leader_incarnation);
        let member =
            |spu: &SpuId| Some(v1::InSyncMember { spu_id: spu.0, incarnation: self.incarnation(*spu)?.0 });
        Some(v1::SetInSync {
            in_sync: partition.in_sync.iter().map(member).collect::<Option<_>>()?,
            leader_epoch: partition.leader_epoch.0,
            reason: "an in-sync set was turned down".to_owned(),
            fence: true,
            ..change.clone()
        })
        .filter(|_| current)
    }

    /// The proposed members, each with its current run and, when it is new, with room and life.
    fn checked_members(
        &self,
        rules: election::Rules,
        partition: &Partition,
        members: &[v1::InSyncMember],
    ) -> Result<BTreeSet<SpuId>, Mismatch> {
        let mut set = BTreeSet::new();
        for member in members {
            let spu = SpuId(member.spu_id);
            let replica = partition.replica(spu).ok_or(Mismatch::IneligibleMember)?;
            let current = self.incarnation(spu).ok_or(Mismatch::UnknownSpu)?;
            expect(current == Incarnation(member.incarnation), Mismatch::StaleIncarnation)?;
            if !partition.in_sync.contains(&spu) {
                let fit = self.spu_state(spu).is_live() && rules.takes_writes(self, spu, replica.volume);
                expect(fit, Mismatch::IneligibleMember)?;
            }
            expect(set.insert(spu), Mismatch::Malformed)?;
        }
        Ok(set)
    }

    /// The partition in its normal form, by the topic's minimum.
    pub(super) fn settled(&self, id: PartitionId, partition: &Partition) -> Partition {
        election::settle(self, self.rules(id), partition)
    }

    fn min_in_sync(&self, id: PartitionId) -> u32 {
        self.rules(id).min_in_sync
    }

    fn rules(&self, id: PartitionId) -> election::Rules {
        self.topic(id.topic_id).map_or(1.into(), |topic| (&topic.config).into())
    }
}
