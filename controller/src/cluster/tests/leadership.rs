//! Sets, leaders, topics and ids.

use plimsoll_proto::ids::{SpuId, TopicId};
use plimsoll_proto::v1::{self, SpuState, entry::Change};

use crate::cluster::testing::{Cluster, TOPIC, topic};
use crate::cluster::{ClusterState, EVENTS_MAX, Effect, Mismatch};
use crate::election::next_leader_move;
use plimsoll_proto::disk::DiskLevel;

#[test]
fn sets_change_only_as_expected() {
    let mut cluster = Cluster::with_topic();
    cluster.done(Change::SetInSync(cluster.in_sync(&[1, 2])));
    let good = cluster.in_sync(&[1, 2, 3]);
    let members = |spus: &[u32]| cluster.in_sync(spus).in_sync;
    let stranger = v1::InSyncMember { spu_id: 9, incarnation: 1 };
    let stale = v1::InSyncMember { spu_id: 3, incarnation: cluster.incarnation(3) - 1 };
    let cases = [
        (v1::SetInSync { leader: 2, ..good.clone() }, Mismatch::StaleLeaderEpoch),
        (v1::SetInSync { leader_incarnation: 1, ..good.clone() }, Mismatch::StaleLeaderEpoch),
        (v1::SetInSync { leader_epoch: 9, ..good.clone() }, Mismatch::StaleLeaderEpoch),
        (v1::SetInSync { partition_epoch: 1, ..good.clone() }, Mismatch::StalePartitionEpoch),
        (v1::SetInSync { in_sync: members(&[2, 3]), ..good.clone() }, Mismatch::IneligibleMember),
        (v1::SetInSync { in_sync: vec![], ..good.clone() }, Mismatch::IneligibleMember),
        (v1::SetInSync { in_sync: members(&[1, 2, 2]), ..good.clone() }, Mismatch::Malformed),
        (v1::SetInSync { in_sync: members(&[1, 2]), ..good.clone() }, Mismatch::Unchanged),
        (v1::SetInSync { in_sync: vec![stranger], ..good.clone() }, Mismatch::IneligibleMember),
        (v1::SetInSync { in_sync: vec![stale], ..good.clone() }, Mismatch::StaleIncarnation),
        (v1::SetInSync { partition: 7, ..good.clone() }, Mismatch::UnknownPartition),
        (v1::SetInSync { topic_id: vec![1].into(), ..good.clone() }, Mismatch::Malformed),
    ];
    for (change, mismatch) in cases {
        assert_eq!(cluster.refused(Change::SetInSync(change.clone())), mismatch, "{change:?}");
    }
    cluster.fill(3);
    assert_eq!(cluster.refused(Change::SetInSync(good.clone())), Mismatch::IneligibleMember, "3 is full");
    cluster.empty(3);
    cluster.done(Change::SetInSync(good));
    assert_eq!(cluster.set(), [1, 2, 3]);
}

#[test]
fn what_was_turned_down_is_never_applied_later() {
    let mut cluster = Cluster::with_topic();
    cluster.done(Change::SetInSync(cluster.in_sync(&[1, 2])));
    let late = cluster.in_sync(&[1, 2, 3]);
    cluster.fill(3);
    assert_eq!(cluster.refused(Change::SetInSync(late.clone())), Mismatch::IneligibleMember);
    let fence = cluster.state.fence(&late).expect("it could be applied later");
    let before = cluster.p().partition_epoch;
    cluster.done(Change::SetInSync(fence.clone()));
    assert_eq!((cluster.set(), cluster.p().partition_epoch.0), (vec![1, 2], before.0 + 1));
    cluster.empty(3);
    assert_eq!(cluster.refused(Change::SetInSync(late.clone())), Mismatch::StalePartitionEpoch);
    assert_eq!(cluster.refused(Change::SetInSync(fence)), Mismatch::StalePartitionEpoch);
    assert_eq!(cluster.state.fence(&late), None, "no second entry for what is over");
    let other_set = v1::SetInSync { fence: true, ..cluster.in_sync(&[1]) };
    assert_eq!(cluster.refused(Change::SetInSync(other_set)), Mismatch::Malformed);
}

#[test]
fn a_leader_may_remove_laggards_below_the_minimum() {
    let mut cluster = Cluster::with_topic();
    cluster.done(Change::SetInSync(cluster.in_sync(&[1])));
    assert_eq!(cluster.set(), [1]);
    assert_eq!(cluster.state.counts().below_min_in_sync, 1);
}

