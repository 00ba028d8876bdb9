//! What the tests share: a harness for real processes, and a simulation of a whole cluster.
//!
//! Start at [`LocalCluster`] for real processes on scratch folders and small mounts, and at [`simulation`] for a
//! whole cluster in one thread.

mod local_cluster;
mod one_shot;
mod scratch;
pub mod simulation;
mod waiting;

pub use local_cluster::{Layout, LocalCluster};
pub use one_shot::{Ended, run_to_end};
pub use scratch::{Scratch, skip};
pub use waiting::eventually;
