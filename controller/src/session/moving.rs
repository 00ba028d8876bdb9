//! Replicas on their way: the leader of the controllers finishes moves whose new replicas are in sync, and begins
//! those that drains and short volumes ask for, a few at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_host::Task;
use plimsoll_proto::ids::{SpuId, VolumeId};
use plimsoll_proto::v1::{self, entry::Change};

use super::moves;
use super::shared::Shared;
use crate::cluster::ClusterState;
use crate::placement;
use crate::raft_runtime::View;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the leader remembers of moves between two looks.
#[derive(Debug, Default)]
pub(super) struct Moving {
    look_at: Duration,
    proposing: Option<Task>,
    /// Since when each volume is short of room.
    short_since: BTreeMap<(SpuId, VolumeId), Duration>,
}

impl Moving {
    /// To be called often; looks every now and then.
    pub(super) fn tick(&mut self, shared: &Shared, now: Duration, view: &View) {
        let busy = self.proposing.as_ref().is_some_and(|proposing| !proposing.is_finished());
        if busy || now < self.look_at {
            return;
        }
        self.look_at = now.saturating_add(LOOK_EVERY);
        let mut changes = finished(&view.state);
        changes.extend(self.begun(shared, now, &view.state));
        if !changes.is_empty() {
            let shared = shared.clone();
            self.proposing = Some(shared.host.tasks.clone().spawn("move replicas", async move {
                for change in changes {
                    if let Err(error) = shared.propose(change).await {
                        tracing::debug!(error.message, "a move was not taken further");
                        return;
                    }
                }
            }));
        }
    }

    fn begun(&mut self, shared: &Shared, now: Duration, state: &ClusterState) -> Vec<Change> {
        let facts = shared.facts.volumes(now.saturating_sub(shared.settings.facts_fresh));
        let short = moves::short_volumes(state, &facts);
        self.short_since.retain(|volume, _| short.contains(volume));
        for volume in &short {
            self.short_since.entry(*volume).or_insert(now);
        }
        let under_way = state.partitions().filter(|(_, _, p)| p.reassignment.is_some()).count();
        let limit = usize::try_from(shared.settings.replica_moves_max).unwrap_or(0).saturating_sub(under_way);
        let mut planned = placement::drains(state, &facts, limit);
        let due: BTreeSet<_> = self
            .short_since
            .iter()
            .filter(|(_, since)| now.saturating_sub(**since) >= shared.settings.relief_after)
            .map(|(volume, _)| *volume)
            .collect();
        let left = if shared.may_relieve(now) { limit.saturating_sub(planned.len()) } else { 0 };
        let relief = placement::relief(state, &facts, &due, left);
        let taken: BTreeSet<_> = planned.iter().map(|planned| planned.partition).collect();
        planned.extend(relief.into_iter().filter(|relief| !taken.contains(&relief.partition)));
        planned.iter().filter_map(|planned| moves::start(state, planned)).collect()
    }
}

/// Moves whose new replicas are in sync.
fn finished(state: &ClusterState) -> Vec<Change> {
    state
        .partitions()
        .filter(|(_, topic, partition)| state.may_finish(topic.config.min_in_sync, partition))
        .map(|(id, _, partition)| {
            Change::FinishReassignment(v1::FinishReassignment {
                topic_id: id.topic_id.to_bytes(),
                partition: id.index,
                partition_epoch: partition.partition_epoch.0,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::v1::{DiskLevel, SpuDuty};

    use super::*;
    use crate::cluster::testing::{Cluster, TOPIC, volume};
    use crate::session::SessionSettings;
    use crate::session::facts::Heard;
    use crate::session::testing::Alone;

    /// Every node of the cluster is heard at `now`; volumes of `short` are at Throttle.
    fn hear(shared: &Shared, cluster: &Cluster, now: Duration, short: &[u32]) {
        for (spu, record) in cluster.state.spus() {
            let level = if short.contains(&spu.0) { DiskLevel::Throttle } else { DiskLevel::Normal };
            let facts = v1::VolumeFacts {
                volume_id: volume(spu.0).to_bytes(),
                level: level.into(),
                free_bytes: 1000,
                ..Default::default()
            };
            let heard = Heard { incarnation: record.incarnation, at: now, volumes: vec![facts] };
            shared.facts.put(*spu, heard);
        }
    }

    fn five() -> Cluster {
        let mut cluster = Cluster::of(5);
        cluster.create_topic("t", TOPIC, &[&[1, 2, 3], &[1, 2, 4], &[1, 3, 4], &[1, 2, 5]], 2);
        cluster
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn moves_under_way_count_for_the_limit() {
        let settings = SessionSettings { replica_moves_max: 2, ..Default::default() };
        let alone = Alone::start(settings).await;
        let (shared, mut moving, mut cluster) = (&alone.shared, Moving::default(), five());
        cluster.done(cluster.duty(1, SpuDuty::Serving, SpuDuty::Draining));
        let now = shared.host.clock.now();
        hear(shared, &cluster, now, &[]);
        for left in [2, 1, 0] {
            let begun = moving.begun(shared, now, &cluster.state);
            assert_eq!(begun.len(), left, "{begun:?}");
            if let Some(first) = begun.into_iter().next() {
                cluster.done(first);
            }
        }
        alone.raft.stop(Duration::from_secs(1)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn relief_waits_a_minute_and_rests_for_ten_when_it_was_called_off() {
        let alone = Alone::start(SessionSettings::default()).await;
        let (shared, mut moving, cluster) = (&alone.shared, Moving::default(), five());
        let began = shared.host.clock.now();
        let mut begun = |secs: u64| {
            let now = began + Duration::from_secs(secs);
            hear(shared, &cluster, now, &[2]);
            moving.begun(shared, now, &cluster.state).len()
        };
        assert_eq!((begun(0), begun(59), begun(60)), (0, 0, 1));
        shared.hold_relief();
        // The clock went on a little since the beginning.
        assert_eq!((begun(61), begun(600), begun(660)), (0, 0, 1));
        alone.raft.stop(Duration::from_secs(1)).await;
    }
}
