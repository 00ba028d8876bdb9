//! What a run recorded, shared by its driver and all of its hosts: they run in one thread.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use plimsoll_history::{Event, Regained};
use plimsoll_proto::ids::{Incarnation, LeaderEpoch, Offset, PartitionId, SpuId, TopicId};
use plimsoll_spu::runtime::NodeHandle;

use super::faults::{Disturbed, Fault, Node};
use super::groups::Progress;
use super::observer::PARTITIONS;
use super::truth::Truth;

/// So long after a fault of processes or links connections are made anew and leaders found.
const SETTLED: Duration = Duration::from_secs(1);

/// How far the run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// The cluster forms, then faults come and go.
    #[default]
    Safety,
    /// The topic exists, producers are at work, no fault is left.
    Liveness,
    /// Producers send nothing new and wait for their answers.
    Drain,
    /// Everything was read back.
    Done,
}

/// What the run recorded so far.
#[derive(Default)]
pub(super) struct Told {
    pub(super) phase: Phase,
    pub(super) lines: Vec<String>,
    /// Lines are printed when they come: a run that hangs tells no other way.
    pub(super) aloud: bool,
    pub(super) events: Vec<Event>,
    /// What the history checker can't know: hangs, servers that ended, untyped refusals.
    pub(super) broken: Vec<String>,
    pub(super) acked: u64,
    /// When the answers of producers came that acknowledged a record, and how long after it was sent.
    pub(super) took: Vec<(Duration, Duration)>,
    pub(super) unknown: u64,
    pub(super) refused: BTreeMap<&'static str, u64>,
    /// Producers that have all of their answers.
    pub(super) drained: usize,
    /// Ends of the partitions when everything was read back.
    pub(super) ends: BTreeMap<u32, Offset>,
    /// The topic as the observer knows it.
    pub(super) topic_exists: bool,
    pub(super) topic: Option<TopicId>,
    /// What is committed, seen from outside.
    pub(super) truth: Truth,
    /// Storage nodes that run, to look at their volumes.
    pub(super) nodes: BTreeMap<Node, NodeHandle>,
    /// Who acknowledged, in which epoch.
    led: BTreeSet<(PartitionId, LeaderEpoch, SpuId)>,
    /// When the last fault was undone.
    pub(super) healed_at: Option<Duration>,
    regained: BTreeSet<(PartitionId, Regained)>,
    /// Until when the design itself held back a volume or a node, faults or not.
    pub(super) held_until: Option<Duration>,
    /// When all copies were in sync again after the faults.
    pub(super) whole_at: Option<Duration>,
    /// What is wrong now besides full disks, and when something of it was last.
    pub(super) disturbed: BTreeSet<Disturbed>,
    pub(super) disturbed_at: Duration,
    /// A server's task is to panic.
    pub(super) plant_panic: bool,
    /// Every partition has its full in-sync set, as far as the observer knows.
    pub(super) whole: bool,
    /// Storage nodes that lead something, as far as the observer knows.
    pub(super) leaders: BTreeSet<Node>,
    /// The run of each storage node that the observer knows.
    pub(super) incarnations: BTreeMap<Node, u64>,
    /// Somebody asks for the second topic to be deleted.
    pub(super) delete_topic: bool,
    /// What operators are still to do, in order.
    pub(super) asked: VecDeque<Fault>,
    /// Operators are at work in this run.
    pub(super) operated: bool,
    /// Replicas leave volumes that are short of room after a moment.
    pub(super) relieved: bool,
    /// A consumer group is at work.
    pub(super) grouped: bool,
    /// On the disks of this run allocation reserves nothing.
    pub(super) copy_on_write: bool,
    /// What became of the group's offsets.
    pub(super) group: Progress,
    /// Hosts that have no member any more and take none.
    pub(super) members_left: usize,
    /// An operator waits for an answer.
    pub(super) operating: bool,
    /// Servers that ended by themselves and were not started since.
    pub(super) ended: BTreeSet<Node>,
    /// Disks on which syncs failed since their process started.
    pub(super) damaged: BTreeSet<Node>,
    /// From the last fault's end until the cluster was whole and acknowledged again.
    pub(super) healed_after: Duration,
}

/// The handle that everybody has.
pub(super) type Shared = Rc<RefCell<Told>>;

impl Told {
    pub(super) fn line(&mut self, at: Duration, what: impl std::fmt::Display) {
        let line = format!("{:>9} us  {what}", at.as_micros());
        if self.aloud {
            println!("{line}");
        }
        self.lines.push(line);
    }

    /// The partitions of the topic that is produced to; none before it is there.
    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let topic = self.topic;
        (0..PARTITIONS).filter_map(move |index| topic.map(|topic_id| PartitionId { topic_id, index }))
    }

    /// Looks at what is committed by now, on all disks, and records it.
    pub(super) fn look_at_committed(&mut self, partition: PartitionId) {
        if let (high_watermark, true) = self.truth.committed(partition) {
            self.events.push(Event::Committed { partition, high_watermark });
        }
    }

    /// What a machine has is noted before it is gone.
    pub(super) fn loses_power(&mut self, node: Node) {
        let (Node::Spu(n), Some(run)) = (node, self.incarnations.get(&node).copied()) else { return };
        for partition in self.partitions() {
            self.truth.loses_power(SpuId(n.into()), Incarnation(run), partition);
        }
    }

    /// A storage node acknowledged in this epoch.
    pub(super) fn acknowledged_by(&mut self, partition: PartitionId, epoch: LeaderEpoch, spu: SpuId) {
        if self.led.insert((partition, epoch, spu)) {
            self.events.push(Event::Led { partition, epoch, spu, incarnation: None });
        }
    }

    /// Whether nothing but disks without room was at fault from then on, nor shortly before.
    pub(super) fn undisturbed_since(&self, since: Duration) -> bool {
        self.disturbed.is_empty() && since >= self.disturbed_at + SETTLED
    }

    /// Every fault is undone.
    pub(super) fn healed(&mut self, at: Duration) {
        self.healed_at = Some(at);
        for partition in self.partitions() {
            self.events.push(Event::Healed { partition, at });
        }
    }

    /// Something that began at `since` shows that the partition has this again.
    pub(super) fn regained(&mut self, partition: PartitionId, what: Regained, since: Duration, at: Duration) {
        let after_the_faults = self.healed_at.is_some_and(|healed| since >= healed);
        if after_the_faults && self.regained.insert((partition, what)) {
            self.events.push(Event::Regained { partition, what, at });
        }
    }

    /// A volume or a node is held back until then.
    pub(super) fn held_back(&mut self, until: Duration) {
        self.held_until = Some(self.held_until.unwrap_or_default().max(until));
    }

    pub(super) fn broken(&mut self, at: Duration, what: impl std::fmt::Display) {
        self.line(at, format!("BROKEN: {what}"));
        self.broken.push(what.to_string());
    }
}
