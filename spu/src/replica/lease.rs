//! The lease of a leader: how long it may act without word from a controller.

use std::time::Duration;

/// Runs from the *send* of the last heartbeat that was answered, so that it ends here before a controller
/// that stopped hearing from this node gives its partitions away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Lease {
    renewed_at: Option<Duration>,
}

impl Lease {
    /// How long it runs.
    pub const LENGTH: Duration = Duration::from_secs(9);

    /// No heartbeat was answered yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A heartbeat sent at `sent_at` was answered. Late answers of older ones change nothing.
    pub fn renew(&mut self, sent_at: Duration) {
        self.renewed_at = self.renewed_at.max(Some(sent_at));
    }

    /// Whether it runs at `now`.
    pub fn runs(&self, now: Duration) -> bool {
        self.renewed_at.is_some_and(|at| now < at + Self::LENGTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_nine_seconds_from_the_send() {
        let s = Duration::from_secs;
        let mut lease = Lease::new();
        assert!(!lease.runs(s(0)));
        lease.renew(s(10));
        lease.renew(s(8));
        assert!(lease.runs(s(18)));
        assert!(!lease.runs(s(19)));
        lease.renew(s(19));
        assert!(lease.runs(s(20)));
    }
}
