//! Breaking a cluster on purpose: real processes on small real filesystems, faults, workloads, verdicts.
//!
//! It links no server: it starts the `plimsoll` binary and talks to it through the public SDK, the generated
//! stubs and the command line.
//!
//! Start at [`demo`], the story of three disks that fill, and [`scenario`], the ways to break a cluster. [`rig`] makes
//! the disks and the network, [`process`] the servers; [`filler`] takes the space, [`nemesis`] does the rest.

pub mod cluster;
pub mod copies;
pub mod demo;
pub mod filler;
pub mod flights;
pub mod log_tail;
pub mod members;
pub mod nemesis;
pub mod plain;
pub mod process;
pub mod rig;
pub mod scenario;
pub mod screen;
pub mod workload;
