//! Topics that change while they are in use, and the controllers that join and leave.

use plimsoll_proto::ids::ControllerId;
use plimsoll_proto::v1::{self, FlushPolicy, OnPressure, entry::Change};

use crate::cluster::testing::{Cluster, TOPIC, volume};
use crate::cluster::{ConfigError, Mismatch, altered};

fn alter(cluster: &Cluster, request: &v1::AlterTopicRequest) -> Change {
    let config = cluster.state.topic(TOPIC).unwrap().config;
    Change::AlterTopic(v1::AlterTopicEntry {
        topic_id: TOPIC.to_bytes(),
        expected: Some(config),
        config: Some(altered(&config, request).unwrap()),
    })
}

#[test]
fn what_is_named_changes_and_the_rest_stays() {
    let mut cluster = Cluster::with_topic();
    let before = cluster.state.topic(TOPIC).unwrap().config;
    let request = v1::AlterTopicRequest {
        retention_ms: Some(5),
        flush: Some(FlushPolicy::Interval.into()),
        ..Default::default()
    };
    let change = alter(&cluster, &request);
    let applied = cluster.apply(change.clone());
    assert_eq!(
        applied.events[0].to,
        "retention_ms 0 -> 5, flush os -> interval, flush_interval_ms 0 -> 1000"
    );
    let after = cluster.state.topic(TOPIC).unwrap().config;
    assert_eq!(
        after,
        v1::TopicConfig {
            retention_ms: 5,
            flush: FlushPolicy::Interval.into(),
            flush_interval_ms: 1000,
            ..before
        }
    );
    assert_eq!(cluster.refused(change), Mismatch::OtherConfig, "somebody was faster");
}

#[test]
fn what_pressure_may_do_changes_to_any_policy_that_is_known() {
    let mut cluster = Cluster::with_topic();
    let on_pressure = |policy: i32| v1::AlterTopicRequest { on_pressure: Some(policy), ..Default::default() };
    let mut event = |policy: OnPressure| {
        let applied = cluster.apply(alter(&cluster, &on_pressure(policy.into())));
        assert_eq!(cluster.state.topic(TOPIC).unwrap().config.on_pressure(), policy);
        applied.events[0].to.clone()
    };
    assert_eq!(event(OnPressure::TrimPastGroups), "on_pressure refuse -> trim_past_groups");
    assert_eq!(event(OnPressure::Trim), "on_pressure trim_past_groups -> trim");
    let config = cluster.state.topic(TOPIC).unwrap().config;
    assert_eq!(altered(&config, &on_pressure(99)), Err(ConfigError::UnknownPolicy));
}

#[test]
fn another_minimum_counts_at_once() {
    let mut cluster = Cluster::with_topic();
    cluster.fill(3);
    assert_eq!(cluster.set(), [1, 2]);
    cluster.fill(2);
    assert_eq!(cluster.set(), [1, 2], "two must stay");
    cluster.done(alter(&cluster, &v1::AlterTopicRequest { min_in_sync: Some(1), ..Default::default() }));
    assert_eq!(cluster.set(), [1], "now one is enough");
    let config = cluster.state.topic(TOPIC).unwrap().config;
    let too_many = v1::AlterTopicRequest { min_in_sync: Some(4), ..Default::default() };
    assert!(altered(&config, &too_many).is_err());
}

#[test]
fn who_is_eligible_below_the_old_minimum_is_not_below_the_new_one() {
    let mut cluster = Cluster::with_topic();
    cluster.offline(2);
    cluster.offline(3);
    assert!(!cluster.p().eligible.is_empty());
    cluster.done(alter(&cluster, &v1::AlterTopicRequest { min_in_sync: Some(1), ..Default::default() }));
    assert!(cluster.p().eligible.is_empty(), "a set of one commits now");
}

#[test]
fn a_topic_that_was_once_not_synced_is_remembered_as_such() {
    let mut cluster = Cluster::with_topic();
    let flush =
        |policy: FlushPolicy| v1::AlterTopicRequest { flush: Some(policy.into()), ..Default::default() };
    assert!(cluster.state.topic(TOPIC).unwrap().was_not_synced);
    cluster.done(alter(&cluster, &flush(FlushPolicy::Ack)));
    assert!(cluster.state.topic(TOPIC).unwrap().was_not_synced, "older records were not");
}

#[test]
fn partitions_are_added_behind_the_others() {
    let mut cluster = Cluster::with_topic();
    let on = |spus: &[u32]| v1::PartitionPlacement {
        replicas: spus
            .iter()
            .map(|spu| v1::ReplicaAssignment { spu_id: *spu, volume_id: volume(*spu).to_bytes() })
            .collect(),
    };
    let add = |expected, partitions| {
        Change::AddPartitions(v1::AddPartitionsEntry { topic_id: TOPIC.to_bytes(), expected, partitions })
    };
    assert_eq!(cluster.refused(add(2, vec![on(&[1, 2, 3])])), Mismatch::OtherConfig);
    assert_eq!(cluster.refused(add(1, vec![])), Mismatch::Unchanged);
    assert_eq!(cluster.refused(add(1, vec![on(&[1, 2])])), Mismatch::Malformed);
    cluster.done(add(1, vec![on(&[2, 3, 1]), on(&[3, 1, 2])]));
    let topic = cluster.state.topic(TOPIC).unwrap();
    assert_eq!((topic.partitions.len(), topic.config.partitions), (3, 3));
    let leaders: Vec<_> = topic.partitions.iter().map(|p| p.leader_spu().unwrap().0).collect();
    assert_eq!(leaders, [1, 2, 3]);
}

fn controllers(expected: &[u64], after: &[u64]) -> Change {
    Change::SetControllers(v1::SetControllers {
        expected: expected.to_vec(),
        controllers: after
            .iter()
            .map(|id| v1::ControllerMember { controller_id: *id, address: format!("c{id}:7001") })
            .collect(),
    })
}

#[test]
fn controllers_join_and_leave_one_at_a_time_and_never_come_back() {
    let mut cluster = Cluster::of(0);
    cluster.done(controllers(&[1, 2, 3], &[1, 2, 3, 4]));
    let known = |cluster: &Cluster| cluster.state.controllers().members.keys().copied().collect::<Vec<_>>();
    assert_eq!(known(&cluster), [1, 2, 3, 4].map(ControllerId));
    assert_eq!(cluster.state.controllers().since_index, cluster.index);
    assert_eq!(cluster.refused(controllers(&[1, 2, 3], &[1, 2, 3, 5])), Mismatch::OtherState);
    assert_eq!(cluster.refused(controllers(&[1, 2, 3, 4], &[1, 2])), Mismatch::Malformed);
    assert_eq!(cluster.refused(controllers(&[1, 2, 3, 4], &[1, 2, 3, 5])), Mismatch::Malformed);
    cluster.done(controllers(&[1, 2, 3, 4], &[2, 3, 4]));
    assert_eq!(cluster.refused(controllers(&[2, 3, 4], &[1, 2, 3, 4])), Mismatch::FormerController);
    cluster.done(controllers(&[2, 3, 4], &[2, 3, 4, 5]));
    let stored = crate::cluster::ClusterState::decode_snapshot(&cluster.state.encode_snapshot()).unwrap();
    assert_eq!(stored, cluster.state);
}
