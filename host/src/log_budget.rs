//! The log budget: what repeats is logged at once, then counted, then summed up at growing intervals.
//!
//! A full disk that refuses a million requests is one state and a counter, not a million lines.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What makes two events "the same".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Part of the program, such as `volume`.
    pub component: &'static str,
    /// Which one, such as the path.
    pub subject: Cow<'static, str>,
    /// What happens to it, such as `refused`.
    pub kind: &'static str,
}

impl Key {
    /// A key.
    pub fn new(component: &'static str, subject: impl Into<Cow<'static, str>>, kind: &'static str) -> Self {
        Self { component, subject: subject.into(), kind }
    }
}

/// Decides which of many equal events are worth a line. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct LogBudget {
    keys: Arc<Mutex<BTreeMap<Key, Repeats>>>,
}

#[derive(Clone, Debug)]
struct Repeats {
    suppressed: u64,
    total: u64,
    next_line_at: Duration,
    interval: Duration,
}

/// First pause between two lines of one key.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// Longest pause between two lines of one key.
const LONGEST_INTERVAL: Duration = Duration::from_secs(300);
/// Keys remembered at most; beyond it the longest silent one is forgotten.
const KEYS_MAX: usize = 4096;

impl LogBudget {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one event. `Some(n)` means: write one line now, with `suppressed=n` for the silent ones since the
    /// last line of this key.
    pub fn report(&self, key: Key, now: Duration) -> Option<u64> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(repeats) = keys.get_mut(&key) {
            repeats.total = repeats.total.saturating_add(1);
            if now < repeats.next_line_at {
                repeats.suppressed = repeats.suppressed.saturating_add(1);
                return None;
            }
            repeats.interval = (repeats.interval * 2).min(LONGEST_INTERVAL);
            repeats.next_line_at = now + repeats.interval;
            return Some(std::mem::take(&mut repeats.suppressed));
        }
        if keys.len() >= KEYS_MAX
            && let Some(oldest) = keys.iter().min_by_key(|(_, r)| r.next_line_at).map(|(k, _)| k.clone())
        {
            keys.remove(&oldest);
        }
        let first =
            Repeats { suppressed: 0, total: 1, next_line_at: now + FIRST_INTERVAL, interval: FIRST_INTERVAL };
        keys.insert(key, first);
        Some(0)
    }

    /// The condition is over: forgets the key and says how often it was reported, `None` when never.
    pub fn recovered(&self, key: &Key) -> Option<u64> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.remove(key).map(|repeats| repeats.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_repeats_in_an_hour_are_a_few_lines() {
        let budget = LogBudget::new();
        let key = Key::new("volume", "/a", "refused");
        let lines: Vec<u64> = (0..1_000_000u64)
            .filter_map(|i| budget.report(key.clone(), Duration::from_micros(i * 3600)))
            .collect();
        assert!(lines.len() <= 22, "{lines:?}");
        assert_eq!(lines[0], 0);
        assert_eq!(budget.recovered(&key), Some(1_000_000));
        assert_eq!(budget.recovered(&key), None);
        assert_eq!(budget.report(key, Duration::from_secs(3601)), Some(0));
    }

    #[test]
    fn keys_are_bounded() {
        let budget = LogBudget::new();
        for i in 0..10_000u64 {
            budget.report(Key::new("c", i.to_string(), "k"), Duration::from_millis(i));
        }
        assert!(budget.keys.lock().unwrap().len() <= KEYS_MAX);
    }
}
