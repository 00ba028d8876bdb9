//! Makes the replicas of this volume what the metadata says: there or gone, leading or following.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_proto::ids::{Incarnation, LeaderEpoch, PartitionEpoch, PartitionId, SpuId, VolumeId};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1;
use plimsoll_storage::log::{AppendError, FlushPolicy, LogSettings};

use super::refusal;
use super::replica::{Replica, Role, log_settings};
use super::work::Shared;
use super::worker::Worker;
use crate::replica::{Follower, Leader, LogEnds, Peer, Term};

/// A follower that has not reached the leader's log end for this long is proposed for removal.
const REPLICA_LAG_MAX: Duration = Duration::from_secs(3);

/// What one replica should be.
struct Desired<'a> {
    partition: PartitionId,
    info: &'a v1::PartitionInfo,
    config: &'a v1::TopicConfig,
    /// The topic was `flush = ack` from its beginning.
    always_synced: bool,
}

impl Worker {
    /// Takes the latest metadata.
    pub(super) fn reconcile(&mut self) {
        let image = self.inbox.routes.borrow_and_update().image.clone();
        let spent = self.rebuilding.awaits_registration(self.shared.incarnation());
        if image.version.0 == 0 || spent {
            return;
        }
        let desired = desired(&image, self.shared.spu, self.place.volume);
        self.delete_unwanted(&image, &desired);
        self.missing = false;
        for (partition, wanted) in &desired {
            if self.make_sure_it_exists(partition, log_settings(wanted.config), wanted.always_synced) {
                self.follow_metadata(&image, wanted);
            }
        }
        self.shared.following.send_modify(|generation| *generation += 1);
    }

    /// Deletes replicas that an applied entry took from here; only by metadata that is at least as new as the
    /// registration of this run, so that no late copy deletes what it has not heard of. What the metadata merely does
    /// not know stays, without a role: it may be the only copy of what controllers have lost.
    fn delete_unwanted(&mut self, image: &MetadataImage, desired: &BTreeMap<PartitionId, Desired<'_>>) {
        let current = self.shared.incarnation().is_some_and(|incarnation| image.version.0 >= incarnation.0);
        if !current {
            return;
        }
        let unwanted: Vec<PartitionId> = self
            .volume
            .partitions()
            .into_iter()
            .filter(|partition| !desired.contains_key(partition))
            .collect();
        let (mut deleted, mut freed, mut kept) = (0_u64, 0_u64, 0_u64);
        for partition in unwanted {
            let known = image.topics.contains_key(&partition.topic_id);
            self.step_down(&partition, &refusal::unknown(&partition, known));
            if !self.was_taken_away(image, &partition) {
                kept += 1;
                continue;
            }
            self.replicas.remove(&partition);
            self.cache_lost.remove(&partition);
            match self.volume.delete_partition(&partition) {
                Ok(bytes) => {
                    (deleted, freed) = (deleted + 1, freed.saturating_add(bytes));
                    tracing::debug!(%partition, bytes, "replica deleted");
                }
                Err(error) => {
                    self.missing = true;
                    self.report_disk_error("delete", &error);
                    self.check_failed();
                }
            }
        }
        if deleted > 0 {
            tracing::info!(volume = %self.place.path, replicas = deleted, bytes = freed, "replicas deleted");
        }
        if kept > 0 {
            let text =
                format!("{kept} replicas that the metadata neither lists nor says deleted stay on disk");
            self.report(self.place.path.clone(), "unknown replicas", &text);
        }
    }

    /// Whether the metadata says that the replica is not here any more: its topic was deleted, or its partition was
    /// given to others, by metadata that is not behind this log.
    fn was_taken_away(&self, image: &MetadataImage, partition: &PartitionId) -> bool {
        match image.topics.get(&partition.topic_id) {
            Some(_) => image.partition(partition).is_some_and(|info| {
                let seen = self.volume.log(partition).and_then(|log| log.last_epoch);
                seen.is_none_or(|epoch| epoch <= LeaderEpoch(info.leader_epoch))
            }),
            None => image.deleted.contains(&partition.topic_id),
        }
    }

    /// Returns whether the replica is there. One that finds no room is tried again later.
    fn make_sure_it_exists(
        &mut self,
        partition: &PartitionId,
        settings: LogSettings,
        always_synced: bool,
    ) -> bool {
        let now = self.now();
        if self.volume.log(partition).is_none() {
            match self.volume.create_partition(*partition, settings.clone(), now) {
                Ok(()) => tracing::debug!(%partition, "replica created"),
                Err(error) => {
                    self.missing = true;
                    if !matches!(error, AppendError::OutOfSpace { .. }) {
                        self.report(partition.to_string(), "create", &error.to_string());
                    }
                    self.check_failed();
                    return false;
                }
            }
        }
        let known = self.replicas.get(partition).map(|replica| &replica.settings);
        if known != Some(&settings) {
            if settings.flush == FlushPolicy::Ack {
                // The durable end counts from now on, also for what came before.
                self.dirty.insert(*partition);
            }
            self.volume.configure(partition, settings.clone());
        }
        let damaged = self.volume.is_offsets_area(partition)
            && self.volume.log(partition).is_some_and(|log| log.damaged);
        let replica = self.replicas.entry(*partition).or_insert_with(|| Replica::new(settings.clone()));
        replica.settings = settings;
        if replica.flush_ack() && always_synced && !damaged {
            // What was acknowledged was synced: a lost page cache has cost nothing.
            self.cache_lost.remove(partition);
        }
        true
    }

