//! Consumer offsets as the group room uses them: committed by the ordinary replication, read when all is committed.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_proto::group::OFFSETS_TOPIC;
use plimsoll_proto::ids::{Incarnation, LeaderEpoch, Offset, PartitionId, TopicId};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1::{self, Acks, ErrorDetail, Reason, produce_response};
use plimsoll_storage::log::{AppendError, LogView};
use plimsoll_storage::offsets::{Change, GroupOffsets, OffsetsError};
use tokio::sync::oneshot;

use super::handle::NodeHandle;
use super::job::ProduceResult;
use super::produce::acknowledge;
use super::refusal;
use super::replica::{AckToken, Role};
use super::work::{Shared, Work};
use super::worker::Worker;

/// Keys deleted with one entry of the log.
pub const OFFSETS_DELETED_AT_ONCE: usize = 32;

/// Changes that wait for the in-sync set at most.
const WAITING_MAX: usize = 16_384;

/// A partition of the internal topic that this node leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LedOffsets {
    /// Which.
    pub partition: PartitionId,
    /// In which epoch.
    pub leader_epoch: LeaderEpoch,
}

#[derive(Debug)]
pub(super) struct StoreOffsets {
    pub(super) led: LedOffsets,
    pub(super) changes: Vec<Change>,
    /// What must be kept of a group, exactly, for the changes to be made.
    pub(super) seen: Option<(String, GroupOffsets)>,
    pub(super) deadline: Duration,
    pub(super) reply: oneshot::Sender<ProduceResult>,
}

#[derive(Debug)]
pub(super) struct ReadOffsets {
    pub(super) led: LedOffsets,
    /// `None` for all groups.
    pub(super) group: Option<String>,
    pub(super) deadline: Duration,
    pub(super) reply: oneshot::Sender<Groups>,
    pub(super) committed: oneshot::Sender<ProduceResult>,
}

/// Groups by name.
pub(super) type Groups = BTreeMap<String, GroupOffsets>;

/// The lowest offset that an active group has still to read, by partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFloors {
    /// Of each partition that any active group has committed in.
    pub floors: BTreeMap<PartitionId, Offset>,
    /// Groups may exist that were not heard of: pressure trims nothing that retention keeps.
    pub unknown: bool,
}

impl Default for GroupFloors {
    fn default() -> Self {
        Self { floors: BTreeMap::new(), unknown: true }
    }
}

impl GroupFloors {
    /// The floor of a partition; `groups` says whether there may be any group at all.
    pub(super) fn floor(
        &self,
        partition: &PartitionId,
        groups: bool,
        log: Option<LogView>,
    ) -> Option<Offset> {
        if !groups {
            return None;
        }
        if self.unknown {
            return log.map(|log| log.log_start);
        }
        self.floors.get(partition).copied()
    }
}

impl Worker {
    pub(super) fn on_store_offsets(&mut self, work: StoreOffsets) {
        let StoreOffsets { led, changes, seen, deadline, reply } = work;
        match self.check_seen(&led, seen).and_then(|()| self.store_offsets(&led, &changes)) {
            Ok((base, end)) => {
                self.await_offsets(led.partition, deadline, AckToken { base, end, duplicate: false, reply })
            }
            // Whoever asked may have gone, here and below.
            Err(detail) => drop(reply.send(produce_response::Result::Error(detail))),
        }
    }

    /// Whether a group is as somebody saw it before.
    fn check_seen(&self, led: &LedOffsets, seen: Option<(String, GroupOffsets)>) -> Result<(), ErrorDetail> {
        let Some((group, seen)) = seen else { return Ok(()) };
        let kept = self.volume.offsets(&led.partition).and_then(|table| table.group(&group));
        if kept == Some(&seen) {
            return Ok(());
        }
        let message = format!("group {group} has changed meanwhile");
        Err(ErrorDetail::not_written(Reason::ExpectationFailed, message))
    }

