//! One volume: segments, indexes, recovery and space.
//!
//! What it does not do: no network, no cluster, no async, no clock (time is an argument).

pub mod fs;
#[cfg(any(test, feature = "memory-disk"))]
pub mod fuzz;
pub mod inspect;
pub mod log;
pub mod offsets;
mod recovery;
mod segment;
pub mod space;
pub mod volume;
