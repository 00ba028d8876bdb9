//! Replication between storage nodes: the follower's fetchers and the leader's service.
//!
//! What it does not do: it holds no log and decides nothing; replicas do, behind [`crate::runtime::NodeHandle`].
//!
//! ```text
//!   follower's SPU                                   leader's SPU
//!   worker <- positions, batches -> Fetcher  --Replicate stream-->  PeerService -> workers
//! ```
//!
//! One fetcher for each pair of leader and own volume, so that a stuck volume holds up nobody else's copies.

mod fetcher;
mod fetchers;
mod service;
#[cfg(test)]
mod tests;

pub use service::PeerService;
