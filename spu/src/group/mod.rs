//! Consumer groups: who is a member, who reads which partition, and which offsets are committed.
//!
//! ```text
//!   assign (pure)  <-  group (pure: one group)  <-  coordinator (pure: the groups of one led partition)
//!                                                        ^ events and the time in, commands out
//!   service --queue--> lane (own thread: sessions are judged by nothing that can starve) --> runtime: offsets
//! ```
//!
//! What it does not do: it keeps no offsets (the log of `__offsets` does) and reads no records. Members hold no state
//! here that a new coordinator could not learn from their heartbeats; only that a group *has* members is written down,
//! so that a new coordinator waits for them before it gives their partitions to others.

mod assign;
mod coordinator;
mod expiry;
mod floors;
#[expect(clippy::module_inception, reason = "one group is the noun of this room")]
mod group;
mod lane;
mod request;
mod service;

pub use service::GroupService;
