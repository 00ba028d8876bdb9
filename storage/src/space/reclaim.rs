//! What to delete, in which order, and by what right: a pure plan over all replicas of a volume.
//!
//! ```text
//!   log_start                         bound = min(high watermark, replicated to)      log_end
//!      |== expired ==|== over size ==|.. unexpired, trimmed only if allowed ..|--- never ---|
//!      1. Age          2. Size         3. Pressure, oldest first, largest log first
//! ```
//!
//! Only whole segments go, from the head of a log. 1 and 2 are what the topic's configuration promises and
//! need no pressure; 3 stops as soon as enough is freed, so it takes at most one segment too much.

use std::time::Duration;

use plimsoll_proto::ids::{Offset, PartitionId};

/// Files of one segment: log, offset index, time index.
pub const FILES_PER_SEGMENT: u64 = 3;

/// By what right data is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReclaimReason {
    /// The leader's log start has passed it.
    LeaderLogStart,
    /// Older than the topic keeps.
    Age,
    /// Beyond the size that the topic keeps.
    Size,
    /// Pressure, on a topic that allows it.
    Pressure,
}

/// One segment, as the plan sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    /// First offset.
    pub base_offset: Offset,
    /// Offset behind the last record; equal to `base_offset` when empty.
    pub end_offset: Offset,
    /// Bytes that deleting it gives back: allocated blocks, its indexes included.
    pub bytes: u64,
    /// Time since its last append, in cluster time.
    pub last_append_age: Duration,
    /// Whether it takes no more appends; only the last one of a log is not sealed.
    pub sealed: bool,
}

/// What pressure may take of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// Nothing that retention keeps.
    Refuse,
    /// The oldest unexpired data.
    Trim {
        /// Data younger than this stays.
        min_retention: Duration,
        /// Whether data that active groups have not read may go as well.
        past_active_groups: bool,
    },
}

/// One replica, as the plan sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaFacts {
    /// Which.
    pub partition: PartitionId,
    /// Whether it leads; only a leader trims under pressure.
    pub leads: bool,
    /// First offset that counts: own log start, or the leader's when that is further.
    pub log_start: Offset,
    /// End of committed records.
    pub high_watermark: Offset,
    /// End of what `min_in_sync` replicas hold; `None` when the high watermark says it.
    pub replicated_to: Option<Offset>,
    /// Lowest offset of the groups active in the last 24 h.
    pub group_floor: Option<Offset>,
    /// Whether ages can be trusted; false after a jump of the clock.
    pub ages_trusted: bool,
    /// Age beyond which data goes.
    pub retention_age_max: Option<Duration>,
    /// Size beyond which the oldest segments go; the log never shrinks below it.
    pub retention_bytes_max: Option<u64>,
    /// What pressure may take.
    pub pressure: Pressure,
    /// In order of offset, the active one last.
    pub segments: Vec<SegmentFacts>,
}

/// How much is wanted beyond what retention gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Bytes; subtract what is pending already (unlinked but still open).
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

impl Want {
    /// What is wanted still after so many bytes and whole segments went.
    #[must_use]
    pub fn less(self, bytes: u64, segments: usize) -> Self {
        let inodes = u64::try_from(segments).unwrap_or(u64::MAX).saturating_mul(FILES_PER_SEGMENT);
        Self { bytes: self.bytes.saturating_sub(bytes), inodes: self.inodes.saturating_sub(inodes) }
    }
}

/// One deletion, also the content of its audit event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Of which replica.
    pub partition: PartitionId,
    /// First offset of the segment.
    pub base_offset: Offset,
    /// The log starts here afterwards.
    pub end_offset: Offset,
    /// Bytes it gives back.
    pub bytes: u64,
    /// By what right.
    pub reason: ReclaimReason,
}

/// One step of a plan, to be done in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Seal the active segment and begin a new one at its end. When that is impossible (no file to be had),
    /// skip the deletion of this segment that follows.
    Roll {
        /// Of which replica.
        partition: PartitionId,
    },
    /// Move the log start to `end_offset`, durably, then unlink the segment.
    Delete(Deletion),
}

/// What to do and what it gives; as a dry run just not done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReclaimPlan {
    /// In order.
    pub steps: Vec<Step>,
    /// Bytes that all deletions give back.
    pub bytes: u64,
    /// Inodes that all deletions give back, at least.
    pub inodes: u64,
    /// Bytes wanted that nothing allowed can give.
    pub missing_bytes: u64,
}

impl ReclaimPlan {
    /// The deletions, in order.
    pub fn deletions(&self) -> impl Iterator<Item = &Deletion> {
        self.steps.iter().filter_map(|step| match step {
            Step::Delete(deletion) => Some(deletion),
            Step::Roll { .. } => None,
        })
    }

