//! Producing records to one topic.

mod accumulator;
mod connection;
mod core;
mod delivery;
mod event;
mod held;
mod partitioner;
mod settings;
mod turns;
mod window;
mod worker;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_host::Task;
use plimsoll_proto::batch::{Compression, HEADER_BYTES, NewRecord};
use plimsoll_proto::ids::TopicId;
use tokio::sync::{Semaphore, broadcast};

use self::accumulator::{Accumulator, NotTaken};
use self::core::{Core, Counters, PartitionQueue, count};
use self::partitioner::Partitioner;
use self::settings::Settings;
use self::worker::Worker;
use crate::client::Client;
use crate::error::{ProduceError, ProduceErrorKind};
use crate::record::Record;

pub use self::delivery::{Delivered, Delivery};
pub use self::event::{ProducerEvent, ProducerStats};
pub use self::settings::{Acks, OnFull};
pub(crate) use self::turns::Turns;

/// Events kept for a listener that is slow.
const EVENTS_MAX: usize = 4096;
/// Greatest batch of a topic that does not say.
const BATCH_BYTES_DEFAULT: usize = 1 << 20;
/// How long a topic that was just created may take to show up in the metadata.
const TOPIC_VISIBLE_MAX: Duration = Duration::from_secs(2);

/// Settings of a [`Producer`]. Nothing is dialled before [`ProducerBuilder::build`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before build()"]
pub struct ProducerBuilder {
    client: Client,
    topic: String,
    settings: Settings,
}

/// Sends records to one topic: collected into batches by partition, sent in order, repeated until they are
/// acknowledged or their deadline passes.
///
/// Records of a partition are written in the order in which [`Producer::send`] accepted them, and with
/// idempotence (the default) exactly once. Cheap to clone. When the last clone is dropped, what was not
/// acknowledged is given up: call [`Producer::close`] first.
#[derive(Clone, Debug)]
pub struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    core: Arc<Core>,
    buffer: Arc<Semaphore>,
    partitioner: Mutex<Partitioner>,
    _workers: Vec<Task>,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client, topic: String) -> Self {
        Self { client, topic, settings: Settings::default() }
    }

    /// When a record counts as delivered. Default [`Acks::All`].
    pub fn acks(mut self, acks: Acks) -> Self {
        self.settings.acks = acks;
        self
    }

    /// How long a batch that is not full waits for more records. Default 2 ms.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// Size in bytes at which a batch is sent without waiting, before compression. Default 256 KiB, at most
    /// what the topic allows.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.settings.batch_bytes = bytes;
        self
    }

    /// How batches are compressed. Default not at all.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// Whether batches carry a producer id and sequences, so that one sent twice is written once. Default
    /// true. Without it a batch whose fate is unknown fails instead of being repeated.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.settings.idempotent = idempotent;
        self
    }

    /// What to do when the disk of a leader is full. Default [`OnFull::Reroute`].
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.settings.on_full = on_full;
        self
    }

    /// How long a record may take from `send` to its acknowledgement, retries included. Default 120 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// Batches of one partition under way at once. Default 5, which is the most with idempotence; without
    /// it 1, and more may change the order of batches when one is refused.
    pub fn max_in_flight(mut self, batches: usize) -> Self {
        self.settings.in_flight_max = Some(batches);
        self
    }

    /// Bytes of records that may be accepted and not yet acknowledged; `send` waits beyond. Default 32 MiB.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.settings.buffer_bytes = bytes;
        self
    }

    /// Looks the topic up and, with idempotence, takes a producer id.
    ///
    /// # Errors
    /// `UnknownTopic`: create it first. `Admin`: no controller gave a producer id; later. `Invalid` for
    /// settings that can't work.
    pub async fn build(self) -> Result<Producer, ProduceError> {
        let Self { client, topic, settings } = self;
        let failed = |kind| Err(ProduceError::new(kind));
        client.wait_metadata(TOPIC_VISIBLE_MAX, |image| image.topic_by_name(&topic).is_some()).await;
        let image = client.metadata();
        let Some(info) = image.topic_by_name(&topic) else {
            return failed(ProduceErrorKind::UnknownTopic(topic));
        };
        let topic_id = match TopicId::from_slice(&info.topic_id) {
            Ok(id) if !info.partitions.is_empty() => id,
            _ => {
                return failed(ProduceErrorKind::Invalid(format!(
                    "the metadata of topic {topic:?} make no sense"
                )));
            }
        };
        let configured = info.config.as_ref().map_or(0, |config| config.batch_bytes_max);
        let batch_bytes_max =
            usize::try_from(configured).ok().filter(|bytes| *bytes > 0).unwrap_or(BATCH_BYTES_DEFAULT);
        let buffer = u32::try_from(settings.buffer_bytes).ok().and_then(|b| usize::try_from(b).ok());
        let Some(buffer) = buffer.filter(|bytes| *bytes >= batch_bytes_max.max(settings.batch_bytes)) else {
            let why = format!(
                "buffer_bytes {} must hold a batch ({batch_bytes_max} bytes) and be below 4 GiB",
                settings.buffer_bytes
            );
            return failed(ProduceErrorKind::Invalid(why));
        };
        let identity = if settings.idempotent {
            let limit = settings.deadline.min(client.shared.call_timeout);
            let identity = client.admin().timeout(limit).init_producer().await;
            Some(identity.map_err(|error| ProduceError::new(ProduceErrorKind::Admin(error)))?)
        } else {
            None
        };

        let partitions = u32::try_from(info.partitions.len()).unwrap_or(u32::MAX);
        let batch_bytes = settings.batch_bytes.clamp(HEADER_BYTES, batch_bytes_max);
        let queues = (0..partitions)
            .map(|index| PartitionQueue::new(Accumulator::new(index, settings.compression, batch_bytes)))
            .collect();
        let host = client.shared.host.clone();
        let core = Arc::new(Core {
            client,
            topic,
            topic_id,
            settings,
            batch_bytes_max,
            partitions: queues,
            flushing: 0.into(),
            counters: Counters::default(),
            events: broadcast::Sender::new(EVENTS_MAX),
        });
        let workers = (0..partitions)
            .map(|index| host.tasks.spawn("producer", Worker::new(Arc::clone(&core), index, identity).run()))
            .collect();
        Ok(Producer {
            inner: Arc::new(Inner {
                core,
                buffer: Arc::new(Semaphore::new(buffer)),
                partitioner: Mutex::new(Partitioner::new(partitions, host.random)),
                _workers: workers,
            }),
        })
    }
}

