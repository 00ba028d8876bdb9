//! The promises that can be found broken.

use std::time::Duration;

use plimsoll_proto::ids::{Incarnation, LeaderEpoch, Offset, PartitionId, SpuId};

use crate::event::{Payload, Regained};

/// One broken promise.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// An acknowledged record is not where it was acknowledged.
    #[error("lost: {payload:?} was acknowledged at {offset} of {partition} and is not there")]
    Lost {
        /// Where.
        partition: PartitionId,
        /// At which offset it was acknowledged.
        offset: Offset,
        /// Which record.
        payload: Payload,
    },
    /// A record that was refused as not written, or never sent, appeared.
    #[error("phantom: {payload:?} appeared at {offset} of {partition} and was {why}")]
    Phantom {
        /// Where.
        partition: PartitionId,
        /// At which offset it was seen.
        offset: Offset,
        /// Which record.
        payload: Payload,
        /// `refused` or `never sent`.
        why: &'static str,
    },
    /// A record is there more than once, acknowledged or unknown.
    #[error("duplicate: {payload:?} is at {first} and at {second} of {partition}")]
    Duplicate {
        /// Where.
        partition: PartitionId,
        /// The lower offset.
        first: Offset,
        /// The higher offset.
        second: Offset,
        /// Which record.
        payload: Payload,
    },
    /// A producer's records are not in the order it sent them.
    #[error(
        "reordered: producer {producer} sent what is at {later} of {partition} before what is at {earlier}"
    )]
    Reordered {
        /// Where.
        partition: PartitionId,
        /// Whose records.
        producer: u64,
        /// Offset of the record that was sent second.
        earlier: Offset,
        /// Offset of the record that was sent first.
        later: Offset,
    },
    /// A record was sent after another was acknowledged, and still lies before it.
    #[error("real-time order: {offset} of {partition} was sent after {acked} had been acknowledged")]
    RealTime {
        /// Where.
        partition: PartitionId,
        /// Offset of the record that was sent later.
        offset: Offset,
        /// Offset that was acknowledged before that.
        acked: Offset,
    },
    /// A consumer was given a record that the leader does not hold in the end: it was not committed when it was
    /// read.
    #[error("consumer {consumer} read {payload:?} at {offset} of {partition} and it is not there")]
    ReadThenGone {
        /// Who.
        consumer: u64,
        /// Where.
        partition: PartitionId,
        /// At which offset.
        offset: Offset,
        /// Which record.
        payload: Payload,
    },
    /// A consumer or a replica skipped or repeated an offset.
    #[error("gap: {who} expected {expected} of {partition} and found {found}")]
    Gap {
        /// Consumer or replica.
        who: String,
        /// Where.
        partition: PartitionId,
        /// The offset that should have come.
        expected: Offset,
        /// The one that came.
        found: Offset,
    },
    /// Two observers saw different records at one offset.
    #[error("two payloads at {offset} of {partition}: {one} saw another record than {other}")]
    TwoPayloads {
        /// Where.
        partition: PartitionId,
        /// At which offset.
        offset: Offset,
        /// Who saw the one.
        one: String,
        /// Who saw the other.
        other: String,
    },
    /// Two replicas differ below both of their high watermarks.
    #[error("replicas differ: {one} and {other} hold different records at {offset} of {partition}")]
    ReplicasDiffer {
        /// Where.
        partition: PartitionId,
        /// At which offset.
        offset: Offset,
        /// One replica.
        one: SpuId,
        /// The other.
        other: SpuId,
    },
    /// A consumer was given a record beyond the true high watermark.
    #[error("consumer {consumer} read {offset} of {partition} beyond the high watermark {high_watermark}")]
    PastHighWatermark {
        /// Who.
        consumer: u64,
        /// Where.
        partition: PartitionId,
        /// What it read.
        offset: Offset,
        /// The true high watermark then.
        high_watermark: Offset,
    },
    /// Two SPUs, or two runs of one, led in the same epoch.
    #[error("two leaders of {partition} in epoch {epoch}: {one:?} and {other:?}")]
    TwoLeaders {
        /// Of which partition.
        partition: PartitionId,
        /// In which epoch.
        epoch: LeaderEpoch,
        /// The one.
        one: (SpuId, Option<Incarnation>),
        /// The other.
        other: (SpuId, Option<Incarnation>),
    },
    /// A replica deleted more than retention allowed.
    #[error("trimmed: {spu} starts at {log_start} of {partition}, retention allowed {allowed}")]
    TrimmedTooMuch {
        /// Whose copy.
        spu: SpuId,
        /// Of which partition.
        partition: PartitionId,
        /// Where it starts.
        log_start: Offset,
        /// The last offset that it may start at.
        allowed: Offset,
    },
    /// With all faults over a partition does not get back what it should, or too late.
    #[error("not live: {partition} has {what:?} again {}, allowed are {allowed:?} after the faults and holds", when(*.after))]
    NotLive {
        /// Which partition.
        partition: PartitionId,
        /// What it lacks.
        what: Regained,
        /// How long that took; `None` when it never came.
        after: Option<Duration>,
        /// How long it may take.
        allowed: Duration,
    },
    /// A refusal that does not say why.
    #[error("untyped: client {client} was refused by {partition} without a reason")]
    Untyped {
        /// Who was refused.
        client: u64,
        /// By which partition.
        partition: PartitionId,
    },
    /// A refusal that took too long.
    #[error(
        "late refusal: client {client} was refused by {partition} after {after:?}, allowed are {budget:?}"
    )]
    LateRefusal {
        /// Who was refused.
        client: u64,
        /// By which partition.
        partition: PartitionId,
        /// How long it took.
        after: Duration,
        /// How long it may take.
        budget: Duration,
    },
    /// A server wrote more to its log than what happened to it is worth.
    #[error("log budget: {who} wrote {lines} lines, allowed are {budget}")]
    LogBudget {
        /// Which server.
        who: String,
        /// What it wrote.
        lines: u64,
        /// What it may write.
        budget: u64,
    },
    /// The history itself is wrong: two records with the same bytes, or an answer about one never sent.
    #[error("the recorder used {payload:?} of {partition} wrongly: {why}")]
    Reused {
        /// Where.
        partition: PartitionId,
        /// Which record.
        payload: Payload,
        /// What is wrong.
        why: &'static str,
    },
}

fn when(after: Option<Duration>) -> String {
    after.map_or_else(|| "never".to_owned(), |after| format!("after {after:?}"))
}
