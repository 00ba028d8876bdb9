//! Three replicas and a controller as pure state machines, with messages that are lost, late and out of order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{Incarnation, LeaderEpoch, Offset, PartitionEpoch, SpuId};
use proptest::prelude::*;

use super::{
    Asked, EpochEnd, Follower, FollowerStep, Leader, LeaderAnswer, LogEnds, OwnLog, Peer, Position,
    ProposalOutcome, ReportedPosition, Term,
};

const NODES: u32 = 3;
const MIN_IN_SYNC: usize = 2;

type Entry = (u32, u64);

#[derive(Clone, Debug)]
struct Meta {
    leader: u32,
    epoch: u32,
    partition_epoch: u32,
    in_sync: BTreeSet<u32>,
    /// Who left the set when it fell below its minimum.
    eligible: BTreeSet<u32>,
}

impl Meta {
    fn set(&mut self, in_sync: BTreeSet<u32>) {
        let before = std::mem::replace(&mut self.in_sync, in_sync);
        self.eligible =
            before.union(&self.eligible).copied().filter(|id| !self.in_sync.contains(id)).collect();
        if self.in_sync.len() >= MIN_IN_SYNC {
            self.eligible.clear();
        }
    }
}

enum Role {
    Idle,
    Leads(Box<Leader>),
    Follows(Follower),
}

struct Node {
    log: Vec<Entry>,
    high_watermark: usize,
    epoch: u32,
    role: Role,
    /// Ends of own appends that wait for the set.
    waiting: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Message {
    Meta {
        to: u32,
        meta: Meta,
    },
    Fetch {
        from: u32,
        to: u32,
        epoch: u32,
        log_end: usize,
        last_epoch: Option<u32>,
    },
    Answer {
        from: u32,
        to: u32,
        epoch: u32,
        log_end: usize,
        last_epoch: Option<u32>,
        told: Told,
        high_watermark: usize,
    },
    Propose {
        from: u32,
        epoch: u32,
        expected: u32,
        in_sync: BTreeSet<u32>,
    },
    Outcome {
        to: u32,
        epoch: u32,
        expected: u32,
        applied: bool,
    },
}

#[derive(Clone, Debug)]
enum Told {
    Entries(Vec<Entry>),
    Diverging(u32, usize),
}

struct World {
    now: Duration,
    nodes: BTreeMap<u32, Node>,
    meta: Meta,
    network: Vec<Message>,
    acked: BTreeMap<usize, Entry>,
    next_value: u64,
}

fn at(offset: usize) -> Offset {
    Offset::new(offset as u64).expect("a small offset")
}

fn index(offset: Offset) -> usize {
    usize::try_from(offset.get()).expect("a small offset")
}

/// Largest epoch not beyond `epoch`, and where it ends.
fn epoch_end(log: &[Entry], epoch: LeaderEpoch) -> Option<EpochEnd> {
    let found = log.iter().map(|(e, _)| *e).filter(|e| *e <= epoch.0).max()?;
    let end = log.iter().rposition(|(e, _)| *e == found)? + 1;
    Some(EpochEnd { epoch: LeaderEpoch(found), end: at(end) })
}

impl Node {
    fn ends(&self) -> LogEnds {
        LogEnds { log_end: at(self.log.len()), durable_end: at(self.log.len()) }
    }

    fn last_epoch(&self) -> Option<u32> {
        self.log.last().map(|(epoch, _)| *epoch)
    }
}

impl World {
    fn new() -> Self {
        let node =
            || Node { log: Vec::new(), high_watermark: 0, epoch: 0, role: Role::Idle, waiting: Vec::new() };
        let meta = Meta {
            leader: 1,
            epoch: 1,
            partition_epoch: 1,
            in_sync: (1..=NODES).collect(),
            eligible: BTreeSet::new(),
        };
        let nodes = (1..=NODES).map(|id| (id, node())).collect();
        let mut world = Self {
            now: Duration::ZERO,
            nodes,
            meta,
            network: Vec::new(),
            acked: BTreeMap::new(),
            next_value: 0,
        };
        world.tell_all();
        world
    }