impl Producer {
    /// Accepts a record: resolves as soon as there is room in the buffer. The [`Delivery`] it gives resolves
    /// when the record is acknowledged.
    ///
    /// Cancel safe: when dropped before it is ready, the record was not accepted.
    ///
    /// # Errors
    /// `RecordTooLarge`, `UnknownPartition`, `Invalid`: correct the record. `Closed`. The record is given back
    /// in each case.
    pub async fn send(&self, record: Record) -> Result<Delivery, ProduceError> {
        let core = &self.inner.core;
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
        let partition = match self.choose(&record) {
            Ok(partition) => partition,
            Err(kind) => return Err(ProduceError::with_record(kind, record)),
        };
        let queue = &core.partitions[usize::try_from(partition).expect("a u32 fits into usize")];
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

    fn choose(&self, record: &Record) -> Result<u32, ProduceErrorKind> {
        let core = &self.inner.core;
        let partitions = u32::try_from(core.partitions.len()).unwrap_or(u32::MAX);
        match (record.partition, &record.key) {
            (Some(partition), _) if partition < partitions => Ok(partition),
            (Some(partition), _) => Err(ProduceErrorKind::UnknownPartition { partition, partitions }),
            (None, Some(key)) => Ok(self.partitioner().by_key(key)),
            (None, None) => {
                let steer = core.settings.on_full == OnFull::Reroute;
                Ok(self.partitioner().sticky(|partition| {
                    let queue = usize::try_from(partition).ok().and_then(|index| core.partitions.get(index));
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
        for queue in &core.partitions {
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
        for queue in &self.inner.core.partitions {
            queue.lock().close();
        }
        self.flush().await;
        self.inner.buffer.close();
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

    /// Number of partitions.
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.inner.core.partitions.len()).unwrap_or(u32::MAX)
    }
}

/// While it lives, nothing lingers.
struct Flushing<'a>(&'a Core);

impl<'a> Flushing<'a> {
    fn start(core: &'a Core) -> Self {
        core.flushing.fetch_add(1, Ordering::Relaxed);
        core.partitions.iter().for_each(|queue| queue.wake.notify_one());
        Self(core)
    }
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.0.flushing.fetch_sub(1, Ordering::Relaxed);
    }
}
