//! What goes wrong in a run, and when: drawn from the seed before it starts.

mod draw;
mod operated;
mod relieved;

use std::fmt;
use std::time::Duration;

use plimsoll_host::Random;
use plimsoll_proto::v1::FlushPolicy;

pub(super) use operated::EVERYWHERE;

/// Faults begin after this long: the cluster has formed by then.
pub(super) const FIRST: Duration = Duration::from_secs(8);
/// All faults are over after this long.
pub(super) const LAST: Duration = Duration::from_secs(26);

/// When the disk of a follower fills in the run of which that is the only fault.
const FULL_FROM: Duration = Duration::from_secs(14);

/// Keeps what is drawn about consumer groups apart from what the seed itself draws.
const GROUPS_APART: u64 = 0x636f_6d6d_6974_732e;
/// A consumer group is at work in one run of so many.
const GROUPS_EVERY: u64 = 8;

/// A host of the simulation. Servers come first, each with a disk of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    /// A controller, from 1.
    Controller(u8),
    /// A storage node, from 1.
    Spu(u8),
    /// The host of the producers.
    Producers,
    /// The host of the consumer that reads throughout.
    Reader,
}

impl Node {
    pub(super) const CONTROLLERS: [Self; 3] = [Self::Controller(1), Self::Controller(2), Self::Controller(3)];
    pub(super) const SPUS: [Self; 3] = [Self::Spu(1), Self::Spu(2), Self::Spu(3)];
    pub(super) const SERVERS: [Self; 6] = [
        Self::Controller(1),
        Self::Controller(2),
        Self::Controller(3),
        Self::Spu(1),
        Self::Spu(2),
        Self::Spu(3),
    ];
    pub(super) const ALL: [Self; 8] = [
        Self::Controller(1),
        Self::Controller(2),
        Self::Controller(3),
        Self::Spu(1),
        Self::Spu(2),
        Self::Spu(3),
        Self::Producers,
        Self::Reader,
    ];
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller(n) => write!(f, "c{n}"),
            Self::Spu(n) => write!(f, "s{n}"),
            Self::Producers => f.write_str("producers"),
            Self::Reader => f.write_str("reader"),
        }
    }
}

/// What a `statvfs` that lies says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// Half of the disk is free, whatever is written.
    Plenty,
    /// Nothing is free.
    Nothing,
    /// More is free than there is.
    Impossible,
}

/// One thing that happens to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Somebody else takes every byte and inode of a disk, and, when greedy, everything that is given back.
    Fill { node: Node, greedy: bool },
    /// The same, greedy, of a storage node that leads nothing then.
    FillFollower,
    /// Somebody else takes every inode.
    NoInodes(Node),
    /// The foreign bytes and inodes are gone again.
    Free(Node),
    /// Every sync fails, as on a thin volume without room behind it.
    SyncFails(Node),
    /// Syncs work again, under the running process: its volume is to come back by itself.
    SyncWorks(Node),
    /// `statvfs` does not tell the truth.
    SpaceLies(Node, Lie),
    /// `statvfs` does not return.
    SpaceHangs(Node),
    /// `statvfs` tells the truth again.
    SpaceHonest(Node),
    /// The process is killed; what it wrote stays in the page cache.
    Kill(Node),
    /// The machine loses power: what was not synced is gone, by this seed wholly or in parts.
    PowerLoss(Node, u64),
    /// The process starts on a disk that works.
    Start(Node),
    /// Nothing passes between two hosts, in both directions or from the first to the second only.
    Cut { from: Node, to: Node, both: bool },
    /// It passes again.
    Heal(Node, Node),
    /// Nothing passes between a server and all other servers; what is lost is lost.
    Isolate(Node),
    /// It is back.
    Rejoin(Node),
    /// What a host sends and is sent stays on the way, as when it is frozen.
    Hold(Node),
    /// It arrives late.
    Release(Node),
    /// Links of a host break and come back at random, at each message with this chance in a thousand.
    Lossy(Node, u8),
    /// They hold again.
    Lossless(Node),
    /// Messages between servers take up to this many milliseconds.
    Slow(u64),
    /// They take as long as before.
    Quick,
    /// The second topic is deleted.
    DeleteTopic,
    /// An operator moves a partition of the topic to these nodes.
    Reassign { partition: u32, to: &'static [u32] },
    /// An operator empties a node.
    Drain(Node),
    /// An operator takes a drained node back.
    Serve(Node),
    /// An operator asks for replicas to leave volumes that are short of room, now.
    Relieve,
    /// An operator calls those moves off; for long none begins by itself.
    CallOffRelief,
}

