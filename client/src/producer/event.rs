//! What a producer tells about itself while it works.

use std::time::Duration;

use plimsoll_proto::ids::{LeaderEpoch, Offset, SpuId};

use super::meaning::AckMeaning;
use crate::refusal::Refusal;

/// Something that happened to a producer; see [`Producer::events`](crate::Producer::events).
///
/// ```no_run
/// use plimsoll_client::{Producer, ProducerEvent};
///
/// # async fn example(producer: Producer) {
/// let mut events = producer.events();
/// while let Ok(event) = events.recv().await {
///     if let ProducerEvent::Rerouted { partition, from, to, .. } = event {
///         println!("partition {partition} goes on at spu {to} instead of {from}");
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub enum ProducerEvent {
    /// A server refused a batch. It is sent again unless the refusal is final.
    Refused {
        /// Partition of the batch.
        partition: u32,
        /// The node that refused.
        spu: SpuId,
        /// Records of the batch.
        records: u32,
        /// The typed refusal, as the server sent it.
        refusal: Refusal,
        /// From the request to this answer.
        after: Duration,
    },
    /// Batches that one node did not take are sent to another that leads the partition now.
    Rerouted {
        /// The partition.
        partition: u32,
        /// Where the batches went before.
        from: SpuId,
        /// Where they go now.
        to: SpuId,
        /// Epoch of the new leader.
        leader_epoch: LeaderEpoch,
    },
    /// The metadata name another leader.
    LeaderChanged {
        /// The partition.
        partition: u32,
        /// The leader before.
        from: Option<SpuId>,
        /// The leader now.
        to: Option<SpuId>,
        /// Epoch of the new leader.
        leader_epoch: LeaderEpoch,
    },
    /// A batch was acknowledged.
    Acked {
        /// The partition.
        partition: u32,
        /// The node that acknowledged.
        spu: SpuId,
        /// Epoch of the leader that acknowledged.
        leader_epoch: LeaderEpoch,
        /// Offset of its first record; absent with [`Acks::None`](crate::Acks::None).
        base_offset: Option<Offset>,
        /// Records of the batch.
        records: u32,
        /// The batch was there already.
        duplicate: bool,
        /// Who has it.
        meaning: AckMeaning,
    },
    /// The connection of a partition broke; it is opened again.
    ConnectionLost {
        /// The partition.
        partition: u32,
        /// The node at the other end.
        spu: SpuId,
        /// What the transport said.
        why: String,
    },
    /// Records of a batch failed for good.
    Failed {
        /// The partition.
        partition: u32,
        /// Records of the batch.
        records: u32,
        /// Why, for people.
        why: String,
    },
}

/// Counters of a producer since it was built.
///
/// ```
/// use plimsoll_client::ProducerStats;
///
/// fn waiting(stats: &ProducerStats) -> u64 {
///     stats.accepted_records - stats.acked_records - stats.failed_records
/// }
/// assert_eq!(waiting(&ProducerStats::default()), 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerStats {
    /// Records accepted by `send`.
    pub accepted_records: u64,
    /// Records acknowledged.
    pub acked_records: u64,
    /// Batches acknowledged.
    pub acked_batches: u64,
    /// Bytes of acknowledged batches, as sent.
    pub acked_bytes: u64,
    /// Batches that the server had already.
    pub duplicate_batches: u64,
    /// Typed refusals received.
    pub refused_batches: u64,
    /// Typed refusals received with reason DISK_FULL.
    pub disk_full_batches: u64,
    /// Batches sent more than once.
    pub resent_batches: u64,
    /// Times that batches went on to another leader.
    pub reroutes: u64,
    /// Records that failed for good.
    pub failed_records: u64,
    /// Connections that broke.
    pub connections_lost: u64,
    /// Bytes accepted and not yet acknowledged or failed.
    pub buffered_bytes: u64,
}
