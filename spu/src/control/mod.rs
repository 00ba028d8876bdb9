//! The link to the controllers: registration, heartbeats, the metadata watch, and what the node asks for.
//!
//! What it does not do: it decides nothing. A node that reaches no controller keeps its disks, its level and
//! its reads; only what needs a committed entry waits.
//!
//! ```text
//!  task "registration"  Register, again after STALE_INCARNATION      -> incarnation
//!  lane "heartbeat"     Heartbeat every 500 ms, own thread and connections -> lease, cluster time
//!  task "metadata"      Watch at any controller                      -> image
//!  task "requests"      ChangeInSync once, ChangeVolume until applied
//! ```
//!
//! Start at [`ControlLink`].

mod controllers;
mod discover;
mod endpoints;
mod heartbeat;
mod link;
#[cfg(test)]
mod lost_event_tests;
mod metadata;
mod registration;
mod requests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use controllers::Controllers;
pub use discover::discover_cluster;
pub use endpoints::controller_authority;
pub use heartbeat::HeartbeatTimings;
pub use link::{ControlLink, ControlSettings, Fatal};

/// The protocol that this node speaks with controllers.
const PROTOCOL: u32 = 1;