    fn tell_all(&mut self) {
        for to in 1..=NODES {
            self.network.push(Message::Meta { to, meta: self.meta.clone() });
        }
    }

    fn step(&mut self, (op, a, b): (u8, u8, u8)) {
        self.now += Duration::from_millis(u64::from(b));
        let node = u32::from(a) % NODES + 1;
        match op % 16 {
            0..=2 => self.produce(node),
            3..=5 => self.fetch(node),
            6..=11 if !self.network.is_empty() => {
                let message = self.network.remove(usize::from(b) % self.network.len());
                self.deliver(message);
            }
            12 if !self.network.is_empty() => {
                self.network.remove(usize::from(b) % self.network.len());
            }
            13 => self.tick(node),
            14 if b.is_multiple_of(3) => self.controller(node, a),
            15 if b.is_multiple_of(8) => self.restart(node, b),
            15 => self.network.push(Message::Meta { to: node, meta: self.meta.clone() }),
            _ => {}
        }
        self.check();
    }

    fn produce(&mut self, id: u32) {
        let node = self.nodes.get_mut(&id).expect("a node");
        let Role::Leads(leader) = &mut node.role else { return };
        if leader.admit(plimsoll_proto::v1::Acks::All, true).is_ok() {
            node.log.push((node.epoch, self.next_value));
            self.next_value += 1;
            node.waiting.push(node.log.len());
            leader.on_own_log(LogEnds { log_end: at(node.log.len()), durable_end: at(node.log.len()) });
            self.committed(id);
        }
    }

    fn fetch(&mut self, id: u32) {
        let node = &self.nodes[&id];
        if let Role::Follows(follower) = &node.role
            && follower.stopped.is_none()
        {
            self.network.push(Message::Fetch {
                from: id,
                to: follower.leader.0,
                epoch: node.epoch,
                log_end: node.log.len(),
                last_epoch: node.last_epoch(),
            });
        }
    }

    fn tick(&mut self, id: u32) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("a node");
        let Role::Leads(leader) = &mut node.role else { return };
        if let Some(proposal) = leader.tick(now) {
            self.network.push(Message::Propose {
                from: id,
                epoch: node.epoch,
                expected: proposal.partition_epoch.0,
                in_sync: proposal.in_sync.iter().map(|spu| spu.0).collect(),
            });
            // Without an answer it is sent again, as the runtime does.
            leader.on_proposal(proposal.partition_epoch, ProposalOutcome::Unknown, now);
        }
    }

    /// Elects a member or an eligible replica, or takes one out of the set: for fullness while enough remain, for
    /// being gone at any time.
    fn controller(&mut self, node: u32, how: u8) {
        let complete = self.meta.in_sync.contains(&node) || self.meta.eligible.contains(&node);
        if how.is_multiple_of(2) && complete {
            let mut set = self.meta.in_sync.clone();
            set.insert(node);
            if how.is_multiple_of(4) {
                set.remove(&self.meta.leader);
                set.insert(node);
            }
            self.meta.set(set);
            self.meta.leader = node;
            self.meta.epoch += 1;
        } else if how.is_multiple_of(5) && node != self.meta.leader {
            let others = self.meta.in_sync.iter().copied().filter(|id| *id != node).collect();
            self.meta.set(others);
        } else if self.meta.in_sync.len() > MIN_IN_SYNC && node != self.meta.leader {
            let others = self.meta.in_sync.iter().copied().filter(|id| *id != node).collect();
            self.meta.set(others);
        }
        self.meta.partition_epoch += 1;
        self.tell_all();
    }

