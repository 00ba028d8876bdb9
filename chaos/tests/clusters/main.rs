//! The tool on this machine: its disks, the demo, the quick scenarios, a drill, the page on operations, the units. One program,
//! so that it is linked once.

mod demo;
mod drill;
mod operations;
mod rig;
mod scenarios;
mod systemd;
