//! How much produce may be on its way through a node, and through one stream.
//!
//! Both are counted in bytes and in requests, from the moment a request was read until its answer was taken
//! by the transport. A stream at its bound is not read any further, so that HTTP/2 flow control reaches the
//! producer. A node at its bound refuses: waiting there would let one stalled partition stop all others.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bounds of a budget. A single request is let through however large it is, when nothing else is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Bytes on their way at most. Default 256 MiB for a node, 32 MiB for a stream.
    pub bytes_max: u32,
    /// Requests on their way at most. Default 16,384 for a node, 1,024 for a stream.
    pub requests_max: u32,
}

impl BudgetLimits {
    /// For all streams of a node together.
    pub const NODE: Self = Self { bytes_max: 256 << 20, requests_max: 16_384 };
    /// For one stream.
    pub const STREAM: Self = Self { bytes_max: 32 << 20, requests_max: 1024 };
}

/// Counts what is on its way. Clones share the counts.
#[derive(Clone, Debug)]
pub struct Budget {
    bytes: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    limits: BudgetLimits,
}

/// A share of a budget; given back when dropped.
#[derive(Debug)]
#[must_use = "the share is given back when it is dropped"]
pub(super) struct Share {
    _bytes: OwnedSemaphorePermit,
    _request: OwnedSemaphorePermit,
}

impl Budget {
    /// An unused budget.
    pub fn new(limits: BudgetLimits) -> Self {
        let permits = |n: u32| Arc::new(Semaphore::new(usize::try_from(n).unwrap_or(usize::MAX)));
        Self { bytes: permits(limits.bytes_max), requests: permits(limits.requests_max), limits }
    }

    /// Waits for room. Fair: who waits first gets it first. Cancel safe.
    pub(super) async fn take(&self, bytes: usize) -> Share {
        const OPEN: &str = "the semaphores of a budget are never closed";
        let wanted = self.permits(bytes);
        let _request = self.requests.clone().acquire_owned().await.expect(OPEN);
        let _bytes = self.bytes.clone().acquire_many_owned(wanted).await.expect(OPEN);
        Share { _bytes, _request }
    }

    /// Takes room if there is some now.
    pub(super) fn try_take(&self, bytes: usize) -> Option<Share> {
        let wanted = self.permits(bytes);
        let _request = self.requests.clone().try_acquire_owned().ok()?;
        let _bytes = self.bytes.clone().try_acquire_many_owned(wanted).ok()?;
        Some(Share { _bytes, _request })
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.limits.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_come_back() {
        for (bytes_max, requests_max, sizes, fits) in [
            (100, 10, vec![50, 50], true),
            (100, 10, vec![50, 51], false),
            (100, 2, vec![1, 1, 1], false),
            (100, 10, vec![1000], true),
            (100, 10, vec![1000, 1], false),
            (100, 10, vec![0; 10], true),
            (100, 10, vec![0; 11], false),
        ] {
            let budget = Budget::new(BudgetLimits { bytes_max, requests_max });
            let shares: Vec<_> = sizes.iter().map(|bytes| budget.try_take(*bytes)).collect();
            assert_eq!(shares.iter().all(Option::is_some), fits, "{sizes:?}");
            drop(shares);
            assert!(budget.try_take(usize::MAX).is_some(), "{sizes:?}");
        }
    }
}
