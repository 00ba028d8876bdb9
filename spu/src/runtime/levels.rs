//! One log line for each change of a volume's level; levels crossed within a second share one.

use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;

/// Levels crossed within this share a line.
const SHARED: Duration = Duration::from_secs(1);

/// A line to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LevelLine {
    pub(super) from: DiskLevel,
    pub(super) to: DiskLevel,
    /// Bytes reclaimed since the last line.
    pub(super) reclaimed_bytes: u64,
    /// Requests refused since the last line.
    pub(super) refused: u64,
}

/// Decides which changes are worth a line, and when. Pure.
#[derive(Clone, Debug)]
pub(super) struct LevelLog {
    shown: DiskLevel,
    changed_at: Option<Duration>,
    last_line_at: Option<Duration>,
    reclaimed_bytes: u64,
    refused_shown: u64,
}

impl LevelLog {
    pub(super) fn new(level: DiskLevel) -> Self {
        Self { shown: level, changed_at: None, last_line_at: None, reclaimed_bytes: 0, refused_shown: 0 }
    }

    pub(super) fn reclaimed(&mut self, bytes: u64) {
        self.reclaimed_bytes = self.reclaimed_bytes.saturating_add(bytes);
    }

    /// The level and the refusals so far, each turn. The worst levels get their line at once, unless one was
    /// written less than a second ago.
    pub(super) fn observe(&mut self, level: DiskLevel, refused: u64, now: Duration) -> Option<LevelLine> {
        if level == self.shown {
            self.changed_at = None;
            return None;
        }
        let since = *self.changed_at.get_or_insert(now);
        let urgent = level >= DiskLevel::ReadOnly && level > self.shown;
        let quiet = self.last_line_at.is_none_or(|at| now.saturating_sub(at) >= SHARED);
        let due = quiet && (urgent || now.saturating_sub(since) >= SHARED);
        due.then(|| {
            let line = LevelLine {
                from: std::mem::replace(&mut self.shown, level),
                to: level,
                reclaimed_bytes: std::mem::take(&mut self.reclaimed_bytes),
                refused: refused.saturating_sub(std::mem::replace(&mut self.refused_shown, refused)),
            };
            self.changed_at = None;
            self.last_line_at = Some(now);
            line
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DiskLevel::{Failed, Normal, ReadOnly, Reclaim, Throttle};

    #[test]
    fn levels_crossed_within_a_second_share_a_line() {
        let ms = Duration::from_millis;
        let mut log = LevelLog::new(Normal);
        let mut lines = Vec::new();
        for (at, level) in [
            (0, Normal),
            (100, Reclaim),
            (200, Throttle),
            (300, ReadOnly),
            (400, Throttle),
            (600, Normal),
            (1500, Normal),
            (1600, Normal),
            (5000, Reclaim),
            (5500, Normal),
            (7000, Normal),
            (8000, Failed),
        ] {
            lines.extend(log.observe(level, 7, ms(at)).map(|line| (at, line.from, line.to)));
        }
        assert_eq!(lines, [(300, Normal, ReadOnly), (1500, ReadOnly, Normal), (8000, Normal, Failed)]);
    }
}
