//! The state as bytes: one record for each node, topic, deleted topic and event, and one for the counters.
//!
//! ```text
//! key                                    value (version byte, then protobuf)
//! 'c'                                    counters
//! 'd' index:u64be                        topic that the entry at `index` deleted: its id
//! 's' spu_id:u32be                       node
//! 't' topic_id:[u8;16]                   topic with its partitions
//! 'e' index:u64be ordinal:u32be          event
//! ```
//! A snapshot is `"PLSN"`, a version, the CRC-32C of the rest, then the records in order of their keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use plimsoll_proto::ids::{
    ClusterId, ControllerId, Incarnation, LeaderEpoch, PartitionEpoch, SpuId, TopicId, TopicName, VolumeId,
};
use plimsoll_proto::v1;
use prost::Message;

use super::apply::{RULES_VERSION, Touched};
use super::controllers::Controllers;
use super::node::{Duty, Spu, SpuState, Volume, VolumeState};
use super::partition::{CacheLoss, MoveCause, Partition, Reassignment, Replica, Topic};
use super::state::ClusterState;

const VERSION: u8 = 1;
const SNAPSHOT_MAGIC: &[u8; 4] = b"PLSN";

/// Stored state cannot be read: the bytes are damaged or of a newer build. The caller refuses to start, or
/// takes a snapshot from another controller; it never goes on with an empty state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored cluster state is corrupt: {what}")]
pub struct CorruptState {
    /// What was wrong.
    pub what: &'static str,
}

const fn corrupt(what: &'static str) -> CorruptState {
    CorruptState { what }
}

#[derive(Clone, PartialEq, Message)]
struct CountersRecord {
    #[prost(bytes = "bytes", tag = "1")]
    cluster_id: Bytes,
    #[prost(uint64, tag = "2")]
    version: u64,
    #[prost(uint64, tag = "3")]
    next_producer_id: u64,
    #[prost(uint64, tag = "4")]
    no_ops: u64,
    #[prost(uint32, tag = "5")]
    rules: u32,
    #[prost(message, repeated, tag = "6")]
    controllers: Vec<v1::ControllerMember>,
    #[prost(uint64, tag = "7")]
    controllers_since: u64,
    #[prost(uint64, repeated, tag = "8")]
    former_controllers: Vec<u64>,
    #[prost(message, repeated, tag = "9")]
    event_counts: Vec<v1::EventCount>,
}

