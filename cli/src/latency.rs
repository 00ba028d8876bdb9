//! Percentiles of many times in little room: buckets of a sixteenth of a power of two, at most 7 % too long.

use std::time::Duration;

/// Sixteenths of a power of two.
const STEPS: usize = 16;
const BUCKETS: usize = 64 * STEPS;

/// Times in microseconds, counted by bucket.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    counts: Vec<u64>,
    total: u64,
    max_us: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max_us: 0 }
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(us)] += 1;
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    /// The time below which so many of 1000 stay; `None` when there is none.
    pub(crate) fn permille(&self, permille: u64) -> Option<u64> {
        if self.total == 0 {
            return None;
        }
        let wanted = (u128::from(self.total) * u128::from(permille)).div_ceil(1000).max(1);
        let mut seen = 0u128;
        let at = self.counts.iter().position(|count| {
            seen += u128::from(*count);
            seen >= wanted
        })?;
        Some(upper(at).min(self.max_us))
    }

    pub(crate) fn max_us(&self) -> Option<u64> {
        (self.total > 0).then_some(self.max_us)
    }
}

fn bucket(us: u64) -> usize {
    let steps = u64::try_from(STEPS).unwrap_or(u64::MAX);
    if us < steps {
        return usize::try_from(us).unwrap_or(0);
    }
    let power = us.ilog2();
    let step = (us >> (power - 4)) & (steps - 1);
    let power = usize::try_from(power).unwrap_or(0);
    ((power - 3) * STEPS + usize::try_from(step).unwrap_or(0)).min(BUCKETS - 1)
}

/// The greatest time of a bucket.
fn upper(bucket: usize) -> u64 {
    if bucket < STEPS {
        return u64::try_from(bucket).unwrap_or(0);
    }
    let (power, step) = (bucket / STEPS + 3, bucket % STEPS);
    let next = u128::try_from(STEPS + step + 1).unwrap_or(0) << (power - 4);
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

/// A time for people.
pub(crate) fn shown(us: Option<u64>) -> String {
    match us {
        None => "-".to_owned(),
        Some(us) if us < 1000 => format!("{us} us"),
        Some(us) if us < 1_000_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        Some(us) => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_close_from_above() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.permille(500), None);
        for us in 1..=10_000u64 {
            latencies.record(Duration::from_micros(us));
        }
        for (permille, exact) in [(1, 10), (500, 5_000), (990, 9_900), (1000, 10_000)] {
            let found = latencies.permille(permille).expect("some");
            assert!((exact..=exact + exact / 14 + 1).contains(&found), "{permille}: {found}");
        }
        assert_eq!(latencies.max_us(), Some(10_000));
    }

    #[test]
    fn every_time_has_a_bucket_that_holds_it() {
        for us in [0, 1, 15, 16, 17, 31, 32, 1000, 65_535, 65_536, u64::MAX / 2, u64::MAX] {
            let bucket = bucket(us);
            assert!(upper(bucket) >= us, "{us}");
            assert!(bucket == 0 || upper(bucket - 1) < us, "{us}");
        }
    }

    #[test]
    fn times_are_shown_in_their_unit() {
        let texts = [None, Some(12), Some(1500), Some(2_345_678)].map(shown);
        assert_eq!(texts, ["-", "12 us", "1.5 ms", "2.34 s"]);
    }
}