#[test]
fn an_offline_node_loses_leaders_and_leaves_sets() {
    let mut cluster = Cluster::with_topic();
    for (spu, leader, set) in [(1, 2, vec![2, 3]), (2, 3, vec![3]), (3, 3, vec![3])] {
        cluster.offline(spu);
        assert_eq!((cluster.leader(), cluster.set()), (leader, set), "after {spu}");
    }
    assert_eq!(cluster.state.counts().without_leader, 1);
}

#[test]
fn a_suspect_leads_only_when_nobody_better_can() {
    let mut cluster = Cluster::with_topic();
    cluster.done(cluster.spu_state(2, SpuState::Online, SpuState::Suspect));
    assert_eq!((cluster.leader(), cluster.set()), (1, vec![1, 2, 3]), "a suspicion moves nothing");
    cluster.fill(1);
    assert_eq!(cluster.leader(), 3);
    cluster.offline(3);
    assert_eq!(cluster.leader(), 2);
}

#[test]
fn a_node_that_just_started_leads_only_when_no_other_can() {
    let mut cluster = Cluster::with_topic();
    cluster.register_as(2, 9, &[]);
    assert_eq!(cluster.set(), [1, 2, 3]);
    cluster.fill(1);
    assert_eq!(cluster.leader(), 3, "2 is joining");
    cluster.offline(3);
    assert_eq!(cluster.leader(), 2);
}

#[test]
fn handing_over_moves_what_others_can_lead() {
    let mut cluster = Cluster::with_topic();
    cluster.create_topic("alone", TopicId([0xcc; 16]), &[&[1]], 1);
    let hand_over = |cluster: &Cluster, spu| {
        Change::HandOver(v1::HandOverLeaders { spu_id: spu, incarnation: cluster.incarnation(spu) })
    };
    let change = hand_over(&cluster, 1);
    assert_eq!(cluster.done(change.clone()), Effect::HandedOver { moved: 1, kept: 1 });
    assert_eq!((cluster.leader(), cluster.set()), (2, vec![1, 2, 3]));
    assert_eq!(cluster.state.spu_state(SpuId(1)), crate::cluster::SpuState::Draining);
    assert_eq!(cluster.done(change), Effect::HandedOver { moved: 0, kept: 1 }, "again is harmless");

    // When all stop, leaderships do not wander between nodes that stop.
    let (two, three) = (hand_over(&cluster, 2), hand_over(&cluster, 3));
    assert_eq!(cluster.done(two), Effect::HandedOver { moved: 1, kept: 0 });
    assert_eq!(cluster.done(three), Effect::HandedOver { moved: 0, kept: 1 });
}

#[test]
fn leaders_move_only_to_eligible_replicas() {
    let mut cluster = Cluster::with_topic();
    let to = |cluster: &Cluster, spu: u32| v1::MoveLeader {
        topic_id: TOPIC.to_bytes(),
        partition: 0,
        partition_epoch: cluster.p().partition_epoch.0,
        leader: spu,
        leader_incarnation: cluster.incarnation(spu),
        reason: String::new(),
    };
    let old = to(&cluster, 2);
    let wrong_run = v1::MoveLeader { leader_incarnation: 1, ..old.clone() };
    assert_eq!(cluster.refused(Change::MoveLeader(wrong_run)), Mismatch::StaleIncarnation);
    let same = to(&cluster, 1);
    assert_eq!(cluster.refused(Change::MoveLeader(same)), Mismatch::Unchanged);
    cluster.fill(3);
    assert_eq!(cluster.refused(Change::MoveLeader(old)), Mismatch::StalePartitionEpoch);
    let full = to(&cluster, 3);
    assert_eq!(cluster.refused(Change::MoveLeader(full)), Mismatch::IneligibleLeader);
    let good = to(&cluster, 2);
    cluster.done(Change::MoveLeader(good));
    assert_eq!((cluster.leader(), cluster.p().leader_epoch.0), (2, 2));
}

#[test]
fn leaders_return_one_at_a_time_when_their_first_replica_is_well() {
    let mut cluster = Cluster::with_topic();
    let mut levels: crate::election::VolumeLevels =
        (1..=3).map(|spu| ((SpuId(spu), crate::cluster::testing::volume(spu)), DiskLevel::Normal)).collect();
    let next = |cluster: &Cluster, levels: &_| next_leader_move(&cluster.state, levels).map(|m| m.to.0);
    assert_eq!(next(&cluster, &levels), None, "1 leads already");
    cluster.fill(1);
    assert_eq!(next(&cluster, &levels), None, "1 is full");
    cluster.empty(1);
    assert_eq!(next(&cluster, &levels), None, "1 is not in sync");
    cluster.done(Change::SetInSync(cluster.in_sync(&[1, 2, 3])));
    assert_eq!(next(&cluster, &levels), Some(1));

    let one = (SpuId(1), crate::cluster::testing::volume(1));
    for (level, expected) in [
        (Some(DiskLevel::Reclaim), Some(1)),
        (Some(DiskLevel::Throttle), None),
        (Some(DiskLevel::ReadOnly), None),
        (None, None),
    ] {
        levels.remove(&one);
        levels.extend(level.map(|level| (one, level)));
        assert_eq!(next(&cluster, &levels), expected, "{level:?}");
    }
    levels.insert(one, DiskLevel::Normal);
    cluster.done(cluster.spu_state(1, SpuState::Online, SpuState::Suspect));
    assert_eq!(next(&cluster, &levels), None, "1 is not online");

    // Relief: a leader on a volume that fills makes way, to where there is most room.
    levels.insert((SpuId(2), crate::cluster::testing::volume(2)), DiskLevel::Throttle);
    levels.insert((SpuId(3), crate::cluster::testing::volume(3)), DiskLevel::Reclaim);
    assert_eq!(next(&cluster, &levels), Some(3));
}

