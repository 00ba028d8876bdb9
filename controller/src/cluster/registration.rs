//! Registration: a new run of a storage node, fencing the run before.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_proto::ids::{Incarnation, LeaderEpoch, PartitionId, SpuId, TopicId, VolumeId};
use plimsoll_proto::v1;

use super::apply::{Applying, Effect, expect};
use super::expectation::Mismatch;
use super::node::{Duty, Spu, SpuState, Volume, VolumeState};
use super::partition::{CacheLoss, Partition};
use crate::election;

/// Most volumes of one node.
const VOLUMES_MAX: usize = 64;

/// Why a volume with replicas is failed when its node no longer has it.
const NOT_DECLARED: &str = "not declared by its node";

impl Applying<'_> {
    /// The incarnation is the index of this entry. The same nonce again, from a node that was not declared
    /// offline since, is a repetition and keeps the incarnation; a node that was declared offline starts a
    /// new run even when its process is the same.
    pub(super) fn register(&mut self, change: &v1::RegisterSpu) -> Result<Effect, Mismatch> {
        expect(change.spu_id != 0 && !change.address.is_empty(), Mismatch::Malformed)?;
        expect(!change.start_nonce.is_empty() && change.start_nonce.len() <= 64, Mismatch::Malformed)?;
        let spu_id = SpuId(change.spu_id);
        let declared = declared_volumes(&change.volumes)?;
        let losses = cache_losses(&change.replicas)?;
        let before = self.state.spus.get(&spu_id).cloned();
        if let Some(before) = &before
            && before.start_nonce == change.start_nonce
            && before.state.is_live()
        {
            return Ok(Effect::Registered { incarnation: before.incarnation, new: false });
        }

        let duty = before.as_ref().map_or(Duty::Serving, |before| before.duty);
        expect(duty != Duty::Offline, Mismatch::OutOfService)?;

        let incarnation = Incarnation(self.index);
        let volumes = self.volumes_after(spu_id, declared, before.as_deref());
        let spu = Spu {
            incarnation,
            start_nonce: change.start_nonce.to_vec(),
            state: if duty == Duty::Draining { SpuState::Draining } else { SpuState::Joining },
            address: change.address.clone(),
            rack: change.rack.clone(),
            volumes,
            duty,
            since_index: self.index,
            since_ms: self.time_ms,
        };
        self.state.spus.insert(spu_id, Arc::new(spu));
        self.touched.spus.insert(spu_id);
        self.event(v1::ClusterEvent {
            kind: "spu_registered".to_owned(),
            spu_id: spu_id.0,
            from: before.map_or_else(String::new, |before| before.incarnation.to_string()),
            to: incarnation.to_string(),
            ..Default::default()
        });
        self.readmit(spu_id, incarnation, &losses);
        Ok(Effect::Registered { incarnation, new: true })
    }

    /// Volumes keep their state across runs: a new incarnation does not clear `write_offline`. One that is
    /// gone but holds replicas stays as failed until its node has it again.
    fn volumes_after(
        &self,
        spu: SpuId,
        declared: BTreeMap<VolumeId, String>,
        before: Option<&Spu>,
    ) -> BTreeMap<VolumeId, Volume> {
        let mut volumes = BTreeMap::new();
        let old = before.map(|before| before.volumes.clone()).unwrap_or_default();
        for (id, path) in declared {
            let kept = old
                .get(&id)
                .filter(|volume| volume.state != VolumeState::Failed { cause: NOT_DECLARED.to_owned() });
            let new = (VolumeState::Writable, self.index, self.time_ms);
            let (state, since_index, since_ms) =
                kept.map_or(new, |volume| (volume.state.clone(), volume.since_index, volume.since_ms));
            // What was lent ended with the run before; that is noted when the node says so.
            let borrowed_bytes = kept.map_or(0, |volume| volume.borrowed_bytes);
            volumes.insert(id, Volume { path, state, since_index, since_ms, borrowed_bytes });
        }
        for (id, volume) in old {
            let holds = || {
                self.state
                    .partitions()
                    .any(|(_, _, p)| p.replica(spu).is_some_and(|replica| replica.volume == id))
            };
            if !volumes.contains_key(&id) && holds() {
                let state = VolumeState::Failed { cause: NOT_DECLARED.to_owned() };
                // One that was gone before is the same fault still.
                let (since_index, since_ms) = if volume.state == state {
                    (volume.since_index, volume.since_ms)
                } else {
                    (self.index, self.time_ms)
                };
                volumes.insert(id, Volume { state, since_index, since_ms, ..volume });
            }
        }
        volumes
    }

    /// What the node leads goes on in a new leader epoch, so that the run before is fenced; replicas that
    /// lost their page cache are marked; then sets and leaders are settled.
    fn readmit(&mut self, spu: SpuId, incarnation: Incarnation, losses: &BTreeMap<PartitionId, CacheLoss>) {
        let changed: Vec<_> = self
            .state
            .partitions()
            .filter(|(_, _, partition)| partition.is_on(spu))
            .map(|(id, topic, before)| {
                // Where every acknowledged record is synced, a lost page cache has cost none of them.
                let synced = topic.config.flush() == v1::FlushPolicy::Ack && !topic.was_not_synced;
                let loss = losses.get(&id).copied().filter(|_| !synced);
                let next = readmitted(before, spu, incarnation, loss);
                (id, before, election::settle(self.state, &topic.config, &next))
            })
            .filter(|(_, before, after)| *before != after)
            .map(|(id, before, after)| (id, election::raise_epochs(before, after)))
            .collect();
        for (id, after) in changed {
            self.store_partition(id, after, "registered");
        }
    }
}

fn readmitted(
    before: &Partition,
    spu: SpuId,
    incarnation: Incarnation,
    loss: Option<CacheLoss>,
) -> Partition {
    let mut next = before.clone();
    if let Some(replica) = next.replicas.iter_mut().find(|replica| replica.spu == spu)
        && loss.is_some()
    {
        replica.cache_lost = loss;
    }
    if next.leader_spu() == Some(spu) {
        next.leader = Some((spu, incarnation));
    }
    next
}

fn declared_volumes(volumes: &[v1::VolumeDeclared]) -> Result<BTreeMap<VolumeId, String>, Mismatch> {
    expect((1..=VOLUMES_MAX).contains(&volumes.len()), Mismatch::Malformed)?;
    let mut declared = BTreeMap::new();
    for volume in volumes {
        let id = VolumeId::from_slice(&volume.volume_id).map_err(|_| Mismatch::Malformed)?;
        expect(declared.insert(id, volume.path.clone()).is_none(), Mismatch::Malformed)?;
    }
    Ok(declared)
}

fn cache_losses(reports: &[v1::ReplicaReport]) -> Result<BTreeMap<PartitionId, CacheLoss>, Mismatch> {
    reports
        .iter()
        .filter(|report| report.cache_lost)
        .map(|report| {
            let topic_id = TopicId::from_slice(&report.topic_id).map_err(|_| Mismatch::Malformed)?;
            let loss = CacheLoss { last_epoch: LeaderEpoch(report.last_epoch), log_end: report.log_end };
            Ok((PartitionId { topic_id, index: report.partition }, loss))
        })
        .collect()
}
