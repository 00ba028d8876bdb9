//! Volumes that fill, stall, fail and come back: one entry of constant size.

use std::sync::Arc;

use plimsoll_proto::ids::{SpuId, VolumeId};
use plimsoll_proto::v1;

use super::apply::{Applying, Effect, expect};
use super::expectation::Mismatch;
use super::node::VolumeState;
use super::partition::Partition;
use crate::election;

impl Applying<'_> {
    pub(super) fn set_volume_state(&mut self, change: &v1::SetVolumeState) -> Result<Effect, Mismatch> {
        let spu_id = SpuId(change.spu_id);
        let volume_id = VolumeId::from_slice(&change.volume_id).map_err(|_| Mismatch::Malformed)?;
        let wanted = VolumeState::from_wire(change.wanted(), &change.reason).ok_or(Mismatch::Malformed)?;
        let spu = self.spu(spu_id, change.incarnation)?;
        expect(spu.state.is_live(), Mismatch::StaleIncarnation)?;
        let volume = spu.volumes.get(&volume_id).ok_or(Mismatch::UnknownVolume)?;
        let from = volume.state.clone();
        expect(from.to_wire() == change.expected(), Mismatch::OtherState)?;
        expect(from.to_wire() != wanted.to_wire(), Mismatch::Unchanged)?;

        let reason = format!("volume {}: {}", wanted.name(), change.reason);
        self.event(v1::ClusterEvent {
            kind: "volume_state".to_owned(),
            spu_id: spu_id.0,
            volume_id: volume_id.to_bytes(),
            from: from.name().to_owned(),
            to: wanted.name().to_owned(),
            reason: change.reason.clone(),
            ..Default::default()
        });
        self.set_volume(spu_id, volume_id, wanted);
        if matches!(from, VolumeState::Failed { .. }) {
            self.forget_eligible(spu_id, volume_id, &reason);
        }
        self.settle_where(
            |partition| partition.replica(spu_id).is_some_and(|replica| replica.volume == volume_id),
            &reason,
        );
        Ok(Effect::Done)
    }

    /// Nothing follows from it: the node has lowered the mark already, and puts it back by itself.
    pub(super) fn note_loan(&mut self, change: &v1::NoteLoan) -> Result<Effect, Mismatch> {
        let spu_id = SpuId(change.spu_id);
        let volume_id = VolumeId::from_slice(&change.volume_id).map_err(|_| Mismatch::Malformed)?;
        let spu = self.spu(spu_id, change.incarnation)?;
        let noted = spu.volumes.get(&volume_id).ok_or(Mismatch::UnknownVolume)?.borrowed_bytes;
        expect(noted == change.expected_bytes, Mismatch::OtherState)?;
        expect(noted != change.borrowed_bytes, Mismatch::Unchanged)?;
        if let Some(spu) = self.state.spus.get_mut(&spu_id)
            && let Some(volume) = Arc::make_mut(spu).volumes.get_mut(&volume_id)
        {
            volume.borrowed_bytes = change.borrowed_bytes;
        }
        self.touched.spus.insert(spu_id);
        let kind = if change.borrowed_bytes > 0 { "mark_lowered" } else { "mark_restored" };
        let by = |bytes: u64| {
            if bytes > 0 { format!("lowered by {bytes} bytes") } else { "as configured".to_owned() }
        };
        self.event(v1::ClusterEvent {
            kind: kind.to_owned(),
            spu_id: spu_id.0,
            volume_id: volume_id.to_bytes(),
            from: by(noted),
            to: by(change.borrowed_bytes),
            reason: change.reason.clone(),
            ..Default::default()
        });
        Ok(Effect::Done)
    }

    /// A volume that works again after a failure was cut back to what was synced: its replicas are not eligible any
    /// more. One that comes back with a new run of its node says by itself what it lost.
    fn forget_eligible(&mut self, spu: SpuId, volume: VolumeId, reason: &str) {
        let there = |partition: &Partition| {
            let on_it = partition.replica(spu).is_some_and(|replica| replica.volume == volume);
            on_it && partition.eligible.contains(&spu)
        };
        let changed: Vec<_> = self
            .state
            .partitions()
            .filter(|(_, _, partition)| there(partition))
            .map(|(id, _, before)| {
                let mut next = before.clone();
                next.eligible.remove(&spu);
                (id, election::raise_epochs(before, self.state.settled(id, &next)))
            })
            .collect();
        for (id, after) in changed {
            self.store_partition(id, after, reason);
        }
    }
}
