//! Who may lead when the set has fallen below its minimum, and who leads when page caches are lost.

use plimsoll_proto::v1::VolumeState::{Failed, Stalled, Writable};
use plimsoll_proto::v1::{self, SpuState, entry::Change};

use crate::cluster::testing::{Cluster, TOPIC};
use crate::cluster::{Applied, Mismatch};

fn eligible(cluster: &Cluster) -> Vec<u32> {
    cluster.p().eligible.iter().map(|spu| spu.0).collect()
}

fn force(cluster: &Cluster, spu: u32) -> v1::ForceLeader {
    v1::ForceLeader {
        topic_id: TOPIC.to_bytes(),
        partition: 0,
        partition_epoch: cluster.p().partition_epoch.0,
        leader: spu,
        leader_incarnation: cluster.incarnation(spu),
        reason: "by command".to_owned(),
    }
}

fn kinds(applied: &Applied) -> Vec<&str> {
    applied.events.iter().map(|event| event.kind.as_str()).collect()
}

#[test]
fn who_leaves_a_set_below_its_minimum_stays_eligible() {
    let mut cluster = Cluster::with_topic();
    cluster.offline(3);
    assert_eq!(
        (cluster.set(), eligible(&cluster)),
        (vec![1, 2], vec![]),
        "two are enough to commit without 3"
    );
    cluster.done(Change::SetInSync(cluster.in_sync(&[1])));
    assert_eq!((cluster.set(), eligible(&cluster)), (vec![1], vec![2]));
    cluster.done(Change::SetInSync(cluster.in_sync(&[1, 2])));
    assert_eq!(eligible(&cluster), Vec::<u32>::new(), "whole enough to commit without anybody else");

    // Both at once: neither lacks anything that is committed.
    let mut cluster = Cluster::with_topic();
    cluster.done(Change::SetInSync(cluster.in_sync(&[1])));
    assert_eq!((cluster.set(), eligible(&cluster)), (vec![1], vec![2, 3]));
    cluster.offline(1);
    assert_eq!((cluster.leader(), cluster.set(), eligible(&cluster)), (2, vec![2], vec![1, 3]));
}

#[test]
fn an_eligible_replica_leads_when_no_member_can() {
    let mut cluster = Cluster::with_topic();
    cluster.offline(3);
    cluster.offline(2);
    cluster.offline(1);
    assert_eq!((cluster.leader(), cluster.set(), eligible(&cluster)), (1, vec![1], vec![2]));
    cluster.register_as(3, 2, &[]);
    assert_eq!(cluster.leader(), 1, "records may have been committed without 3");
    cluster.register_as(2, 2, &[]);
    assert_eq!((cluster.leader(), cluster.set(), eligible(&cluster)), (2, vec![2], vec![1]));
    assert_eq!(cluster.p().lossy_epoch.0, 0, "nothing was lost");
}

#[test]
fn a_lower_minimum_forgets_nobody_while_there_is_no_leader() {
    let mut cluster = Cluster::with_topic();
    cluster.fill(3);
    cluster.offline(2);
    cluster.register_as(1, 2, &[(1, 400)]);
    assert_eq!((cluster.leader(), cluster.set(), eligible(&cluster)), (0, vec![1], vec![2]));
    let expected = cluster.state.topic(TOPIC).unwrap().config;
    let config = v1::TopicConfig { min_in_sync: 1, ..expected };
    cluster.done(Change::AlterTopic(v1::AlterTopicEntry {
        topic_id: TOPIC.to_bytes(),
        expected: Some(expected),
        config: Some(config),
    }));
    // 1 has lost what it had not synced; 2 has everything, and may come back.
    assert_eq!((cluster.leader(), eligible(&cluster)), (0, vec![2]));
    cluster.register_as(2, 2, &[]);
    assert_eq!((cluster.leader(), cluster.set(), eligible(&cluster)), (2, vec![2], vec![]));
    assert_eq!(cluster.p().lossy_epoch.0, 0, "nothing was lost");
}

/// The history of seed 700047 of the simulation: the leader loses its power unnoticed, the only other member is
/// killed and noticed first, and then the leader is back with less than was committed.
#[test]
fn a_leader_back_without_its_page_cache_waits_for_the_eligible_replica() {
    let mut cluster = Cluster::with_topic();
    cluster.fill(3);
    assert_eq!((cluster.leader(), cluster.set()), (1, vec![1, 2]));
    cluster.offline(2);
    assert_eq!((cluster.set(), eligible(&cluster)), (vec![1], vec![2]));
    cluster.register_as(1, 2, &[(1, 400)]);
    assert_eq!((cluster.leader(), cluster.set(), eligible(&cluster)), (0, vec![1], vec![2]));
    cluster.register_as(2, 2, &[]);
    assert_eq!((cluster.leader(), cluster.set(), eligible(&cluster)), (2, vec![2], vec![]));
    assert_eq!(cluster.p().lossy_epoch.0, 0);
}

#[test]
fn when_the_last_eligible_one_lost_its_page_cache_too_the_greatest_leads_and_it_is_told() {
    let mut cluster = Cluster::with_topic();
    cluster.fill(3);
    cluster.offline(2);
    cluster.register_as(1, 2, &[(1, 400)]);
    let replicas = vec![v1::ReplicaReport {
        topic_id: TOPIC.to_bytes(),
        last_epoch: 1,
        log_end: 500,
        cache_lost: true,
        ..Default::default()
    }];
    let registration = crate::cluster::testing::registration(2, 2);
    let applied = cluster.apply(Change::RegisterSpu(v1::RegisterSpu { replicas, ..registration }));
    assert_eq!((cluster.leader(), cluster.set(), eligible(&cluster)), (2, vec![2], vec![]));
    assert_eq!(cluster.p().lossy_epoch, cluster.p().leader_epoch);
    assert!(kinds(&applied).contains(&"unclean_election"), "{:?}", kinds(&applied));
}

