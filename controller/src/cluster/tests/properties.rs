//! Any history of entries, honest or not: equal on every controller, equal after a restart, invariants kept.

use std::collections::BTreeMap;

use plimsoll_proto::ids::{SpuId, TopicId};
use plimsoll_proto::v1::{self, SpuState, VolumeState, entry::Change};
use proptest::prelude::*;

use crate::cluster::testing::{Cluster, P0, TOPIC, topic};
use crate::cluster::{ClusterState, Outcome, Partition, RULES_VERSION};
use crate::election;

#[derive(Clone, Debug)]
enum Step {
    Register { spu: u32, nonce: u8, lost: Option<u64> },
    Spu { spu: u32, from: usize, to: usize },
    Volume { spu: u32, from: usize, to: usize },
    InSync { members: u8, stale: bool },
    Move { to: u32 },
    Force { to: u32 },
    HandOver { spu: u32 },
    Duty { spu: u32, from: i32, to: i32, force: bool },
    StartMove { to: Vec<u32>, drain: bool },
    FinishMove,
    CancelMove,
    Alter { min_in_sync: u32, ack: bool },
    Grow,
    Controllers { before: u64, after: u64 },
    Create { id: u8 },
    Delete { id: u8 },
    Repeat,
}

const SPU: [SpuState; 6] = [
    SpuState::Online,
    SpuState::Joining,
    SpuState::Suspect,
    SpuState::Draining,
    SpuState::Offline,
    SpuState::Unspecified,
];
const VOLUME: [VolumeState; 5] = [
    VolumeState::Writable,
    VolumeState::WriteOffline,
    VolumeState::Stalled,
    VolumeState::Failed,
    VolumeState::Unspecified,
];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..5u32, 1..4u8, proptest::option::of(0..9u64)).prop_map(|(spu, nonce, lost)| Step::Register {
            spu,
            nonce,
            lost
        }),
        (1..5u32, 0..6usize, 0..6usize).prop_map(|(spu, from, to)| Step::Spu { spu, from, to }),
        (1..4u32, 0..5usize, 0..5usize).prop_map(|(spu, from, to)| Step::Volume { spu, from, to }),
        (0..16u8, any::<bool>()).prop_map(|(members, stale)| Step::InSync { members, stale }),
        (1..5u32, 0..5i32, 0..5i32, any::<bool>()).prop_map(|(spu, from, to, force)| Step::Duty {
            spu,
            from,
            to,
            force
        }),
        (proptest::collection::vec(1..6u32, 0..4), any::<bool>())
            .prop_map(|(to, drain)| Step::StartMove { to, drain }),
        Just(Step::FinishMove),
        Just(Step::CancelMove),
        (0..5u32, any::<bool>()).prop_map(|(min_in_sync, ack)| Step::Alter { min_in_sync, ack }),
        Just(Step::Grow),
        (0..16u64, 0..16u64).prop_map(|(before, after)| Step::Controllers { before, after }),
        (1..5u32).prop_map(|to| Step::Move { to }),
        (1..5u32).prop_map(|to| Step::Force { to }),
        (1..4u32).prop_map(|spu| Step::HandOver { spu }),
        (0..3u8).prop_map(|id| Step::Create { id }),
        (0..3u8).prop_map(|id| Step::Delete { id }),
        Just(Step::Repeat),
    ]
}

