//! Entries and states for tests.

use plimsoll_proto::ids::{Incarnation, PartitionId, SpuId, TopicId, VolumeId};
use plimsoll_proto::v1::{self, entry::Change};

use super::{Applied, ClusterState, Effect, Mismatch, Outcome, Partition, RULES_VERSION};

/// A state that grows entry by entry.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) state: ClusterState,
    pub(crate) index: u64,
}

pub(crate) fn volume(spu: u32) -> VolumeId {
    VolumeId([u8::try_from(spu).unwrap(); 16])
}

pub(crate) const TOPIC: TopicId = TopicId([0xaa; 16]);
pub(crate) const P0: PartitionId = PartitionId { topic_id: TOPIC, index: 0 };

impl Cluster {
    /// A bootstrapped cluster with nodes 1 to `spus`, each with one volume, all online.
    pub(crate) fn of(spus: u32) -> Self {
        let mut cluster = Self { state: ClusterState::empty(), index: 0 };
        let bootstrap = v1::BootstrapCluster { cluster_id: vec![7; 16].into(), ..Default::default() };
        cluster.done(Change::Bootstrap(bootstrap));
        for spu in 1..=spus {
            cluster.join(spu);
        }
        cluster
    }

    /// With one topic of one partition on nodes 1, 2 and 3, led by 1, `min_in_sync` 2.
    pub(crate) fn with_topic() -> Self {
        let mut cluster = Self::of(3);
        cluster.create_topic("t", TOPIC, &[&[1, 2, 3]], 2);
        cluster
    }

    pub(crate) fn apply(&mut self, change: Change) -> Applied {
        self.index += 1;
        let time_ms = self.index * 1000;
        let entry = v1::Entry { rules: RULES_VERSION, time_ms, change: Some(change), ..Default::default() };
        self.state.apply(self.index, &entry)
    }

    pub(crate) fn done(&mut self, change: Change) -> Effect {
        match self.apply(change.clone()).outcome {
            Outcome::Changed(effect) => effect,
            Outcome::NoOp(mismatch) => panic!("{mismatch}: {change:?}"),
        }
    }

    pub(crate) fn refused(&mut self, change: Change) -> Mismatch {
        let before = self.state.clone();
        match self.apply(change.clone()).outcome {
            Outcome::Changed(_) => panic!("was applied: {change:?}"),
            Outcome::NoOp(mismatch) => {
                assert_eq!(self.state.no_ops(), before.no_ops() + 1, "no-ops are counted");
                assert_eq!(self.state.spus(), before.spus());
                assert_eq!(self.state.topics(), before.topics());
                mismatch
            }
        }
    }

