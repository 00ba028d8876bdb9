//! Waiting between tries: exponential, with jitter. The only module that knows the crate `backoff`.

use std::time::Duration;

use backoff::backoff::Backoff as _;

use crate::random::Random;

/// Growing pauses between tries of one thing.
#[derive(Debug)]
pub struct Backoff {
    inner: backoff::ExponentialBackoff,
    max: Duration,
    random: Random,
}

impl Backoff {
    /// Pauses of about `initial`, doubling up to `max`.
    pub fn new(initial: Duration, max: Duration, random: &Random) -> Self {
        let inner = backoff::ExponentialBackoff {
            current_interval: initial,
            initial_interval: initial,
            // Jitter comes from our own source, so that a seed fixes it.
            randomization_factor: 0.0,
            multiplier: 2.0,
            max_interval: max,
            max_elapsed_time: None,
            ..backoff::ExponentialBackoff::default()
        };
        Self { inner, max, random: random.clone() }
    }

    /// The next pause: half of the current interval, plus up to the other half by chance.
    pub fn next_pause(&mut self) -> Duration {
        let full = self.inner.next_backoff().unwrap_or(self.max).min(self.max);
        let half = full / 2;
        half + self.random.jitter(half)
    }

    /// Starts again at the initial pause, after a success.
    pub fn reset(&mut self) {
        self.inner.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_start_again() {
        let (initial, max) = (Duration::from_millis(100), Duration::from_millis(400));
        let mut backoff = Backoff::new(initial, max, &Random::seeded(1));
        for full in [100, 200, 400, 400, 400] {
            let pause = backoff.next_pause().as_millis();
            assert!((full / 2..=full).contains(&pause), "{pause} of {full}");
        }
        backoff.reset();
        assert!(backoff.next_pause() <= initial);
    }
}