    fn follow_metadata(&mut self, image: &MetadataImage, wanted: &Desired<'_>) {
        let partition = wanted.partition;
        let info = wanted.info;
        let epoch = LeaderEpoch(info.leader_epoch);
        let now = self.now();
        let Some(replica) = self.replicas.get_mut(&partition) else { return };
        if epoch < replica.epoch {
            return;
        }
        let me = self.shared.spu;
        // An epoch is led by one incarnation only: a node that started again waits for a new epoch.
        let mine =
            info.leader == me.0 && self.shared.incarnation() == Some(Incarnation(info.leader_incarnation));
        let hint = Shared::hint(image, &partition);
        let flush_ack = replica.flush_ack();
        match (&mut replica.role, mine) {
            // On a failed device nothing becomes committed any more, whatever set remains.
            (Role::Leads(_), true) if replica.epoch == epoch && self.failed => {}
            (Role::Leads(leader), true) if replica.epoch == epoch => {
                let term = term(image, wanted, me, flush_ack);
                leader.on_term(term, now);
                self.committed(&partition);
            }
            (Role::Follows(follower), false)
                if replica.epoch == epoch && follower.leader.0 == info.leader => {}
            (Role::Idle, false) if replica.epoch == epoch && (info.leader == 0 || info.leader == me.0) => {}
            (_, true) => {
                self.step_down(&partition, &refusal::not_leader(&partition, hint, me));
                self.lead(image, wanted, epoch);
            }
            (_, false) => {
                self.step_down(&partition, &refusal::not_leader(&partition, hint, me));
                let Some(replica) = self.replicas.get_mut(&partition) else { return };
                replica.epoch = epoch;
                replica.fetch_not_before = now;
                if info.leader != 0 && info.leader != me.0 {
                    let follower = Follower::new(SpuId(info.leader), epoch);
                    replica.role = Role::Follows(follower.after_loss(LeaderEpoch(info.lossy_epoch)));
                }
            }
        }
    }

    fn lead(&mut self, image: &MetadataImage, wanted: &Desired<'_>, epoch: LeaderEpoch) {
        let partition = wanted.partition;
        let now = self.now();
        let Some(log) = self.volume.log(&partition) else { return };
        if log.last_epoch.is_some_and(|last| last > epoch) {
            self.report(partition.to_string(), "lead", "the log has a later leader epoch than the metadata");
            return;
        }
        if let Err(error) = self.volume.note_epoch(&partition, epoch, log.log_end) {
            // The first batch carries the epoch as well: leading goes on, appends will say what is wrong.
            tracing::debug!(%partition, %error, "leader epoch was not noted");
        }
        let me = self.shared.spu;
        let Some(replica) = self.replicas.get_mut(&partition) else { return };
        let term = term(image, wanted, me, replica.flush_ack());
        let ends = LogEnds { log_end: log.log_end, durable_end: log.durable_end };
        let leader = Leader::new(term, ends, log.high_watermark, REPLICA_LAG_MAX, now);
        replica.epoch = epoch;
        replica.role = Role::Leads(Box::new(leader));
        self.cache_lost.remove(&partition);
        tracing::debug!(%partition, %epoch, log_end = %log.log_end, "leading");
        if matches!(replica.settings.flush, FlushPolicy::Ack) {
            // The durable end counts: bring it to the end of what was taken over.
            self.dirty.insert(partition);
        }
        self.committed(&partition);
    }
}

fn desired(image: &MetadataImage, me: SpuId, volume: VolumeId) -> BTreeMap<PartitionId, Desired<'_>> {
    let mut desired = BTreeMap::new();
    for (topic_id, topic) in &image.topics {
        let Some(config) = &topic.config else { continue };
        for info in &topic.partitions {
            let here = info
                .replicas
                .iter()
                .any(|replica| replica.spu_id == me.0 && replica.volume_id.as_ref() == volume.0.as_slice());
            if here {
                let partition = PartitionId { topic_id: *topic_id, index: info.index };
                let always_synced = !topic.was_not_synced;
                desired.insert(partition, Desired { partition, info, config, always_synced });
            }
        }
    }
    desired
}

fn term(image: &MetadataImage, wanted: &Desired<'_>, me: SpuId, flush_ack: bool) -> Term {
    let info = wanted.info;
    let in_reserve = wanted.config.offsets_area_bytes > 0;
    let standing = |replica: &v1::ReplicaAssignment| {
        let spu = SpuId(replica.spu_id);
        let node = image.spus.get(&spu);
        let online = node.is_some_and(|node| {
            matches!(node.state(), v1::SpuState::Online | v1::SpuState::Draining | v1::SpuState::Suspect)
        });
        let state = VolumeId::from_slice(&replica.volume_id)
            .map_or(v1::VolumeState::Unspecified, |volume| image.volume_state(spu, volume));
        let peer = Peer {
            incarnation: node.map(|node| Incarnation(node.incarnation)),
            writable: online
                && (state == v1::VolumeState::Writable
                    || (in_reserve && state == v1::VolumeState::WriteOffline)),
        };
        (spu, peer)
    };
    Term {
        me,
        epoch: LeaderEpoch(info.leader_epoch),
        partition_epoch: PartitionEpoch(info.partition_epoch),
        in_sync: info.in_sync.iter().map(|spu| SpuId(*spu)).collect(),
        peers: info.replicas.iter().filter(|replica| replica.spu_id != me.0).map(standing).collect(),
        min_in_sync: usize::try_from(wanted.config.min_in_sync).unwrap_or(usize::MAX).max(1),
        flush_ack,
        in_reserve,
    }
}
