//! What the handles of a producer and its workers share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use plimsoll_proto::ids::TopicId;
use tokio::sync::{Notify, broadcast, watch};

use super::accumulator::Accumulator;
use super::event::{ProducerEvent, ProducerStats};
use super::settings::Settings;
use crate::client::Client;

/// Events kept for a listener that is slow.
const EVENTS_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) client: Client,
    pub(crate) topic: String,
    pub(crate) topic_id: TopicId,
    pub(crate) settings: Settings,
    /// Greatest batch that the topic takes.
    pub(crate) batch_bytes_max: usize,
    /// Bytes at which a batch is sent without waiting.
    pub(crate) batch_bytes: usize,
    partitions: RwLock<Partitions>,
    /// Flushes under way: nothing lingers meanwhile.
    pub(crate) flushing: AtomicUsize,
    pub(crate) counters: Counters,
    pub(crate) events: broadcast::Sender<ProducerEvent>,
}

/// The partitions that the producer knows, by index. Some are added, none is removed.
pub(crate) type Queues = Arc<[Arc<PartitionQueue>]>;

#[derive(Debug)]
struct Partitions {
    queues: Queues,
    /// The producer takes no more records: no partition is added any more.
    closed: bool,
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

impl Core {
    pub(crate) fn new(
        client: Client,
        topic: (String, TopicId),
        settings: Settings,
        batch_bytes: usize,
        batch_bytes_max: usize,
    ) -> Self {
        Self {
            client,
            topic: topic.0,
            topic_id: topic.1,
            settings,
            batch_bytes_max,
            batch_bytes,
            partitions: RwLock::new(Partitions { queues: Arc::default(), closed: false }),
            flushing: 0.into(),
            counters: Counters::default(),
            events: broadcast::Sender::new(EVENTS_MAX),
        }
    }

    pub(crate) fn queues(&self) -> Queues {
        Arc::clone(&self.partitions.read().unwrap_or_else(PoisonError::into_inner).queues)
    }

    /// Adds partitions until there are `count`; the new ones, with their indexes.
    pub(crate) fn grow_to(&self, count: u32) -> Vec<(u32, Arc<PartitionQueue>)> {
        let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        if partitions.closed {
            return Vec::new();
        }
        let known = u32::try_from(partitions.queues.len()).unwrap_or(u32::MAX);
        let added: Vec<_> = (known..count)
            .map(|index| {
                let accumulator = Accumulator::new(index, self.settings.compression, self.batch_bytes);
                (index, Arc::new(PartitionQueue::new(accumulator)))
            })
            .collect();
        let new = added.iter().map(|(_, queue)| Arc::clone(queue));
        partitions.queues = partitions.queues.iter().cloned().chain(new).collect();
        added
    }

    /// Takes no more records, and no more partitions.
    pub(crate) fn close(&self) {
        let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        partitions.closed = true;
        partitions.queues.iter().for_each(|queue| queue.lock().close());
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::MockCluster;

    #[tokio::test]
    async fn partitions_are_added_until_it_is_closed() {
        let cluster = MockCluster::start(&["t"]).await;
        let topic = ("t".to_owned(), TopicId([1; 16]));
        let core = Core::new(cluster.client.clone(), topic, Settings::default(), 1000, 1000);
        let added = |count| core.grow_to(count).iter().map(|(index, _)| *index).collect::<Vec<_>>();
        assert_eq!(added(2), [0, 1]);
        let before = core.queues();
        assert_eq!(added(5), [2, 3, 4]);
        assert_eq!(added(3), [0; 0], "none is removed");
        let queues = core.queues();
        assert_eq!((before.len(), queues.len()), (2, 5));
        assert!(Arc::ptr_eq(&before[1], &queues[1]), "those that are there stay");
        core.close();
        assert_eq!(added(9), [0; 0]);
        let late = queues[4].lock().push(&Default::default(), None, std::time::Duration::ZERO);
        assert!(late.is_err(), "closed");
    }
}
