//! Every code, from the least that makes it.

use std::collections::BTreeSet;

use plimsoll_client::TopicConfig;
use plimsoll_proto::v1::{ControllerStatus, ReplicaAssignment, SpuInfo, StoppedReplica};

use super::*;

const NOW: u64 = 1_000_000_000;
const GIB: u64 = 1 << 30;

/// Two nodes with a volume each, one topic with one partition on both, three controllers: all is well.
struct World {
    status: ClusterStatusResponse,
    topics: Vec<TopicInfo>,
    events: Vec<ClusterEvent>,
}

fn well() -> World {
    let controller = |id| ControllerStatus {
        controller_id: id,
        address: format!("c{id}:7001"),
        leader: id == 1,
        reachable: true,
        ..Default::default()
    };
    let spu = |id: u32| SpuStatus {
        info: Some(SpuInfo {
            spu_id: id,
            state: SpuState::Online.into(),
            address: format!("s{id}:7011"),
            volumes: vec![VolumeInfo {
                volume_id: vec![1; 16].into(),
                path: "/data".to_owned(),
                state: VolumeState::Writable.into(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        volumes: vec![VolumeFacts {
            volume_id: vec![1; 16].into(),
            path: "/data".to_owned(),
            level: DiskLevel::Normal.into(),
            capacity_bytes: 100 * GIB,
            free_bytes: 60 * GIB,
            used_bytes: 30 * GIB,
            throttle_enter_bytes: 10 * GIB,
            capacity_inodes: 1000,
            free_inodes: 900,
            ..Default::default()
        }],
        heartbeat_age_ms: 300,
    };
    let replicas = [1, 2].map(|spu_id| ReplicaAssignment { spu_id, volume_id: vec![1; 16].into() });
    let partition =
        PartitionInfo { replicas: replicas.to_vec(), in_sync: vec![1, 2], leader: 1, ..Default::default() };
    World {
        status: ClusterStatusResponse {
            leader: 1,
            controllers: vec![controller(1), controller(2), controller(3)],
            spus: vec![spu(1), spu(2)],
            ..Default::default()
        },
        topics: vec![TopicInfo {
            topic_id: vec![9; 16].into(),
            name: "orders".to_owned(),
            config: Some(TopicConfig { min_in_sync: 1, ..Default::default() }),
            partitions: vec![partition],
            ..Default::default()
        }],
        events: Vec::new(),
    }
}

impl World {
    fn findings(&self) -> Vec<Finding> {
        evaluate(&Picture { status: &self.status, topics: &self.topics, events: &self.events, now_ms: NOW })
    }

    fn info(&mut self) -> &mut SpuInfo {
        self.status.spus[0].info.as_mut().expect("made with one")
    }

    fn facts(&mut self) -> &mut VolumeFacts {
        &mut self.status.spus[0].volumes[0]
    }

    fn partition(&mut self) -> &mut PartitionInfo {
        &mut self.topics[0].partitions[0]
    }
}

type Change = fn(&mut World);

fn level(world: &mut World, level: DiskLevel, cause: DiskCause, free_bytes: u64) {
    let facts = world.facts();
    facts.level = level.into();
    facts.cause = cause.into();
    facts.free_bytes = free_bytes;
}

/// Of partition 0 on the first node: `named` are named, `all` are stopped.
fn stop_replicas(world: &mut World, named: u32, all: u32) {
    let topic_id = world.topics[0].topic_id.clone();
    let stopped = |partition| StoppedReplica {
        topic_id: topic_id.clone(),
        partition,
        stopped_ms: 60_000 - u64::from(partition),
        leader: 2,
        leader_epoch: 7,
        cut_to: 40,
        high_watermark: 42,
    };
    let facts = world.facts();
    facts.stopped_replicas = (0..named).map(stopped).collect();
    facts.replicas_stopped = all;
}

#[test]
fn every_code_comes_from_the_least_that_makes_it_and_alone() {
    let cases: [(Code, Change); 23] = [
        (Code::ControllerNoQuorum, |w| {
            w.status.leader = 0;
            w.status.no_quorum = true;
            w.status.controllers[1].reachable = false;
        }),
        (Code::ControllerDown, |w| w.status.controllers[1].reachable = false),
        (Code::ControllerDisk, |w| w.status.controllers[1].disk_full = true),
        (Code::SpuOffline, |w| w.info().state = SpuState::Offline.into()),
        (Code::SpuOutOfService, |w| w.info().duty = SpuDuty::Cordoned.into()),
        (Code::SpuSuspect, |w| w.info().state = SpuState::Suspect.into()),
        (Code::SpuStalled, |w| w.info().volumes[0].state = VolumeState::Stalled.into()),
        (Code::VolumeFailed, |w| w.info().volumes[0].state = VolumeState::Failed.into()),
        (Code::VolumeStalled, |w| {
            let other = VolumeInfo { volume_id: vec![2; 16].into(), ..Default::default() };
            w.info().volumes.push(other);
            w.info().volumes[0].state = VolumeState::Stalled.into();
        }),
        (Code::DiskFull, |w| level(w, DiskLevel::ReadOnly, DiskCause::Bytes, GIB)),
        (Code::DiskInodes, |w| level(w, DiskLevel::Reclaim, DiskCause::Inodes, 60 * GIB)),
        (Code::DiskNearFull, |w| level(w, DiskLevel::Reclaim, DiskCause::Bytes, 14 * GIB)),
        (Code::ReclaimBlocked, |w| {
            level(w, DiskLevel::Throttle, DiskCause::Bytes, 9 * GIB);
            w.facts().reclaim_missing_bytes = GIB;
        }),
        (Code::ReclaimCannotKeepUp, |w| {
            level(w, DiskLevel::Throttle, DiskCause::Bytes, 9 * GIB);
            w.facts().time_to_full_ms = 60_000;
        }),
        (Code::DiskHeld, |w| level(w, DiskLevel::ReadOnly, DiskCause::Hold, 20 * GIB)),
        (Code::DiskUnknown, |w| w.facts().unknown = true),
        (Code::DiskBorrowed, |w| w.facts().borrowed_bytes = GIB),
        (Code::DiskDrill, |w| {
            level(w, DiskLevel::ReadOnly, DiskCause::Bytes, GIB);
            w.facts().drill_ms = 1000;
        }),
        (Code::PartitionNoLeader, |w| w.partition().leader = 0),
        (Code::PartitionBelowMinInSync, |w| {
            w.partition().in_sync = vec![1];
            w.topics[0].config.as_mut().expect("made with one").min_in_sync = 2;
        }),
        (Code::PartitionUnderReplicated, |w| w.partition().in_sync = vec![1]),
        (Code::ReplicaStopped, |w| stop_replicas(w, 1, 1)),
        (Code::ClusterHeadroom, |w| w.facts().used_bytes = 51 * GIB),
    ];
    let mut seen = BTreeSet::new();
    assert_eq!(verdict(&well().findings()), Verdict::Ok);
    assert_eq!(well().findings(), []);
    for (code, change) in cases {
        seen.insert(code);
        let mut world = well();
        change(&mut world);
        let findings = world.findings();
        let found: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
        assert!(found.contains(&code.name()), "{code:?}: {found:?}");
        let with = match code {
            Code::ReclaimBlocked | Code::ReclaimCannotKeepUp => vec!["DISK_NEARFULL"],
            Code::SpuStalled => vec!["VOLUME_STALLED"],
            _ => Vec::new(),
        };
        let others: Vec<&str> = found.into_iter().filter(|found| *found != code.name()).collect();
        assert_eq!(others, with, "{code:?}");
        let expected = match code.page().severity {
            Severity::Note => Verdict::Ok,
            Severity::Degraded => Verdict::Degraded,
            Severity::Critical => Verdict::Critical,
        };
        assert_eq!(verdict(&findings), expected, "{code:?}");
        for finding in findings {
            assert!(!finding.members.is_empty() && !finding.summary.is_empty(), "{finding:?}");
            for word in ["SPU", "TOPIC", "PARTITION"] {
                assert!(!finding.next.contains(word), "{finding:?}");
            }
        }
    }
    assert_eq!(seen.len(), CODES.len(), "a code has no case");
}

#[test]
fn many_members_are_one_finding_since_the_first_of_them() {
    let mut world = well();
    let mut second = world.topics[0].partitions[0].clone();
    second.index = 1;
    world.topics[0].partitions.push(second);
    for partition in &mut world.topics[0].partitions {
        partition.in_sync = vec![2];
    }
    let event = |partition, time_ms| ClusterEvent {
        kind: "in_sync_changed".to_owned(),
        topic_id: vec![9; 16].into(),
        partition,
        time_ms,
        ..Default::default()
    };
    world.events = vec![event(0, 5), event(0, NOW - 5000), event(1, NOW - 3000)];
    let findings = world.findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].since_ms, Some(NOW - 5000));
    assert_eq!(findings[0].summary, "orders/0 and 1 more: 1 of 2 replicas in sync (spu 2)");
    assert_eq!(findings[0].next, "plimsoll topic describe orders");
}

#[test]
fn stopped_replicas_are_named_and_those_without_a_name_are_counted() {
    let mut world = well();
    stop_replicas(&mut world, 2, 5);
    // Deleted, which its node has not heard of yet.
    world.facts().stopped_replicas[1].topic_id = vec![8; 16].into();
    let findings = world.findings();
    assert_eq!(findings.len(), 1);
    let finding = &findings[0];
    assert_eq!((finding.code, finding.since_ms), ("REPLICA_STOPPED", Some(NOW - 60_000)));
    assert_eq!(finding.next, "plimsoll partition elect orders/0 --to 1 --dry-run");
    let members: Vec<_> = finding.members.iter().map(|m| (m.name.as_str(), m.detail.as_str())).collect();
    let why = "stopped in epoch 7: leader spu 2 would cut it to 40, committed is all below 42";
    assert_eq!(members, [("orders/0 on spu 1", why), ("spu 1 /data", "3 more are stopped")]);
    // A drill says nothing about them, and a dead node no longer speaks.
    world.facts().drill_ms = 1;
    let told = |world: &World| world.findings().iter().any(|finding| finding.code == "REPLICA_STOPPED");
    assert!(told(&world));
    world.info().state = SpuState::Offline.into();
    assert!(!told(&world));
    world.info().state = SpuState::Online.into();
    stop_replicas(&mut world, 0, 0);
    assert!(!told(&world));
}

#[test]
fn what_is_muted_does_not_count() {
    let mut world = well();
    world.status.controllers[1].reachable = false;
    let mut findings = world.findings();
    assert_eq!(verdict(&findings), Verdict::Degraded);
    findings[0].muted_until_ms = Some(NOW + 1);
    assert_eq!(verdict(&findings), Verdict::Ok);
}

#[test]
fn a_dead_node_is_one_fault_and_not_also_a_full_one() {
    let mut world = well();
    level(&mut world, DiskLevel::ReadOnly, DiskCause::Bytes, 0);
    world.info().state = SpuState::Offline.into();
    let codes: Vec<&str> = world.findings().iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["SPU_OFFLINE"]);
}
