//! What a consumer can be told, and what it tells.

use plimsoll_proto::ids::{Offset, SpuId};

/// Where a consumer starts in each partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StartAt {
    /// At the oldest record that is there.
    #[default]
    Earliest,
    /// Behind the newest committed record.
    Latest,
    /// At this offset, in every partition that is read.
    Offset(Offset),
}

/// What to do when the next record was trimmed before it was read. It is always reported by
/// [`Consumer::events`](crate::Consumer::events) too.
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
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) start: StartAt,
    /// Empty: all.
    pub(crate) partitions: Vec<u32>,
    pub(crate) on_trimmed: OnTrimmed,
    pub(crate) replica: Option<SpuId>,
    pub(crate) until_end: bool,
    /// Of each partition.
    pub(crate) prefetch_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            start: StartAt::Earliest,
            partitions: Vec::new(),
            on_trimmed: OnTrimmed::Earliest,
            replica: None,
            until_end: false,
            prefetch_bytes: 4 * 1024 * 1024,
        }
    }
}