    fn gives(&self, want: Want) -> bool {
        self.bytes >= want.bytes && self.inodes >= want.inodes
    }
}

/// A replica while the plan is made.
struct Cursor<'a> {
    facts: &'a ReplicaFacts,
    /// Segments before this one are planned for deletion.
    next: usize,
    remaining: u64,
}

impl<'a> Cursor<'a> {
    fn new(facts: &'a ReplicaFacts) -> Self {
        Self { facts, next: 0, remaining: facts.segments.iter().map(|segment| segment.bytes).sum() }
    }

    /// Nothing at or beyond this offset may go.
    fn bound(&self) -> Offset {
        let committed = self.facts.high_watermark;
        self.facts.replicated_to.map_or(committed, |end| end.min(committed))
    }

    /// The next segment of this log, if it may go at all.
    fn head(&self) -> Option<&'a SegmentFacts> {
        let segment = self.facts.segments.get(self.next)?;
        let empty_active = !segment.sealed && segment.base_offset == segment.end_offset;
        (segment.end_offset <= self.bound() && !empty_active).then_some(segment)
    }

    fn retention_reason(&self, segment: &SegmentFacts) -> Option<ReclaimReason> {
        if segment.end_offset <= self.facts.log_start {
            return Some(ReclaimReason::LeaderLogStart);
        }
        let age_max = self.facts.retention_age_max.filter(|_| self.facts.ages_trusted);
        if age_max.is_some_and(|max| segment.last_append_age > max) {
            return Some(ReclaimReason::Age);
        }
        let size_max = self.facts.retention_bytes_max?;
        let left = self.remaining.saturating_sub(segment.bytes);
        (segment.sealed && left >= size_max).then_some(ReclaimReason::Size)
    }

    fn pressure_allows(&self, segment: &SegmentFacts) -> bool {
        let Pressure::Trim { min_retention, past_active_groups } = self.facts.pressure else { return false };
        let unread = self.facts.group_floor.is_some_and(|floor| segment.end_offset > floor);
        self.facts.leads
            && self.facts.ages_trusted
            && segment.last_append_age >= min_retention
            && (past_active_groups || !unread)
    }

    fn take(&mut self, segment: &SegmentFacts, reason: ReclaimReason, plan: &mut ReclaimPlan) {
        debug_assert!(segment.end_offset <= self.bound(), "never past the bound");
        let partition = self.facts.partition;
        if !segment.sealed {
            plan.steps.push(Step::Roll { partition });
        }
        let SegmentFacts { base_offset, end_offset, bytes, .. } = *segment;
        plan.steps.push(Step::Delete(Deletion { partition, base_offset, end_offset, bytes, reason }));
        plan.bytes = plan.bytes.saturating_add(bytes);
        // A rolled active segment is followed by a new one with files of its own.
        plan.inodes += if segment.sealed { FILES_PER_SEGMENT } else { 0 };
        self.remaining = self.remaining.saturating_sub(bytes);
        self.next += 1;
    }
}

/// Plans all that retention allows, and beyond it under pressure until `want` is met.
pub fn plan(replicas: &[ReplicaFacts], want: Want) -> ReclaimPlan {
    let mut plan = ReclaimPlan::default();
    let mut cursors: Vec<Cursor<'_>> = replicas.iter().map(Cursor::new).collect();
    cursors.sort_by_key(|cursor| cursor.facts.partition);
    for cursor in &mut cursors {
        while let Some(segment) = cursor.head() {
            let Some(reason) = cursor.retention_reason(segment) else { break };
            cursor.take(segment, reason, &mut plan);
        }
    }
    while !plan.gives(want) {
        let Some((cursor, segment)) = fairest(&mut cursors) else { break };
        cursor.take(segment, ReclaimReason::Pressure, &mut plan);
    }
    plan.missing_bytes = want.bytes.saturating_sub(plan.bytes);
    plan
}

/// The log that holds most gives next, so that logs end up alike; of equal ones the one with the oldest head.
fn fairest<'c, 'a>(cursors: &'c mut [Cursor<'a>]) -> Option<(&'c mut Cursor<'a>, &'a SegmentFacts)> {
    let allowed = cursors.iter_mut().filter_map(|cursor| {
        let segment = cursor.head()?;
        cursor.pressure_allows(segment).then_some((cursor, segment))
    });
    allowed.max_by_key(|(cursor, segment)| (cursor.remaining, segment.last_append_age))
}

#[cfg(test)]
#[path = "reclaim_tests.rs"]
mod tests;
