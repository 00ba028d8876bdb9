//! The storage node: replicas, sessions, peers and the link to the controllers.
//!
//! What it does not do: it decides nothing about the cluster; it knows its own disks and what the metadata
//! image says.
//!
//! Start at [`runtime::Node`] and [`runtime::NodeHandle`].

pub mod peer;
pub mod replica;
pub mod runtime;
pub mod session;
