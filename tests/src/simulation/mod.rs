//! A whole cluster in one thread: simulated time, network, disks and randomness, all from one seed.
//!
//! Three controllers and three storage nodes run their real code over the seams of `host` and `storage::fs`;
//! faults come from the seed; one client produces throughout, and at the end everything is read back from
//! every replica and judged by the history checker.

mod client;
mod cluster;
mod faults;
pub mod network;

pub use cluster::{Report, run};
