//! Questions about nodes and their volumes that several acts ask.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use plimsoll_client::{MetadataImage, SpuId, VolumeState};
use plimsoll_proto::v1;

use super::Story;
use crate::plain;
use crate::rig::Space;

/// Share of a disk below which produce is refused, by default.
const READ_ONLY_PERCENT: u64 = 5;

/// Where a node's disk lies in a topic's partitions.
pub(super) fn led_by(image: &MetadataImage, topic: &str, spu: u32) -> Vec<u32> {
    let partitions = image.topic_by_name(topic).map(|topic| topic.partitions.as_slice()).unwrap_or_default();
    partitions.iter().filter(|partition| partition.leader == spu).map(|partition| partition.index).collect()
}

/// How many partitions of all topics a node leads.
pub(super) fn leaderships(image: &MetadataImage, spu: u32) -> usize {
    image
        .topics
        .values()
        .flat_map(|topic| &topic.partitions)
        .filter(|partition| partition.leader == spu)
        .count()
}

/// Whether a node's replicas are in every in-sync set of a topic that they belong to.
pub(super) fn all_in_sync(image: &MetadataImage, spu: u32) -> bool {
    image
        .topics
        .values()
        .flat_map(|topic| &topic.partitions)
        .filter(|partition| partition.replicas.iter().any(|replica| replica.spu_id == spu))
        .all(|partition| partition.in_sync.contains(&spu))
}

/// The committed state of a node's only volume.
pub(super) fn volume_state(image: &MetadataImage, spu: u32) -> VolumeState {
    let info = image.spus.get(&SpuId(spu)).and_then(|info| info.volumes.first());
    info.map_or(VolumeState::Unspecified, v1::VolumeInfo::state)
}

impl Story {
    /// Free space of a node's disk below which it is ReadOnly: as it says itself, else the default.
    pub(super) fn read_only_mark(&self, spu: u32, space: &Space) -> u64 {
        let told = self.board.facts(spu).map_or(0, |facts| facts.read_only_enter_bytes);
        if told > 0 { told } else { space.capacity_bytes / 100 * READ_ONLY_PERCENT }
    }

    /// What the filesystem of a node's disk says.
    pub(super) fn space(&self, spu: u32) -> anyhow::Result<Space> {
        self.cluster.disk(spu).space()
    }

    /// Id of a topic on the wire.
    pub(super) fn topic_id(&self, topic: &str) -> anyhow::Result<Bytes> {
        Ok(self
            .board
            .client
            .topic_id(topic)
            .with_context(|| format!("topic {topic} is not in the metadata"))?
            .to_bytes())
    }

    /// Where a node is reached.
    pub(super) fn address(&self, spu: u32) -> anyhow::Result<String> {
        self.board.client.spu_address(SpuId(spu)).with_context(|| format!("spu {spu} has no address"))
    }

    /// Log ends of a node's replicas of `flights`; partitions that do not answer are left out.
    pub(super) async fn log_ends(&self, spu: u32) -> anyhow::Result<BTreeMap<u32, u64>> {
        let topic_id = self.topic_id("flights")?;
        let address = self.address(spu)?;
        let mut ends = BTreeMap::new();
        for partition in 0..3 {
            if let Ok(found) = plain::ends(&self.host, &address, &topic_id, partition).await {
                ends.insert(partition, found.log_end);
            }
        }
        Ok(ends)
    }

    /// When the volume of `spu` first held a batch that it did not hold at `from`: as a leader by an
    /// acknowledgement of its own, or as a follower by its log end behind `baseline`; and was writable by a
    /// committed entry. `None` after `limit`.
    pub(super) async fn first_batch_again(
        &self,
        spu: u32,
        from: Duration,
        baseline: &BTreeMap<u32, u64>,
        limit: Duration,
    ) -> anyhow::Result<Option<Duration>> {
        let deadline = from + limit;
        let mut took: Option<Duration> = None;
        let mut writable: Option<Duration> = None;
        while self.now() < deadline {
            if writable.is_none() && volume_state(&self.board.client.metadata(), spu) == VolumeState::Writable
            {
                writable = Some(self.now());
            }
            if took.is_none() {
                took = self
                    .board
                    .replay
                    .with_log(|log| log.first_ack(from, |ack| ack.spu == spu))
                    .map(|ack| ack.at);
            }
            if took.is_none() {
                let ends = self.log_ends(spu).await?;
                let moved = ends
                    .iter()
                    .any(|(partition, end)| baseline.get(partition).is_some_and(|before| end > before));
                took = moved.then(|| self.now());
            }
            if let (Some(took), Some(writable)) = (took, writable) {
                return Ok(Some(took.max(writable)));
            }
            self.host.clock.sleep(Duration::from_millis(5)).await;
        }
        Ok(None)
    }

    /// Entries after `after` that took the volume of `spu` offline for writes.
    pub(super) async fn write_offline_entries(&self, spu: u32, after: u64) -> anyhow::Result<usize> {
        let events = self.board.client.admin().list_events(after, 10_000).await?;
        let taken = |event: &&v1::ClusterEvent| {
            event.kind == "volume_state" && event.spu_id == spu && event.to.starts_with("write_offline")
        };
        Ok(events.iter().filter(taken).count())
    }

    /// Raft index of the last entry that is applied.
    pub(super) async fn applied_index(&self) -> anyhow::Result<u64> {
        Ok(self.board.client.admin().cluster_status().await?.applied_index)
    }
}
