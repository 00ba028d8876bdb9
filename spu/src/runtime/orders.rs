//! What an operator orders of one volume: a plan of reclaim, reclaim itself, a lowered mark, a drill.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{PartitionId, VolumeId};
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use plimsoll_storage::space::operator::{borrowable, drill_bytes};
use plimsoll_storage::space::reclaim::Deletion;
use plimsoll_storage::space::{Borrowed, Drill, ReclaimPlan, ReclaimReason, Want};
use plimsoll_storage::volume::ReplicaGuards;
use tokio::sync::oneshot;

use super::handle::NodeHandle;
use super::work::{VolumeDoor, Work, millis};
use super::worker::Worker;

type Reply<T> = oneshot::Sender<Result<T, ErrorDetail>>;

/// One order, for a volume's worker.
#[derive(Debug)]
pub(super) enum Order {
    /// Plans, and with `execute` also reclaims.
    Reclaim { target_free_bytes: u64, execute: bool, reply: Reply<v1::PlanReclaimResponse> },
    /// Lowers the mark of ReadOnly; no bytes end that.
    Borrow { bytes: u64, ttl: Duration, dry_run: bool, reply: Reply<v1::BorrowResponse> },
    /// Begins a drill; no level ends it.
    Drill { level: Option<DiskLevel>, ttl: Duration, dry_run: bool, reply: Reply<v1::DrillResponse> },
}

impl NodeHandle {
    /// What reclaim would delete until `target_free_bytes` are free; with `execute` it is deleted within a moment.
    /// Cancel safe, but what was ordered goes on.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a volume that this node does not have.
    pub async fn reclaim(
        &self,
        volume_id: &[u8],
        target_free_bytes: u64,
        execute: bool,
    ) -> Result<v1::PlanReclaimResponse, ErrorDetail> {
        self.order(volume_id, |reply| Order::Reclaim { target_free_bytes, execute, reply }).await
    }

    /// Lowers the mark of ReadOnly by `bytes` for `ttl`; 0 puts it back.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with the most that can be borrowed as its limit.
    pub async fn borrow(
        &self,
        volume_id: &[u8],
        bytes: u64,
        ttl: Duration,
        dry_run: bool,
    ) -> Result<v1::BorrowResponse, ErrorDetail> {
        self.order(volume_id, |reply| Order::Borrow { bytes, ttl, dry_run, reply }).await
    }

    /// Makes a volume behave as if it were at `level` for `ttl`; `None` ends that.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a level that space does not lead to, or when the volume is short really.
    pub async fn drill(
        &self,
        volume_id: &[u8],
        level: Option<DiskLevel>,
        ttl: Duration,
        dry_run: bool,
    ) -> Result<v1::DrillResponse, ErrorDetail> {
        self.order(volume_id, |reply| Order::Drill { level, ttl, dry_run, reply }).await
    }

    async fn order<T>(
        &self,
        volume_id: &[u8],
        order: impl FnOnce(Reply<T>) -> Order,
    ) -> Result<T, ErrorDetail> {
        let door = self.door(volume_id)?;
        let (reply, answer) = oneshot::channel();
        self.ask(door, Work::Order(order(reply)), answer, Duration::ZERO).await?
    }

    fn door(&self, volume_id: &[u8]) -> Result<&VolumeDoor, ErrorDetail> {
        let found = VolumeId::from_slice(volume_id).ok().and_then(|id| self.doors().get(&id));
        found.ok_or_else(|| invalid("this node has no such volume"))
    }
}

fn invalid(message: impl Into<String>) -> ErrorDetail {
    ErrorDetail::not_written(Reason::InvalidArgument, message)
}

impl Worker {
    pub(super) fn on_order(&mut self, order: Order) {
        // Whoever asked may have gone; what was ordered is done all the same.
        match order {
            Order::Reclaim { target_free_bytes, execute, reply } => {
                drop(reply.send(Ok(self.reclaim_to(target_free_bytes, execute))));
            }
            Order::Borrow { bytes, ttl, dry_run, reply } => {
                drop(reply.send(self.borrow(bytes, ttl, dry_run)));
            }
            Order::Drill { level, ttl, dry_run, reply } => drop(reply.send(self.drill(level, ttl, dry_run))),
        }
    }

    fn reclaim_to(&mut self, target_free_bytes: u64, execute: bool) -> v1::PlanReclaimResponse {
        let facts = self.volume.facts();
        let want = Want { bytes: target_free_bytes.saturating_sub(facts.free_bytes), inodes: 0 };
        let guards = self.guards();
        let plan = self.volume.reclaim_plan(want, &guards);
        if execute {
            self.volume.reclaim_now(want);
            tracing::warn!(
                volume = %self.place.path, target_free_bytes, planned_bytes = plan.bytes,
                "reclaim was ordered by an operator"
            );
        }
        let starts =
            |partition: &PartitionId| self.volume.log(partition).map_or(0, |log| log.log_start.get());
        v1::PlanReclaimResponse {
            free_bytes: facts.free_bytes,
            capacity_bytes: facts.capacity_bytes,
            ..planned(&plan, &guards, starts)
        }
    }

