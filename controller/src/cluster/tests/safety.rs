//! The rules of sets and elections against three logs: nodes are killed, lose their power, fill, are slow to hear of
//! anything; whoever leads has every acknowledged record.
//!
//! What the nodes do is the least that the rules promise to rely on: a leader counts the committed set united with a
//! proposed one, as it knows them, and a set below the minimum commits nothing.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_proto::ids::Incarnation;
use plimsoll_proto::v1::{self, SpuState, VolumeState, entry::Change};
use proptest::prelude::*;

use crate::cluster::testing::{Cluster, TOPIC};
use crate::cluster::{Outcome, Partition};

const NODES: u32 = 3;
const MIN_IN_SYNC: usize = 2;

type Record = (u32, u64);

#[derive(Default)]
struct Node {
    log: Vec<Record>,
    synced: usize,
    up: bool,
    /// Lost its page cache, and no registration told of it.
    loss_untold: bool,
    nonce: u8,
    /// The run it registered under; 0 before.
    incarnation: u64,
    known: Option<Partition>,
    leads: Option<Leading>,
}

struct Leading {
    epoch: u32,
    start: usize,
    fetched: BTreeMap<u32, (u64, usize)>,
    proposed: Option<v1::SetInSync>,
    high_watermark: usize,
}

struct World {
    cluster: Cluster,
    nodes: BTreeMap<u32, Node>,
    acked: Vec<Record>,
    next: u64,
    on_the_way: Vec<v1::SetInSync>,
    /// Who lost power last, and the run it had.
    lost: Option<(u32, u64)>,
    elections: u32,
    losses: u32,
}

impl World {
    fn new() -> Self {
        let cluster = Cluster::with_topic();
        let node = |spu| {
            let incarnation = cluster.incarnation(spu);
            (spu, Node { up: true, nonce: 1, incarnation, ..Node::default() })
        };
        let nodes = (1..=NODES).map(node).collect();
        let (acked, on_the_way) = (Vec::new(), Vec::new());
        let mut world =
            Self { cluster, nodes, acked, next: 0, on_the_way, lost: None, elections: 0, losses: 0 };
        (1..=NODES).for_each(|spu| world.learn(spu));
        world
    }

    fn step(&mut self, (op, a, b): (u8, u8, u8)) {
        let spu = u32::from(a) % NODES + 1;
        let leader = self.nodes.iter().find(|(_, node)| node.leads.is_some()).map_or(spu, |(id, _)| *id);
        match op % 64 {
            0..=9 => self.produce(leader),
            10..=29 => self.fetch(spu),
            30..=39 => self.learn(spu),
            40..=44 => self.propose(leader, if b.is_multiple_of(4) { b } else { u8::MAX }),
            45..=49 => self.deliver(b),
            50 => self.kill(spu),
            51..=53 => self.power_loss(spu, b),
            54 => self.nodes.get_mut(&spu).unwrap().up = true,
            55..=59 => {
                self.nodes.get_mut(&spu).unwrap().up |= b.is_multiple_of(2);
                self.register(spu);
            }
            60 => self.verdict(spu, b),
            61 => self.volume(spu, b),
            62 => {
                let node = self.nodes.get_mut(&spu).unwrap();
                node.synced = node.log.len();
            }
            _ => self.hand_over(spu, b),
        }
    }

    fn produce(&mut self, spu: u32) {
        let node = self.nodes.get_mut(&spu).unwrap();
        let Some(leading) = node.leads.as_ref().filter(|_| node.up) else { return };
        node.log.push((leading.epoch, self.next));
        self.next += 1;
        self.advance(spu);
    }

    /// Hears of the committed state. One that leads from now on has everything that was acknowledged.
    fn learn(&mut self, spu: u32) {
        let now = self.cluster.p().clone();
        let node = self.nodes.get_mut(&spu).unwrap();
        if !node.up || node.incarnation == 0 {
            return;
        }
        let epoch = now.leader_epoch.0;
        let mine = now.leader == Some((plimsoll_proto::ids::SpuId(spu), Incarnation(node.incarnation)));
        if !mine {
            node.leads = None;
        } else if let Some(leading) = node.leads.as_mut().filter(|leading| leading.epoch == epoch) {
            let epoch = now.partition_epoch.0;
            leading.proposed = leading.proposed.take().filter(|proposed| proposed.partition_epoch >= epoch);
        } else {
            assert!(now.lossy_epoch.0 == 0, "no election may lose anything here: {now:?}");
            assert!(
                node.log.starts_with(&self.acked),
                "{spu} leads in epoch {epoch} with {} records of {} acknowledged",
                node.log.len(),
                self.acked.len()
            );
            self.elections += 1;
            let (start, fetched) = (node.log.len(), BTreeMap::new());
            node.leads = Some(Leading { epoch, start, fetched, proposed: None, high_watermark: 0 });
        }
        node.known = Some(now);
        self.advance(spu);
    }

