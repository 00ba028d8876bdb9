//! How fast a volume fills, by us and by others.

use std::time::Duration;

/// Weight of the past: a rate that lasts this long has 1/2 of its full say.
const MEMORY: Duration = Duration::from_secs(5);

/// Exponentially weighted fill rates, in bytes a second; negative while space comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trend {
    last: Option<Point>,
    own: i64,
    foreign: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    at: Duration,
    free: u64,
    own_use: u64,
}

impl Trend {
    /// Takes one accepted sample: free bytes, and bytes of our own files.
    pub fn observe(&mut self, free: u64, own_use: u64, now: Duration) {
        let point = Point { at: now, free, own_use };
        let Some(last) = self.last.replace(point) else { return };
        let elapsed = now.saturating_sub(last.at);
        if elapsed.is_zero() {
            self.last = Some(last);
            return;
        }
        let own = i128::from(own_use) - i128::from(last.own_use);
        let total = i128::from(last.free) - i128::from(free);
        self.own = blend(self.own, own, elapsed);
        self.foreign = blend(self.foreign, total - own, elapsed);
    }

    /// Forgets the past, as after a change of capacity.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Bytes a second by our own files.
    pub fn own_rate(&self) -> i64 {
        self.own
    }

    /// Bytes a second by everybody else.
    pub fn foreign_rate(&self) -> i64 {
        self.foreign
    }

    /// Time until nothing is free at the present slope; `None` while the volume does not fill.
    pub fn time_to_full(&self, free: u64) -> Option<Duration> {
        let rate = i128::from(self.own) + i128::from(self.foreign);
        let rate = u128::try_from(rate).ok().filter(|rate| *rate > 0)?;
        let millis = u128::from(free) * 1000 / rate;
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }
}

/// `rate` moved towards `bytes / elapsed` by the weight `elapsed / (elapsed + MEMORY)`.
fn blend(rate: i64, bytes: i128, elapsed: Duration) -> i64 {
    let elapsed = i128::try_from(elapsed.as_micros()).unwrap_or(i128::MAX / 2).min(1 << 60);
    let memory = i128::try_from(MEMORY.as_micros()).unwrap_or(i128::MAX / 2);
    let now = bytes.saturating_mul(1_000_000) / elapsed;
    let blended = i128::from(rate) + (now - i128::from(rate)).saturating_mul(elapsed) / (elapsed + memory);
    let clamped = blended.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    i64::try_from(clamped).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_steady_fill_is_told_apart_by_writer() {
        let mut trend = Trend::default();
        for second in 0..120_u32 {
            let t = u64::from(second);
            trend.observe(1_000_000 - t * 3000, t * 1000, S * second);
        }
        assert!((990..=1000).contains(&trend.own_rate()), "{trend:?}");
        assert!((1990..=2000).contains(&trend.foreign_rate()), "{trend:?}");
        let left = trend.time_to_full(300_000).unwrap();
        assert!((Duration::from_secs(100)..Duration::from_secs(102)).contains(&left), "{left:?}");
    }

    #[test]
    fn no_fill_no_end() {
        let mut trend = Trend::default();
        assert_eq!(trend.time_to_full(100), None);
        trend.observe(100, 0, S);
        trend.observe(200, 0, S * 2);
        assert_eq!(trend.time_to_full(200), None);
        trend.reset();
        assert_eq!(trend, Trend::default());
    }

    #[test]
    fn one_burst_has_a_bounded_say() {
        let mut trend = Trend::default();
        trend.observe(1_000_000, 0, Duration::ZERO);
        trend.observe(940_000, 60_000, S);
        assert_eq!(trend.own_rate(), 10_000);
        assert_eq!(trend.foreign_rate(), 0);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut trend = Trend::default();
        trend.observe(u64::MAX, 0, Duration::ZERO);
        trend.observe(0, u64::MAX, Duration::from_nanos(1000));
        trend.observe(u64::MAX, 0, Duration::MAX);
        trend.observe(0, 0, Duration::MAX);
        let _ = trend.time_to_full(u64::MAX);
    }
}
