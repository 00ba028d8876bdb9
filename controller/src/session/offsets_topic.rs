//! When the internal topic of consumer groups is made without being asked for. Pure.
//!
//! Its areas live in room that is set aside on the volumes, and that room must be taken while there is some: a cluster
//! whose disks are full before its first group is used could not make the topic any more. A group needs a topic to read,
//! so nothing is made before there is one.

use std::time::Duration;

use plimsoll_proto::group::{OFFSETS_TOPIC, is_internal};

use crate::cluster::{ClusterState, Duty, SpuState};

/// Copies of the internal topic, where there are as many nodes.
const COPIES: usize = 3;
/// A cluster with fewer nodes is as large as it was meant to be when none has joined for so long.
const SETTLED: Duration = Duration::from_secs(60);
/// Pause after an attempt that failed.
const AGAIN: Duration = Duration::from_secs(10);

/// What the leader remembers between two looks.
#[derive(Debug)]
pub(super) struct OffsetsTopic {
    /// How many nodes there are, and since when.
    nodes: (usize, Duration),
    tried_at: Option<Duration>,
}

impl OffsetsTopic {
    pub(super) fn new(now: Duration) -> Self {
        Self { nodes: (0, now), tried_at: None }
    }

    /// How many nodes must have room for it to be made now; `None` when it is not the time.
    pub(super) fn due(&mut self, state: &ClusterState, now: Duration) -> Option<usize> {
        let nodes = state.spus().len();
        if self.nodes.0 != nodes {
            self.nodes = (nodes, now);
        }
        let is_there = state.topic_by_name(OFFSETS_TOPIC).is_some();
        if is_there || state.topics().values().all(|topic| is_internal(&topic.name)) {
            return None;
        }
        let serves = |spu: &SpuState, duty: Duty| *spu == SpuState::Online && duty == Duty::Serving;
        let serving = state.spus().values().filter(|spu| serves(&spu.state, spu.duty)).count();
        let joining = state.spus().values().any(|spu| spu.state == SpuState::Joining);
        let settled = serving == nodes && now.saturating_sub(self.nodes.1) >= SETTLED;
        let enough = serving >= COPIES && !joining;
        let tried = self.tried_at.is_some_and(|at| now.saturating_sub(at) < AGAIN);
        if nodes == 0 || tried || !(enough || settled) {
            return None;
        }
        self.tried_at = Some(now);
        Some(nodes.min(COPIES))
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::ids::TopicId;
    use plimsoll_proto::v1::SpuState::{Offline, Online};

    use super::*;
    use crate::cluster::testing::{Cluster, TOPIC};

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn three_nodes_make_it_with_the_first_topic() {
        let mut cluster = Cluster::of(3);
        let mut offsets = OffsetsTopic::new(s(0));
        assert_eq!(offsets.due(&cluster.state, s(1000)), None, "nobody has anything to read");
        cluster.create_topic("t", TOPIC, &[&[1]], 1);
        assert_eq!(offsets.due(&cluster.state, s(1000)), Some(3));
        assert_eq!(offsets.due(&cluster.state, s(1009)), None, "an attempt was just made");
        assert_eq!(offsets.due(&cluster.state, s(1010)), Some(3));
        cluster.create_topic(OFFSETS_TOPIC, TopicId([9; 16]), &[&[1, 2, 3]], 2);
        assert_eq!(offsets.due(&cluster.state, s(2000)), None);
    }

    #[test]
    fn fewer_nodes_wait_for_more_for_a_while() {
        let mut cluster = Cluster::of(1);
        cluster.create_topic("t", TOPIC, &[&[1]], 1);
        let mut offsets = OffsetsTopic::new(s(0));
        assert_eq!(offsets.due(&cluster.state, s(0)), None);
        assert_eq!(offsets.due(&cluster.state, s(59)), None);
        cluster.join(2);
        assert_eq!(offsets.due(&cluster.state, s(60)), None, "another one has come");
        cluster.done(cluster.spu_state(2, Online, Offline));
        assert_eq!(offsets.due(&cluster.state, s(120)), None, "one is away");
        cluster.join(3);
        cluster.register_as(2, 2, &[]);
        assert_eq!(offsets.due(&cluster.state, s(130)), None, "one is on its way");
        cluster.done(cluster.spu_state(2, plimsoll_proto::v1::SpuState::Joining, Online));
        assert_eq!(offsets.due(&cluster.state, s(130)), Some(3));

        let mut small = Cluster::of(2);
        small.create_topic("t", TOPIC, &[&[1]], 1);
        let mut offsets = OffsetsTopic::new(s(0));
        assert_eq!(offsets.due(&small.state, s(1)), None);
        assert_eq!(offsets.due(&small.state, s(61)), Some(2));
    }
}
