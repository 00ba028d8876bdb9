//! What the handles of a producer and its workers share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use plimsoll_proto::ids::TopicId;
use tokio::sync::{Notify, broadcast, watch};

use super::accumulator::Accumulator;
use super::event::{ProducerEvent, ProducerStats};
use super::settings::Settings;
use crate::client::Client;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) client: Client,
    pub(crate) topic: String,
    pub(crate) topic_id: TopicId,
    pub(crate) settings: Settings,
    /// Greatest batch that the topic takes.
    pub(crate) batch_bytes_max: usize,
    pub(crate) partitions: Vec<PartitionQueue>,
    /// Flushes under way: nothing lingers meanwhile.
    pub(crate) flushing: AtomicUsize,
    pub(crate) counters: Counters,
    pub(crate) events: broadcast::Sender<ProducerEvent>,
}

/// Where `send` puts records of one partition and its worker takes batches.
#[derive(Debug)]
pub(crate) struct PartitionQueue {
    accumulator: Mutex<Accumulator>,
    pub(crate) wake: Notify,
    /// Number of the first batch that is not through.
    pub(crate) done_below: watch::Sender<u64>,
    /// Whether batches get through, as far as the worker knows.
    pub(crate) takes: AtomicBool,
}

impl PartitionQueue {
    pub(crate) fn new(accumulator: Accumulator) -> Self {
        Self {
            accumulator: Mutex::new(accumulator),
            wake: Notify::new(),
            done_below: watch::Sender::new(0),
            takes: AtomicBool::new(true),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Accumulator> {
        self.accumulator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted_records: AtomicU64,
    pub(crate) acked_records: AtomicU64,
    pub(crate) acked_batches: AtomicU64,
    pub(crate) acked_bytes: AtomicU64,
    pub(crate) duplicate_batches: AtomicU64,
    pub(crate) refused_batches: AtomicU64,
    pub(crate) disk_full_batches: AtomicU64,
    pub(crate) resent_batches: AtomicU64,
    pub(crate) reroutes: AtomicU64,
    pub(crate) failed_records: AtomicU64,
    pub(crate) connections_lost: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn snapshot(&self, buffered_bytes: u64) -> ProducerStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProducerStats {
            accepted_records: read(&self.accepted_records),
            acked_records: read(&self.acked_records),
            acked_batches: read(&self.acked_batches),
            acked_bytes: read(&self.acked_bytes),
            duplicate_batches: read(&self.duplicate_batches),
            refused_batches: read(&self.refused_batches),
            disk_full_batches: read(&self.disk_full_batches),
            resent_batches: read(&self.resent_batches),
            reroutes: read(&self.reroutes),
            failed_records: read(&self.failed_records),
            connections_lost: read(&self.connections_lost),
            buffered_bytes,
        }
    }
}
