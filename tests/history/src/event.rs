//! What can be recorded.

use std::time::Duration;

use plimsoll_proto::ids::{Incarnation, LeaderEpoch, Offset, PartitionId, SpuId};

/// Identity of a record: a digest of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Payload(pub u128);

impl Payload {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    /// The digest of a record's bytes (FNV-1a, 128 bit; source: the FNV reference parameters). Key and value
    /// are separated, so that moving a byte from one to the other makes another record.
    pub fn of(key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let mut digest = Self::BASIS;
        for part in [key, value] {
            let (mark, bytes) = part.map_or((0, &[][..]), |bytes| (1, bytes));
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes();
            for byte in [mark].iter().chain(&length).chain(bytes) {
                digest = (digest ^ u128::from(*byte)).wrapping_mul(Self::PRIME);
            }
        }
        Self(digest)
    }
}

/// How much an acknowledgement promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promise {
    /// `acks=all`: never lost while one in-sync copy is left.
    Replicated,
    /// `acks=leader`: held while the leader's copy survives. Not checked for loss.
    Leader,
}

/// What a producer was told about a record in the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Written at this offset.
    Acked {
        /// Where.
        offset: Offset,
        /// What that means.
        promise: Promise,
    },
    /// `NOT_WRITTEN`: it never appears.
    Refused,
    /// `UNKNOWN`, or no answer at all: it may appear, once.
    Unknown,
}

/// What one replica holds at the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Whose copy.
    pub spu: SpuId,
    /// Of which partition.
    pub partition: PartitionId,
    /// Whether it leads the partition now.
    pub leader: bool,
    /// First offset that is left.
    pub log_start: Offset,
    /// End of what it knows to be committed, exclusive.
    pub high_watermark: Offset,
    /// Every record from `log_start` on, in the order of the log.
    pub records: Vec<(Offset, Payload)>,
}

/// What a partition has again some time after all faults are over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Regained {
    /// It acknowledged a record that was sent after the faults.
    Acknowledges,
    /// All of its copies are in its in-sync set.
    FullSet,
}

/// One thing that happened. The order of events is the order in which the recorder saw them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A producer handed over a record for the first time; repetitions are not recorded.
    Sent {
        /// Any number that tells producers apart.
        producer: u64,
        /// Where to.
        partition: PartitionId,
        /// Which record.
        payload: Payload,
    },
    /// The last word about a record. Without one the outcome is unknown.
    Answered {
        /// Where it was sent.
        partition: PartitionId,
        /// Which record.
        payload: Payload,
        /// What the producer was told.
        answer: Answer,
    },
    /// A consumer starts to read here, or goes on elsewhere.
    Seek {
        /// Any number that tells consumers apart.
        consumer: u64,
        /// In which partition.
        partition: PartitionId,
        /// The next offset it expects.
        to: Offset,
    },
    /// A consumer was given a record.
    Read {
        /// The consumer.
        consumer: u64,
        /// From which partition.
        partition: PartitionId,
        /// At which offset.
        offset: Offset,
        /// Which record.
        payload: Payload,
    },
    /// The true high watermark reached this offset. Only recorders that see all replicas know it; for
    /// partitions without one the rule about it is not checked.
    Committed {
        /// The partition.
        partition: PartitionId,
        /// End of the committed records, exclusive.
        high_watermark: Offset,
    },
    /// Retention is allowed to delete below this offset from now on; the greatest one counts.
    MayTrim {
        /// The partition.
        partition: PartitionId,
        /// First offset that has to stay.
        below: Offset,
    },
    /// An SPU acted as leader: it acknowledged, or metadata named it.
    Led {
        /// The partition.
        partition: PartitionId,
        /// The epoch it acted in.
        epoch: LeaderEpoch,
        /// Who.
        spu: SpuId,
        /// Which run of it, where the recorder knows: an acknowledgement does not say.
        incarnation: Option<Incarnation>,
    },
    /// The last fault that concerned the partition is over.
    Healed {
        /// The partition.
        partition: PartitionId,
        /// When, on the recorder's clock.
        at: Duration,
    },
    /// The design itself keeps the partition from something until then, as it does with a volume or a node that came back
    /// too often. The last one counts.
    HeldBack {
        /// The partition.
        partition: PartitionId,
        /// From what.
        from: Regained,
        /// When that ends, on the recorder's clock.
        until: Duration,
    },
    /// A partition has something again. The first one after [`Event::Healed`] counts.
    Regained {
        /// The partition.
        partition: PartitionId,
        /// What.
        what: Regained,
        /// When, on the recorder's clock.
        at: Duration,
    },
    /// A server refused what a client asked.
    Refused {
        /// Any number that tells clients apart.
        client: u64,
        /// Of which partition.
        partition: PartitionId,
        /// Whether the refusal says why in a way that a program understands.
        typed: bool,
        /// From the request to its refusal.
        after: Duration,
        /// What that may be where the recorder looks.
        budget: Duration,
    },
    /// A server wrote so many lines to its log.
    Logged {
        /// Which one, and when, for people.
        who: String,
        /// Lines.
        lines: u64,
        /// How many what happened to it is worth.
        budget: u64,
    },
    /// What a replica holds at the end.
    Held(Held),
}

/// Everything that happened, in order.
#[derive(Clone, Default, Debug)]
pub struct History {
    events: Vec<Event>,
}

impl History {
    /// Nothing happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next event.
    pub fn record(&mut self, event: Event) {
        self.events.push(event);
    }

    /// All events in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }
}

impl FromIterator<Event> for History {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Self {
        Self { events: events.into_iter().collect() }
    }
}
