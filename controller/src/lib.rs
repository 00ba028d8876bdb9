//! The controller: the metadata of the cluster and every decision about it.
//!
//! What it does not do: it stores no records, serves no produce and no fetch, and keeps nothing in memory
//! that a change of leadership would miss. What storage nodes report beyond the applied state (levels, free
//! bytes, ages) is the leader's view of the moment and never part of the state.
//!
//! Start at [`Controller`] for the whole, at [`cluster`] for the replicated state and its rules; [`election`],
//! [`placement`] and [`liveness`] are the pure decisions; [`session`] serves gRPC over the Raft runtime.
//!
//! ```text
//! cluster, placement, election, liveness (pure)  <-  raft_runtime  <-  session
//! ```

pub mod cluster;
pub mod controller;
pub mod election;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod health;
pub mod liveness;
pub mod placement;
pub mod raft_runtime;
pub mod session;

pub use controller::{Controller, ControllerError, ControllerSettings, Parts};
