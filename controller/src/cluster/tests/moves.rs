//! Replicas that move: added, caught up, and only then the old ones gone.

use plimsoll_proto::ids::{LeaderEpoch, PartitionEpoch};
use plimsoll_proto::v1::{self, SpuState, VolumeState, entry::Change};

use crate::cluster::testing::{Cluster, TOPIC, volume};
use crate::cluster::{Mismatch, MoveCause};

fn start(cluster: &Cluster, to: &[u32]) -> Change {
    start_because(cluster, to, MoveCause::Asked)
}

fn start_because(cluster: &Cluster, to: &[u32], cause: MoveCause) -> Change {
    Change::StartReassignment(v1::StartReassignment {
        topic_id: TOPIC.to_bytes(),
        partition: 0,
        partition_epoch: cluster.p().partition_epoch.0,
        to: to
            .iter()
            .map(|spu| v1::ReplicaAssignment { spu_id: *spu, volume_id: volume(*spu).to_bytes() })
            .collect(),
        cause: cause.to_wire().into(),
    })
}

fn finish(cluster: &Cluster) -> Change {
    Change::FinishReassignment(v1::FinishReassignment {
        topic_id: TOPIC.to_bytes(),
        partition: 0,
        partition_epoch: cluster.p().partition_epoch.0,
    })
}

fn cancel(cluster: &Cluster) -> Change {
    Change::CancelReassignment(v1::CancelReassignment {
        topic_id: TOPIC.to_bytes(),
        partition: 0,
        partition_epoch: cluster.p().partition_epoch.0,
        reason: "test".to_owned(),
    })
}

fn replicas(cluster: &Cluster) -> Vec<u32> {
    cluster.p().replicas.iter().map(|replica| replica.spu.0).collect()
}

/// Nodes 1 to 5, a topic on 1, 2 and 3 that asks for two in sync.
fn five() -> Cluster {
    let mut cluster = Cluster::of(5);
    cluster.create_topic("t", TOPIC, &[&[1, 2, 3]], 2);
    cluster
}

fn join(cluster: &mut Cluster, members: &[u32]) {
    let set = cluster.in_sync(members);
    cluster.done(Change::SetInSync(set));
}

#[test]
fn old_replicas_go_when_all_new_ones_are_in_sync() {
    let mut cluster = five();
    cluster.done(start(&cluster, &[4, 5, 3]));
    assert_eq!(replicas(&cluster), [1, 2, 3, 4, 5]);
    assert_eq!((cluster.set(), cluster.leader()), (vec![1, 2, 3], 1));
    assert_eq!(cluster.refused(finish(&cluster)), Mismatch::NotInSyncYet);
    join(&mut cluster, &[1, 2, 3, 4]);
    assert_eq!(cluster.refused(finish(&cluster)), Mismatch::NotInSyncYet);
    join(&mut cluster, &[1, 2, 3, 4, 5]);
    let epoch = cluster.p().leader_epoch;
    let applied = cluster.apply(finish(&cluster));
    assert_eq!(replicas(&cluster), [4, 5, 3]);
    assert_eq!((cluster.set(), cluster.leader()), (vec![3, 4, 5], 4), "a member leads");
    assert!(cluster.p().reassignment.is_none() && cluster.p().leader_epoch > epoch);
    let kinds: Vec<&str> = applied.events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["reassignment_finished", "leader_changed", "in_sync_changed"]);
    assert_eq!(cluster.refused(finish(&cluster)), Mismatch::NoMove);
}

#[test]
fn adding_replicas_begins_a_leader_epoch_and_their_order_alone_does_not() {
    let mut cluster = five();
    let before = cluster.p().clone();
    cluster.done(start(&cluster, &[1, 2, 4]));
    assert_eq!(cluster.p().leader_epoch, LeaderEpoch(before.leader_epoch.0 + 1));
    assert_eq!(cluster.p().partition_epoch, PartitionEpoch(before.partition_epoch.0 + 1));
    let mut cluster = five();
    cluster.done(start(&cluster, &[3, 2, 1]));
    assert_eq!(cluster.p().leader_epoch, before.leader_epoch);
    cluster.done(finish(&cluster));
    assert_eq!(replicas(&cluster), [3, 2, 1]);
    assert_eq!(cluster.leader(), 1, "who leads well goes on");
}

