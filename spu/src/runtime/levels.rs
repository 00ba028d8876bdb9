//! The log lines of a volume's level: one for each change, few for an episode.
//!
//! An episode lasts from leaving Normal until Normal again. Levels crossed within a second share a line; the
//! line of a start counts as one. Between later lines the pauses grow, and what is not said is counted and told
//! by the next line. Failed and the return to Normal are always told.

use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;

/// Levels crossed within this share a line.
const SHARED: Duration = Duration::from_secs(1);
/// Lines of an episode before their pauses grow.
const PROMPT_LINES: u32 = 4;
/// Lines of an episode, but for Failed and the return to Normal: ten in all.
const LINES_MAX: u32 = 8;
/// How long a volume refuses before the refusals are summed up without a change; each next time is four times
/// as long.
const STILL_FIRST: Duration = Duration::from_secs(30);

/// A line to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LevelLine {
    pub(super) from: DiskLevel,
    /// The same as `from` when refusals are summed up.
    pub(super) to: DiskLevel,
    /// Changes since the last line, this one included.
    pub(super) changes: u32,
    /// Bytes reclaimed since the last line.
    pub(super) reclaimed_bytes: u64,
    /// Requests refused since the last line.
    pub(super) refused: u64,
}

/// Decides which changes are worth a line, and when. Pure.
#[derive(Clone, Debug)]
pub(super) struct LevelLog {
    shown: DiskLevel,
    seen: DiskLevel,
    changes: u32,
    changed_at: Option<Duration>,
    last_line_at: Duration,
    /// Lines of this episode.
    lines: u32,
    still_pause: Duration,
    reclaimed_bytes: u64,
    refused_shown: u64,
}

impl LevelLog {
    /// A volume that was opened at `level`, which the line about the start tells.
    pub(super) fn new(level: DiskLevel, now: Duration) -> Self {
        Self {
            shown: level,
            seen: level,
            changes: 0,
            changed_at: None,
            last_line_at: now,
            lines: u32::from(level > DiskLevel::Normal),
            still_pause: STILL_FIRST,
            reclaimed_bytes: 0,
            refused_shown: 0,
        }
    }

    pub(super) fn reclaimed(&mut self, bytes: u64) {
        self.reclaimed_bytes = self.reclaimed_bytes.saturating_add(bytes);
    }

    /// The level and the refusals so far, each turn. The worst levels get their line at once, unless one was
    /// written less than a second ago.
    pub(super) fn observe(&mut self, level: DiskLevel, refused: u64, now: Duration) -> Option<LevelLine> {
        if level != self.seen {
            self.seen = level;
            self.changes = self.changes.saturating_add(1);
        }
        let quiet_for = now.saturating_sub(self.last_line_at);
        if level == self.shown {
            self.changed_at = None;
            let refuses = level >= DiskLevel::ReadOnly && refused > self.refused_shown;
            let due = refuses && quiet_for >= self.still_pause && self.lines < LINES_MAX;
            return due.then(|| {
                self.still_pause *= 4;
                self.line(level, refused, now)
            });
        }
        let since = *self.changed_at.get_or_insert(now);
        let urgent = level >= DiskLevel::ReadOnly && level > self.shown;
        let always = matches!(level, DiskLevel::Normal | DiskLevel::Failed);
        let pause = if always { SHARED } else { SHARED * 4u32.pow(self.lines.saturating_sub(PROMPT_LINES)) };
        let due = quiet_for >= pause
            && (urgent || now.saturating_sub(since) >= SHARED)
            && (always || self.lines < LINES_MAX);
        due.then(|| self.line(level, refused, now))
    }