#[test]
fn topics_come_and_go() {
    let mut cluster = Cluster::with_topic();
    let (other, name_taken) = (TopicId([1; 16]), topic("t", TopicId([1; 16]), &[&[1]], 1));
    assert_eq!(cluster.refused(name_taken), Mismatch::TopicExists);
    assert_eq!(cluster.refused(topic("u", TOPIC, &[&[1]], 1)), Mismatch::TopicExists);
    assert_eq!(cluster.refused(topic("a..b", other, &[&[1]], 1)), Mismatch::Malformed);
    assert_eq!(cluster.refused(topic("u", other, &[&[1, 1]], 1)), Mismatch::Malformed);
    assert_eq!(cluster.refused(topic("u", other, &[&[1, 9]], 1)), Mismatch::PlacementChanged);
    cluster.fill(2);
    assert_eq!(cluster.refused(topic("u", other, &[&[1, 2]], 1)), Mismatch::PlacementChanged);

    let delete = Change::DeleteTopic(v1::DeleteTopicEntry { topic_id: TOPIC.to_bytes() });
    cluster.done(delete.clone());
    assert_eq!(cluster.refused(delete), Mismatch::UnknownPartition);
    assert!(cluster.state.topic_by_name("t").is_none());
    cluster.create_topic("t", other, &[&[1, 3]], 1);
    assert_eq!(cluster.state.topic_by_name("t").unwrap().0, other);
}

#[test]
fn producer_ids_are_never_given_twice() {
    let mut cluster = Cluster::of(0);
    let take = |count| Change::AllocateProducerIds(v1::AllocateProducerIds { count });
    assert_eq!(cluster.done(take(10)), Effect::ProducerIds { first: 1, count: 10 });
    assert_eq!(cluster.done(take(5)), Effect::ProducerIds { first: 11, count: 5 });
    assert_eq!(cluster.refused(take(0)), Mismatch::Malformed);
    assert_eq!(cluster.refused(take(u32::MAX)), Mismatch::Malformed);
}

#[test]
fn nothing_applies_before_bootstrap_twice_or_by_unknown_rules() {
    let mut cluster = Cluster { state: ClusterState::empty(), index: 0 };
    let take = Change::AllocateProducerIds(v1::AllocateProducerIds { count: 1 });
    assert_eq!(cluster.refused(take.clone()), Mismatch::NotBootstrapped);
    let bootstrap =
        Change::Bootstrap(v1::BootstrapCluster { cluster_id: vec![7; 16].into(), ..Default::default() });
    cluster.done(bootstrap.clone());
    assert_eq!(cluster.refused(bootstrap), Mismatch::AlreadyBootstrapped);
    cluster.index -= 1;
    assert_eq!(cluster.refused(take.clone()), Mismatch::AlreadyApplied);
    let newer = crate::cluster::RULES_VERSION + 1;
    let entry = v1::Entry { rules: newer, change: Some(take), ..Default::default() };
    let outcome = cluster.state.apply(99, &entry).outcome;
    assert_eq!(outcome, crate::cluster::Outcome::NoOp(Mismatch::UnknownRules));
}

#[test]
fn the_memory_for_events_is_bounded() {
    let mut cluster = Cluster::of(1);
    let mut touched = crate::cluster::Touched::default();
    for _ in 0..EVENTS_MAX {
        let change = cluster.spu_state(1, SpuState::Online, SpuState::Suspect);
        touched.merge(cluster.apply(change).touched);
        let change = cluster.spu_state(1, SpuState::Suspect, SpuState::Online);
        touched.merge(cluster.apply(change).touched);
    }
    assert_eq!(cluster.state.events_after(0).count(), EVENTS_MAX);
    assert_eq!(cluster.state.events_after(cluster.index - 1).count(), 1);
    assert!(!touched.events_dropped.is_empty());
}
