//! Settings of a producer, and its start.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll_proto::batch::{Compression, HEADER_BYTES};
use plimsoll_proto::ids::TopicId;
use tokio::sync::Semaphore;

use super::core::Core;
use super::growing;
use super::partitioner::Partitioner;
use super::settings::{Acks, Hook, OnFull, Settings};
use super::{Inner, Producer, Workers};
use crate::client::Client;
use crate::error::{ProduceError, ProduceErrorKind};
use crate::record::Record;
use crate::trace::TraceContext;

/// Greatest batch of a topic that does not say.
const BATCH_BYTES_DEFAULT: usize = 1 << 20;
/// How long a topic that was just created may take to show up in the metadata.
const TOPIC_VISIBLE_MAX: Duration = Duration::from_secs(2);

/// Settings of a [`Producer`]. Nothing is dialled before [`ProducerBuilder::build`].
///
/// ```no_run
/// use std::time::Duration;
/// use plimsoll_client::{Client, Compression, OnFull};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let settings = client.producer("flights").linger(Duration::from_millis(5)).compression(Compression::Lz4);
/// let producer = settings.on_full(OnFull::Wait).deadline(Duration::from_secs(30)).build().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing happens before build()"]
pub struct ProducerBuilder {
    client: Client,
    topic: String,
    settings: Settings,
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

    /// Bytes of records that may be accepted and not yet acknowledged; `send` waits beyond. Default 32 MiB. The memory
    /// of the producer stays within 20 % of it; small records are charged with more than they take.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.settings.buffer_bytes = bytes;
        self
    }

    /// Chooses the partition of records that name none: given the record and the number of partitions; `None`
    /// leaves the record to the default, the hash of its key or, without one, wherever the batch at hand goes.
    ///
    /// A partition that does not exist fails the record with `UnknownPartition`.
    ///
    /// ```no_run
    /// # async fn example(client: plimsoll_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// // What is urgent has the first partition for itself.
    /// let producer = client
    ///     .producer("flights")
    ///     .partitioner(|record, partitions| {
    ///         let urgent = record.headers.iter().any(|(key, _)| key == "urgent");
    ///         if urgent || partitions == 1 { Some(0) } else { None }
    ///     })
    ///     .build()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn partitioner(
        mut self,
        choose: impl Fn(&Record, u32) -> Option<u32> + Send + Sync + 'static,
    ) -> Self {
        self.settings.choose = Some(Hook(Arc::new(choose)));
        self
    }

    /// Asks, for each record that says nothing of a trace, which one the caller is in, and puts it into the headers of
    /// the record: the bridge from any tracing library. Must be quick.
    ///
    /// ```no_run
    /// # fn current_traceparent() -> Option<String> { None }
    /// # async fn example(client: plimsoll_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let producer = client.producer("flights").trace_with(|| current_traceparent()?.parse().ok()).build().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn trace_with(mut self, current: impl Fn() -> Option<TraceContext> + Send + Sync + 'static) -> Self {
        self.settings.trace = Some(Hook(Arc::new(current)));
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
        let host = client.shared.host.clone();
        let core = Arc::new(Core::new(client, (topic, topic_id), settings, batch_bytes, batch_bytes_max));
        let workers = Workers::default();
        growing::grow_to(&core, &workers, identity, partitions);
        let follow = growing::follow(Arc::clone(&core), Arc::clone(&workers), identity);
        Ok(Producer {
            inner: Arc::new(Inner {
                core,
                buffer: Arc::new(Semaphore::new(buffer)),
                partitioner: Mutex::new(Partitioner::new(partitions, host.random.clone())),
                _growing: host.tasks.spawn("partitions", follow),
                _workers: workers,
            }),
        })
    }
}
