//! Applying one committed entry.

use std::collections::BTreeSet;
use std::sync::Arc;

use plimsoll_proto::ids::{ClusterId, Incarnation, PartitionEpoch, PartitionId, SpuId, TopicId};
use plimsoll_proto::image::DELETED_TOPICS_MAX;
use plimsoll_proto::v1::{self, entry::Change};

use super::controllers::Controllers;
use super::expectation::Mismatch;
use super::node::{Spu, SpuState, VolumeState};
use super::partition::{Partition, Topic};
use super::state::{ClusterState, EVENTS_MAX};
use crate::election;

/// Version of the rules in this build; every entry names the one it was made by.
///
/// | version | since then |
/// |---|---|
/// | 1 | |
/// | 2 | who leaves a set below its minimum stays eligible (`docs/rfcs/0004-eligible-leaders.md`); forced elections; altered topics, added partitions, duties, moves, controllers, loans; deleted topics stay named; events are counted |
///
/// No released build wrote entries of version 1; they apply by the present rules.
pub const RULES_VERSION: u32 = 2;

/// Most producer ids one entry hands out.
const PRODUCER_IDS_MAX: u32 = 1_000_000;

/// What became of an entry.
#[derive(Clone, PartialEq, Debug)]
pub struct Applied {
    /// Whether it had an effect, and which.
    pub outcome: Outcome,
    /// What happened, for people and alerts.
    pub events: Vec<v1::ClusterEvent>,
    /// Which records of the state are to be written anew.
    pub touched: Touched,
}

/// Whether an entry had an effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It had.
    Changed(Effect),
    /// An expectation did not hold; the no-op is counted.
    NoOp(Mismatch),
}

/// What the proposer of an entry waits to learn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing beyond that it happened.
    Done,
    /// A node is registered.
    Registered {
        /// Its run from now on.
        incarnation: Incarnation,
        /// False when the registration was a repetition.
        new: bool,
    },
    /// Producer ids nobody else has.
    ProducerIds {
        /// The first one.
        first: u64,
        /// How many follow one another.
        count: u32,
    },
    /// Leaderships were handed over.
    HandedOver {
        /// Those that another node took.
        moved: u32,
        /// Those that no other node could take.
        kept: u32,
    },
}

/// Which records of the state an entry changed; the counters always are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Touched {
    /// Nodes.
    pub spus: BTreeSet<SpuId>,
    /// Topics, also those that are gone.
    pub topics: BTreeSet<TopicId>,
    /// Events added, as (index, ordinal).
    pub events_added: BTreeSet<(u64, u32)>,
    /// Events that made room.
    pub events_dropped: BTreeSet<(u64, u32)>,
    /// Deletions of topics that were noted or made room, by their entries.
    pub deletions: BTreeSet<u64>,
}

impl Touched {
    /// Adds what another entry, applied later, touched.
    pub fn merge(&mut self, later: Self) {
        self.spus.extend(later.spus);
        self.topics.extend(later.topics);
        self.events_added.extend(later.events_added);
        self.events_dropped.extend(later.events_dropped);
        self.deletions.extend(later.deletions);
    }
}

impl ClusterState {
    /// Applies the committed entry at `index`. Deterministic; never panics, whatever the entry.
    pub fn apply(&mut self, index: u64, entry: &v1::Entry) -> Applied {
        let mut change = Applying {
            state: self,
            index,
            time_ms: entry.time_ms,
            events: Vec::new(),
            touched: Touched::default(),
        };
        let outcome = match change.entry(entry) {
            Ok(effect) => Outcome::Changed(effect),
            Err(mismatch) => Outcome::NoOp(mismatch),
        };
        let Applying { events, mut touched, .. } = change;
        if matches!(outcome, Outcome::NoOp(_)) {
            self.no_ops = self.no_ops.saturating_add(1);
        }
        self.version = self.version.max(index);
        self.rules = self.rules.max(entry.rules.min(RULES_VERSION));
        self.remember(&events, &mut touched);
        Applied { outcome, events, touched }
    }