    fn borrow(
        &mut self,
        bytes: u64,
        ttl: Duration,
        dry_run: bool,
    ) -> Result<v1::BorrowResponse, ErrorDetail> {
        let now = self.now();
        let lent_already = self.volume.facts().borrowed.map_or(0, |borrowed| borrowed.bytes);
        let present = self.volume.marks().bytes(DiskLevel::ReadOnly).enter;
        let most = borrowable(self.volume.marks()).saturating_add(lent_already);
        if bytes > most {
            let mut detail = invalid(format!("at most {most} bytes can be borrowed of this volume"));
            detail.limit = most;
            return Err(detail);
        }
        let configured = present.saturating_add(lent_already);
        if !dry_run {
            let until = now.saturating_add(ttl);
            self.volume.borrow((bytes > 0).then_some(Borrowed { bytes, until }));
            tracing::warn!(
                volume = %self.place.path, bytes, seconds = ttl.as_secs(),
                "the mark of read-only was lowered by an operator"
            );
        }
        Ok(v1::BorrowResponse {
            read_only_enter_bytes: configured.saturating_sub(bytes),
            read_only_enter_bytes_configured: configured,
            borrowed_bytes: bytes,
            ttl_ms: if bytes == 0 { 0 } else { millis(ttl) },
        })
    }

    fn drill(
        &mut self,
        level: Option<DiskLevel>,
        ttl: Duration,
        dry_run: bool,
    ) -> Result<v1::DrillResponse, ErrorDetail> {
        let facts = self.volume.facts();
        let Some(level) = level else {
            if !dry_run {
                self.volume.drill(None);
            }
            return Ok(v1::DrillResponse { free_bytes: facts.free_bytes, ..Default::default() });
        };
        let free_bytes = drill_bytes(self.volume.marks(), level)
            .ok_or_else(|| invalid("a drill leads to reclaim, throttle or read-only"))?;
        if facts.drill.is_none() && facts.level != DiskLevel::Normal {
            return Err(invalid(format!(
                "the volume is at {} already; a drill needs a normal one",
                facts.level
            )));
        }
        if !dry_run {
            let until = self.now().saturating_add(ttl);
            self.volume.drill(Some(Drill { free_bytes, until }));
            tracing::warn!(
                volume = %self.place.path, to = %level, seconds = ttl.as_secs(),
                "a drill was begun by an operator; no space is used and nothing is deleted"
            );
        }
        Ok(v1::DrillResponse {
            pretended_free_bytes: free_bytes,
            free_bytes: facts.free_bytes,
            ttl_ms: millis(ttl),
        })
    }
}

/// The plan by log.
fn planned(
    plan: &ReclaimPlan,
    guards: &ReplicaGuards,
    start_of: impl Fn(&PartitionId) -> u64,
) -> v1::PlanReclaimResponse {
    let mut logs: BTreeMap<PartitionId, v1::ReclaimOfLog> = BTreeMap::new();
    let mut segments = 0u32;
    for deletion in plan.deletions() {
        let Deletion { partition, end_offset, bytes, reason, .. } = *deletion;
        segments = segments.saturating_add(1);
        let log = logs.entry(partition).or_insert_with(|| v1::ReclaimOfLog {
            topic_id: partition.topic_id.to_bytes(),
            partition: partition.index,
            log_start_before: start_of(&partition),
            group_floor_plus_1: guards
                .get(&partition)
                .and_then(|guard| guard.group_floor)
                .map_or(0, |floor| floor.get().saturating_add(1)),
            ..Default::default()
        });
        log.segments = log.segments.saturating_add(1);
        log.bytes = log.bytes.saturating_add(bytes);
        log.log_start_after = end_offset.get();
        log.reason = log.reason.max(wire_reason(reason).into());
    }
    v1::PlanReclaimResponse {
        logs: logs.into_values().collect(),
        segments,
        bytes: plan.bytes,
        inodes: plan.inodes,
        missing_bytes: plan.missing_bytes,
        ..Default::default()
    }
}

fn wire_reason(reason: ReclaimReason) -> v1::ReclaimReason {
    match reason {
        ReclaimReason::LeaderLogStart => v1::ReclaimReason::LeaderLogStart,
        ReclaimReason::Age => v1::ReclaimReason::Age,
        ReclaimReason::Size => v1::ReclaimReason::Size,
        ReclaimReason::Pressure => v1::ReclaimReason::Pressure,
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::ids::{Offset, TopicId};
    use plimsoll_storage::space::reclaim::Step;

    use super::*;

    #[test]
    fn a_plan_is_told_by_log_with_its_strongest_reason() {
        let partition = |index| PartitionId { topic_id: TopicId([7; 16]), index };
        let delete = |index, from, to, reason| {
            Step::Delete(Deletion {
                partition: partition(index),
                base_offset: Offset::new(from).expect("small"),
                end_offset: Offset::new(to).expect("small"),
                bytes: 10,
                reason,
            })
        };
        let plan = ReclaimPlan {
            steps: vec![
                delete(1, 0, 5, ReclaimReason::Age),
                delete(0, 2, 4, ReclaimReason::Size),
                Step::Roll { partition: partition(1) },
                delete(1, 5, 9, ReclaimReason::Pressure),
            ],
            bytes: 30,
            inodes: 9,
            missing_bytes: 1,
        };
        let told = planned(&plan, &ReplicaGuards::new(), |partition| u64::from(partition.index));
        assert_eq!((told.segments, told.bytes, told.inodes, told.missing_bytes), (3, 30, 9, 1));
        let log = |at: usize| {
            let log = &told.logs[at];
            (log.partition, log.segments, log.bytes, log.log_start_before, log.log_start_after, log.reason())
        };
        assert_eq!(log(0), (0, 1, 10, 0, 4, v1::ReclaimReason::Size));
        assert_eq!(log(1), (1, 2, 20, 1, 9, v1::ReclaimReason::Pressure));
    }
}