    pub(crate) fn register_as(&mut self, spu: u32, nonce: u8, lost: &[(u32, u64)]) -> u64 {
        let replicas = lost
            .iter()
            .map(|(last_epoch, log_end)| v1::ReplicaReport {
                topic_id: TOPIC.to_bytes(),
                last_epoch: *last_epoch,
                log_end: *log_end,
                cache_lost: true,
                ..Default::default()
            })
            .collect();
        match self.done(Change::RegisterSpu(v1::RegisterSpu { replicas, ..registration(spu, nonce) })) {
            Effect::Registered { incarnation, .. } => incarnation.0,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn join(&mut self, spu: u32) {
        self.register_as(spu, 1, &[]);
        self.done(self.spu_state(spu, v1::SpuState::Joining, v1::SpuState::Online));
    }

    pub(crate) fn create_topic(&mut self, name: &str, id: TopicId, replicas: &[&[u32]], min_in_sync: u32) {
        self.done(topic(name, id, replicas, min_in_sync));
    }

    pub(crate) fn incarnation(&self, spu: u32) -> u64 {
        self.state.incarnation(SpuId(spu)).map_or(0, |Incarnation(i)| i)
    }

    pub(crate) fn spu_state(&self, spu: u32, expected: v1::SpuState, wanted: v1::SpuState) -> Change {
        Change::SetSpuState(v1::SetSpuState {
            spu_id: spu,
            incarnation: self.incarnation(spu),
            expected: expected.into(),
            wanted: wanted.into(),
            reason: "test".to_owned(),
        })
    }

    pub(crate) fn duty(&self, spu: u32, expected: v1::SpuDuty, wanted: v1::SpuDuty) -> Change {
        Change::SetSpuDuty(v1::SetSpuDuty {
            spu_id: spu,
            incarnation: self.incarnation(spu),
            expected: expected.into(),
            wanted: wanted.into(),
            reason: "test".to_owned(),
            force: false,
        })
    }

    pub(crate) fn volume_state(&self, spu: u32, from: v1::VolumeState, to: v1::VolumeState) -> Change {
        Change::SetVolumeState(v1::SetVolumeState {
            spu_id: spu,
            volume_id: volume(spu).to_bytes(),
            incarnation: self.incarnation(spu),
            expected: from.into(),
            wanted: to.into(),
            reason: "bytes".to_owned(),
        })
    }

    pub(crate) fn fill(&mut self, spu: u32) {
        self.done(self.volume_state(spu, v1::VolumeState::Writable, v1::VolumeState::WriteOffline));
    }

    pub(crate) fn empty(&mut self, spu: u32) {
        self.done(self.volume_state(spu, v1::VolumeState::WriteOffline, v1::VolumeState::Writable));
    }

    pub(crate) fn offline(&mut self, spu: u32) {
        self.done(self.spu_state(spu, v1::SpuState::Online, v1::SpuState::Offline));
    }

    pub(crate) fn in_sync(&self, members: &[u32]) -> v1::SetInSync {
        let partition = self.p();
        let (leader, incarnation) = partition.leader.unwrap();
        v1::SetInSync {
            topic_id: TOPIC.to_bytes(),
            partition: 0,
            leader: leader.0,
            leader_incarnation: incarnation.0,
            leader_epoch: partition.leader_epoch.0,
            partition_epoch: partition.partition_epoch.0,
            in_sync: members
                .iter()
                .map(|spu| v1::InSyncMember { spu_id: *spu, incarnation: self.incarnation(*spu) })
                .collect(),
            reason: "test".to_owned(),
            fence: false,
        }
    }

    pub(crate) fn p(&self) -> &Partition {
        self.state.partition(P0).unwrap()
    }

    pub(crate) fn leader(&self) -> u32 {
        self.p().leader_spu().map_or(0, |spu| spu.0)
    }

    pub(crate) fn set(&self) -> Vec<u32> {
        self.p().in_sync.iter().map(|spu| spu.0).collect()
    }
}

pub(crate) fn registration(spu: u32, nonce: u8) -> v1::RegisterSpu {
    v1::RegisterSpu {
        spu_id: spu,
        start_nonce: vec![nonce; 16].into(),
        address: format!("node{spu}:9000"),
        rack: String::new(),
        volumes: vec![v1::VolumeDeclared { volume_id: volume(spu).to_bytes(), path: format!("/d{spu}") }],
        replicas: vec![],
    }
}

pub(crate) fn topic(name: &str, id: TopicId, replicas: &[&[u32]], min_in_sync: u32) -> Change {
    let config = v1::TopicConfig {
        partitions: u32::try_from(replicas.len()).unwrap(),
        replicas: u32::try_from(replicas[0].len()).unwrap(),
        min_in_sync,
        ..Default::default()
    };
    let place = |spus: &&[u32]| v1::PartitionPlacement {
        replicas: spus
            .iter()
            .map(|spu| v1::ReplicaAssignment { spu_id: *spu, volume_id: volume(*spu).to_bytes() })
            .collect(),
    };
    Change::CreateTopic(v1::CreateTopicEntry {
        topic_id: id.to_bytes(),
        name: name.to_owned(),
        config: Some(super::with_defaults(config, 3).unwrap()),
        partitions: replicas.iter().map(place).collect(),
    })
}
