//! What operators ask of nodes: cordon, drain, offline and back. One entry each, of constant size.

use std::sync::Arc;

use plimsoll_proto::ids::SpuId;
use plimsoll_proto::v1;

use super::apply::{Applying, Effect, expect};
use super::expectation::Mismatch;
use super::node::{Duty, SpuState};
use super::partition::MoveCause;
use super::reassignment;
use super::state::ClusterState;
use crate::election;

impl ClusterState {
    /// Whether some partition would be without any living in-sync copy if the node went.
    pub fn has_a_last_copy(&self, spu: SpuId) -> bool {
        self.partitions().any(|(_, _, partition)| {
            let lives = |member: &SpuId| *member != spu && self.spu_state(*member).is_live();
            partition.in_sync.contains(&spu) && !partition.in_sync.iter().any(lives)
        })
    }
}

impl Applying<'_> {
    pub(super) fn set_spu_duty(&mut self, change: &v1::SetSpuDuty) -> Result<Effect, Mismatch> {
        let spu_id = SpuId(change.spu_id);
        let expected = Duty::from_wire(change.expected).ok_or(Mismatch::Malformed)?;
        let wanted = Duty::from_wire(change.wanted).ok_or(Mismatch::Malformed)?;
        let spu = self.spu(spu_id, change.incarnation)?;
        expect(spu.duty == expected, Mismatch::OtherState)?;
        expect(expected != wanted, Mismatch::Unchanged)?;
        let safe = wanted != Duty::Offline || change.force || !self.state.has_a_last_copy(spu_id);
        expect(safe, Mismatch::LastCopy)?;

        let state = spu.state;
        if let Some(spu) = self.state.spus.get_mut(&spu_id) {
            Arc::make_mut(spu).duty = wanted;
        }
        self.touched.spus.insert(spu_id);
        self.event(v1::ClusterEvent {
            kind: "spu_duty".to_owned(),
            spu_id: spu_id.0,
            from: expected.to_string(),
            to: wanted.to_string(),
            reason: change.reason.clone(),
            ..Default::default()
        });
        let next = match wanted {
            Duty::Draining if state.is_live() => SpuState::Draining,
            Duty::Offline => SpuState::Offline,
            Duty::Serving | Duty::Cordoned if state == SpuState::Draining && expected == Duty::Draining => {
                SpuState::Online
            }
            Duty::Serving | Duty::Cordoned | Duty::Draining => state,
        };
        if next != state {
            self.enter_spu_state(spu_id, next, &change.reason);
        }
        if expected == Duty::Draining {
            self.call_drains_off(spu_id);
        }
        self.settle_where(|partition| partition.is_on(spu_id), &change.reason);
        Ok(Effect::Done)
    }

    /// Replicas that were on their way off the node stay, as far as they can.
    fn call_drains_off(&mut self, spu: SpuId) {
        let leaving = |moving: &super::Reassignment| {
            let on = |places: &[(SpuId, _)]| places.iter().any(|(id, _)| *id == spu);
            moving.cause == MoveCause::Drain && on(&moving.from) && !on(&moving.to)
        };
        let back: Vec<_> = self
            .state
            .partitions()
            .filter(|(_, _, partition)| partition.reassignment.as_ref().is_some_and(leaving))
            .filter_map(|(id, _, before)| {
                let next = reassignment::called_off(self.state, before).ok()?;
                Some((id, election::raise_epochs(before, self.state.settled(id, &next))))
            })
            .collect();
        for (id, after) in back {
            self.store_move(id, after, "reassignment_cancelled", "the drain was called off");
        }
    }
}
