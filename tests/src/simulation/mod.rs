//! A whole cluster in one thread: simulated time, network, disks and randomness, all from one seed.
//!
//! Three controllers and three storage nodes run their real code over the seams of `host` and `storage::fs`.
//!
//! ```text
//! safety    faults come from the seed; three producers and a consumer are at work; in one run of four operators too, who move
//!           partitions and drain nodes, and failed devices that work again without a restart; in one of eight replicas leave
//!           volumes short of room; in one of eight a consumer group is at work
//! liveness  every fault is undone: within a bound all copies are in sync and every partition acknowledges
//! drain     producers get the last of their answers
//! done      every copy is read back, the consumer and the group have caught up, the history checker judges
//! ```

mod cluster;
mod digest;
mod faults;
mod groups;
mod injector;
mod log_lines;
mod machine_clock;
pub mod network;
mod observer;
mod operators;
mod panics;
mod producers;
mod reader;
mod servers;
mod told;
mod truth;

pub use cluster::{Report, run, run_aloud, run_with_full_follower, run_with_panic};
