//! What is read: a partition, where it can be read now, and where its ends are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_host::retry::Backoff;
use plimsoll_proto::ids::{Offset, PartitionId, SpuId};
use plimsoll_proto::invalid::Invalid;
use plimsoll_proto::v1::{self, ListOffsetsRequest};
use tokio::sync::broadcast;

use super::settings::{ConsumerEvent, Settings, Which};
use crate::client::Client;
use crate::error::{ConsumeError, LastCause};

/// How long the ends of a partition are asked for.
const END_MAX: Duration = Duration::from_secs(30);
/// How long a leader is asked for its end on behalf of a copy.
const LEADER_END_MAX: Duration = Duration::from_secs(3);
/// One attempt to ask.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What is read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) client: Client,
    pub(crate) topic: String,
    pub(crate) partition: PartitionId,
    pub(crate) settings: Settings,
    pub(crate) events: broadcast::Sender<ConsumerEvent>,
    /// Records that were trimmed before they were read, of all partitions.
    pub(crate) trimmed: Arc<AtomicU64>,
}

/// A node to read from.
pub(crate) struct Place {
    pub(crate) spu: SpuId,
    pub(crate) address: String,
    pub(crate) leader_epoch: u32,
}

impl Source {
    /// The same for another partition.
    pub(crate) fn of(&self, index: u32) -> Self {
        let mut source = self.clone();
        source.partition.index = index;
        source
    }

    /// Partitions that the topic has now; 0 when it is gone.
    pub(crate) fn partitions(&self) -> u32 {
        let image = self.client.metadata();
        let topic = image.topics.get(&self.partition.topic_id);
        topic.map_or(0, |topic| u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX))
    }

    /// How many partitions will share what may be read ahead.
    pub(crate) fn partitions_planned(&self) -> usize {
        match &self.settings.which {
            Which::All => usize::try_from(self.partitions()).unwrap_or(1),
            Which::These(partitions) => partitions.len(),
        }
    }

    /// Whether the topic was deleted.
    pub(crate) fn gone(&self) -> bool {
        !self.client.metadata().topics.contains_key(&self.partition.topic_id)
    }

    fn leader(&self) -> Option<Place> {
        let image = self.client.metadata();
        let partition = image.partition(&self.partition).filter(|partition| partition.leader != 0)?;
        let spu = SpuId(partition.leader);
        let address = image.address(spu)?.to_owned();
        Some(Place { spu, address, leader_epoch: partition.leader_epoch })
    }

    /// Where to read now.
    pub(crate) fn place(&self) -> Option<Place> {
        match self.settings.replica {
            None => self.leader(),
            Some(spu) => {
                let address = self.client.metadata().address(spu)?.to_owned();
                Some(Place { spu, address, leader_epoch: 0 })
            }
        }
    }

    pub(crate) fn tell(&self, event: ConsumerEvent) {
        if let ConsumerEvent::Trimmed { from, to, .. } = &event {
            self.trimmed.fetch_add(to.get().saturating_sub(from.get()), Ordering::Relaxed);
        }
        // An error means that nobody listens.
        drop(self.events.send(event));
    }

    /// The ends of the partition as `place` knows them, and the first offset at or after a time.
    pub(crate) async fn offsets(
        &self,
        place: &Place,
        any_replica: bool,
        timestamp_ms: Option<i64>,
    ) -> Result<v1::ListOffsetsResponse, LastCause> {
        let request = ListOffsetsRequest {
            topic_id: self.partition.topic_id.to_bytes(),
            partition: self.partition.index,
            any_replica,
            timestamp_ms,
        };
        let lost = |invalid: Invalid| LastCause::ConnectionLost { spu: place.spu, why: invalid.to_string() };
        let mut spu = self.client.shared.connections.spu(&place.address).map_err(lost)?;
        match self.client.shared.host.clock.timeout(ATTEMPT_MAX, spu.list_offsets(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(LastCause::of_status(place.spu, &status)),
            Err(_) => Err(LastCause::Unanswered { spu: place.spu }),
        }
    }

    /// The high watermark now: the leader's; for a copy whose leader does not answer, its own.
    pub(crate) async fn end(&self) -> Result<Offset, ConsumeError> {
        let end_max = END_MAX.min(self.client.shared.call_timeout);
        let limit = if self.settings.replica.is_some() { LEADER_END_MAX.min(end_max) } else { end_max };
        let leader = self.high_watermark(|source| source.leader(), false, limit).await;
        match (leader, self.settings.replica) {
            (Err(ConsumeError::TimedOut { .. }), Some(_)) => {
                self.high_watermark(|source| source.place(), true, end_max).await
            }
            (end, _) => end,
        }
    }

    async fn high_watermark(
        &self,
        place: impl Fn(&Self) -> Option<Place>,
        any_replica: bool,
        limit: Duration,
    ) -> Result<Offset, ConsumeError> {
        let host = &self.client.shared.host;
        let deadline = host.clock.now().saturating_add(limit);
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX, &host.random);
        loop {
            if self.gone() {
                return Err(ConsumeError::UnknownTopic(self.topic.clone()));
            }
            let last = match place(self) {
                None => LastCause::NoLeader,
                Some(place) => match self.offsets(&place, any_replica, None).await {
                    Ok(answer) => match Offset::new(answer.high_watermark) {
                        Ok(end) => return Ok(end),
                        Err(invalid) => {
                            LastCause::ConnectionLost { spu: place.spu, why: invalid.to_string() }
                        }
                    },
                    Err(cause) => cause,
                },
            };
            if host.clock.now() >= deadline {
                let last = Some(last);
                return Err(ConsumeError::TimedOut { partition: self.partition.index, waited: limit, last });
            }
            host.clock.sleep(backoff.next_pause()).await;
        }
    }
}
