//! Topics: which configurations are allowed, how they come and go.

use std::collections::BTreeSet;

use plimsoll_proto::ids::{LeaderEpoch, PartitionEpoch, SpuId, TopicId, TopicName, VolumeId};
use plimsoll_proto::v1::{self, FlushPolicy, OnPressure};

use super::apply::{Applying, Effect, expect};
use super::expectation::Mismatch;
use super::partition::{Partition, Replica, Topic};
use crate::election;

/// Most partitions of one topic.
pub const PARTITIONS_MAX: u32 = 4096;
/// Most replicas of one partition.
pub const REPLICAS_MAX: u32 = 16;
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=2 * 1024 * 1024 * 1024 - 1;
const BATCH_BYTES: std::ops::RangeInclusive<u32> = 1024..=16 * 1024 * 1024;
const BATCH_BYTES_DEFAULT: u32 = 1024 * 1024;
const FLUSH_INTERVAL_MS: std::ops::RangeInclusive<u64> = 1..=3_600_000;
const FLUSH_INTERVAL_MS_DEFAULT: u64 = 1000;

/// A topic's configuration breaks a rule; the caller corrects it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// None, or too many.
    #[error("partitions must be 1 to {PARTITIONS_MAX}")]
    Partitions,
    /// None, or too many.
    #[error("replicas must be 1 to {REPLICAS_MAX}")]
    Replicas,
    /// Zero, or more than there are replicas.
    #[error("min_in_sync must be at least 1 and at most the number of replicas")]
    MinInSync,
    /// Out of range.
    #[error("segment_bytes must be 0 (the node's default) or 64KiB to 2GiB")]
    SegmentBytes,
    /// Out of range.
    #[error("batch_bytes_max must be 0 (1MiB) or 1KiB to 16MiB")]
    BatchBytes,
    /// Out of range.
    #[error("flush_interval_ms must be 1 to 3600000 with flush = interval, and 0 otherwise")]
    FlushInterval,
    /// A batch must fit into a segment.
    #[error("batch_bytes_max must not exceed segment_bytes")]
    BatchExceedsSegment,
    /// A value this build does not know.
    #[error("flush or on_pressure has a value that is not known here")]
    UnknownPolicy,
}

/// The configuration with its defaults filled in: 1 partition, `spus` replicas but at most 3, one in-sync
/// member less than replicas, flush by the operating system, refuse under pressure, batches up to 1 MiB.
///
/// # Errors
/// [`ConfigError`] names the rule that is broken.
pub fn with_defaults(config: v1::TopicConfig, spus: u32) -> Result<v1::TopicConfig, ConfigError> {
    FlushPolicy::try_from(config.flush).map_err(|_| ConfigError::UnknownPolicy)?;
    OnPressure::try_from(config.on_pressure).map_err(|_| ConfigError::UnknownPolicy)?;
    let mut full = config;
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    full.partitions = or(config.partitions, 1);
    full.replicas = or(config.replicas, spus.clamp(1, 3));
    full.min_in_sync = or(config.min_in_sync, full.replicas.saturating_sub(1).max(1));
    full.batch_bytes_max = or(config.batch_bytes_max, BATCH_BYTES_DEFAULT);
    if config.flush() == FlushPolicy::Unspecified {
        full.set_flush(FlushPolicy::Os);
    }
    if config.on_pressure() == OnPressure::Unspecified {
        full.set_on_pressure(OnPressure::Refuse);
    }
    if full.flush() == FlushPolicy::Interval && full.flush_interval_ms == 0 {
        full.flush_interval_ms = FLUSH_INTERVAL_MS_DEFAULT;
    }
    check(&full)?;
    Ok(full)
}

