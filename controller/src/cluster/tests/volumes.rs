//! Volumes that fill, stall, fail and come back.

use plimsoll_proto::ids::TopicId;
use plimsoll_proto::v1::VolumeState::{Failed, Stalled, Writable, WriteOffline};

use crate::cluster::testing::{Cluster, TOPIC};
use crate::cluster::{Mismatch, Outcome};

#[test]
fn a_full_leader_makes_way_by_one_entry() {
    let mut cluster = Cluster::with_topic();
    let other = TopicId([0xbb; 16]);
    cluster.create_topic("u", other, &[&[1, 3, 2], &[2, 1, 3], &[3, 2, 1]], 2);
    let before = cluster.p().clone();
    let applied = cluster.apply(cluster.volume_state(1, Writable, WriteOffline));

    assert_eq!((cluster.leader(), cluster.set()), (2, vec![2, 3]));
    assert_eq!(cluster.p().leader_epoch.0, before.leader_epoch.0 + 1);
    assert_eq!(cluster.p().partition_epoch.0, before.partition_epoch.0 + 1);
    let leaders: Vec<_> =
        cluster.state.topic(other).unwrap().partitions.iter().map(|p| p.leader_spu().unwrap().0).collect();
    assert_eq!(leaders, [3, 2, 3]);
    let count = |kind: &str| applied.events.iter().filter(|event| event.kind == kind).count();
    assert_eq!((count("volume_state"), count("leader_changed"), count("in_sync_changed")), (1, 2, 4));
    assert_eq!(applied.touched.topics, [TOPIC, other].into());

    // Back to writable: nothing moves by itself; the follower is readmitted by the leader.
    cluster.empty(1);
    assert_eq!((cluster.leader(), cluster.set()), (2, vec![2, 3]));
    cluster.done(plimsoll_proto::v1::entry::Change::SetInSync(cluster.in_sync(&[1, 2, 3])));
    assert_eq!((cluster.leader(), cluster.set()), (2, vec![1, 2, 3]));
}

#[test]
fn a_set_never_shrinks_below_the_minimum_for_fullness() {
    let mut cluster = Cluster::with_topic();
    cluster.fill(1);
    cluster.fill(2);
    assert_eq!((cluster.leader(), cluster.set()), (3, vec![2, 3]), "2 stays in the set, 3 leads");
    cluster.fill(3);
    assert_eq!((cluster.leader(), cluster.set()), (3, vec![2, 3]), "nobody has room: the leader stays");

    // The first one with room that is in sync leads at once; the surplus full one leaves.
    cluster.empty(1);
    assert_eq!((cluster.leader(), cluster.set()), (3, vec![2, 3]));
    cluster.done(plimsoll_proto::v1::entry::Change::SetInSync(cluster.in_sync(&[1, 2, 3])));
    assert_eq!((cluster.leader(), cluster.set()), (1, vec![1, 2]));
}

#[test]
fn an_in_sync_member_with_room_again_takes_over_from_a_full_leader() {
    let mut cluster = Cluster::with_topic();
    (1..=3).for_each(|spu| cluster.fill(spu));
    cluster.empty(2);
    assert_eq!((cluster.leader(), cluster.set()), (2, vec![2, 3]));
}

#[test]
fn a_failed_volume_leaves_even_below_the_minimum_but_never_the_last() {
    let mut cluster = Cluster::with_topic();
    for (spu, leader, set) in [(1, 2, vec![2, 3]), (2, 3, vec![3]), (3, 3, vec![3])] {
        cluster.done(cluster.volume_state(spu, Writable, Failed));
        assert_eq!((cluster.leader(), cluster.set()), (leader, set), "after {spu}");
    }
}

#[test]
fn a_stalled_follower_leaves_and_comes_back() {
    let mut cluster = Cluster::with_topic();
    cluster.done(cluster.volume_state(3, Writable, Stalled));
    assert_eq!((cluster.leader(), cluster.set()), (1, vec![1, 2]));
    cluster.done(cluster.volume_state(3, Stalled, Writable));
    assert_eq!(cluster.set(), vec![1, 2]);
}

#[test]
fn volume_entries_are_checked() {
    let mut cluster = Cluster::with_topic();
    let late = cluster.volume_state(1, Writable, WriteOffline);
    assert_eq!(cluster.refused(cluster.volume_state(1, WriteOffline, Writable)), Mismatch::OtherState);
    assert_eq!(cluster.refused(cluster.volume_state(1, Writable, Writable)), Mismatch::Unchanged);
    cluster.fill(1);
    assert_eq!(cluster.refused(late.clone()), Mismatch::OtherState, "a repetition is a no-op");
    cluster.empty(1);
    cluster.register_as(1, 2, &[]);
    assert_eq!(cluster.refused(late), Mismatch::StaleIncarnation);
}

#[test]
fn the_entry_does_not_grow_with_the_partitions() {
    use prost::Message as _;
    let mut cluster = Cluster::of(3);
    let many: Vec<&[u32]> = vec![&[1, 2, 3]; 300];
    cluster.create_topic("many", TOPIC, &many, 2);
    let change = cluster.volume_state(1, Writable, WriteOffline);
    let entry = plimsoll_proto::v1::Entry { change: Some(change.clone()), ..Default::default() };
    assert!(entry.encoded_len() < 128);
    assert!(matches!(cluster.apply(change).outcome, Outcome::Changed(_)));
    assert!(cluster.state.partitions().all(|(_, _, p)| p.leader_spu().unwrap().0 == 2));
}

#[test]
fn what_lives_in_the_reserve_does_not_make_way_for_a_full_volume() {
    let mut cluster = Cluster::with_topic();
    let offsets = TopicId([0xcc; 16]);
    let mut change = crate::cluster::testing::topic("__offsets", offsets, &[&[1, 2, 3]], 2);
    if let plimsoll_proto::v1::entry::Change::CreateTopic(create) = &mut change
        && let Some(config) = &mut create.config
    {
        config.offsets_area_bytes = 1 << 20;
    }
    cluster.done(change);
    let of = |cluster: &Cluster| {
        let partition = &cluster.state.topic(offsets).unwrap().partitions[0];
        (partition.leader_spu().unwrap().0, partition.in_sync.len(), partition.leader_epoch)
    };
    let before = of(&cluster);
    assert_eq!((before.0, before.1), (1, 3));
    (1..=3).for_each(|spu| cluster.fill(spu));
    assert_eq!(of(&cluster), before, "every volume is full, and nothing has moved");

    // Failed is not full, and an offline node is gone; a full volume may lead and join.
    cluster.apply(cluster.volume_state(1, WriteOffline, Failed));
    let (leader, members, _) = of(&cluster);
    assert_eq!((leader, members), (2, 2));
}
