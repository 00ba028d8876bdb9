//! Topics that change while they are in use: their configuration, and more partitions.

use std::sync::Arc;

use plimsoll_proto::ids::TopicId;
use plimsoll_proto::v1::{self, FlushPolicy, OnPressure};

use super::apply::{Applying, Effect, expect};
use super::expectation::Mismatch;
use super::topic::{self, ConfigError, PARTITIONS_MAX};

/// The configuration after a request; what the request does not name stays as it is.
///
/// # Errors
/// [`ConfigError`] names the rule that the outcome would break.
pub fn altered(
    config: &v1::TopicConfig,
    request: &v1::AlterTopicRequest,
) -> Result<v1::TopicConfig, ConfigError> {
    let mut next = *config;
    if let Some(flush) = request.flush {
        let flush = FlushPolicy::try_from(flush).map_err(|_| ConfigError::UnknownPolicy)?;
        if flush != FlushPolicy::Interval {
            next.flush_interval_ms = 0;
        }
        next.set_flush(flush);
    }
    if let Some(on_pressure) = request.on_pressure {
        next.set_on_pressure(OnPressure::try_from(on_pressure).map_err(|_| ConfigError::UnknownPolicy)?);
    }
    next.min_in_sync = request.min_in_sync.unwrap_or(next.min_in_sync);
    next.retention_ms = request.retention_ms.unwrap_or(next.retention_ms);
    next.retention_bytes = request.retention_bytes.unwrap_or(next.retention_bytes);
    next.segment_bytes = request.segment_bytes.unwrap_or(next.segment_bytes);
    next.flush_interval_ms = request.flush_interval_ms.unwrap_or(next.flush_interval_ms);
    next.min_retention_ms = request.min_retention_ms.unwrap_or(next.min_retention_ms);
    next.batch_bytes_max = request.batch_bytes_max.unwrap_or(next.batch_bytes_max);
    topic::with_defaults(next, next.replicas)
}

impl Applying<'_> {
    pub(super) fn alter_topic(&mut self, change: &v1::AlterTopicEntry) -> Result<Effect, Mismatch> {
        let id = TopicId::from_slice(&change.topic_id).map_err(|_| Mismatch::Malformed)?;
        let (expected, config) = change.expected.zip(change.config).ok_or(Mismatch::Malformed)?;
        let topic = self.state.topic(id).ok_or(Mismatch::UnknownPartition)?;
        expect(topic.config == expected, Mismatch::OtherConfig)?;
        expect(config != expected, Mismatch::Unchanged)?;
        let same = config.partitions == expected.partitions && config.replicas == expected.replicas;
        expect(same && topic::check(&config).is_ok(), Mismatch::Malformed)?;
        let name = topic.name.clone();
        if let Some(topic) = self.state.topics.get_mut(&id) {
            let topic = Arc::make_mut(topic);
            topic.config = config;
            topic.was_not_synced |= config.flush() != FlushPolicy::Ack;
        }
        self.touched.topics.insert(id);
        self.event(v1::ClusterEvent {
            kind: "topic_altered".to_owned(),
            topic_id: id.to_bytes(),
            from: name,
            to: differences(&expected, &config),
            ..Default::default()
        });
        // Another minimum lets members leave, or keeps them.
        self.settle_topic(id, "topic altered");
        Ok(Effect::Done)
    }

    pub(super) fn add_partitions(&mut self, change: &v1::AddPartitionsEntry) -> Result<Effect, Mismatch> {
        let id = TopicId::from_slice(&change.topic_id).map_err(|_| Mismatch::Malformed)?;
        let topic = self.state.topic(id).ok_or(Mismatch::UnknownPartition)?;
        let there = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        expect(there == change.expected, Mismatch::OtherConfig)?;
        let added = u32::try_from(change.partitions.len()).unwrap_or(u32::MAX);
        expect(added > 0, Mismatch::Unchanged)?;
        let total = there.checked_add(added).filter(|total| *total <= PARTITIONS_MAX);
        let total = total.ok_or(Mismatch::Malformed)?;
        let config = topic.config;
        let new = change
            .partitions
            .iter()
            .map(|placement| self.new_partition(&config, &placement.replicas))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(topic) = self.state.topics.get_mut(&id) {
            let topic = Arc::make_mut(topic);
            topic.partitions.extend(new);
            topic.config.partitions = total;
        }
        self.touched.topics.insert(id);
        self.event(v1::ClusterEvent {
            kind: "partitions_added".to_owned(),
            topic_id: id.to_bytes(),
            from: there.to_string(),
            to: total.to_string(),
            ..Default::default()
        });
        Ok(Effect::Done)
    }

    fn settle_topic(&mut self, id: TopicId, reason: &str) {
        let changed: Vec<_> = self
            .state
            .partitions()
            .filter(|(partition, _, _)| partition.topic_id == id)
            .map(|(partition, _, before)| (partition, before, self.state.settled(partition, before)))
            .filter(|(_, before, after)| *before != after)
            .map(|(partition, before, after)| (partition, crate::election::raise_epochs(before, after)))
            .collect();
        for (partition, after) in changed {
            self.store_partition(partition, after, reason);
        }
    }
}

/// What is different, in words for events.
fn differences(from: &v1::TopicConfig, to: &v1::TopicConfig) -> String {
    let shown = |config: &v1::TopicConfig| {
        [
            ("min_in_sync", config.min_in_sync.to_string()),
            ("retention_ms", config.retention_ms.to_string()),
            ("retention_bytes", config.retention_bytes.to_string()),
            ("segment_bytes", config.segment_bytes.to_string()),
            ("flush", config.flush().as_str_name().trim_start_matches("FLUSH_POLICY_").to_lowercase()),
            ("flush_interval_ms", config.flush_interval_ms.to_string()),
            (
                "on_pressure",
                config.on_pressure().as_str_name().trim_start_matches("ON_PRESSURE_").to_lowercase(),
            ),
            ("min_retention_ms", config.min_retention_ms.to_string()),
            ("batch_bytes_max", config.batch_bytes_max.to_string()),
        ]
    };
    let pairs = shown(from).into_iter().zip(shown(to));
    let changed = pairs.filter(|(before, after)| before != after);
    changed
        .map(|((key, before), (_, after))| format!("{key} {before} -> {after}"))
        .collect::<Vec<_>>()
        .join(", ")
}
