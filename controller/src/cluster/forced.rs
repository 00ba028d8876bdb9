//! An election by command, of a replica that may lack committed records.

use plimsoll_proto::ids::{Incarnation, PartitionEpoch, SpuId};
use plimsoll_proto::v1;

use super::apply::{Applying, Effect, expect, partition_id};
use super::expectation::Mismatch;
use crate::election;

impl Applying<'_> {
    /// A replica that holds everything committed is elected without loss; any other one becomes the partition,
    /// alone, and the others follow it.
    pub(super) fn force_leader(&mut self, change: &v1::ForceLeader) -> Result<Effect, Mismatch> {
        let id = partition_id(&change.topic_id, change.partition)?;
        let partition = self.state.partition(id).ok_or(Mismatch::UnknownPartition)?;
        expect(
            partition.partition_epoch == PartitionEpoch(change.partition_epoch),
            Mismatch::StalePartitionEpoch,
        )?;
        let to = SpuId(change.leader);
        let spu = self.spu(to, change.leader_incarnation)?;
        expect(spu.state.is_live(), Mismatch::IneligibleLeader)?;
        let replica = partition.replica(to).ok_or(Mismatch::IneligibleLeader)?;
        let mut next = partition.clone();
        if partition.is_complete(to) && replica.cache_lost.is_none() {
            expect(partition.leader_spu() != Some(to), Mismatch::Unchanged)?;
            next.in_sync.insert(to);
            next.eligible.remove(&to);
        } else {
            election::lead_alone(&mut next, to);
        }
        next.leader = Some((to, Incarnation(change.leader_incarnation)));
        let next = election::raise_epochs(partition, self.state.settled(id, &next));
        expect(next.leader_spu() == Some(to), Mismatch::IneligibleLeader)?;
        self.store_partition(id, next, &change.reason);
        Ok(Effect::Done)
    }
}