    fn await_offsets(&mut self, partition: PartitionId, deadline: Duration, token: AckToken) {
        self.dirty.insert(partition);
        self.waited_on.insert(partition);
        let Some(replica) = self.replicas.get_mut(&partition) else { return };
        replica.waiting_acks.push(token.end, deadline, token);
    }

    /// Whether this replica leads in that epoch and may still say so.
    fn leads_offsets(&self, led: &LedOffsets) -> Result<(), ErrorDetail> {
        let image = self.shared.image();
        let hint = || Shared::hint(&image, &led.partition);
        let not_leader = || refusal::not_leader(&led.partition, hint(), self.shared.spu);
        let replica = self.replicas.get(&led.partition).ok_or_else(not_leader)?;
        let Role::Leads(leader) = &replica.role else { return Err(not_leader()) };
        let epoch = leader.term().epoch;
        if epoch != led.leader_epoch {
            return Err(refusal::stale_epoch(led.leader_epoch.0, epoch.0, hint()));
        }
        if replica.waiting_acks.len() >= WAITING_MAX {
            return Err(refusal::busy("commits wait for the in-sync set"));
        }
        let lease_runs = self.shared.lease.borrow().runs(self.now());
        // Both: what all members must confirm, and that no other leader may have been at work meanwhile.
        leader.admit(Acks::All, lease_runs).map_err(refusal::produce_refusal)?;
        if !lease_runs {
            return Err(refusal::produce_refusal(crate::replica::ProduceRefusal::LeaseRanOut));
        }
        Ok(())
    }

    fn store_offsets(
        &mut self,
        led: &LedOffsets,
        changes: &[Change],
    ) -> Result<(Offset, Offset), ErrorDetail> {
        self.leads_offsets(led)?;
        let (now, wall_ms) = (self.now(), self.cluster_ms());
        let stored = self.volume.commit_offsets(&led.partition, changes, led.leader_epoch, now, wall_ms);
        match stored {
            Ok(appended) => Ok((appended.base_offset, appended.end_offset)),
            Err(error) => {
                self.check_failed();
                // A snapshot may have been appended before the refusal.
                self.dirty.insert(led.partition);
                Err(self.offsets_error(&error))
            }
        }
    }

    fn offsets_error(&self, error: &OffsetsError) -> ErrorDetail {
        match error {
            OffsetsError::Full { limit_bytes, .. } => {
                let mut detail = ErrorDetail::not_written(
                    Reason::OffsetsFull,
                    format!("{error}; delete groups that are not needed (plimsoll group delete)"),
                );
                detail.limit = *limit_bytes;
                detail
            }
            OffsetsError::TooLarge { limit_bytes, .. } => {
                let mut detail = ErrorDetail::not_written(Reason::RecordTooLarge, error.to_string());
                detail.limit = *limit_bytes;
                detail
            }
            OffsetsError::Busy => refusal::busy("commits; the offsets log waits for its followers"),
            OffsetsError::Fenced { .. } => {
                ErrorDetail::not_written(Reason::NotPartitionOwner, error.to_string())
            }
            OffsetsError::Append(AppendError::NotFound) => {
                ErrorDetail::not_written(Reason::NoLeader, "the offsets area is not made yet")
                    .retry_after(Duration::from_millis(200))
            }
            OffsetsError::Append(error) => self.place.append_error(error, &self.volume.facts()),
        }
    }

    pub(super) fn on_read_offsets(&mut self, work: ReadOffsets) {
        let ReadOffsets { led, group, deadline, reply, committed } = work;
        if let Err(detail) = self.leads_offsets(&led) {
            return drop(committed.send(produce_response::Result::Error(detail)));
        }
        let (Some(table), Some(log)) = (self.volume.offsets(&led.partition), self.volume.log(&led.partition))
        else {
            let detail = self.offsets_error(&OffsetsError::Append(AppendError::NotFound));
            return drop(committed.send(produce_response::Result::Error(detail)));
        };
        let groups: Groups = match &group {
            None => table.groups().clone(),
            Some(name) => table.group(name).map(|kept| (name.clone(), kept.clone())).into_iter().collect(),
        };
        drop(reply.send(groups));
        // What was read counts when all of it is committed.
        let end = log.log_end;
        let token = AckToken { base: end, end, duplicate: false, reply: committed };
        let reached = match self.replicas.get(&led.partition).map(|replica| &replica.role) {
            Some(Role::Leads(leader)) => leader.high_watermark() >= end,
            Some(Role::Idle | Role::Follows(_)) | None => false,
        };
        if reached {
            acknowledge(token, v1::AckMeaning::Synced, 1);
        } else {
            self.await_offsets(led.partition, deadline, token);
        }
    }