fn change(cluster: &Cluster, step: &Step, last: Option<&Change>) -> Option<Change> {
    Some(match step {
        Step::Register { spu, nonce, lost } => {
            let report = |log_end| v1::ReplicaReport {
                topic_id: TOPIC.to_bytes(),
                log_end,
                cache_lost: true,
                ..Default::default()
            };
            let replicas = lost.iter().copied().map(report).collect();
            let registration = crate::cluster::testing::registration(*spu, *nonce);
            Change::RegisterSpu(v1::RegisterSpu { replicas, ..registration })
        }
        Step::Spu { spu, from, to } => cluster.spu_state(*spu, SPU[*from], SPU[*to]),
        Step::Volume { spu, from, to } => cluster.volume_state(*spu, VOLUME[*from], VOLUME[*to]),
        Step::InSync { members, stale } => {
            let spus: Vec<u32> = (1..=4).filter(|spu| members & (1 << (spu - 1)) != 0).collect();
            cluster.state.partition(P0)?.leader?;
            let mut set = cluster.in_sync(&spus);
            set.partition_epoch -= u32::from(*stale);
            Change::SetInSync(set)
        }
        Step::Move { to } => Change::MoveLeader(v1::MoveLeader {
            topic_id: TOPIC.to_bytes(),
            partition_epoch: cluster.state.partition(P0)?.partition_epoch.0,
            leader: *to,
            leader_incarnation: cluster.incarnation(*to),
            ..Default::default()
        }),
        Step::Force { to } => Change::ForceLeader(v1::ForceLeader {
            topic_id: TOPIC.to_bytes(),
            partition_epoch: cluster.state.partition(P0)?.partition_epoch.0,
            leader: *to,
            leader_incarnation: cluster.incarnation(*to),
            ..Default::default()
        }),
        Step::HandOver { spu } => {
            Change::HandOver(v1::HandOverLeaders { spu_id: *spu, incarnation: cluster.incarnation(*spu) })
        }
        Step::Duty { spu, from, to, force } => Change::SetSpuDuty(v1::SetSpuDuty {
            spu_id: *spu,
            incarnation: cluster.incarnation(*spu),
            expected: *from,
            wanted: *to,
            reason: String::new(),
            force: *force,
        }),
        Step::StartMove { to, drain } => Change::StartReassignment(v1::StartReassignment {
            topic_id: TOPIC.to_bytes(),
            partition_epoch: cluster.state.partition(P0)?.partition_epoch.0,
            to: to.iter().map(|spu| place(*spu)).collect(),
            cause: if *drain { v1::MoveCause::Drain } else { v1::MoveCause::Asked }.into(),
            ..Default::default()
        }),
        Step::FinishMove => Change::FinishReassignment(v1::FinishReassignment {
            topic_id: TOPIC.to_bytes(),
            partition_epoch: cluster.state.partition(P0)?.partition_epoch.0,
            ..Default::default()
        }),
        Step::CancelMove => Change::CancelReassignment(v1::CancelReassignment {
            topic_id: TOPIC.to_bytes(),
            partition_epoch: cluster.state.partition(P0)?.partition_epoch.0,
            ..Default::default()
        }),
        Step::Alter { min_in_sync, ack } => {
            let expected = cluster.state.topic(TOPIC)?.config;
            let flush = if *ack { v1::FlushPolicy::Ack } else { v1::FlushPolicy::Os };
            let config = v1::TopicConfig { min_in_sync: *min_in_sync, flush: flush.into(), ..expected };
            Change::AlterTopic(v1::AlterTopicEntry {
                topic_id: TOPIC.to_bytes(),
                expected: Some(expected),
                config: Some(config),
            })
        }
        Step::Grow => {
            let there = u32::try_from(cluster.state.topic(TOPIC)?.partitions.len()).unwrap();
            let placement = v1::PartitionPlacement { replicas: [2, 3, 1].map(place).to_vec() };
            Change::AddPartitions(v1::AddPartitionsEntry {
                topic_id: TOPIC.to_bytes(),
                expected: there,
                partitions: vec![placement],
            })
        }
        Step::Controllers { before, after } => {
            let ids = |mask: u64| (1..=4).filter(move |id| mask & (1 << (id - 1)) != 0);
            let member = |id| v1::ControllerMember { controller_id: id, address: "c:1".to_owned() };
            Change::SetControllers(v1::SetControllers {
                expected: ids(*before).collect(),
                controllers: ids(*after).map(member).collect(),
            })
        }
        Step::Create { id } => topic(&format!("x{id}"), TopicId([*id; 16]), &[&[1, 2], &[2, 3]], 1),
        Step::Delete { id } => {
            Change::DeleteTopic(v1::DeleteTopicEntry { topic_id: TopicId([*id; 16]).to_bytes() })
        }
        Step::Repeat => last?.clone(),
    })
}

fn place(spu: u32) -> v1::ReplicaAssignment {
    v1::ReplicaAssignment { spu_id: spu, volume_id: crate::cluster::testing::volume(spu).to_bytes() }
}

/// What moves must keep: replicas are old and new ones, nobody is twice, and no move costs the last copy.
fn check_move(before: &ClusterState, old: &Partition, change: &Change, after: &Partition) {
    let nodes: std::collections::BTreeSet<_> = after.replicas.iter().map(|replica| replica.spu).collect();
    assert_eq!(nodes.len(), after.replicas.len(), "one replica on a node");
    match &after.reassignment {
        Some(moving) => {
            let places = after.places();
            assert!(moving.to.iter().chain(&moving.from).all(|place| places.contains(place)));
            assert!(places.iter().all(|place| moving.to.contains(place) || moving.from.contains(place)));
        }
        None if old.reassignment.is_some() => {
            let lives = |spu: &SpuId| before.spu_state(*spu).is_live();
            let had = old.in_sync.iter().any(lives);
            assert!(!had || old.in_sync.iter().any(|spu| lives(spu) && after.is_on(*spu)), "a copy lives on");
            let finished = matches!(change, Change::FinishReassignment(_));
            let moving = old.reassignment.as_ref().unwrap();
            assert_eq!(after.places(), if finished { moving.to.clone() } else { moving.from.clone() });
        }
        None => assert_eq!(after.places(), old.places()),
    }
}

