//! What a consumer can be told, and what it tells.

use plimsoll_proto::ids::{Offset, SpuId};

/// Where a consumer starts in each partition.
///
/// ```
/// use plimsoll_client::StartAt;
///
/// let noon_of_the_first_of_january_2013 = StartAt::TimestampMs(1_357_041_600_000);
/// let the_last_hundred = StartAt::Last(100);
/// assert_ne!(noon_of_the_first_of_january_2013, the_last_hundred);
/// assert_eq!(StartAt::default(), StartAt::Earliest);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StartAt {
    /// At the oldest record that is there.
    #[default]
    Earliest,
    /// Behind the newest committed record.
    Latest,
    /// At this offset, in every partition that is read.
    Offset(Offset),
    /// At the first record at or after this time, in milliseconds since 1970 as producers set it; behind the
    /// newest committed record when all are older.
    TimestampMs(i64),
    /// So many offsets before the newest committed record, in every partition that is read; at the oldest record
    /// when there are fewer.
    Last(u64),
}

/// What to do when the next record was trimmed before it was read. It is always reported too: by
/// [`Consumer::events`](crate::Consumer::events), by
/// [`Consumer::trimmed_records`](crate::Consumer::trimmed_records) and by a warning in the log.
///
/// ```
/// use plimsoll_client::OnTrimmed;
///
/// assert_eq!(OnTrimmed::default(), OnTrimmed::Earliest);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnTrimmed {
    /// Go on at the oldest record that is there.
    #[default]
    Earliest,
    /// Go on behind the newest committed record.
    Latest,
    /// End with [`ConsumeError::Trimmed`](crate::ConsumeError::Trimmed).
    Fail,
}

/// Something that happened to a consumer.
///
/// ```
/// use plimsoll_client::{ConsumerEvent, Offset};
///
/// fn lost(event: &ConsumerEvent) -> u64 {
///     match event {
///         ConsumerEvent::Trimmed { from, to, .. } => to.distance_from(*from),
///         _ => 0,
///     }
/// }
/// let to = Offset::new(100).expect("a small offset");
/// assert_eq!(lost(&ConsumerEvent::Trimmed { partition: 0, from: Offset::ZERO, to }), 100);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerEvent {
    /// Records in front of `to` were trimmed before they were read.
    Trimmed {
        /// The partition.
        partition: u32,
        /// The offset that was to be read.
        from: Offset,
        /// Where reading goes on.
        to: Offset,
    },
    /// Reading goes on at another node, or again at the same.
    Connected {
        /// The partition.
        partition: u32,
        /// The node.
        spu: SpuId,
    },
    /// The stream of a partition broke; it is opened again.
    Disconnected {
        /// The partition.
        partition: u32,
        /// The node.
        spu: SpuId,
        /// What was said.
        why: String,
    },
    /// There is no node to read a partition from; it is looked for again and again.
    NoLeader {
        /// The partition.
        partition: u32,
    },
}

/// Which partitions are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// All, and those that the topic gets later.
    All,
    These(Vec<u32>),
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) start: StartAt,
    pub(crate) which: Which,
    pub(crate) on_trimmed: OnTrimmed,
    pub(crate) replica: Option<SpuId>,
    pub(crate) until_end: bool,
    /// Of all partitions together.
    pub(crate) prefetch_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            start: StartAt::Earliest,
            which: Which::All,
            on_trimmed: OnTrimmed::Earliest,
            replica: None,
            until_end: false,
            prefetch_bytes: 32 * 1024 * 1024,
        }
    }
}

/// Credit of one stream at least: less would cost a round trip for every few batches.
const CREDIT_MIN: usize = 64 * 1024;
/// And at most: more does not make it faster.
const CREDIT_MAX: usize = 2 * 1024 * 1024;

impl Settings {
    /// Bytes of decoded records that may wait for the caller: half of the prefetch. Most of the other half is under
    /// way, the rest is being decoded.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.prefetch_bytes / 2
    }

    /// Bytes that each of so many streams may have under way.
    pub(crate) fn credit_bytes(&self, partitions: usize) -> usize {
        (self.prefetch_bytes / 8 * 3 / partitions.max(1)).clamp(CREDIT_MIN, CREDIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_share_the_prefetch() {
        let settings = Settings { prefetch_bytes: 8 << 20, ..Settings::default() };
        for (partitions, credit) in
            [(0, 2 << 20), (1, 2 << 20), (4, 768 << 10), (64, 64 << 10), (1000, 64 << 10)]
        {
            assert_eq!(settings.credit_bytes(partitions), credit, "{partitions}");
        }
        assert_eq!(settings.waiting_bytes(), 4 << 20);
    }
}
