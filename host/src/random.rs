//! The one source of randomness: from the system, or from a seed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Random numbers; clones share one sequence. Not for secrets.
#[derive(Clone, Debug)]
pub struct Random {
    state: Arc<Mutex<u64>>,
}

impl Random {
    /// Seeded from the operating system.
    pub fn from_system() -> Self {
        use std::hash::{BuildHasher as _, Hasher as _};
        // Each RandomState takes fresh keys from the operating system once a thread, then counts on.
        let one = std::collections::hash_map::RandomState::new().build_hasher().finish();
        let process = u64::from(std::process::id());
        Self::seeded(one ^ process.rotate_left(32))
    }

    /// The same seed gives the same sequence.
    pub fn seeded(seed: u64) -> Self {
        Self { state: Arc::new(Mutex::new(seed)) }
    }

    /// The next number (SplitMix64, Steele, Lea and Flood 2014).
    pub fn next_u64(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }

    /// Sixteen bytes for a new identity.
    pub fn id16(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.next_u64().to_be_bytes());
        id[8..].copy_from_slice(&self.next_u64().to_be_bytes());
        id
    }

    /// A duration from 0 up to `max`.
    pub fn jitter(&self, max: Duration) -> Duration {
        let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.below(micros.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_sequence() {
        let (a, b) = (Random::seeded(7), Random::seeded(7));
        assert_eq!(
            (0..9).map(|_| a.next_u64()).collect::<Vec<_>>(),
            (0..9).map(|_| b.next_u64()).collect::<Vec<_>>()
        );
        assert_ne!(a.id16(), a.id16());
        assert_eq!(a.below(0), 0);
        assert!(a.jitter(Duration::from_millis(5)) <= Duration::from_millis(5));
    }
}
