//! The replicated state of the cluster and the rules by which committed entries change it.
//!
//! Pure: no clock, no IO, no randomness, ordered maps only. Two controllers that applied the same entries
//! hold equal states, byte for byte in their snapshots.
//!
//! ```text
//! v1::Entry --apply(index)--> ClusterState + Outcome + events + Touched
//!                                  |                            |
//!                            encode_snapshot              changed_records --> metadata store
//! ```

mod alerts;
mod apply;
mod controllers;
mod duty;
mod expectation;
mod forced;
mod in_sync;
mod node;
mod partition;
mod reassignment;
mod records;
mod registration;
mod state;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod topic;
mod topic_change;
mod volume_change;

pub use apply::{Applied, Effect, Outcome, RULES_VERSION, Touched};
pub use controllers::{CONTROLLERS_MAX, Controllers};
pub use expectation::Mismatch;
pub use node::{Duty, Spu, SpuState, Volume, VolumeState};
pub use partition::{CacheLoss, MoveCause, Partition, Reassignment, Replica, Topic};
pub use records::CorruptState;
pub use state::{ClusterState, EVENTS_MAX, LeaderlessCounts};
pub use topic::{ConfigError, PARTITIONS_MAX, REPLICAS_MAX, with_defaults};
pub use topic_change::altered;
