use std::collections::BTreeMap;

use plimsoll_proto::ids::{PartitionId, SpuId, TopicId, VolumeId};
use plimsoll_proto::v1::{self, SpuDuty, VolumeState, entry::Change};

use super::{Facts, Move, drains, is_short, reassign, relief};
use crate::cluster::MoveCause;
use crate::cluster::testing::{Cluster, TOPIC, registration, volume};

/// Nodes that are as free as said, at level Normal.
fn facts(free: &[(u32, u64)]) -> Facts {
    let fact = |(spu, free_bytes): &(u32, u64)| {
        let facts = v1::VolumeFacts {
            level: v1::DiskLevel::Normal.into(),
            free_bytes: *free_bytes,
            ..Default::default()
        };
        ((SpuId(*spu), volume(*spu)), facts)
    };
    free.iter().map(fact).collect()
}

fn at(mut facts: Facts, spu: u32, level: v1::DiskLevel) -> Facts {
    if let Some(facts) = facts.get_mut(&(SpuId(spu), volume(spu))) {
        facts.level = level.into();
    }
    facts
}

fn even() -> Facts {
    facts(&[(1, 1000), (2, 1000), (3, 1000), (4, 1000), (5, 1000)])
}

fn five(partitions: &[&[u32]]) -> Cluster {
    let mut cluster = Cluster::of(5);
    cluster.create_topic("t", TOPIC, partitions, 2);
    cluster
}

fn nodes(places: &[(SpuId, VolumeId)]) -> Vec<u32> {
    places.iter().map(|(spu, _)| spu.0).collect()
}

fn moves(planned: &[Move]) -> BTreeMap<u32, Vec<u32>> {
    planned.iter().map(|planned| (planned.partition.index, nodes(&planned.to))).collect()
}

#[test]
fn a_drained_node_is_replaced_one_for_one_and_evenly() {
    let mut cluster = five(&[&[1, 2, 3], &[2, 1, 3], &[2, 3, 4]]);
    assert_eq!(drains(&cluster.state, &even(), 9), []);
    cluster.done(cluster.duty(1, SpuDuty::Serving, SpuDuty::Draining));
    let planned = drains(&cluster.state, &even(), 9);
    assert_eq!(moves(&planned), BTreeMap::from([(0, vec![5, 2, 3]), (1, vec![2, 4, 3])]));
    assert!(planned.iter().all(|planned| planned.cause == MoveCause::Drain));
    assert_eq!(drains(&cluster.state, &even(), 1).len(), 1);
    assert_eq!(drains(&cluster.state, &even(), 0), []);
}

#[test]
fn a_replica_without_a_target_stays() {
    let mut cluster = five(&[&[1, 2, 3]]);
    cluster.done(cluster.duty(1, SpuDuty::Serving, SpuDuty::Draining));
    cluster.done(cluster.duty(4, SpuDuty::Serving, SpuDuty::Cordoned));
    let full = at(even(), 5, v1::DiskLevel::Reclaim);
    assert_eq!(drains(&cluster.state, &full, 9), [], "neither cordoned nodes nor volumes above Normal");
    assert_eq!(moves(&drains(&cluster.state, &even(), 9)), BTreeMap::from([(0, vec![5, 2, 3])]));
}

#[test]
fn a_move_keeps_racks_apart() {
    let mut cluster = Cluster::of(0);
    for (spu, rack) in [(1, "a"), (2, "b"), (3, "b"), (4, "c")] {
        let rack = rack.to_owned();
        cluster.done(Change::RegisterSpu(v1::RegisterSpu { rack, ..registration(spu, 1) }));
        cluster.done(cluster.spu_state(spu, v1::SpuState::Joining, v1::SpuState::Online));
    }
    cluster.create_topic("t", TOPIC, &[&[1, 2]], 1);
    cluster.done(cluster.duty(1, SpuDuty::Serving, SpuDuty::Draining));
    // The third has more room, in the rack of the one that stays.
    let facts = facts(&[(1, 1), (2, 1), (3, 9000), (4, 10)]);
    assert_eq!(moves(&drains(&cluster.state, &facts, 9)), BTreeMap::from([(0, vec![4, 2])]));
}

