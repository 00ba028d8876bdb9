//! Which level is due by the marks, with hysteresis.

use plimsoll_proto::disk::{DiskCause, DiskLevel};

use super::level::{Facts, LevelCause};
use super::marks::{MARKED, Marks};

pub(super) fn shortage(level: DiskLevel, facts: &Facts, marks: &Marks, already: bool) -> Option<DiskCause> {
    if marks.bytes(level).holds(facts.free_bytes, already) {
        return Some(facts.scarce);
    }
    let inodes = facts.free_inodes.is_some_and(|free| marks.inodes(level).holds(free, already));
    inodes.then_some(DiskCause::Inodes)
}

pub(super) fn due(
    level: DiskLevel,
    already: bool,
    facts: &Facts,
    marks: &Marks,
) -> Option<(DiskLevel, LevelCause)> {
    if let Some(cause) = shortage(level, facts, marks, already) {
        return Some((level, LevelCause::Disk(cause)));
    }
    let soon = marks.soon(level, facts.free_bytes, facts.time_to_full, already);
    soon.then_some((level, LevelCause::FillingFast))
}

/// The worst level that is due, with hysteresis for those that hold already.
pub(super) fn wanted(current: DiskLevel, facts: &Facts, marks: &Marks) -> (DiskLevel, Option<LevelCause>) {
    let found = MARKED.into_iter().rev().find_map(|level| due(level, current >= level, facts, marks));
    found.map_or((DiskLevel::Normal, None), |(level, cause)| (level, Some(cause)))
}

pub(super) fn pressure_permille(facts: &Facts, marks: &Marks) -> u64 {
    let between = |free: u64, high: u64, low: u64| {
        let span = high.saturating_sub(low).max(1);
        let missing = high.saturating_sub(free).min(span);
        u64::try_from(u128::from(missing) * 1000 / u128::from(span)).unwrap_or(1000)
    };
    let (throttle, read_only) = (marks.bytes(DiskLevel::Throttle), marks.bytes(DiskLevel::ReadOnly));
    let bytes = between(facts.free_bytes, throttle.exit, read_only.enter);
    let (throttle, read_only) = (marks.inodes(DiskLevel::Throttle), marks.inodes(DiskLevel::ReadOnly));
    let inodes = facts.free_inodes.map_or(0, |free| between(free, throttle.exit, read_only.enter));
    bytes.max(inodes)
}