    /// After the high watermark moved: what a committed snapshot supersedes goes.
    pub(super) fn volume_settles_offsets(&mut self, partition: &PartitionId) {
        if let Err(error) = self.volume.settle_offsets(partition) {
            self.report_disk_error("trim offsets", &error);
        }
    }
}

impl NodeHandle {
    /// Partitions of the internal topic that this run of the node leads.
    pub fn led_offsets(&self) -> Vec<LedOffsets> {
        let image = self.metadata();
        let (me, incarnation) = self.identity();
        let mine = |info: &&v1::PartitionInfo| {
            info.leader == me.0 && Incarnation(info.leader_incarnation) == incarnation
        };
        let Some(topic) = image.topic_by_name(OFFSETS_TOPIC) else { return Vec::new() };
        let Ok(topic_id) = TopicId::from_slice(&topic.topic_id) else { return Vec::new() };
        let led = |info: &v1::PartitionInfo| LedOffsets {
            partition: PartitionId { topic_id, index: info.index },
            leader_epoch: LeaderEpoch(info.leader_epoch),
        };
        topic.partitions.iter().filter(mine).map(led).collect()
    }

    /// Commits changes; returns when every in-sync replica has them on its disk. Cancel safe: a dropped call may
    /// still take effect.
    ///
    /// # Errors
    /// Typed. `NOT_WRITTEN` unless it says otherwise.
    pub async fn store_offsets(
        &self,
        led: LedOffsets,
        changes: Vec<Change>,
        timeout: Duration,
    ) -> Result<(), ErrorDetail> {
        self.store_if(led, changes, None, timeout).await
    }

    /// Deletes everything of a group that is still as it was seen. One that somebody joins or commits for meanwhile
    /// stays; a group with more keys than one entry of the log takes can be left with a part of them then.
    ///
    /// # Errors
    /// As [`NodeHandle::store_offsets`]; `EXPECTATION_FAILED` when the group has changed.
    pub async fn expire_offsets(
        &self,
        led: LedOffsets,
        group: String,
        mut seen: GroupOffsets,
        timeout: Duration,
    ) -> Result<(), ErrorDetail> {
        loop {
            let part: Vec<PartitionId> = seen.offsets.keys().take(OFFSETS_DELETED_AT_ONCE).copied().collect();
            let rest = seen.offsets.len() > part.len();
            let offset = |partition: &PartitionId| Change::Offset {
                group: group.clone(),
                partition: *partition,
                value: None,
            };
            let mut changes: Vec<Change> = part.iter().map(offset).collect();
            if !rest {
                changes.push(Change::Group { group: group.clone(), value: None });
            }
            self.store_if(led, changes, Some((group.clone(), seen.clone())), timeout).await?;
            if !rest {
                return Ok(());
            }
            seen.offsets.retain(|partition, _| !part.contains(partition));
        }
    }

    async fn store_if(
        &self,
        led: LedOffsets,
        changes: Vec<Change>,
        seen: Option<(String, GroupOffsets)>,
        timeout: Duration,
    ) -> Result<(), ErrorDetail> {
        let door = self.offsets_door(&led.partition)?;
        let (reply, answer) = oneshot::channel();
        let deadline = self.clock().now() + timeout;
        let work = Work::StoreOffsets(StoreOffsets { led, changes, seen, deadline, reply });
        // Once it is queued its outcome is open until it is answered.
        match self.ask(door, work, answer, timeout).await {
            Ok(result) => committed(result),
            Err(detail) => Err(ErrorDetail { outcome: v1::Outcome::Unknown.into(), ..detail }),
        }
    }

