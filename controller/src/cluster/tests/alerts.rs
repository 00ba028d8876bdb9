//! Counters and alerts: of applied entries only, once for each fault, and the same after a start.

use plimsoll_proto::v1::{self, SpuDuty, SpuState, entry::Change};

use crate::cluster::testing::{Cluster, volume};
use crate::cluster::{ClusterState, Touched};

fn count(state: &ClusterState, kind: &str) -> u64 {
    state.event_counts().iter().find(|count| count.kind == kind).map_or(0, |count| count.total)
}

fn codes(state: &ClusterState) -> Vec<(String, String)> {
    state.alerts().into_iter().map(|alert| (alert.code, alert.subject)).collect()
}

#[test]
fn one_fault_is_one_count_and_one_alert_and_a_mismatch_is_neither() {
    let mut cluster = Cluster::with_topic();
    assert!(cluster.state.alerts().is_empty());
    let registered = count(&cluster.state, "spu_registered");
    assert_eq!(registered, 3);
    cluster.fill(1);
    let raised = cluster.state.alerts();
    assert_eq!(codes(&cluster.state), [("DISK_FULL".to_owned(), "spu 1 /d1".to_owned())]);
    assert_eq!((raised[0].index, raised[0].since_ms), (cluster.index, cluster.index * 1000));
    assert_eq!(raised[0].volume_id, volume(1).to_bytes());

    // The same again, by one that has not heard of it, is counted as what it is.
    let (events, no_ops) = (cluster.state.event_counts(), cluster.state.no_ops());
    let again = cluster.volume_state(1, v1::VolumeState::Writable, v1::VolumeState::WriteOffline);
    cluster.refused(again);
    assert_eq!((cluster.state.event_counts(), cluster.state.no_ops()), (events, no_ops + 1));
    assert_eq!(cluster.state.alerts(), raised, "the same alert");

    // A new run of the node does not end the fault, and is none.
    cluster.register_as(1, 2, &[]);
    assert_eq!(cluster.state.alerts(), raised);
    cluster.empty(1);
    assert!(cluster.state.alerts().is_empty());
    assert_eq!(count(&cluster.state, "volume_state"), 2);
    cluster.fill(1);
    assert_ne!(cluster.state.alerts()[0].id, raised[0].id, "another fault is another alert");
}

#[test]
fn a_node_that_is_gone_is_an_alert_unless_its_operator_wanted_it() {
    let mut cluster = Cluster::of(3);
    cluster.done(cluster.spu_state(2, SpuState::Online, SpuState::Suspect));
    assert!(cluster.state.alerts().is_empty(), "no verdict yet");
    cluster.done(cluster.spu_state(2, SpuState::Suspect, SpuState::Offline));
    assert_eq!(codes(&cluster.state), [("SPU_OFFLINE".to_owned(), "spu 2".to_owned())]);
    assert_eq!(cluster.state.alerts()[0].index, cluster.index);
    cluster.register_as(2, 2, &[]);
    assert!(cluster.state.alerts().is_empty());
    cluster.done(cluster.duty(3, SpuDuty::Serving, SpuDuty::Offline));
    assert!(cluster.state.alerts().is_empty(), "taken out of service");
    for (state, code) in
        [(v1::VolumeState::Stalled, "VOLUME_STALLED"), (v1::VolumeState::Failed, "VOLUME_FAILED")]
    {
        let mut cluster = cluster.clone();
        cluster.done(cluster.volume_state(1, v1::VolumeState::Writable, state));
        assert_eq!(codes(&cluster.state), [(code.to_owned(), "spu 1 /d1".to_owned())]);
    }
}

#[test]
fn a_volume_that_stays_away_is_the_same_fault_at_every_start_of_its_node() {
    let mut cluster = Cluster::with_topic();
    let without = |nonce: u8| {
        let other = v1::VolumeDeclared { volume_id: vec![99; 16].into(), path: "/other".to_owned() };
        let registration = crate::cluster::testing::registration(1, nonce);
        Change::RegisterSpu(v1::RegisterSpu { volumes: vec![other], ..registration })
    };
    cluster.done(without(2));
    let raised = cluster.state.alerts();
    assert_eq!(codes(&cluster.state), [("VOLUME_FAILED".to_owned(), "spu 1 /d1".to_owned())]);
    cluster.done(without(3));
    assert_eq!(cluster.state.alerts(), raised);
}

#[test]
fn counters_and_alerts_survive_snapshots_and_what_is_written_in_between() {
    let mut cluster = Cluster::with_topic();
    let mut stored: std::collections::BTreeMap<Vec<u8>, Vec<u8>> =
        cluster.state.to_records().into_iter().collect();
    let mut touched = Touched::default();
    for change in [
        cluster.volume_state(1, v1::VolumeState::Writable, v1::VolumeState::WriteOffline),
        cluster.spu_state(2, SpuState::Online, SpuState::Offline),
    ] {
        touched.merge(cluster.apply(change).touched);
    }
    for (key, value) in cluster.state.changed_records(&touched) {
        match value {
            Some(value) => drop(stored.insert(key, value)),
            None => drop(stored.remove(&key)),
        }
    }
    let restarted = ClusterState::from_records(stored).unwrap();
    let copied = ClusterState::decode_snapshot(&cluster.state.encode_snapshot()).unwrap();
    for state in [restarted, copied] {
        assert_eq!(state.alerts(), cluster.state.alerts());
        assert_eq!(state.alerts().len(), 2);
        assert_eq!(state.event_counts(), cluster.state.event_counts());
        assert_eq!(state, cluster.state);
    }
}
