//! Samples that can't be true are dropped and counted.

use std::time::Duration;

use crate::fs::SpaceSample;

/// Nothing writes or gives back faster than this, in bytes a second.
const RATE_MAX: u64 = 64 << 30;

/// This many dropped samples in a row make the sensor stale.
const STALE_AFTER: u32 = 3;

/// Why a sample was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Implausible {
    /// The filesystem has no bytes.
    ZeroTotal,
    /// More bytes are free than there are.
    FreeBeyondTotal,
    /// More inodes are free than there are.
    InodesBeyondTotal,
    /// Our own count of written bytes went backwards.
    CounterBackwards,
    /// We would have written faster than any device.
    OwnRate,
    /// More came back at once than a device gives; believed when the next sample agrees.
    SuddenPlenty,
}

/// Remembers what is needed to judge the next sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plausibility {
    last: Option<Accepted>,
    unconfirmed_free: Option<u64>,
    dropped_total: u64,
    dropped_in_a_row: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Accepted {
    at: Duration,
    available: u64,
    written_total: u64,
}

impl Plausibility {
    /// Judges a sample; `written_total` is our own ever growing count of written bytes.
    ///
    /// # Errors
    /// Why it must not be used.
    pub fn judge(
        &mut self,
        sample: &SpaceSample,
        written_total: u64,
        now: Duration,
    ) -> Result<(), Implausible> {
        match self.find(sample, written_total, now) {
            Some(why) => {
                self.unconfirmed_free = (why == Implausible::SuddenPlenty).then_some(sample.available_bytes);
                self.dropped_total += 1;
                self.dropped_in_a_row = self.dropped_in_a_row.saturating_add(1);
                Err(why)
            }
            None => {
                self.last = Some(Accepted { at: now, available: sample.available_bytes, written_total });
                self.unconfirmed_free = None;
                self.dropped_in_a_row = 0;
                Ok(())
            }
        }
    }

    fn find(&self, sample: &SpaceSample, written_total: u64, now: Duration) -> Option<Implausible> {
        if sample.total_bytes == 0 {
            return Some(Implausible::ZeroTotal);
        }
        if sample.available_bytes > sample.total_bytes {
            return Some(Implausible::FreeBeyondTotal);
        }
        if sample.total_inodes > 0 && sample.available_inodes > sample.total_inodes {
            return Some(Implausible::InodesBeyondTotal);
        }
        let last = self.last?;
        if written_total < last.written_total {
            return Some(Implausible::CounterBackwards);
        }
        let possible = possible_bytes(now.saturating_sub(last.at));
        if written_total - last.written_total > possible {
            return Some(Implausible::OwnRate);
        }
        // Worse news is believed at once (fallocate takes a terabyte in a moment); better news of this size
        // only when it is repeated.
        let rise = sample.available_bytes.saturating_sub(last.available);
        let confirmed = self.unconfirmed_free.is_some_and(|free| sample.available_bytes >= free / 2);
        (rise > possible && !confirmed).then_some(Implausible::SuddenPlenty)
    }

    /// Samples dropped since the start.
    pub fn dropped_total(&self) -> u64 {
        self.dropped_total
    }

    /// Whether so many were dropped in a row that what is known is no longer trusted.
    pub fn is_stale(&self) -> bool {
        self.dropped_in_a_row >= STALE_AFTER
    }
}

/// At least the bytes of one second, so that two samples close together are not held to a few bytes.
fn possible_bytes(elapsed: Duration) -> u64 {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1000);
    (RATE_MAX / 1000).saturating_mul(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(total_bytes: u64, available_bytes: u64) -> SpaceSample {
        SpaceSample { total_bytes, available_bytes, total_inodes: 10, available_inodes: 10 }
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn impossible_samples_are_dropped_and_three_in_a_row_make_it_stale() {
        let mut judge = Plausibility::default();
        judge.judge(&sample(100, 100), 5, at(0)).unwrap();
        let cases = [
            (sample(0, 0), 5, Implausible::ZeroTotal),
            (sample(100, 101), 5, Implausible::FreeBeyondTotal),
            (SpaceSample { available_inodes: 11, ..sample(100, 50) }, 5, Implausible::InodesBeyondTotal),
            (sample(100, 50), 4, Implausible::CounterBackwards),
            (sample(100, 50), 5 + possible_bytes(at(1)) + 1, Implausible::OwnRate),
        ];
        for (n, (sample, written, why)) in (1..).zip(cases) {
            assert_eq!(judge.judge(&sample, written, at(1)), Err(why));
            assert_eq!((judge.dropped_total(), judge.is_stale()), (n, n >= 3));
        }
        judge.judge(&sample(100, 0), 5, at(2)).unwrap();
        assert!(!judge.is_stale());
        let uncounted = SpaceSample { total_inodes: 0, available_inodes: 11, ..sample(100, 50) };
        judge.judge(&uncounted, 5, at(3)).unwrap();
    }

    #[test]
    fn sudden_plenty_needs_a_second_sample_and_sudden_want_none() {
        let size = 1 << 50;
        let mut judge = Plausibility::default();
        judge.judge(&sample(size, 0), 0, at(0)).unwrap();
        judge.judge(&sample(size, RATE_MAX / 1000 * 1000), 0, at(1)).unwrap();
        assert_eq!(judge.judge(&sample(size, size), 0, at(2)), Err(Implausible::SuddenPlenty));
        judge.judge(&sample(size, size), 0, at(3)).unwrap();
        judge.judge(&sample(size, 0), 0, at(4)).unwrap();
        assert_eq!(judge.judge(&sample(size, size), 0, at(5)), Err(Implausible::SuddenPlenty));
        judge.judge(&sample(size, 0), 0, at(6)).unwrap();
        assert_eq!(judge.judge(&sample(size, size), 0, at(7)), Err(Implausible::SuddenPlenty));
    }
}
