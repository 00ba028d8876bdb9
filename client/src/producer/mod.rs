//! Producing records to one topic.

mod accumulator;
mod builder;
mod connection;
mod core;
mod delivery;
mod event;
mod growing;
mod held;
mod meaning;
mod partitioner;
mod settings;
mod sink;
mod turns;
mod window;
mod worker;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_host::Task;
use plimsoll_proto::batch::{HEADER_BYTES, NewRecord};
use tokio::sync::{Semaphore, broadcast};

use self::accumulator::NotTaken;
use self::core::{Core, Queues, count};
use self::partitioner::Partitioner;
use self::settings::Hook;
use crate::error::{ProduceError, ProduceErrorKind};
use crate::record::Record;
use crate::trace::TRACEPARENT;

pub use self::builder::ProducerBuilder;
pub use self::delivery::{Delivered, Delivery};
pub use self::event::{ProducerEvent, ProducerStats};
pub use self::meaning::AckMeaning;
pub use self::partitioner::partition_of_key;
pub use self::settings::{Acks, OnFull};
pub use self::sink::ProducerSink;
pub(crate) use self::turns::Turns;

/// Sends records to one topic: collected into batches by partition, sent in order, repeated until they are
/// acknowledged or their deadline passes.
///
/// Records of a partition are written in the order in which [`Producer::send`] accepted them, and with
/// idempotence (the default) exactly once. Cheap to clone. When the last clone is dropped, what was not
/// acknowledged is given up: call [`Producer::close`] first.
///
/// Partitions that the topic gets later are used as soon as the metadata tell of them. Records with a key may go to
/// another partition from then on: their order holds within each partition only.
///
/// ```
/// use plimsoll_client::{Client, Record};
///
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/cluster.rs"));
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #     with_cluster(1, |cluster| example(cluster.client))
/// # }
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let producer = client.producer("flights").build().await?;
/// let delivery = producer.send(Record::new("EWR-IAH").key("N14228")).await?; // in a batch
/// println!("{:?}", delivery.await?.offset); // acknowledged
/// producer.close().await;
/// # assert_eq!(producer.stats().acked_records, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    core: Arc<Core>,
    buffer: Arc<Semaphore>,
    partitioner: Mutex<Partitioner>,
    /// Follows the number of partitions; it holds the workers too, until this is dropped.
    _growing: Task,
    _workers: Workers,
}

/// A task for each partition.
type Workers = Arc<Mutex<Vec<Task>>>;

impl Producer {
    /// Accepts a record: resolves as soon as there is room in the buffer. The [`Delivery`] it gives resolves
    /// when the record is acknowledged.
    ///
    /// Cancel safe: when dropped before it is ready, the record was not accepted.
    ///
    /// # Errors
    /// `RecordTooLarge`, `UnknownPartition`, `Invalid`: correct the record. `Closed`. The record is given back
    /// in each case.
    pub async fn send(&self, mut record: Record) -> Result<Delivery, ProduceError> {
        let core = &self.inner.core;
        if let Some(Hook(current)) = &core.settings.trace
            && record.headers.iter().all(|(key, _)| key != TRACEPARENT)
            && let Some(context) = current()
        {
            record = record.trace(&context);
        }
        let headers: Vec<(&str, Option<&[u8]>)> =
            record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        let now_ms = || i64::try_from(core.client.shared.host.clock.wall_ms()).unwrap_or(i64::MAX);
        let new = NewRecord {
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            timestamp_ms: record.timestamp_ms.unwrap_or_else(now_ms),
        };
        let bytes = new.bytes_max().saturating_add(HEADER_BYTES);
        if bytes > core.batch_bytes_max {
            let limit = core.batch_bytes_max;
            return Err(ProduceError::with_record(ProduceErrorKind::RecordTooLarge { bytes, limit }, record));
        }
        // A record within the batch limit is below 4 GiB: the buffer is, and it holds a batch.
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(&self.inner.buffer).acquire_many_owned(permits).await else {
            return Err(ProduceError::with_record(ProduceErrorKind::Closed, record));
        };
        let queues = core.queues();
        let partition = match self.choose(&record, &queues) {
            Ok(partition) => partition,
            Err(kind) => return Err(ProduceError::with_record(kind, record)),
        };
        let queue = &queues[usize::try_from(partition).expect("a u32 fits into usize")];
        let now = core.client.shared.host.clock.now();
        let pushed = queue.lock().push(&new, Some(permit), now);
        match pushed {
            Ok(pushed) => {
                count(&core.counters.accepted_records, 1);
                if pushed.sealed {
                    self.partitioner().batch_closed(partition);
                }
                if pushed.wake {
                    queue.wake.notify_one();
                }
                Ok(pushed.delivery)
            }
            Err(NotTaken::Closed) => Err(ProduceError::with_record(ProduceErrorKind::Closed, record)),
            Err(NotTaken::Encode(error)) => {
                Err(ProduceError::with_record(ProduceErrorKind::Invalid(error.to_string()), record))
            }
        }
    }