    /// Cuts what differs from the leader's log, or takes some more of it. The leader counts where it stood before.
    fn fetch(&mut self, spu: u32) {
        let node = &self.nodes[&spu];
        let Some(known) = node.known.as_ref().filter(|_| node.up && node.leads.is_none()) else { return };
        let Some(leader) = known.leader_spu().map(|leader| leader.0).filter(|leader| *leader != spu) else {
            return;
        };
        let to = &self.nodes[&leader];
        if !to.up || to.leads.as_ref().map(|leading| leading.epoch) != Some(known.leader_epoch.0) {
            return;
        }
        let common = node.log.iter().zip(&to.log).take_while(|(mine, theirs)| mine == theirs).count();
        let more: Vec<Record> = to.log.iter().skip(common).take(2).copied().collect();
        let (continues, incarnation) = (common == node.log.len(), node.incarnation);
        let node = self.nodes.get_mut(&spu).unwrap();
        node.log.truncate(common);
        node.synced = node.synced.min(common);
        if !continues {
            return;
        }
        node.log.extend(more);
        let registered = self.nodes[&leader].known.as_ref().map(|_| self.cluster.incarnation(spu));
        if let Some(leading) = self.nodes.get_mut(&leader).unwrap().leads.as_mut()
            && registered.is_some_and(|registered| incarnation >= registered)
        {
            leading.fetched.insert(spu, (incarnation, common));
        }
        self.advance(leader);
    }

    fn advance(&mut self, spu: u32) {
        let node = self.nodes.get_mut(&spu).unwrap();
        let (Some(leading), Some(known)) = (node.leads.as_mut(), node.known.as_ref()) else { return };
        if known.in_sync.len() < MIN_IN_SYNC {
            return;
        }
        let mut counted: BTreeSet<u32> = known.in_sync.iter().map(|spu| spu.0).collect();
        counted.extend(leading.proposed.iter().flat_map(|p| &p.in_sync).map(|member| member.spu_id));
        let end = |member: &u32| {
            let fetched = || leading.fetched.get(member).map_or(0, |(_, end)| *end);
            if *member == spu { node.log.len() } else { fetched() }
        };
        let reached = counted.iter().map(end).min().unwrap_or(0).min(node.log.len());
        leading.high_watermark = leading.high_watermark.max(reached);
        if leading.high_watermark > self.acked.len() {
            self.acked = node.log[..leading.high_watermark].to_vec();
        }
    }

    fn propose(&mut self, spu: u32, wanted: u8) {
        let node = self.nodes.get_mut(&spu).unwrap();
        let (Some(leading), Some(known)) = (node.leads.as_mut(), node.known.as_ref()) else { return };
        if !node.up || leading.proposed.is_some() {
            return;
        }
        let joins = |member: u32| {
            let (incarnation, end) = leading.fetched.get(&member).copied().unwrap_or_default();
            incarnation == self.cluster.incarnation(member)
                && end >= leading.high_watermark.max(leading.start)
        };
        let members = (1..=NODES).filter(|member| {
            let wanted = *member == spu || wanted & (1 << member) != 0;
            wanted
                && (*member == spu
                    || known.in_sync.contains(&plimsoll_proto::ids::SpuId(*member))
                    || joins(*member))
        });
        let proposal = v1::SetInSync {
            topic_id: TOPIC.to_bytes(),
            leader: spu,
            leader_incarnation: node.incarnation,
            leader_epoch: leading.epoch,
            partition_epoch: known.partition_epoch.0,
            in_sync: members
                .map(|spu_id| v1::InSyncMember { spu_id, incarnation: self.cluster.incarnation(spu_id) })
                .collect(),
            ..Default::default()
        };
        leading.proposed = Some(proposal.clone());
        self.on_the_way.push(proposal);
    }

    fn deliver(&mut self, which: u8) {
        if let Some(at) = usize::from(which).checked_rem(self.on_the_way.len()) {
            let proposal = self.on_the_way.swap_remove(at);
            let applied = self.cluster.apply(Change::SetInSync(proposal.clone()));
            // Nobody is told that it was turned down before it can't be applied any more.
            if let (Outcome::NoOp(_), Some(fence)) = (applied.outcome, self.cluster.state.fence(&proposal)) {
                self.cluster.apply(Change::SetInSync(fence));
            }
        }
    }