pub(super) fn check(config: &v1::TopicConfig) -> Result<(), ConfigError> {
    let rule = |holds: bool, error: ConfigError| if holds { Ok(()) } else { Err(error) };
    rule((1..=PARTITIONS_MAX).contains(&config.partitions), ConfigError::Partitions)?;
    rule((1..=REPLICAS_MAX).contains(&config.replicas), ConfigError::Replicas)?;
    rule((1..=config.replicas).contains(&config.min_in_sync), ConfigError::MinInSync)?;
    let segment = config.segment_bytes;
    rule(segment == 0 || SEGMENT_BYTES.contains(&segment), ConfigError::SegmentBytes)?;
    rule(BATCH_BYTES.contains(&config.batch_bytes_max), ConfigError::BatchBytes)?;
    rule(segment == 0 || u64::from(config.batch_bytes_max) <= segment, ConfigError::BatchExceedsSegment)?;
    let interval = match config.flush() {
        FlushPolicy::Interval => FLUSH_INTERVAL_MS.contains(&config.flush_interval_ms),
        FlushPolicy::Os | FlushPolicy::Ack => config.flush_interval_ms == 0,
        FlushPolicy::Unspecified => return Err(ConfigError::UnknownPolicy),
    };
    rule(interval, ConfigError::FlushInterval)?;
    rule(config.on_pressure() != OnPressure::Unspecified, ConfigError::UnknownPolicy)
}

impl Applying<'_> {
    pub(super) fn create_topic(&mut self, change: &v1::CreateTopicEntry) -> Result<Effect, Mismatch> {
        let id = TopicId::from_slice(&change.topic_id).map_err(|_| Mismatch::Malformed)?;
        let name = TopicName::new(change.name.clone()).map_err(|_| Mismatch::Malformed)?;
        let config = change.config.ok_or(Mismatch::Malformed)?;
        check(&config).map_err(|_| Mismatch::Malformed)?;
        let taken = self.state.names.contains_key(name.as_str()) || self.state.topics.contains_key(&id);
        expect(!taken, Mismatch::TopicExists)?;
        expect(u32::try_from(change.partitions.len()) == Ok(config.partitions), Mismatch::Malformed)?;
        let partitions = change
            .partitions
            .iter()
            .map(|placement| self.new_partition(&config, &placement.replicas))
            .collect::<Result<Vec<_>, _>>()?;
        self.event(v1::ClusterEvent {
            kind: "topic_created".to_owned(),
            topic_id: id.to_bytes(),
            to: name.as_str().to_owned(),
            ..Default::default()
        });
        let was_not_synced = config.flush() != FlushPolicy::Ack;
        self.store_topic(id, Topic { name: name.as_str().to_owned(), config, partitions, was_not_synced });
        Ok(Effect::Done)
    }

    /// Every replica of a new partition is empty, so all of them are in sync; the first one leads.
    pub(super) fn new_partition(
        &self,
        config: &v1::TopicConfig,
        placement: &[v1::ReplicaAssignment],
    ) -> Result<Partition, Mismatch> {
        expect(u32::try_from(placement.len()) == Ok(config.replicas), Mismatch::Malformed)?;
        let mut in_sync = BTreeSet::new();
        let mut replicas = Vec::new();
        for assignment in placement {
            let spu = SpuId(assignment.spu_id);
            let volume = VolumeId::from_slice(&assignment.volume_id).map_err(|_| Mismatch::Malformed)?;
            let fit = self.state.spu_state(spu).is_live() && self.state.is_writable(spu, volume);
            expect(fit, Mismatch::PlacementChanged)?;
            expect(in_sync.insert(spu), Mismatch::Malformed)?;
            replicas.push(Replica { spu, volume, cache_lost: None });
        }
        let partition = Partition {
            replicas,
            in_sync,
            eligible: BTreeSet::new(),
            leader: None,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
            lossy_epoch: LeaderEpoch(0),
            reassignment: None,
        };
        let settled = election::settle(self.state, config, &partition);
        Ok(election::raise_epochs(&partition, settled))
    }

    pub(super) fn delete_topic(&mut self, change: &v1::DeleteTopicEntry) -> Result<Effect, Mismatch> {
        let id = TopicId::from_slice(&change.topic_id).map_err(|_| Mismatch::Malformed)?;
        let topic = self.state.topics.remove(&id).ok_or(Mismatch::UnknownPartition)?;
        self.state.names.remove(&topic.name);
        self.touched.topics.insert(id);
        self.remember_deleted(id);
        self.event(v1::ClusterEvent {
            kind: "topic_deleted".to_owned(),
            topic_id: id.to_bytes(),
            from: topic.name.clone(),
            ..Default::default()
        });
        Ok(Effect::Done)
    }
}