#[test]
fn relief_takes_one_follower_of_each_short_volume() {
    let cluster = five(&[&[1, 2, 3], &[2, 1, 3], &[3, 2, 1]]);
    let facts = at(at(even(), 1, v1::DiskLevel::Throttle), 2, v1::DiskLevel::ReadOnly);
    let short = |spu| is_short(&cluster.state, &facts, SpuId(spu), volume(spu));
    assert_eq!([short(1), short(2), short(3)], [true, true, false]);
    let volumes = [1, 2].map(|spu| (SpuId(spu), volume(spu))).into();
    let planned = relief(&cluster.state, &facts, &volumes, 9);
    // Partition 1 follows on node 1, partition 0 on node 2; both leave to others than the short ones.
    assert_eq!(moves(&planned).keys().copied().collect::<Vec<_>>(), [0, 1]);
    assert!(planned.iter().all(|planned| planned.cause == MoveCause::Relief));
    for planned in &planned {
        let gone = planned.from.iter().filter(|place| !planned.to.contains(place)).count();
        assert_eq!((gone, planned.from.len()), (1, planned.to.len()));
    }
    assert_eq!(relief(&cluster.state, &facts, &volumes, 1).len(), 1);
}

#[test]
fn a_volume_that_something_leaves_already_is_left_alone() {
    let mut cluster = five(&[&[1, 2, 3], &[2, 1, 3]]);
    cluster.fill(1);
    let short = [(SpuId(1), volume(1))].into();
    let planned = relief(&cluster.state, &even(), &short, 9);
    assert_eq!(planned.len(), 1);
    let partition = cluster.state.partition(planned[0].partition).unwrap().partition_epoch.0;
    cluster.done(Change::StartReassignment(v1::StartReassignment {
        topic_id: TOPIC.to_bytes(),
        partition: planned[0].partition.index,
        partition_epoch: partition,
        to: planned[0]
            .to
            .iter()
            .map(|(spu, volume)| v1::ReplicaAssignment { spu_id: spu.0, volume_id: volume.to_bytes() })
            .collect(),
        cause: v1::MoveCause::Relief.into(),
    }));
    assert_eq!(relief(&cluster.state, &even(), &short, 9), []);
}

#[test]
fn failed_is_not_short_of_room() {
    let mut cluster = five(&[&[1, 2, 3]]);
    cluster.done(cluster.volume_state(1, VolumeState::Writable, VolumeState::Failed));
    let facts = at(even(), 1, v1::DiskLevel::ReadOnly);
    assert!(!is_short(&cluster.state, &facts, SpuId(1), volume(1)));
}

#[test]
fn somebody_says_where_and_the_volume_is_chosen() {
    let cluster = five(&[&[1, 2, 3]]);
    let p0 = PartitionId { topic_id: TOPIC, index: 0 };
    let to = |ids: &[u32]| ids.iter().copied().map(SpuId).collect::<Vec<_>>();
    let planned = reassign(&cluster.state, &even(), p0, &to(&[4, 1])).unwrap().unwrap();
    assert_eq!(planned.to, [(SpuId(4), volume(4)), (SpuId(1), volume(1))]);
    assert_eq!(reassign(&cluster.state, &even(), p0, &to(&[1, 2, 3])), Ok(None));
    let full = at(even(), 4, v1::DiskLevel::Reclaim);
    let refused = reassign(&cluster.state, &full, p0, &to(&[4, 1])).unwrap_err();
    assert_eq!(refused.excluded.len(), 1);
    assert!(refused.to_string().contains("level is reclaim"), "{refused}");
    let unknown = reassign(&cluster.state, &even(), p0, &to(&[9])).unwrap_err();
    assert!(unknown.to_string().contains("no such node"), "{unknown}");
    let gone = PartitionId { topic_id: TopicId([9; 16]), index: 0 };
    assert_eq!(reassign(&cluster.state, &even(), gone, &to(&[1])), Ok(None));
}