    fn kill(&mut self, spu: u32) {
        let node = self.nodes.get_mut(&spu).unwrap();
        (node.up, node.known, node.leads, node.incarnation) = (false, None, None, 0);
    }

    /// One at a time, until all copies are in sync again.
    fn power_loss(&mut self, spu: u32, b: u8) {
        let whole = self.cluster.p().in_sync.len() == 3;
        let back = self.lost.is_none_or(|(lost, run)| self.cluster.incarnation(lost) > run);
        if !whole || !back {
            return;
        }
        self.lost = Some((spu, self.cluster.incarnation(spu)));
        self.losses += 1;
        self.kill(spu);
        let node = self.nodes.get_mut(&spu).unwrap();
        let unsynced = node.log.len() - node.synced;
        node.log.truncate(node.synced + usize::from(b).checked_rem(unsynced + 1).unwrap_or(0));
        node.synced = node.log.len();
        node.loss_untold = true;
    }

    fn register(&mut self, spu: u32) {
        let node = self.nodes.get_mut(&spu).unwrap();
        if !node.up || (node.incarnation != 0 && self.cluster.state.spu_state(spu_id(spu)).is_live()) {
            return;
        }
        node.nonce = node.nonce.wrapping_add(1);
        let lost = node.loss_untold.then(|| {
            (node.log.last().map_or(0, |(epoch, _)| *epoch), u64::try_from(node.log.len()).unwrap())
        });
        (node.loss_untold, node.known, node.leads) = (false, None, None);
        let nonce = node.nonce;
        let lost: Vec<_> = lost.into_iter().collect();
        let incarnation = self.cluster.register_as(spu, nonce, &lost);
        self.nodes.get_mut(&spu).unwrap().incarnation = incarnation;
    }

    /// True or false: silence is all that the controllers see.
    fn verdict(&mut self, spu: u32, b: u8) {
        let state = self.cluster.state.spu_state(spu_id(spu)).to_wire();
        let wanted = [SpuState::Offline, SpuState::Suspect, SpuState::Online][usize::from(b % 3)];
        let change = self.cluster.spu_state(spu, state, wanted);
        self.cluster.apply(change);
    }

    fn volume(&mut self, spu: u32, b: u8) {
        let volume = crate::cluster::testing::volume(spu);
        let state = self.cluster.state.volume(spu_id(spu), volume).unwrap().state.to_wire();
        let wanted =
            [VolumeState::Writable, VolumeState::WriteOffline, VolumeState::Writable, VolumeState::Stalled];
        let change = self.cluster.volume_state(spu, state, wanted[usize::from(b % 4)]);
        self.cluster.apply(change);
    }

    fn hand_over(&mut self, spu: u32, b: u8) {
        let incarnation = self.cluster.incarnation(spu);
        let change = if b.is_multiple_of(8) {
            Change::HandOver(v1::HandOverLeaders { spu_id: spu, incarnation })
        } else {
            Change::MoveLeader(v1::MoveLeader {
                topic_id: TOPIC.to_bytes(),
                partition_epoch: self.cluster.p().partition_epoch.0,
                leader: spu,
                leader_incarnation: incarnation,
                ..Default::default()
            })
        };
        self.cluster.apply(change);
    }
}

fn spu_id(spu: u32) -> plimsoll_proto::ids::SpuId {
    plimsoll_proto::ids::SpuId(spu)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn whoever_leads_has_every_acknowledged_record(
        steps in prop::collection::vec(any::<(u8, u8, u8)>(), 0..800)
    ) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(step));
    }
}

/// The model is worth something only if it gets anywhere.
#[test]
fn the_model_acknowledges_elects_and_loses_power() {
    let (mut acked, mut elections, mut losses) = (0, 0, 0);
    for seed in 0..600u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
        let mut world = World::new();
        for _ in 0..3000 {
            // xorshift64: any source of variety will do.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let [op, a, b, ..] = state.to_be_bytes();
            world.step((op, a, b));
        }
        acked += world.acked.len();
        elections += world.elections;
        losses += world.losses;
    }
    assert!(acked > 5000, "only {acked} were acknowledged");
    assert!(elections > 3000, "only {elections} elections");
    assert!(losses > 200, "only {losses} lost power");
}
