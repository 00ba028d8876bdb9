//! One replica as a pure state machine: events and the time in, decisions out.
//!
//! What it does not do: it holds no log, opens nothing, sends nothing and reads no clock. Time is the
//! `Duration` since some start that its owner chose.
//!
//! [`Leader`] counts followers, moves the high watermark and proposes in-sync sets; [`Follower`] says what to
//! do with a leader's answer; [`Position`] tells whether a follower's log continues the leader's;
//! [`Share`] divides an answer among partitions; [`WaitingAcks`] keeps who waits for the high watermark; [`Lease`] stops a leader that is cut off.

mod follower;
mod leader;
mod lease;
mod position;
mod share;
mod term;
mod waiting;

#[cfg(test)]
mod divergence_tests;
#[cfg(test)]
mod leader_tests;
#[cfg(test)]
mod model_tests;

pub use follower::{Asked, Follower, FollowerStep, LeaderAnswer, OwnLog, StopReason};
pub use leader::{Leader, ProposalOutcome, ReportedPosition, StaleFetch};
pub use lease::Lease;
pub use position::{EpochEnd, Position};
pub use share::{Share, Wish};
pub use term::{LogEnds, Peer, ProduceRefusal, Proposal, Term};
pub use waiting::WaitingAcks;