#[test]
fn a_move_is_checked_before_it_begins() {
    let mut cluster = five();
    assert_eq!(cluster.refused(start(&cluster, &[1, 2, 3])), Mismatch::Unchanged);
    assert_eq!(cluster.refused(start(&cluster, &[4])), Mismatch::Malformed, "below the minimum");
    assert_eq!(cluster.refused(start(&cluster, &[4, 4])), Mismatch::Malformed);
    assert_eq!(cluster.refused(start(&cluster, &[4, 9])), Mismatch::PlacementChanged);
    cluster.fill(4);
    assert_eq!(cluster.refused(start(&cluster, &[4, 5])), Mismatch::PlacementChanged);
    cluster.empty(4);
    let stale = start(&cluster, &[4, 5]);
    join(&mut cluster, &[1, 2]);
    assert_eq!(cluster.refused(stale), Mismatch::StalePartitionEpoch);
    cluster.done(start(&cluster, &[4, 5]));
    assert_eq!(cluster.refused(start(&cluster, &[1, 2])), Mismatch::MoveUnderWay);
}

#[test]
fn a_move_waits_for_targets_that_can_be_written() {
    let mut cluster = five();
    cluster.done(start(&cluster, &[4, 5]));
    join(&mut cluster, &[1, 4, 5]);
    // A full one would leave the set where enough remain; where too few would, it stays and the old ones stay too.
    cluster.fill(5);
    assert_eq!(cluster.refused(finish(&cluster)), Mismatch::NotInSyncYet);
    assert_eq!(replicas(&cluster), [1, 2, 3, 4, 5]);
}

#[test]
fn a_move_called_off_leaves_what_was_there() {
    let mut cluster = five();
    cluster.done(start(&cluster, &[4, 5, 3]));
    join(&mut cluster, &[1, 2, 3, 4]);
    cluster.done(cancel(&cluster));
    assert_eq!((replicas(&cluster), cluster.set(), cluster.leader()), (vec![1, 2, 3], vec![1, 2, 3], 1));
    assert_eq!(cluster.refused(cancel(&cluster)), Mismatch::NoMove);
}

#[test]
fn a_move_is_not_called_off_when_only_new_ones_live() {
    let mut cluster = five();
    cluster.done(start(&cluster, &[4, 5]));
    join(&mut cluster, &[1, 4]);
    cluster.offline(1);
    assert_eq!((cluster.set(), cluster.leader()), (vec![4], 4));
    assert_eq!(cluster.refused(cancel(&cluster)), Mismatch::LastCopy);
}

#[test]
fn a_failed_target_does_not_take_the_partition_with_it() {
    let mut cluster = five();
    cluster.done(start(&cluster, &[4, 5]));
    join(&mut cluster, &[1, 2, 3, 4, 5]);
    cluster.done(cluster.volume_state(4, VolumeState::Writable, VolumeState::Failed));
    assert_eq!(cluster.refused(finish(&cluster)), Mismatch::NotInSyncYet);
    assert_eq!((cluster.set(), cluster.leader()), (vec![1, 2, 3, 5], 1));
    cluster.done(cluster.spu_state(5, SpuState::Online, SpuState::Offline));
    assert_eq!(cluster.set(), [1, 2, 3]);
    cluster.done(cancel(&cluster));
    assert_eq!(replicas(&cluster), [1, 2, 3]);
}

#[test]
fn a_drain_that_is_called_off_calls_its_moves_off() {
    let mut cluster = five();
    cluster.done(cluster.duty(1, v1::SpuDuty::Serving, v1::SpuDuty::Draining));
    assert_eq!(cluster.leader(), 2, "leaderships go first");
    cluster.done(start_because(&cluster, &[4, 2, 3], MoveCause::Drain));
    join(&mut cluster, &[1, 2, 3, 4]);
    cluster.done(cluster.duty(1, v1::SpuDuty::Draining, v1::SpuDuty::Serving));
    assert_eq!((replicas(&cluster), cluster.set()), (vec![1, 2, 3], vec![1, 2, 3]));
    // What somebody asked for by itself goes on.
    cluster.done(start(&cluster, &[4, 2, 3]));
    cluster.done(cluster.duty(1, v1::SpuDuty::Serving, v1::SpuDuty::Draining));
    cluster.done(cluster.duty(1, v1::SpuDuty::Draining, v1::SpuDuty::Serving));
    assert_eq!(replicas(&cluster), [1, 2, 3, 4]);
}
