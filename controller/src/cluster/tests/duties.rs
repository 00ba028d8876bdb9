//! Cordon, drain, offline and back.

use plimsoll_proto::ids::SpuId;
use plimsoll_proto::v1::{self, SpuDuty, entry::Change};

use crate::cluster::testing::{Cluster, registration};
use crate::cluster::{Duty, Mismatch, SpuState};

fn state(cluster: &Cluster, spu: u32) -> SpuState {
    cluster.state.spu_state(SpuId(spu))
}

#[test]
fn a_cordoned_node_leads_only_where_nobody_else_can() {
    let mut cluster = Cluster::with_topic();
    cluster.done(cluster.duty(2, SpuDuty::Serving, SpuDuty::Cordoned));
    assert_eq!((state(&cluster, 2), cluster.set()), (SpuState::Online, vec![1, 2, 3]));
    cluster.fill(1);
    assert_eq!(cluster.leader(), 3, "not the cordoned one, though it comes first");
    cluster.done(cluster.volume_state(3, v1::VolumeState::Writable, v1::VolumeState::Failed));
    assert_eq!(cluster.leader(), 2, "better than none");
}

#[test]
fn a_drained_node_gives_its_leaderships_in_one_entry_and_stays_so_across_runs() {
    let mut cluster = Cluster::with_topic();
    let applied = cluster.apply(cluster.duty(1, SpuDuty::Serving, SpuDuty::Draining));
    let kinds: Vec<&str> = applied.events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["spu_duty", "spu_state", "leader_changed"]);
    assert_eq!((state(&cluster, 1), cluster.leader(), cluster.set()), (SpuState::Draining, 2, vec![1, 2, 3]));
    cluster.register_as(1, 9, &[]);
    assert_eq!((state(&cluster, 1), cluster.leader()), (SpuState::Draining, 2));
    cluster.done(cluster.duty(1, SpuDuty::Draining, SpuDuty::Serving));
    assert_eq!(state(&cluster, 1), SpuState::Online);
}

#[test]
fn a_node_taken_offline_stays_so_until_it_is_asked_back() {
    let mut cluster = Cluster::with_topic();
    cluster.done(cluster.duty(1, SpuDuty::Serving, SpuDuty::Offline));
    assert_eq!((state(&cluster, 1), cluster.leader(), cluster.set()), (SpuState::Offline, 2, vec![2, 3]));
    let again = Change::RegisterSpu(registration(1, 7));
    assert_eq!(cluster.refused(again.clone()), Mismatch::OutOfService);
    cluster.done(cluster.duty(1, SpuDuty::Offline, SpuDuty::Serving));
    assert_eq!(state(&cluster, 1), SpuState::Offline, "it comes back by registering");
    cluster.done(again);
    assert_eq!(state(&cluster, 1), SpuState::Joining);
}

#[test]
fn the_last_copy_goes_out_of_service_only_by_force() {
    let mut cluster = Cluster::with_topic();
    cluster.offline(2);
    cluster.offline(3);
    assert_eq!(cluster.set(), [1]);
    let mut offline = v1::SetSpuDuty {
        spu_id: 1,
        incarnation: cluster.incarnation(1),
        expected: SpuDuty::Serving.into(),
        wanted: SpuDuty::Offline.into(),
        reason: String::new(),
        force: false,
    };
    assert_eq!(cluster.refused(Change::SetSpuDuty(offline.clone())), Mismatch::LastCopy);
    offline.force = true;
    cluster.done(Change::SetSpuDuty(offline));
    assert_eq!((state(&cluster, 1), cluster.set()), (SpuState::Offline, vec![1]), "nothing is forgotten");
}

#[test]
fn duties_expect_what_they_change_from() {
    let mut cluster = Cluster::with_topic();
    assert_eq!(cluster.refused(cluster.duty(1, SpuDuty::Cordoned, SpuDuty::Serving)), Mismatch::OtherState);
    assert_eq!(cluster.refused(cluster.duty(1, SpuDuty::Serving, SpuDuty::Serving)), Mismatch::Unchanged);
    let stale = cluster.duty(1, SpuDuty::Serving, SpuDuty::Cordoned);
    cluster.register_as(1, 5, &[]);
    assert_eq!(cluster.refused(stale), Mismatch::StaleIncarnation);
    assert_eq!(cluster.state.duty(SpuId(1)), Duty::Serving);
}