/// What is at fault when a refusal may be late: not a disk without room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Disturbed {
    /// A process is down, or about to be because its disk fails.
    Process(Node),
    /// A disk does not answer.
    Space(Node),
    Link(Node, Node),
    Links(Node),
    Network,
}

impl Fault {
    /// What the fault disturbs, and whether that begins or ends.
    pub(super) fn disturbs(self) -> Option<(Disturbed, bool)> {
        match self {
            Self::Kill(node) | Self::PowerLoss(node, _) | Self::SyncFails(node) => {
                Some((Disturbed::Process(node), true))
            }
            Self::Start(node) | Self::SyncWorks(node) => Some((Disturbed::Process(node), false)),
            Self::SpaceHangs(node) => Some((Disturbed::Space(node), true)),
            Self::SpaceHonest(node) => Some((Disturbed::Space(node), false)),
            Self::Cut { from, to, .. } => Some((Disturbed::Link(from, to), true)),
            Self::Heal(from, to) => Some((Disturbed::Link(from, to), false)),
            Self::Isolate(node) | Self::Hold(node) | Self::Lossy(node, _) => {
                Some((Disturbed::Links(node), true))
            }
            Self::Rejoin(node) | Self::Release(node) | Self::Lossless(node) => {
                Some((Disturbed::Links(node), false))
            }
            Self::Slow(_) => Some((Disturbed::Network, true)),
            Self::Quick => Some((Disturbed::Network, false)),
            Self::Fill { .. }
            | Self::FillFollower
            | Self::NoInodes(_)
            | Self::Free(_)
            | Self::SpaceLies(..)
            | Self::DeleteTopic
            | Self::Reassign { .. }
            | Self::Drain(_)
            | Self::Serve(_)
            | Self::Relieve
            | Self::CallOffRelief => None,
        }
    }
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Faults by time.
    pub(super) faults: Vec<(Duration, Fault)>,
    /// Durability of the topic.
    pub(super) flush: FlushPolicy,
    /// Segment size of the topic.
    pub(super) segment_bytes: u64,
    /// Disks need a free block for a new name.
    pub(super) entries_need_block: bool,
    /// Disks copy on write: allocation reserves nothing.
    pub(super) copy_on_write: bool,
    /// Operators are at work.
    pub(super) operated: bool,
    /// Replicas leave volumes that are short of room after a moment.
    pub(super) relieved: bool,
    /// A consumer group is at work.
    pub(super) grouped: bool,
}

/// A run in which nothing goes wrong but the disk of one follower, which fills at [`FULL_FROM`] and stays so until the end.
pub(super) fn full_follower() -> Plan {
    Plan {
        faults: vec![(FULL_FROM, Fault::FillFollower)],
        flush: FlushPolicy::Os,
        segment_bytes: 0,
        entries_need_block: false,
        copy_on_write: false,
        operated: false,
        relieved: false,
        grouped: false,
    }
}

/// Draws a run. What operators do comes from a number of its own, so that a seed without them is the run that it was
/// before there were any.
pub(super) fn plan(seed: u64, random: &Random) -> Plan {
    let flush = match random.below(4) {
        0 => FlushPolicy::Ack,
        1 => FlushPolicy::Interval,
        _ => FlushPolicy::Os,
    };
    let segment_bytes = [0, 64 << 10, 256 << 10][draw::index(random, 3)];
    let entries_need_block = random.below(4) == 0;
    let copy_on_write = random.below(8) == 0;
    let mut faults = draw::schedule(random);
    let operators = operated::operators(seed);
    if let Some(random) = &operators {
        operated::add(random, &mut faults);
    }
    let relieving = relieved::relieving(seed);
    if let Some(random) = &relieving {
        relieved::add(random, &mut faults);
    }
    let relieved = relieving.is_some();
    let operated = operators.is_some() || relieved;
    let grouped = Random::seeded(seed ^ GROUPS_APART).below(GROUPS_EVERY) == 0;
    Plan { faults, flush, segment_bytes, entries_need_block, copy_on_write, operated, relieved, grouped }
}
