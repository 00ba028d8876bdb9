//! Settings of a consumer, and its start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::stream::{FuturesUnordered, TryStreamExt};
use plimsoll_proto::ids::{Offset, PartitionId, SpuId, TopicId};
use tokio::sync::broadcast;

use super::Consumer;
use super::partitions::Partitions;
use super::settings::{OnTrimmed, Settings, StartAt, Which};
use super::source::Source;
use crate::client::Client;
use crate::error::ConsumeError;

const EVENTS_MAX: usize = 1024;
/// How long a topic that was just created may take to show up in the metadata.
const TOPIC_VISIBLE_MAX: Duration = Duration::from_secs(2);

/// Settings of a [`Consumer`]. Nothing is dialled before [`ConsumerBuilder::build`].
///
/// ```no_run
/// use futures::StreamExt;
/// use plimsoll_client::{Client, OnTrimmed, StartAt};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let settings = client.consumer("flights").start(StartAt::Last(1000)).on_trimmed(OnTrimmed::Fail);
/// let mut consumer = settings.prefetch_bytes(8 << 20).build().await?;
/// while let Some(record) = consumer.next().await {
///     println!("{}", record?.offset);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing happens before build()"]
pub struct ConsumerBuilder {
    client: Client,
    topic: String,
    settings: Settings,
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

    /// Reads these partitions only. Default all, and those that the topic gets later, from their beginning. None
    /// given is the default.
    pub fn partitions(mut self, partitions: impl IntoIterator<Item = u32>) -> Self {
        let mut partitions: Vec<u32> = partitions.into_iter().collect();
        partitions.sort_unstable();
        partitions.dedup();
        self.settings.which = if partitions.is_empty() { Which::All } else { Which::These(partitions) };
        self
    }

    /// Reads nothing until [`Consumer::assign`] says what.
    pub fn unassigned(mut self) -> Self {
        self.settings.which = Which::These(Vec::new());
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

    /// Bytes read ahead of the caller, of all partitions together: decoded records that wait, and what is under
    /// way. One batch that is being decoded comes on top. Each partition may have 64 KiB, or one batch if that is
    /// larger, under way whatever is left for it: that is more than the setting with more partitions than 64 KiB fit
    /// into three eighths of it (192 with the default). Default 32 MiB, from 1 MiB to 1 GiB.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.settings.prefetch_bytes = bytes.clamp(1 << 20, 1 << 30);
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
        let indexes = match &settings.which {
            Which::All => (0..count).collect(),
            Which::These(partitions) => partitions.clone(),
        };
        if let Some(unknown) = indexes.iter().find(|index| **index >= count) {
            return Err(ConsumeError::UnknownPartition { partition: *unknown, partitions: count });
        }
        let (events, first_events) = broadcast::channel(EVENTS_MAX);
        // The partition is set for each reader.
        let source = Source {
            client,
            topic,
            partition: PartitionId { topic_id, index: 0 },
            settings,
            events,
            trimmed: Arc::new(AtomicU64::new(0)),
        };
        let ends = ends(&source, &indexes).await?;
        let start = source.settings.start;
        let mut partitions = Partitions::new(source, first_events);
        for index in indexes {
            partitions.start(index, start, ends.get(&index).copied());
        }
        Ok(Consumer::new(partitions, count))
    }
}

/// Where each partition ends now, when the consumer is to end there.
async fn ends(source: &Source, indexes: &[u32]) -> Result<BTreeMap<u32, Offset>, ConsumeError> {
    if !source.settings.until_end {
        return Ok(BTreeMap::new());
    }
    let ask = |index: &u32| {
        let source = source.of(*index);
        async move { Ok((source.partition.index, source.end().await?)) }
    };
    indexes.iter().map(ask).collect::<FuturesUnordered<_>>().try_collect().await
}