fn check(before: &ClusterState, change: &Change, after: &ClusterState) {
    for (id, topic, partition) in after.partitions() {
        assert!(!partition.in_sync.is_empty());
        assert!(partition.in_sync.iter().all(|spu| partition.is_on(*spu)));
        let lost = |spu| partition.replica(spu).is_none_or(|replica| replica.cache_lost.is_some());
        assert!(partition.eligible.iter().all(|spu| !partition.in_sync.contains(spu) && !lost(*spu)));
        let minimum = usize::try_from(topic.config.min_in_sync).unwrap();
        let commits = partition.leader.is_some() && partition.in_sync.len() >= minimum;
        assert!(partition.eligible.is_empty() || !commits);
        assert!(partition.lossy_epoch <= partition.leader_epoch);
        if let Some((leader, incarnation)) = partition.leader {
            assert!(partition.in_sync.contains(&leader));
            assert_eq!(after.incarnation(leader), Some(incarnation), "a leader is the registered run");
            assert_eq!(partition.replica(leader).unwrap().cache_lost, None);
        }
        let settled = election::settle(after, topic.config.min_in_sync, partition);
        assert_eq!(&settled, partition, "a fixed point");
        let Some(old) = before.partition(id) else { continue };
        assert!(partition.leader_epoch >= old.leader_epoch);
        let added = partition.replicas.len() > old.replicas.len();
        assert_eq!(partition.leader_epoch > old.leader_epoch, partition.leader != old.leader || added);
        check_move(before, old, change, partition);
        assert_eq!(partition.partition_epoch > old.partition_epoch, partition != old);
        if let Some(leader) = partition.leader_spu().filter(|leader| old.leader_spu() != Some(*leader)) {
            // A member may be admitted and, its leader being unfit, elected by one entry.
            let admitted = matches!(change, Change::SetInSync(_)) && partition.in_sync.contains(&leader);
            let was_in = old.is_complete(leader) || admitted;
            let noted = partition.lossy_epoch == partition.leader_epoch;
            let forced = noted && matches!(change, Change::ForceLeader(_));
            let greatest = old.in_sync.iter().chain(&old.eligible).all(|spu| {
                after
                    .partition(id)
                    .unwrap()
                    .replica(*spu)
                    .is_some_and(|r| r.cache_lost.is_some() || r.spu == leader)
            });
            assert!(was_in || forced || (greatest && noted), "elected outside of the set");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn applying_is_deterministic_and_keeps_the_invariants(steps in proptest::collection::vec(step(), 1..60)) {
        let mut cluster = Cluster::with_topic();
        let mut replica = cluster.state.clone();
        let mut store: BTreeMap<Vec<u8>, Vec<u8>> = cluster.state.to_records().into_iter().collect();
        let mut last = None;
        for step in &steps {
            let Some(next) = change(&cluster, step, last.as_ref()) else { continue };
            let before = cluster.state.clone();
            let applied = cluster.apply(next.clone());
            let entry = v1::Entry {
                rules: RULES_VERSION,
                time_ms: cluster.index * 1000,
                change: Some(next.clone()),
                ..Default::default()
            };
            prop_assert_eq!(&replica.apply(cluster.index, &entry), &applied);
            check(&before, &next, &cluster.state);
            if let Outcome::NoOp(_) = applied.outcome {
                prop_assert!(applied.events.is_empty());
                prop_assert_eq!(before.topics(), cluster.state.topics());
                prop_assert_eq!(before.spus(), cluster.state.spus());
            }
            for (key, value) in cluster.state.changed_records(&applied.touched) {
                match value {
                    Some(value) => drop(store.insert(key, value)),
                    None => drop(store.remove(&key)),
                }
            }
            last = Some(next);
        }
        prop_assert_eq!(&replica, &cluster.state);
        let snapshot = cluster.state.encode_snapshot();
        prop_assert_eq!(&replica.encode_snapshot(), &snapshot);
        prop_assert_eq!(&ClusterState::decode_snapshot(&snapshot).unwrap(), &cluster.state);
        prop_assert_eq!(&ClusterState::from_records(store).unwrap(), &cluster.state, "incremental writes suffice");
    }

    #[test]
    fn damaged_snapshots_are_told(at in 0..2000usize, flip in 1..=255u8, cut in 0..2000usize) {
        let good = Cluster::with_topic().state.encode_snapshot();
        let mut bad = good.clone();
        let at = at % bad.len();
        bad[at] ^= flip;
        prop_assert!(ClusterState::decode_snapshot(&bad).is_err());
        prop_assert!(ClusterState::decode_snapshot(&good[..cut % good.len()]).is_err());
    }
}