    /// A killed process: log and an older high watermark stay. A leader leads again only in a new epoch.
    fn restart(&mut self, id: u32, b: u8) {
        let node = self.nodes.get_mut(&id).expect("a node");
        node.role = Role::Idle;
        node.high_watermark = node.high_watermark.saturating_sub(usize::from(b) % 5);
        node.waiting.clear();
        if self.meta.leader == id {
            self.meta.epoch += 1;
            self.meta.partition_epoch += 1;
        } else {
            node.epoch = 0;
        }
        self.tell_all();
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Meta { to, meta } => self.on_meta(to, &meta),
            Message::Fetch { from, to, epoch, log_end, last_epoch } => {
                self.on_fetch(from, to, epoch, log_end, last_epoch);
            }
            Message::Answer { from, to, epoch, log_end, last_epoch, told, high_watermark } => {
                let asked = Asked { log_end: at(log_end), last_epoch: last_epoch.map(LeaderEpoch) };
                self.on_answer(from, to, epoch, asked, told, high_watermark);
            }
            Message::Propose { from, epoch, expected, in_sync } => {
                let applied = self.meta.leader == from
                    && self.meta.epoch == epoch
                    && self.meta.partition_epoch == expected;
                if applied {
                    self.meta.set(in_sync);
                    self.meta.partition_epoch += 1;
                    self.tell_all();
                }
                self.network.push(Message::Outcome { to: from, epoch, expected, applied });
            }
            Message::Outcome { to, epoch, expected, applied } => {
                let now = self.now;
                let node = self.nodes.get_mut(&to).expect("a node");
                if node.epoch == epoch
                    && let Role::Leads(leader) = &mut node.role
                    && applied
                {
                    // Late rejections of repeated proposals are the control link's to sort out.
                    leader.on_proposal(PartitionEpoch(expected), ProposalOutcome::Applied, now);
                    self.committed(to);
                }
            }
        }
    }

    fn on_meta(&mut self, to: u32, meta: &Meta) {
        let now = self.now;
        let node = self.nodes.get_mut(&to).expect("a node");
        if meta.epoch < node.epoch {
            return;
        }
        let peer = Peer { incarnation: Some(Incarnation(1)), writable: true };
        let term = Term {
            me: SpuId(to),
            epoch: LeaderEpoch(meta.epoch),
            partition_epoch: PartitionEpoch(meta.partition_epoch),
            in_sync: meta.in_sync.iter().map(|spu| SpuId(*spu)).collect(),
            peers: (1..=NODES).filter(|id| *id != to).map(|id| (SpuId(id), peer)).collect(),
            min_in_sync: MIN_IN_SYNC,
            in_reserve: false,
            flush_ack: false,
        };
        match &mut node.role {
            Role::Leads(leader) if node.epoch == meta.epoch => {
                leader.on_term(term, now);
            }
            Role::Follows(_) if node.epoch == meta.epoch => {}
            Role::Idle if node.epoch == meta.epoch => {}
            Role::Leads(_) | Role::Follows(_) | Role::Idle => {
                node.epoch = meta.epoch;
                node.waiting.clear();
                node.role = if meta.leader == to {
                    let hw = at(node.high_watermark);
                    Role::Leads(Box::new(Leader::new(term, node.ends(), hw, Duration::from_secs(3), now)))
                } else {
                    Role::Follows(Follower::new(SpuId(meta.leader), LeaderEpoch(meta.epoch)))
                };
            }
        }
        self.committed(to);
    }

    fn on_fetch(&mut self, from: u32, to: u32, epoch: u32, log_end: usize, last_epoch: Option<u32>) {
        let now = self.now;
        let node = self.nodes.get_mut(&to).expect("a node");
        let Role::Leads(leader) = &mut node.role else { return };
        if node.epoch != epoch {
            return;
        }
        let own = (Offset::ZERO, at(node.log.len()));
        let position =
            Position::of(at(log_end), last_epoch.map(LeaderEpoch), own, |epoch| epoch_end(&node.log, epoch));
        let told = match position {
            Position::Continues => {
                let ends = LogEnds { log_end: at(log_end), durable_end: at(log_end) };
                let report = ReportedPosition { incarnation: Incarnation(1), ends, level: DiskLevel::Normal };
                leader.on_fetch(SpuId(from), report, now).expect("a fetch of the only incarnation");
                Told::Entries(node.log.iter().skip(log_end).take(3).copied().collect())
            }
            Position::Diverging(end) => Told::Diverging(end.epoch.0, index(end.end)),
            Position::Trimmed => unreachable!("nothing is trimmed here"),
        };
        let high_watermark = index(leader.high_watermark());
        self.network.push(Message::Answer {
            from: to,
            to: from,
            epoch,
            log_end,
            last_epoch,
            told,
            high_watermark,
        });
        self.committed(to);
    }

    fn on_answer(&mut self, from: u32, to: u32, epoch: u32, asked: Asked, told: Told, high_watermark: usize) {
        let node = self.nodes.get_mut(&to).expect("a node");
        let Role::Follows(follower) = &mut node.role else { return };
        if node.epoch != epoch || follower.leader.0 != from {
            return;
        }
        let own = |node: &[Entry], high_watermark: usize| OwnLog {
            log_start: Offset::ZERO,
            high_watermark: at(high_watermark),
            log_end: at(node.len()),
            last_epoch: node.last().map(|(epoch, _)| LeaderEpoch(*epoch)),
        };
        let before = own(&node.log, node.high_watermark);
        if (before.log_end, before.last_epoch) != (asked.log_end, asked.last_epoch) {
            return;
        }
        let (entries, answer) = match told {
            Told::Entries(entries) if entries.is_empty() => (entries, LeaderAnswer::Batches(Bytes::new())),
            Told::Entries(entries) => (entries, LeaderAnswer::Batches(Bytes::from_static(b"entries"))),
            Told::Diverging(epoch, end) => {
                (Vec::new(), LeaderAnswer::Diverging(EpochEnd { epoch: LeaderEpoch(epoch), end: at(end) }))
            }
        };
        let diverged = matches!(answer, LeaderAnswer::Diverging(_));
        match follower.on_answer(before, asked, answer, Offset::ZERO, |epoch| epoch_end(&node.log, epoch)) {
            Some(FollowerStep::Append(_)) => node.log.extend(entries),
            Some(FollowerStep::TruncateTail(to)) => node.log.truncate(index(to)),
            Some(FollowerStep::Stop(reason)) => panic!("node {to} stopped: {reason}"),
            Some(other) => panic!("not expected here: {other:?}"),
            None => {}
        }
        if diverged {
            return;
        }
        for step in
            follower.after_append(own(&node.log, node.high_watermark), at(high_watermark), Offset::ZERO)
        {
            if let FollowerStep::HighWatermark(to) = step {
                assert!(index(to) > node.high_watermark, "the high watermark only rises");
                node.high_watermark = index(to);
            }
        }
    }

    /// What the high watermark of a leader has reached is acknowledged.
    fn committed(&mut self, id: u32) {
        let node = self.nodes.get_mut(&id).expect("a node");
        let Role::Leads(leader) = &node.role else { return };
        let high_watermark = index(leader.high_watermark());
        assert!(high_watermark >= node.high_watermark, "the high watermark never goes back");
        node.high_watermark = high_watermark;
        if leader.acknowledges() {
            let (reached, waiting): (Vec<usize>, Vec<usize>) =
                node.waiting.iter().partition(|end| **end <= high_watermark);
            node.waiting = waiting;
            self.acked.extend(reached.into_iter().map(|end| (end - 1, node.log[end - 1])));
        }
    }

    fn check(&self) {
        for member in self.meta.in_sync.union(&self.meta.eligible) {
            let log = &self.nodes[member].log;
            for (offset, entry) in &self.acked {
                assert_eq!(log.get(*offset), Some(entry), "member {member} lost what was acknowledged");
            }
        }
        for (a, one) in &self.nodes {
            for (b, other) in &self.nodes {
                let common = one.high_watermark.min(other.high_watermark);
                assert_eq!(one.log[..common], other.log[..common], "{a} and {b} differ in what is committed");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_acknowledged_is_never_lost(steps in prop::collection::vec(any::<(u8, u8, u8)>(), 0..600)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
    }
}

/// The model is worth something only if it gets anywhere.
#[test]
fn the_model_acknowledges_and_changes_leaders() {
    let (mut acked, mut epochs) = (0, 0);
    for seed in 0..20u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
        let mut world = World::new();
        for _ in 0..2000 {
            // xorshift64: any source of variety will do.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let [op, a, b, ..] = state.to_be_bytes();
            world.step((op, a, b));
        }
        acked += world.acked.len();
        epochs += world.meta.epoch;
    }
    assert!(acked > 200, "only {acked} were acknowledged");
    assert!(epochs > 200, "only {epochs} elections");
}