#[test]
fn where_every_acknowledged_record_is_synced_a_lost_page_cache_costs_nothing() {
    for (flush, leader) in [(v1::FlushPolicy::Ack, 1), (v1::FlushPolicy::Interval, 2)] {
        let mut cluster = Cluster::of(3);
        let Change::CreateTopic(mut entry) = crate::cluster::testing::topic("t", TOPIC, &[&[1, 2, 3]], 2)
        else {
            unreachable!("a topic is created by such an entry")
        };
        let config = entry.config.as_mut().unwrap();
        config.set_flush(flush);
        config.flush_interval_ms = if flush == v1::FlushPolicy::Interval { 100 } else { 0 };
        cluster.done(Change::CreateTopic(entry));
        cluster.register_as(1, 2, &[(1, 5)]);
        assert_eq!(cluster.leader(), leader, "{flush:?}");
    }
}

#[test]
fn a_leader_that_cannot_serve_reads_makes_way_even_to_a_full_replica() {
    let mut cluster = Cluster::with_topic();
    cluster.offline(3);
    cluster.fill(2);
    assert_eq!((cluster.leader(), cluster.set()), (1, vec![1, 2]));
    cluster.done(cluster.volume_state(1, Writable, Stalled));
    assert_eq!((cluster.leader(), cluster.set()), (2, vec![1, 2]), "2 is full but can be read from");
    cluster.done(cluster.volume_state(1, Stalled, Writable));
    assert_eq!((cluster.leader(), cluster.set()), (1, vec![1, 2]));
    cluster.offline(1);
    assert_eq!((cluster.leader(), cluster.set(), eligible(&cluster)), (2, vec![2], vec![1]));
    // Both failed: nobody to move to.
    let mut cluster = Cluster::with_topic();
    for spu in [3, 2, 1] {
        cluster.done(cluster.volume_state(spu, Writable, Failed));
    }
    assert_eq!((cluster.leader(), cluster.set(), eligible(&cluster)), (1, vec![1], vec![2]));
}

#[test]
fn a_volume_that_failed_and_works_again_in_the_same_run_is_not_eligible() {
    let mut cluster = Cluster::with_topic();
    for spu in [3, 2] {
        cluster.done(cluster.volume_state(spu, Writable, Failed));
    }
    assert_eq!((cluster.set(), eligible(&cluster)), (vec![1], vec![2]));
    cluster.offline(1);
    assert_eq!(cluster.leader(), 1, "nobody can take over");
    cluster.done(cluster.volume_state(2, Failed, Writable));
    assert_eq!((cluster.leader(), eligible(&cluster)), (1, vec![]), "it was cut back to what was synced");
    cluster.register_as(1, 2, &[]);
    assert_eq!((cluster.leader(), cluster.set()), (1, vec![1]));
}

#[test]
fn those_that_are_gone_do_not_count_as_remaining_when_a_full_one_leaves() {
    // 3 is full while nobody leads; then 2 comes back as leader and finds 1 gone.
    let mut cluster = Cluster::with_topic();
    for spu in [1, 2] {
        cluster.done(cluster.spu_state(spu, SpuState::Online, SpuState::Draining));
    }
    cluster.fill(3);
    assert_eq!(cluster.set(), [1, 2]);
}

#[test]
fn an_election_by_command_is_clean_where_it_can_be_and_noted_where_not() {
    let mut cluster = Cluster::with_topic();
    cluster.fill(3);
    assert_eq!(cluster.refused(Change::ForceLeader(force(&cluster, 1))), Mismatch::Unchanged);
    let applied = cluster.apply(Change::ForceLeader(force(&cluster, 2)));
    assert_eq!((cluster.leader(), cluster.set(), cluster.p().lossy_epoch.0), (2, vec![1, 2], 0));
    assert!(!kinds(&applied).contains(&"unclean_election"));

    let stale = v1::ForceLeader { partition_epoch: 1, ..force(&cluster, 3) };
    assert_eq!(cluster.refused(Change::ForceLeader(stale)), Mismatch::StalePartitionEpoch);
    let stranger = v1::ForceLeader { leader: 9, ..force(&cluster, 3) };
    assert_eq!(cluster.refused(Change::ForceLeader(stranger)), Mismatch::UnknownSpu);
    let old_run = v1::ForceLeader { leader_incarnation: 1, ..force(&cluster, 3) };
    assert_eq!(cluster.refused(Change::ForceLeader(old_run)), Mismatch::StaleIncarnation);

    let applied = cluster.apply(Change::ForceLeader(force(&cluster, 3)));
    assert_eq!((cluster.leader(), cluster.set(), eligible(&cluster)), (3, vec![3], vec![]));
    assert_eq!(cluster.p().lossy_epoch, cluster.p().leader_epoch);
    assert!(kinds(&applied).contains(&"unclean_election"));
    cluster.offline(1);
    assert_eq!(cluster.refused(Change::ForceLeader(force(&cluster, 1))), Mismatch::IneligibleLeader);
}