    fn remember(&mut self, events: &[v1::ClusterEvent], touched: &mut Touched) {
        for event in events {
            touched.events_added.insert((event.index, event.ordinal));
            let count = self.event_counts.entry(event.kind.clone()).or_default();
            *count = count.saturating_add(1);
            self.events.push_back(Arc::new(event.clone()));
        }
        while self.events.len() > EVENTS_MAX {
            if let Some(oldest) = self.events.pop_front() {
                touched.events_dropped.insert((oldest.index, oldest.ordinal));
            }
        }
    }
}

/// An entry on its way into the state. Every method checks all expectations before it changes anything.
pub(super) struct Applying<'a> {
    pub(super) state: &'a mut ClusterState,
    pub(super) index: u64,
    pub(super) time_ms: u64,
    events: Vec<v1::ClusterEvent>,
    pub(super) touched: Touched,
}

impl Applying<'_> {
    fn entry(&mut self, entry: &v1::Entry) -> Result<Effect, Mismatch> {
        expect(self.index > self.state.version, Mismatch::AlreadyApplied)?;
        expect((1..=RULES_VERSION).contains(&entry.rules), Mismatch::UnknownRules)?;
        let change = entry.change.as_ref().ok_or(Mismatch::Malformed)?;
        if let Change::Bootstrap(bootstrap) = change {
            return self.bootstrap(bootstrap);
        }
        expect(self.state.cluster_id.is_some(), Mismatch::NotBootstrapped)?;
        match change {
            Change::Bootstrap(_) => Err(Mismatch::AlreadyBootstrapped),
            Change::RegisterSpu(change) => self.register(change),
            Change::SetSpuState(change) => self.set_spu_state(change),
            Change::SetVolumeState(change) => self.set_volume_state(change),
            Change::CreateTopic(change) => self.create_topic(change),
            Change::DeleteTopic(change) => self.delete_topic(change),
            Change::SetInSync(change) => self.set_in_sync(change),
            Change::MoveLeader(change) => self.move_leader(change),
            Change::ForceLeader(change) => self.force_leader(change),
            Change::AllocateProducerIds(change) => self.allocate_producer_ids(change),
            Change::HandOver(change) => self.hand_over(change),
            Change::AlterTopic(change) => self.alter_topic(change),
            Change::AddPartitions(change) => self.add_partitions(change),
            Change::SetSpuDuty(change) => self.set_spu_duty(change),
            Change::StartReassignment(change) => self.start_reassignment(change),
            Change::FinishReassignment(change) => self.finish_reassignment(change),
            Change::CancelReassignment(change) => self.cancel_reassignment(change),
            Change::SetControllers(change) => self.set_controllers(change),
            Change::NoteLoan(change) => self.note_loan(change),
        }
    }

    fn bootstrap(&mut self, change: &v1::BootstrapCluster) -> Result<Effect, Mismatch> {
        let id = ClusterId::from_slice(&change.cluster_id).map_err(|_| Mismatch::Malformed)?;
        expect(self.state.cluster_id.is_none(), Mismatch::AlreadyBootstrapped)?;
        self.state.controllers = Controllers::from_wire(&change.controllers).ok_or(Mismatch::Malformed)?;
        self.state.cluster_id = Some(id);
        Ok(Effect::Done)
    }

    fn set_spu_state(&mut self, change: &v1::SetSpuState) -> Result<Effect, Mismatch> {
        let spu_id = SpuId(change.spu_id);
        let expected = SpuState::from_wire(change.expected()).ok_or(Mismatch::Malformed)?;
        let wanted = SpuState::from_wire(change.wanted()).ok_or(Mismatch::Malformed)?;
        let spu = self.spu(spu_id, change.incarnation)?;
        expect(spu.state == expected, Mismatch::OtherState)?;
        expect(expected != wanted, Mismatch::Unchanged)?;
        expect(expected.is_live() && wanted != SpuState::Joining, Mismatch::ForbiddenTransition)?;
        self.enter_spu_state(spu_id, wanted, &change.reason);
        self.settle_where(|partition| partition.is_on(spu_id), &change.reason);
        Ok(Effect::Done)
    }

    pub(super) fn enter_spu_state(&mut self, spu_id: SpuId, wanted: SpuState, reason: &str) {
        let Some(spu) = self.state.spus.get_mut(&spu_id) else { return };
        let from = spu.state;
        let spu = Arc::make_mut(spu);
        (spu.state, spu.since_index, spu.since_ms) = (wanted, self.index, self.time_ms);
        self.touched.spus.insert(spu_id);
        self.event(v1::ClusterEvent {
            kind: "spu_state".to_owned(),
            spu_id: spu_id.0,
            from: from.to_string(),
            to: wanted.to_string(),
            reason: reason.to_owned(),
            ..Default::default()
        });
    }

    fn set_in_sync(&mut self, change: &v1::SetInSync) -> Result<Effect, Mismatch> {
        let (id, next) = self.state.with_in_sync(change)?;
        self.store_partition(id, next, &change.reason);
        Ok(Effect::Done)
    }

    fn move_leader(&mut self, change: &v1::MoveLeader) -> Result<Effect, Mismatch> {
        let id = partition_id(&change.topic_id, change.partition)?;
        let partition = self.state.partition(id).ok_or(Mismatch::UnknownPartition)?;
        expect(
            partition.partition_epoch == PartitionEpoch(change.partition_epoch),
            Mismatch::StalePartitionEpoch,
        )?;
        let to = SpuId(change.leader);
        let incarnation = self.state.incarnation(to).ok_or(Mismatch::UnknownSpu)?;
        expect(incarnation == Incarnation(change.leader_incarnation), Mismatch::StaleIncarnation)?;
        let replica = partition.replica(to).ok_or(Mismatch::IneligibleLeader)?;
        expect(election::is_eligible(self.state, partition, replica), Mismatch::IneligibleLeader)?;
        expect(partition.leader_spu() != Some(to), Mismatch::Unchanged)?;
        let mut next = partition.clone();
        next.leader = Some((to, incarnation));
        let next = election::raise_epochs(partition, self.state.settled(id, &next));
        expect(next.leader_spu() == Some(to), Mismatch::IneligibleLeader)?;
        self.store_partition(id, next, &change.reason);
        Ok(Effect::Done)
    }

    fn allocate_producer_ids(&mut self, change: &v1::AllocateProducerIds) -> Result<Effect, Mismatch> {
        expect((1..=PRODUCER_IDS_MAX).contains(&change.count), Mismatch::Malformed)?;
        let first = self.state.next_producer_id;
        let next = first.checked_add(u64::from(change.count)).filter(|next| i64::try_from(*next).is_ok());
        self.state.next_producer_id = next.ok_or(Mismatch::Malformed)?;
        Ok(Effect::ProducerIds { first, count: change.count })
    }

    fn hand_over(&mut self, change: &v1::HandOverLeaders) -> Result<Effect, Mismatch> {
        let spu_id = SpuId(change.spu_id);
        let spu = self.spu(spu_id, change.incarnation)?;
        expect(spu.state.is_live(), Mismatch::ForbiddenTransition)?;
        let led = |state: &ClusterState| {
            let mine = state.partitions().filter(|(_, _, p)| p.leader_spu() == Some(spu_id)).count();
            u32::try_from(mine).unwrap_or(u32::MAX)
        };
        let before = led(self.state);
        if spu.state != SpuState::Draining {
            self.enter_spu_state(spu_id, SpuState::Draining, "stopping");
        }
        self.settle_where(|partition| partition.is_on(spu_id), "handed over");
        let kept = led(self.state);
        Ok(Effect::HandedOver { moved: before.saturating_sub(kept), kept })
    }

    /// The registered node, if the entry is about its current run.
    pub(super) fn spu(&self, id: SpuId, incarnation: u64) -> Result<&Spu, Mismatch> {
        let spu = self.state.spu(id).ok_or(Mismatch::UnknownSpu)?;
        expect(spu.incarnation == Incarnation(incarnation), Mismatch::StaleIncarnation)?;
        Ok(spu)
    }

    /// Brings every partition that `concerned` picks to its normal form.
    pub(super) fn settle_where(&mut self, concerned: impl Fn(&Partition) -> bool, reason: &str) {
        let changed: Vec<_> = self
            .state
            .partitions()
            .filter(|(_, _, partition)| concerned(partition))
            .map(|(id, topic, p)| (id, p, election::settle(self.state, &topic.config, p)))
            .filter(|(_, before, after)| *before != after)
            .map(|(id, before, after)| (id, election::raise_epochs(before, after)))
            .collect();
        for (id, after) in changed {
            self.store_partition(id, after, reason);
        }
    }

    /// Stores the partition and tells what became of its leader and set.
    pub(super) fn store_partition(&mut self, id: PartitionId, after: Partition, reason: &str) {
        let Some(topic) = self.state.topics.get_mut(&id.topic_id) else { return };
        let Some(slot) =
            usize::try_from(id.index).ok().and_then(|i| Arc::make_mut(topic).partitions.get_mut(i))
        else {
            return;
        };
        let before = std::mem::replace(slot, after.clone());
        self.touched.topics.insert(id.topic_id);
        let event = |kind: &str, from: String, to: String| v1::ClusterEvent {
            kind: kind.to_owned(),
            topic_id: id.topic_id.to_bytes(),
            partition: id.index,
            spu_id: after.leader.map_or(0, |(spu, _)| spu.0),
            from,
            to,
            reason: reason.to_owned(),
            ..Default::default()
        };
        if before.leader_spu() != after.leader_spu() {
            self.event(event("leader_changed", leader_name(&before), leader_name(&after)));
        }
        if before.in_sync != after.in_sync {
            self.event(event("in_sync_changed", set_name(&before), set_name(&after)));
        }
        // A single replica has nobody to lose records to, and nobody else could have led.
        if before.lossy_epoch != after.lossy_epoch && after.replicas.len() > 1 {
            self.event(event("unclean_election", leader_name(&before), leader_name(&after)));
        }
    }

    pub(super) fn event(&mut self, event: v1::ClusterEvent) {
        let ordinal = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        self.events.push(v1::ClusterEvent { index: self.index, ordinal, time_ms: self.time_ms, ..event });
    }

    /// Nodes delete their replicas of the topic when they hear of it, however late.
    pub(super) fn remember_deleted(&mut self, id: TopicId) {
        self.state.deleted.push_back((self.index, id));
        self.touched.deletions.insert(self.index);
        while self.state.deleted.len() > DELETED_TOPICS_MAX {
            let made_room = self.state.deleted.pop_front();
            self.touched.deletions.extend(made_room.map(|(index, _)| index));
        }
    }

    pub(super) fn store_topic(&mut self, id: TopicId, topic: Topic) {
        self.state.names.insert(topic.name.clone(), id);
        self.state.topics.insert(id, Arc::new(topic));
        self.touched.topics.insert(id);
    }

    pub(super) fn set_volume(&mut self, spu: SpuId, volume: plimsoll_proto::ids::VolumeId, to: VolumeState) {
        let Some(spu_record) = self.state.spus.get_mut(&spu) else { return };
        if let Some(record) = Arc::make_mut(spu_record).volumes.get_mut(&volume) {
            record.state = to;
            (record.since_index, record.since_ms) = (self.index, self.time_ms);
        }
        self.touched.spus.insert(spu);
    }
}

pub(super) fn expect(holds: bool, otherwise: Mismatch) -> Result<(), Mismatch> {
    if holds { Ok(()) } else { Err(otherwise) }
}

pub(super) fn partition_id(topic_id: &[u8], index: u32) -> Result<PartitionId, Mismatch> {
    let topic_id = TopicId::from_slice(topic_id).map_err(|_| Mismatch::Malformed)?;
    Ok(PartitionId { topic_id, index })
}

fn leader_name(partition: &Partition) -> String {
    partition.leader_spu().map_or_else(|| "none".to_owned(), |spu| spu.to_string())
}

fn set_name(partition: &Partition) -> String {
    partition.in_sync.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
