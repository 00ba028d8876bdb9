//! What a producer can be told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::batch::Compression;
use plimsoll_proto::v1;

use crate::record::Record;
use crate::trace::TraceContext;

/// When a record counts as delivered.
///
/// ```
/// assert_eq!(plimsoll_client::Acks::default(), plimsoll_client::Acks::All);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Acks {
    /// When every member of the in-sync set has it. Never lost while one of them stays intact.
    #[default]
    All,
    /// When the leader has it. Lost with that leader's copy.
    Leader,
    /// At once; promises nothing.
    None,
}

impl Acks {
    pub(crate) fn wire(self) -> v1::Acks {
        match self {
            Self::All => v1::Acks::All,
            Self::Leader => v1::Acks::Leader,
            Self::None => v1::Acks::None,
        }
    }
}

/// What to do when the disk of a partition's leader is full. A record that was accepted stays in the partition that
/// [`Delivery::partition`](crate::Delivery::partition) tells; what changes is the node that leads it.
///
/// ```
/// assert_eq!(plimsoll_client::OnFull::default(), plimsoll_client::OnFull::Reroute);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum OnFull {
    /// Follow the partition to a leader with room, else wait until there is one. Records that come meanwhile without
    /// a key and without a partition go to partitions that take them.
    #[default]
    Reroute,
    /// As `Reroute`, but no record is steered to another partition.
    Wait,
    /// Fail the records of a refused batch at once, with the typed refusal; those behind it are tried. A batch that
    /// may have been written is repeated all the same: its refusal does not say that it is not there.
    Fail,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) acks: Acks,
    pub(crate) linger: Duration,
    pub(crate) batch_bytes: usize,
    pub(crate) compression: Compression,
    pub(crate) idempotent: bool,
    pub(crate) on_full: OnFull,
    pub(crate) deadline: Duration,
    pub(crate) in_flight_max: Option<usize>,
    pub(crate) buffer_bytes: usize,
    pub(crate) choose: Option<Hook<Choose>>,
    pub(crate) trace: Option<Hook<CurrentTrace>>,
}

/// The partition of a record, of so many, if the caller has an opinion.
pub(crate) type Choose = dyn Fn(&Record, u32) -> Option<u32> + Send + Sync;
/// The trace that the caller is in.
pub(crate) type CurrentTrace = dyn Fn() -> Option<TraceContext> + Send + Sync;

/// A function of the caller.
pub(crate) struct Hook<F: ?Sized>(pub(crate) Arc<F>);

impl<F: ?Sized> Clone for Hook<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F: ?Sized> fmt::Debug for Hook<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            linger: Duration::from_millis(2),
            batch_bytes: 256 * 1024,
            compression: Compression::None,
            idempotent: true,
            on_full: OnFull::Reroute,
            deadline: Duration::from_secs(120),
            in_flight_max: None,
            buffer_bytes: 32 * 1024 * 1024,
            choose: None,
            trace: None,
        }
    }
}

/// Batches that a leader remembers of each producer; more in flight could not be told from duplicates.
pub(crate) const IDEMPOTENT_IN_FLIGHT_MAX: usize = 5;

impl Settings {
    /// Batches of one partition on their way at once. Without idempotence one at a time keeps the order.
    pub(crate) fn in_flight(&self) -> usize {
        match (self.in_flight_max, self.idempotent) {
            (asked, true) => asked.unwrap_or(IDEMPOTENT_IN_FLIGHT_MAX).clamp(1, IDEMPOTENT_IN_FLIGHT_MAX),
            (asked, false) => asked.unwrap_or(1).clamp(1, 1024),
        }
    }
}
