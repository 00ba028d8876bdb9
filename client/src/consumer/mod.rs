//! Consuming one topic.

mod chunk;
mod reader;
mod settings;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use futures::stream::{FuturesUnordered, TryStreamExt};
use plimsoll_host::Task;
use plimsoll_proto::ids::{Offset, PartitionId, SpuId, TopicId};
use tokio::sync::{Semaphore, broadcast, mpsc};

use self::chunk::{Chunk, Item};
use self::reader::{Reader, Source};
use self::settings::Settings;
use crate::client::Client;
use crate::error::ConsumeError;
use crate::record::ConsumedRecord;

pub use self::settings::{ConsumerEvent, OnTrimmed, StartAt};

const EVENTS_MAX: usize = 1024;
/// Chunks waiting for the caller, of all partitions; bytes are bounded by partition.
const CHUNKS_MAX: usize = 64;
/// How long a topic that was just created may take to show up in the metadata.
const TOPIC_VISIBLE_MAX: Duration = Duration::from_secs(2);

/// Settings of a [`Consumer`]. Nothing is dialled before [`ConsumerBuilder::build`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before build()"]
pub struct ConsumerBuilder {
    client: Client,
    topic: String,
    settings: Settings,
}

/// Reads committed records of a topic, in order within each partition, across changes of leader, restarts
/// and trimming. Never past the high watermark.
///
/// It is a [`Stream`]; [`Consumer::next`] is the same without the trait. Both are cancel safe: no record is
/// lost when the future is dropped. After an error, or with
/// [`until_end`](ConsumerBuilder::until_end) at the end, the stream ends.
#[derive(Debug)]
pub struct Consumer {
    chunks: mpsc::Receiver<Item>,
    current: Option<Chunk>,
    /// Partitions still read.
    open: usize,
    failed: bool,
    events: broadcast::Sender<ConsumerEvent>,
    _readers: Vec<Task>,
}

impl ConsumerBuilder {
    pub(crate) fn new(client: Client, topic: String) -> Self {
        Self { client, topic, settings: Settings::default() }
    }

    /// Where to start. Default [`StartAt::Earliest`].
    pub fn start(mut self, start: StartAt) -> Self {
        self.settings.start = start;
        self
    }

    /// Reads these partitions only. Default all.
    pub fn partitions(mut self, partitions: impl IntoIterator<Item = u32>) -> Self {
        self.settings.partitions = partitions.into_iter().collect();
        self.settings.partitions.sort_unstable();
        self.settings.partitions.dedup();
        self
    }

    /// What to do when records were trimmed before they were read. Default [`OnTrimmed::Earliest`].
    pub fn on_trimmed(mut self, policy: OnTrimmed) -> Self {
        self.settings.on_trimmed = policy;
        self
    }

    /// Reads from the copy on this node, leader or not, up to the high watermark that it knows: to verify
    /// copies.
    pub fn replica(mut self, spu: SpuId) -> Self {
        self.settings.replica = Some(spu);
        self
    }

    /// Ends at the high watermark that the leader of each partition has now. With
    /// [`replica`](Self::replica) the copy is read until it has caught up with that; when the leader does not
    /// answer, up to the copy's own high watermark.
    pub fn until_end(mut self) -> Self {
        self.settings.until_end = true;
        self
    }

    /// Bytes read ahead of the caller, of each partition; a larger batch is taken alone. Default 4 MiB.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.settings.prefetch_bytes = bytes.clamp(64 * 1024, 1 << 30);
        self
    }

    /// Looks the topic up and starts reading. With [`until_end`](Self::until_end) the ends of the partitions
    /// are asked for first.
    ///
    /// # Errors
    /// `UnknownTopic`, `UnknownPartition`: correct the request. `TimedOut`: no leader told its end; later.
    pub async fn build(self) -> Result<Consumer, ConsumeError> {
        let Self { client, topic, settings } = self;
        client.wait_metadata(TOPIC_VISIBLE_MAX, |image| image.topic_by_name(&topic).is_some()).await;
        let image = client.metadata();
        let Some(info) = image.topic_by_name(&topic) else {
            return Err(ConsumeError::UnknownTopic(topic));
        };
        let Ok(topic_id) = TopicId::from_slice(&info.topic_id) else {
            return Err(ConsumeError::UnknownTopic(topic));
        };
        let count = u32::try_from(info.partitions.len()).unwrap_or(u32::MAX);
        if let Some(unknown) = settings.partitions.iter().find(|index| **index >= count) {
            return Err(ConsumeError::UnknownPartition { partition: *unknown, partitions: count });
        }
        let indexes =
            if settings.partitions.is_empty() { (0..count).collect() } else { settings.partitions.clone() };

        let events = broadcast::Sender::new(EVENTS_MAX);
        let sources: Vec<Arc<Source>> = indexes
            .iter()
            .map(|index| {
                Arc::new(Source {
                    client: client.clone(),
                    topic: topic.clone(),
                    partition: PartitionId { topic_id, index: *index },
                    settings: settings.clone(),
                    events: events.clone(),
                })
            })
            .collect();
        let ends: Vec<(u32, Option<Offset>)> = sources
            .iter()
            .map(|source| async move {
                let end = if source.settings.until_end { Some(source.end().await?) } else { None };
                Ok((source.partition.index, end))
            })
            .collect::<FuturesUnordered<_>>()
            .try_collect()
            .await?;

        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        let open = sources.len();
        let tasks = client.shared.host.tasks.clone();
        let readers = sources
            .into_iter()
            .map(|source| {
                let index = source.partition.index;
                let end = ends.iter().find(|(i, _)| *i == index).and_then(|(_, end)| *end);
                let prefetch = Arc::new(Semaphore::new(source.settings.prefetch_bytes));
                tasks.spawn("consumer", Reader::new(source, end, prefetch, sender.clone()).run())
            })
            .collect();
        Ok(Consumer { chunks, current: None, open, failed: false, events, _readers: readers })
    }
}

impl Consumer {
    /// The next record of any partition; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, ConsumeError>> {
        std::future::poll_fn(|context| self.poll_record(context)).await
    }

    /// What happens from now on, trimming above all. A listener that lags by more than 1024 events misses the
    /// oldest.
    pub fn events(&self) -> broadcast::Receiver<ConsumerEvent> {
        self.events.subscribe()
    }

    fn poll_record(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<ConsumedRecord, ConsumeError>>> {
        loop {
            if let Some(chunk) = &mut self.current {
                if let Some(record) = chunk.next() {
                    return Poll::Ready(Some(Ok(record)));
                }
                self.current = None;
            }
            if self.failed || self.open == 0 {
                return Poll::Ready(None);
            }
            match ready!(self.chunks.poll_recv(context)) {
                None => return Poll::Ready(None),
                Some(Item::Chunk(chunk)) => self.current = Some(chunk),
                Some(Item::End) => self.open -= 1,
                Some(Item::Failed(error)) => {
                    self.failed = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumedRecord, ConsumeError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_record(context)
    }
}