    fn line(&mut self, level: DiskLevel, refused: u64, now: Duration) -> LevelLine {
        let line = LevelLine {
            from: std::mem::replace(&mut self.shown, level),
            to: level,
            changes: std::mem::take(&mut self.changes),
            reclaimed_bytes: std::mem::take(&mut self.reclaimed_bytes),
            refused: refused.saturating_sub(std::mem::replace(&mut self.refused_shown, refused)),
        };
        self.changed_at = None;
        self.last_line_at = now;
        self.lines += 1;
        if level == DiskLevel::Normal {
            self.lines = 0;
            self.still_pause = STILL_FIRST;
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DiskLevel::{Failed, Normal, ReadOnly, Reclaim, Throttle};

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn levels_crossed_within_a_second_share_a_line() {
        let mut log = LevelLog::new(Normal, ms(0));
        let mut lines = Vec::new();
        for (at, level) in [
            (2000, Normal),
            (2100, Reclaim),
            (2200, Throttle),
            (2300, ReadOnly),
            (2400, Throttle),
            (2600, Normal),
            (3500, Normal),
            (3600, Normal),
            (7000, Reclaim),
            (7500, Normal),
            (9000, Normal),
            (10000, Failed),
        ] {
            lines.extend(log.observe(level, 7, ms(at)).map(|line| (at, line.from, line.to, line.changes)));
        }
        // The third line tells of the crossing into Reclaim and back, too.
        assert_eq!(
            lines,
            [(2300, Normal, ReadOnly, 3), (3500, ReadOnly, Normal, 2), (10000, Normal, Failed, 3)]
        );
    }

    #[test]
    fn the_line_of_a_start_is_the_first_of_an_episode() {
        let mut log = LevelLog::new(ReadOnly, ms(0));
        assert_eq!(log.observe(ReadOnly, 0, ms(10)), None);
        // A second level within the first second waits.
        assert_eq!(log.observe(Failed, 0, ms(500)), None);
        assert_eq!(
            log.observe(Failed, 0, ms(1000)).map(|line| (line.from, line.to)),
            Some((ReadOnly, Failed))
        );
        let mut fresh = LevelLog::new(Normal, ms(0));
        assert_eq!(fresh.observe(ReadOnly, 0, ms(100)), None);
        assert!(fresh.observe(ReadOnly, 0, ms(1000)).is_some());
    }

    #[test]
    fn an_episode_has_ten_lines_at_most_and_loses_no_count() {
        let mut log = LevelLog::new(Normal, ms(0));
        let (mut lines, mut refused) = (Vec::new(), 0);
        // A week of a level that never rests, and a client without backoff.
        for second in 1..7 * 24 * 3600u64 {
            refused += 1000;
            let level = if second.is_multiple_of(40) { Throttle } else { ReadOnly };
            lines.extend(log.observe(level, refused, ms(second * 1000)));
        }
        assert!(lines.len() <= 8, "{lines:?}");
        let end = ms(8 * 24 * 3_600_000);
        lines.extend(log.observe(Failed, refused, end));
        assert_eq!(log.observe(Normal, refused, end + ms(1)), None);
        lines.extend(log.observe(Normal, refused, end + ms(1500)));
        assert_eq!(lines.last().map(|line| line.to), Some(Normal));
        assert!(lines.len() <= 10, "{lines:?}");
        assert_eq!(lines.iter().map(|line| line.refused).sum::<u64>(), refused);
        // The next episode begins anew.
        assert!(log.observe(ReadOnly, refused, end + ms(9000)).is_some());
    }

    #[test]
    fn lasting_refusals_are_summed_up_at_growing_intervals() {
        let mut log = LevelLog::new(Normal, ms(0));
        let mut at = Vec::new();
        for second in 1..1000u64 {
            at.extend(log.observe(ReadOnly, second * 50_000, ms(second * 1000)).map(|_| second));
        }
        assert_eq!(at, [1, 31, 151, 631]);
        // Silence of the clients is not worth a line.
        assert_eq!(
            log.observe(ReadOnly, 999 * 50_000, ms(10_000_000)).map(|line| line.refused > 0),
            Some(true)
        );
        assert_eq!(log.observe(ReadOnly, 999 * 50_000, ms(99_000_000)), None);
    }
}