    fn choose(&self, record: &Record, queues: &Queues) -> Result<u32, ProduceErrorKind> {
        let core = &self.inner.core;
        let partitions = u32::try_from(queues.len()).unwrap_or(u32::MAX);
        let choose = core.settings.choose.as_ref();
        let named = record.partition.or_else(|| choose.and_then(|Hook(choose)| choose(record, partitions)));
        match (named, &record.key) {
            (Some(partition), _) if partition < partitions => Ok(partition),
            (Some(partition), _) => Err(ProduceErrorKind::UnknownPartition { partition, partitions }),
            (None, Some(key)) => Ok(partition_of_key(key, partitions)),
            (None, None) => {
                let steer = core.settings.on_full == OnFull::Reroute;
                let mut partitioner = self.partitioner();
                partitioner.grow_to(partitions);
                Ok(partitioner.sticky(|partition| {
                    let queue = usize::try_from(partition).ok().and_then(|index| queues.get(index));
                    !steer || queue.is_some_and(|queue| queue.takes.load(Ordering::Relaxed))
                }))
            }
        }
    }

    fn partitioner(&self) -> std::sync::MutexGuard<'_, Partitioner> {
        self.inner.partitioner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything accepted before is acknowledged or has failed, which the deliveries tell. What
    /// waits for company is sent at once. Cancel safe.
    pub async fn flush(&self) {
        let core = &self.inner.core;
        let _flushing = Flushing::start(core);
        for queue in core.queues().iter() {
            let batches = queue.lock().batches();
            let mut done_below = queue.done_below.subscribe();
            queue.wake.notify_one();
            // The sender lives as long as this producer.
            drop(done_below.wait_for(|done| *done >= batches).await);
        }
    }

    /// Takes no more records, from any clone, and waits as [`Producer::flush`]. Dropped before it is ready, it
    /// leaves the producer closed and the rest under way.
    pub async fn close(&self) {
        self.inner.core.close();
        self.flush().await;
        self.inner.buffer.close();
    }

    /// The producer as a sink of records, for streams to be forwarded to.
    pub fn into_sink(self) -> ProducerSink {
        ProducerSink::new(self)
    }

    /// What happens from now on. A listener that lags by more than 4096 events misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<ProducerEvent> {
        self.inner.core.events.subscribe()
    }

    /// Counters since the producer was built.
    pub fn stats(&self) -> ProducerStats {
        let core = &self.inner.core;
        let buffered = core.settings.buffer_bytes.saturating_sub(self.inner.buffer.available_permits());
        core.counters.snapshot(u64::try_from(buffered).unwrap_or(u64::MAX))
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.inner.core.topic
    }

    /// Number of partitions that it knows: those of the topic when it was built, and those added since.
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.inner.core.queues().len()).unwrap_or(u32::MAX)
    }
}

/// While it lives, nothing lingers.
struct Flushing<'a>(&'a Core);

impl<'a> Flushing<'a> {
    fn start(core: &'a Core) -> Self {
        core.flushing.fetch_add(1, Ordering::Relaxed);
        core.queues().iter().for_each(|queue| queue.wake.notify_one());
        Self(core)
    }
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.0.flushing.fetch_sub(1, Ordering::Relaxed);
    }
}
