//! What a window is made of, what it takes and what it asks for.

use std::time::Duration;

use plimsoll_proto::batch::{ProducerSequence, Sequence};
use plimsoll_proto::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, SpuId};

use crate::error::{LastCause, ProduceErrorKind};
use crate::producer::event::ProducerEvent;
use crate::producer::meaning::AckMeaning;

/// A batch by its place in what the partition was given.
pub(crate) type BatchNo = u64;

#[derive(Clone, Debug)]
pub(crate) struct WindowSettings {
    pub(crate) partition: u32,
    pub(crate) topic: String,
    pub(crate) in_flight_max: usize,
    pub(crate) idempotent: bool,
    /// Fail batches that a full disk refuses instead of waiting.
    pub(crate) fail_when_full: bool,
    /// A request without an answer for so long means that the connection is dead.
    pub(crate) answer_max: Duration,
    /// The delivery deadline, for messages.
    pub(crate) deadline: Duration,
}

/// Who leads the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) spu: SpuId,
    pub(crate) address: String,
    pub(crate) leader_epoch: LeaderEpoch,
    /// Whether the metadata say that its volume takes writes.
    pub(crate) writable: bool,
    /// Members of the in-sync set whose volumes take writes, as the metadata say.
    pub(crate) copies: usize,
    /// Whether the committed set has as many members as the topic asks for.
    pub(crate) enough: bool,
}

/// What the metadata say of the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    NoLeader,
    Leader(Target),
    /// The topic was deleted.
    Gone,
}

#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Ask for a producer id; answer with [`Window::identity`].
    NewIdentity,
    /// Send the batch on this connection; a number not seen before means a new connection to `target`, and
    /// that the one before is to be dropped.
    Send { batch: BatchNo, request: u64, connection: u64, target: Target, stamp: Option<ProducerSequence> },
    /// The batch is through.
    Acked { batch: BatchNo, ack: Ack },
    /// The batch failed for good.
    Failed { batch: BatchNo, kind: ProduceErrorKind },
    /// Ask whether it is this producer's turn to try a partition that has no room; answer with [`Window::turn`].
    AskTurn,
    /// The partition takes batches again, which others wait for.
    Opened,
    /// Tell who listens.
    Tell(ProducerEvent),
}

/// An acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    pub(crate) spu: SpuId,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) base_offset: Option<Offset>,
    pub(crate) duplicate: bool,
    pub(crate) meaning: AckMeaning,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) batch: BatchNo,
    pub(super) records: u32,
    pub(super) deadline: Duration,
    pub(super) sequence: Option<Sequence>,
    /// An earlier attempt ended without an answer that says otherwise.
    pub(super) maybe_written: bool,
    pub(super) sent_before: bool,
    pub(super) state: EntryState,
    pub(super) last: Option<LastCause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryState {
    Ready,
    Sent { request: u64, at: Duration },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Disk,
    Leader,
}

#[derive(Debug)]
pub(super) enum Phase {
    Sending,
    /// Nothing is sent until everything under way is answered.
    Draining {
        until: Duration,
        cause: Cause,
    },
    /// Nothing is under way.
    Waiting {
        until: Duration,
        cause: Cause,
    },
    /// Nothing is under way, and nothing is sent before the answer to [`Command::AskTurn`].
    Asking,
    /// Nothing can be sent any more.
    Stopped(ProduceErrorKind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    NotNeeded,
    Absent,
    Asked,
    Known { id: ProducerId, epoch: ProducerEpoch },
}
