//! What a run recorded, shared by its driver and all of its hosts: they run in one thread.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use plimsoll_history::Event;
use plimsoll_proto::ids::Offset;

use super::faults::{Fault, Node};
use super::groups::Progress;

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
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) phase: Phase,
    pub(super) lines: Vec<String>,
    /// Lines are printed when they come: a run that hangs tells no other way.
    pub(super) aloud: bool,
    pub(super) events: Vec<Event>,
    /// What the history checker can't know: hangs, servers that ended, untyped refusals.
    pub(super) broken: Vec<String>,
    pub(super) acked: u64,
    pub(super) unknown: u64,
    pub(super) refused: BTreeMap<&'static str, u64>,
    /// Producers that have all of their answers.
    pub(super) drained: usize,
    /// Ends of the partitions when everything was read back.
    pub(super) ends: BTreeMap<u32, Offset>,
    /// The topic as the observer knows it.
    pub(super) topic_exists: bool,
    /// Every partition has its full in-sync set, as far as the observer knows.
    pub(super) whole: bool,
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

    pub(super) fn broken(&mut self, at: Duration, what: impl std::fmt::Display) {
        self.line(at, format!("BROKEN: {what}"));
        self.broken.push(what.to_string());
    }
}
