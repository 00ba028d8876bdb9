//! Runs of nodes: who is fenced, what survives.

use plimsoll_proto::v1::{self, SpuState, VolumeState::WriteOffline, entry::Change};

use crate::cluster::testing::{Cluster, TOPIC, registration, volume};
use crate::cluster::{Mismatch, VolumeState};
use plimsoll_proto::ids::SpuId;

#[test]
fn the_same_start_keeps_its_incarnation_a_new_one_fences_it() {
    let mut cluster = Cluster::with_topic();
    let first = cluster.incarnation(1);
    let epoch = cluster.p().leader_epoch;
    assert_eq!(cluster.register_as(1, 1, &[]), first, "a repetition");
    assert_eq!(cluster.p().leader_epoch, epoch);

    let second = cluster.register_as(1, 2, &[]);
    assert_eq!(second, cluster.index);
    assert_eq!(cluster.leader(), 1, "leadership is kept");
    assert_eq!(cluster.p().leader_epoch.0, epoch.0 + 1, "the old run is fenced");
    assert_eq!(cluster.p().leader.unwrap().1.0, second);
    assert_eq!(cluster.p().partition_epoch.0, 2);
}

#[test]
fn a_late_end_of_an_old_run_never_touches_the_new_one() {
    let mut cluster = Cluster::with_topic();
    let late = [
        cluster.spu_state(1, SpuState::Online, SpuState::Offline),
        cluster.spu_state(1, SpuState::Joining, SpuState::Offline),
        cluster.volume_state(1, v1::VolumeState::Writable, v1::VolumeState::Failed),
        Change::HandOver(v1::HandOverLeaders { spu_id: 1, incarnation: cluster.incarnation(1) }),
    ];
    cluster.register_as(1, 2, &[]);
    for change in late {
        assert_eq!(cluster.refused(change), Mismatch::StaleIncarnation);
    }
    assert_eq!(cluster.leader(), 1);
}

#[test]
fn an_offline_node_comes_back_only_by_registering() {
    let mut cluster = Cluster::with_topic();
    let old = cluster.incarnation(1);
    cluster.offline(1);
    for wanted in [SpuState::Online, SpuState::Suspect, SpuState::Draining] {
        let change = cluster.spu_state(1, SpuState::Offline, wanted);
        assert_eq!(cluster.refused(change), Mismatch::ForbiddenTransition);
    }
    assert!(cluster.register_as(1, 1, &[]) > old, "the same process, but another run");
    assert_eq!(cluster.state.spu_state(SpuId(1)), crate::cluster::SpuState::Joining);
}

#[test]
fn a_new_run_does_not_clear_write_offline() {
    let mut cluster = Cluster::with_topic();
    (1..=3).for_each(|spu| cluster.fill(spu));
    cluster.register_as(3, 2, &[]);
    let state = &cluster.state.volume(SpuId(3), volume(3)).unwrap().state;
    assert_eq!(state.to_wire(), WriteOffline);
    assert_eq!(cluster.leader(), 3, "nobody else could lead");
}

#[test]
fn a_volume_that_is_gone_fails_and_returns() {
    let mut cluster = Cluster::with_topic();
    let other = v1::VolumeDeclared { volume_id: vec![0x77; 16].into(), path: "/new".to_owned() };
    cluster.done(Change::RegisterSpu(v1::RegisterSpu { volumes: vec![other], ..registration(1, 2) }));
    let state = cluster.state.volume(SpuId(1), volume(1)).unwrap().state.clone();
    assert!(matches!(state, VolumeState::Failed { .. }));
    assert_eq!((cluster.leader(), cluster.set()), (2, vec![2, 3]));
    cluster.register_as(1, 3, &[]);
    assert!(cluster.state.is_writable(SpuId(1), volume(1)));
    assert_eq!(cluster.state.spu(SpuId(1)).unwrap().volumes.len(), 1, "an empty volume is forgotten");
}

#[test]
fn a_replica_without_its_page_cache_does_not_lead() {
    let mut cluster = Cluster::with_topic();
    cluster.register_as(1, 2, &[(1, 50)]);
    assert_eq!((cluster.leader(), cluster.set()), (2, vec![2, 3]));
    cluster.done(Change::SetInSync(cluster.in_sync(&[1, 2, 3])));
    assert!(cluster.p().replicas.iter().all(|replica| replica.cache_lost.is_none()), "caught up");
}

#[test]
fn when_all_lost_their_cache_the_greatest_leads_once_all_reported() {
    let mut cluster = Cluster::with_topic();
    let epoch = cluster.p().leader_epoch.0;
    cluster.register_as(1, 2, &[(epoch, 70)]);
    assert_eq!(cluster.leader(), 2);
    cluster.register_as(2, 2, &[(epoch, 90)]);
    assert_eq!((cluster.leader(), cluster.set()), (3, vec![3]));
    cluster.register_as(3, 2, &[(epoch, 40)]);
    assert_eq!((cluster.leader(), cluster.set()), (2, vec![2]), "the greatest of all three");
}

#[test]
fn a_member_that_may_have_more_is_waited_for() {
    let mut cluster = Cluster::of(3);
    cluster.create_topic("t", TOPIC, &[&[1, 2, 3]], 1);
    cluster.offline(3);
    assert_eq!(cluster.set(), [1, 2]);
    cluster.offline(2);
    cluster.offline(1);
    assert_eq!((cluster.leader(), cluster.set()), (1, vec![1]), "the last one stays");
    cluster.register_as(2, 2, &[]);
    assert_eq!(cluster.leader(), 1, "2 is not in sync");
    cluster.register_as(1, 2, &[(1, 5)]);
    assert_eq!((cluster.leader(), cluster.set()), (1, vec![1]), "a single member elects itself");
}

#[test]
fn a_single_replica_elects_itself_even_when_full() {
    let mut cluster = Cluster::of(1);
    cluster.create_topic("one", TOPIC, &[&[1]], 1);
    cluster.fill(1);
    cluster.register_as(1, 2, &[(1, 5)]);
    assert_eq!(cluster.leader(), 1);
}

#[test]
fn malformed_registrations_change_nothing() {
    let good = registration(1, 1);
    let two = vec![good.volumes[0].clone(), good.volumes[0].clone()];
    let bad = [
        v1::RegisterSpu { spu_id: 0, ..good.clone() },
        v1::RegisterSpu { address: String::new(), ..good.clone() },
        v1::RegisterSpu { start_nonce: vec![].into(), ..good.clone() },
        v1::RegisterSpu { volumes: vec![], ..good.clone() },
        v1::RegisterSpu { volumes: two, ..good.clone() },
        v1::RegisterSpu { volumes: vec![v1::VolumeDeclared::default()], ..good },
    ];
    let mut cluster = Cluster::of(0);
    for change in bad {
        assert_eq!(cluster.refused(Change::RegisterSpu(change)), Mismatch::Malformed);
    }
}