    /// What is kept of one group, or of all; nothing that could still be undone. Cancel safe.
    ///
    /// # Errors
    /// Typed.
    pub async fn read_offsets(
        &self,
        led: LedOffsets,
        group: Option<String>,
        timeout: Duration,
    ) -> Result<BTreeMap<String, GroupOffsets>, ErrorDetail> {
        let door = self.offsets_door(&led.partition)?;
        let (reply, groups) = oneshot::channel();
        let (sender, answer) = oneshot::channel();
        let deadline = self.clock().now() + timeout;
        let work = Work::ReadOffsets(ReadOffsets { led, group, deadline, reply, committed: sender });
        let result = self.ask(door, work, answer, timeout).await.and_then(committed);
        // A read has no effect to be unsure about.
        result.map_err(|detail| ErrorDetail { outcome: v1::Outcome::NotWritten.into(), ..detail })?;
        groups.await.map_err(|_| refusal::shutting_down())
    }

    /// Cluster time, milliseconds since 1970: the own wall clock as corrected by heartbeats.
    pub fn cluster_ms(&self) -> u64 {
        self.clock().wall_ms().saturating_add_signed(*self.shared().clock_offset_ms.borrow())
    }

    /// Tells what active groups have not read yet; pressure trims nothing beyond.
    pub fn set_group_floors(&self, floors: GroupFloors) {
        self.shared().group_floors.send_replace(floors);
    }

    /// Topics that pressure may trim, and that this node has a replica of.
    pub fn trimmed_topics(&self) -> Vec<TopicId> {
        let image: std::sync::Arc<MetadataImage> = self.metadata();
        let me = self.identity().0;
        let trimmed = |topic: &&v1::TopicInfo| {
            topic.config.as_ref().is_some_and(pressure_trims)
                && topic.partitions.iter().any(|p| p.replicas.iter().any(|r| r.spu_id == me.0))
        };
        let id = |topic: &v1::TopicInfo| TopicId::from_slice(&topic.topic_id).ok();
        image.topics.values().filter(trimmed).filter_map(id).collect()
    }
}

/// Whether it matters what groups have read: it holds pressure back, or a plan says what they would lose.
fn pressure_trims(config: &v1::TopicConfig) -> bool {
    matches!(config.on_pressure(), v1::OnPressure::Trim | v1::OnPressure::TrimPastGroups)
}

fn committed(result: ProduceResult) -> Result<(), ErrorDetail> {
    match result {
        produce_response::Result::Ack(_) => Ok(()),
        produce_response::Result::Error(detail) => Err(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_groups_have_read_is_asked_of_every_topic_that_pressure_trims() {
        use v1::OnPressure::{Refuse, Trim, TrimPastGroups, Unspecified};
        let asked = [Unspecified, Refuse, Trim, TrimPastGroups].map(|policy| {
            pressure_trims(&v1::TopicConfig { on_pressure: policy.into(), ..Default::default() })
        });
        assert_eq!(asked, [false, false, true, true]);
    }

    #[test]
    fn without_an_answer_of_the_coordinators_pressure_trims_nothing() {
        let partition = PartitionId { topic_id: TopicId([1; 16]), index: 0 };
        let at = |offset| Offset::new(offset).expect("a small offset");
        let log = LogView {
            log_start: at(5),
            high_watermark: at(9),
            log_end: at(9),
            durable_end: at(9),
            last_epoch: None,
            bytes: 0,
            preallocated_bytes: 0,
            segments: 1,
            sync_failed: false,
            damaged: false,
        };
        let mut floors = GroupFloors::default();
        assert_eq!(floors.floor(&partition, true, Some(log)), Some(at(5)));
        assert_eq!(floors.floor(&partition, false, Some(log)), None, "no group was ever used");
        floors.unknown = false;
        assert_eq!(floors.floor(&partition, true, Some(log)), None, "nobody reads it");
        floors.floors.insert(partition, at(7));
        assert_eq!(floors.floor(&partition, true, Some(log)), Some(at(7)));
    }
}