#[derive(Clone, PartialEq, Message)]
struct SpuRecord {
    #[prost(message, optional, tag = "1")]
    info: Option<v1::SpuInfo>,
    #[prost(bytes = "bytes", tag = "2")]
    start_nonce: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct TopicRecord {
    #[prost(message, optional, tag = "1")]
    info: Option<v1::TopicInfo>,
    #[prost(message, repeated, tag = "2")]
    cache_lost: Vec<CacheLostRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct CacheLostRecord {
    #[prost(uint32, tag = "1")]
    partition: u32,
    #[prost(uint32, tag = "2")]
    spu_id: u32,
    #[prost(uint32, tag = "3")]
    last_epoch: u32,
    #[prost(uint64, tag = "4")]
    log_end: u64,
}

#[derive(Clone, PartialEq, Message)]
struct SnapshotBody {
    #[prost(message, repeated, tag = "1")]
    records: Vec<SnapshotRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct SnapshotRecord {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

impl ClusterState {
    /// Every record of the state, in order of keys.
    pub fn to_records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut records = vec![(counters_key(), self.counters_value())];
        records.extend(self.deleted.iter().map(|(index, id)| (deletion_key(*index), deletion_value(*id))));
        records.extend(self.events.iter().map(|e| (event_key(e.index, e.ordinal), value(e.as_ref()))));
        records.extend(self.spus.iter().map(|(id, spu)| (spu_key(*id), spu_value(*id, spu))));
        records.extend(self.topics.iter().map(|(id, topic)| (topic_key(*id), topic_value(*id, topic))));
        debug_assert!(records.is_sorted_by(|a, b| a.0 < b.0));
        records
    }

    /// The records to write (`Some`) or delete (`None`) after entries touched what `touched` names. The
    /// counters come with every call.
    pub fn changed_records(&self, touched: &Touched) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut records = vec![(counters_key(), Some(self.counters_value()))];
        for id in &touched.spus {
            records.push((spu_key(*id), self.spu(*id).map(|spu| spu_value(*id, spu))));
        }
        for id in &touched.topics {
            records.push((topic_key(*id), self.topic(*id).map(|topic| topic_value(*id, topic))));
        }
        for index in &touched.deletions {
            let at = self.deleted.binary_search_by_key(index, |(index, _)| *index).ok();
            let deleted = at.and_then(|at| self.deleted.get(at));
            records.push((deletion_key(*index), deleted.map(|(_, id)| deletion_value(*id))));
        }
        for (index, ordinal) in touched.events_added.difference(&touched.events_dropped) {
            let at = self.events.partition_point(|e| (e.index, e.ordinal) < (*index, *ordinal));
            if let Some(event) = self.events.get(at) {
                records.push((event_key(*index, *ordinal), Some(value(event.as_ref()))));
            }
        }
        for (index, ordinal) in &touched.events_dropped {
            records.push((event_key(*index, *ordinal), None));
        }
        records
    }

    /// Reads the state back from its records, in any order.
    ///
    /// # Errors
    /// [`CorruptState`]; nothing can be saved from such records.
    pub fn from_records<K, V>(records: impl IntoIterator<Item = (K, V)>) -> Result<Self, CorruptState>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let mut state = Self::empty();
        let (mut events, mut deleted) = (BTreeMap::new(), BTreeMap::new());
        for (key, value) in records {
            let (kind, rest) = key.as_ref().split_first().ok_or(corrupt("an empty key"))?;
            match kind {
                b'c' => state.take_counters(decode(value.as_ref())?)?,
                b's' => state.take_spu(decode(value.as_ref())?)?,
                b't' => state.take_topic(decode(value.as_ref())?)?,
                b'd' => {
                    let (index, id) = deletion(rest, value.as_ref())?;
                    deleted.insert(index, id);
                }
                b'e' => {
                    let event: v1::ClusterEvent = decode(value.as_ref())?;
                    events.insert((event.index, event.ordinal), Arc::new(event));
                }
                _ => return Err(corrupt("a key of unknown kind")),
            }
        }
        state.events = events.into_values().collect();
        state.deleted = deleted.into_iter().collect();
        Ok(state)
    }

    /// The whole state for another controller.
    pub fn encode_snapshot(&self) -> Vec<u8> {
        let records = self
            .to_records()
            .into_iter()
            .map(|(key, value)| SnapshotRecord { key: key.into(), value: value.into() })
            .collect();
        let body = SnapshotBody { records }.encode_to_vec();
        let mut snapshot = SNAPSHOT_MAGIC.to_vec();
        snapshot.push(VERSION);
        snapshot.extend_from_slice(&checksum(&body).to_be_bytes());
        snapshot.extend_from_slice(&body);
        snapshot
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// [`CorruptState`]; ask for another one.
    pub fn decode_snapshot(bytes: &[u8]) -> Result<Self, CorruptState> {
        let rest = bytes.strip_prefix(SNAPSHOT_MAGIC).ok_or(corrupt("not a snapshot"))?;
        let (version, rest) = rest.split_first().ok_or(corrupt("a cut snapshot"))?;
        if *version != VERSION {
            return Err(corrupt("a snapshot of another version"));
        }
        let (crc, body) = rest.split_first_chunk::<4>().ok_or(corrupt("a cut snapshot"))?;
        if checksum(body) != u32::from_be_bytes(*crc) {
            return Err(corrupt("a snapshot with a wrong checksum"));
        }
        let body = SnapshotBody::decode(body).map_err(|_| corrupt("a malformed snapshot"))?;
        Self::from_records(body.records.into_iter().map(|record| (record.key, record.value)))
    }

    fn counters_value(&self) -> Vec<u8> {
        value(&CountersRecord {
            cluster_id: self.cluster_id.map_or_else(Bytes::new, ClusterId::to_bytes),
            version: self.version,
            next_producer_id: self.next_producer_id,
            no_ops: self.no_ops,
            rules: self.rules,
            controllers: self.controllers.to_wire(),
            controllers_since: self.controllers.since_index,
            former_controllers: self.controllers.former.iter().map(|id| id.0).collect(),
            event_counts: self.event_counts(),
        })
    }

    fn take_counters(&mut self, record: CountersRecord) -> Result<(), CorruptState> {
        if !record.cluster_id.is_empty() {
            let id = ClusterId::from_slice(&record.cluster_id).map_err(|_| corrupt("a cluster id"))?;
            self.cluster_id = Some(id);
        }
        if record.rules > RULES_VERSION {
            // What those rules keep in the records is not known here; going on would lose it.
            return Err(corrupt("of rules of a newer version: upgrade this controller"));
        }
        self.controllers = Controllers::from_wire(&record.controllers).ok_or(corrupt("the controllers"))?;
        self.controllers.since_index = record.controllers_since;
        self.controllers.former = record.former_controllers.into_iter().map(ControllerId).collect();
        self.rules = record.rules;
        self.version = record.version;
        self.next_producer_id = record.next_producer_id;
        self.no_ops = record.no_ops;
        self.event_counts = record.event_counts.into_iter().map(|count| (count.kind, count.total)).collect();
        Ok(())
    }

    fn take_spu(&mut self, record: SpuRecord) -> Result<(), CorruptState> {
        let info = record.info.ok_or(corrupt("a node without content"))?;
        let mut volumes = BTreeMap::new();
        for volume in &info.volumes {
            let id = VolumeId::from_slice(&volume.volume_id).map_err(|_| corrupt("a volume id"))?;
            let state =
                VolumeState::from_wire(volume.state(), &volume.reason).ok_or(corrupt("a volume state"))?;
            let known = Volume {
                path: volume.path.clone(),
                state,
                since_index: volume.since_index,
                since_ms: volume.since_ms,
                borrowed_bytes: volume.borrowed_bytes,
            };
            volumes.insert(id, known);
        }
        let spu = Spu {
            incarnation: Incarnation(info.incarnation),
            start_nonce: record.start_nonce.to_vec(),
            state: SpuState::from_wire(info.state()).ok_or(corrupt("a node state"))?,
            address: info.address,
            rack: info.rack,
            volumes,
            duty: Duty::from_wire(info.duty).ok_or(corrupt("a duty"))?,
            since_index: info.since_index,
            since_ms: info.since_ms,
        };
        self.spus.insert(SpuId(info.spu_id), Arc::new(spu));
        Ok(())
    }

    fn take_topic(&mut self, record: TopicRecord) -> Result<(), CorruptState> {
        let info = record.info.ok_or(corrupt("a topic without content"))?;
        let id = TopicId::from_slice(&info.topic_id).map_err(|_| corrupt("a topic id"))?;
        TopicName::new(info.name.clone()).map_err(|_| corrupt("a topic name"))?;
        let mut partitions =
            info.partitions.iter().map(partition_from).collect::<Result<Vec<_>, CorruptState>>()?;
        for lost in &record.cache_lost {
            let replica = usize::try_from(lost.partition)
                .ok()
                .and_then(|index| partitions.get_mut(index))
                .and_then(|partition| partition.replicas.iter_mut().find(|r| r.spu.0 == lost.spu_id))
                .ok_or(corrupt("a cache loss of no replica"))?;
            replica.cache_lost =
                Some(CacheLoss { last_epoch: LeaderEpoch(lost.last_epoch), log_end: lost.log_end });
        }
        let config = info.config.ok_or(corrupt("a topic without configuration"))?;
        self.names.insert(info.name.clone(), id);
        self.topics.insert(
            id,
            Arc::new(Topic { name: info.name, config, partitions, was_not_synced: info.was_not_synced }),
        );
        Ok(())
    }
}

fn partition_from(info: &v1::PartitionInfo) -> Result<Partition, CorruptState> {
    let places = |assignments: &[v1::ReplicaAssignment]| {
        let place = |at: &v1::ReplicaAssignment| {
            let volume = VolumeId::from_slice(&at.volume_id).map_err(|_| corrupt("a volume id"))?;
            Ok((SpuId(at.spu_id), volume))
        };
        assignments.iter().map(place).collect::<Result<Vec<_>, CorruptState>>()
    };
    let replicas = places(&info.replicas)?
        .into_iter()
        .map(|(spu, volume)| Replica { spu, volume, cache_lost: None })
        .collect();
    let reassignment = match &info.reassignment {
        None => None,
        Some(moving) => Some(Reassignment {
            to: places(&moving.to)?,
            from: places(&moving.from)?,
            cause: MoveCause::from_wire(moving.cause()).ok_or(corrupt("the cause of a move"))?,
            since_index: moving.since_index,
        }),
    };
    let in_sync: BTreeSet<_> = info.in_sync.iter().map(|id| SpuId(*id)).collect();
    if in_sync.is_empty() {
        return Err(corrupt("an empty in-sync set"));
    }
    let eligible = info.eligible.iter().map(|id| SpuId(*id)).collect();
    let leader = (info.leader != 0).then_some((SpuId(info.leader), Incarnation(info.leader_incarnation)));
    Ok(Partition {
        replicas,
        in_sync,
        eligible,
        leader,
        leader_epoch: LeaderEpoch(info.leader_epoch),
        partition_epoch: PartitionEpoch(info.partition_epoch),
        lossy_epoch: LeaderEpoch(info.lossy_epoch),
        reassignment,
    })
}

fn spu_value(id: SpuId, spu: &Spu) -> Vec<u8> {
    value(&SpuRecord { info: Some(spu.to_info(id)), start_nonce: Bytes::from(spu.start_nonce.clone()) })
}

fn topic_value(id: TopicId, topic: &Topic) -> Vec<u8> {
    let cache_lost = (0u32..)
        .zip(&topic.partitions)
        .flat_map(|(partition, p)| p.replicas.iter().map(move |replica| (partition, replica)))
        .filter_map(|(partition, replica)| {
            let lost = replica.cache_lost?;
            let last_epoch = lost.last_epoch.0;
            Some(CacheLostRecord { partition, spu_id: replica.spu.0, last_epoch, log_end: lost.log_end })
        })
        .collect();
    value(&TopicRecord { info: Some(topic.to_info(id)), cache_lost })
}

fn counters_key() -> Vec<u8> {
    b"c".to_vec()
}

fn spu_key(id: SpuId) -> Vec<u8> {
    [b"s".as_slice(), &id.0.to_be_bytes()].concat()
}

fn topic_key(id: TopicId) -> Vec<u8> {
    [b"t".as_slice(), &id.0].concat()
}

fn deletion_key(index: u64) -> Vec<u8> {
    [b"d".as_slice(), &index.to_be_bytes()].concat()
}

fn deletion_value(id: TopicId) -> Vec<u8> {
    [&[VERSION], id.0.as_slice()].concat()
}

fn deletion(key: &[u8], value: &[u8]) -> Result<(u64, TopicId), CorruptState> {
    let index = key.try_into().map(u64::from_be_bytes).map_err(|_| corrupt("a key of a deleted topic"))?;
    match value.split_first() {
        Some((&VERSION, id)) => {
            Ok((index, TopicId::from_slice(id).map_err(|_| corrupt("the id of a deleted topic"))?))
        }
        Some(_) | None => Err(corrupt("a record of another version")),
    }
}

fn event_key(index: u64, ordinal: u32) -> Vec<u8> {
    [b"e".as_slice(), &index.to_be_bytes(), &ordinal.to_be_bytes()].concat()
}

fn value(message: &impl Message) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    message.encode(&mut bytes).expect("a vector grows as needed");
    bytes
}

fn decode<M: Message + Default>(value: &[u8]) -> Result<M, CorruptState> {
    match value.split_first() {
        Some((&VERSION, body)) => M::decode(body).map_err(|_| corrupt("a malformed record")),
        Some(_) => Err(corrupt("a record of another version")),
        None => Err(corrupt("an empty record")),
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}
