//! The storage node: replicas, sessions, peers and the link to the controllers.
//!
//! What it does not do: it decides nothing about the cluster; it knows its own disks and what the metadata
//! image says.
//!
//! Start at [`Spu::start`], which puts the rooms together, and at [`runtime::NodeHandle`], by which they reach
//! the replicas.
//!
//! ```text
//! replica (pure) <- runtime <- { session | peer | control | group } <- server
//! ```

pub mod control;
pub mod group;
pub mod offline;
pub mod peer;
pub mod replica;
pub mod runtime;
pub mod server;
pub mod session;

pub use server::{Spu, SpuSettings, StartError};
