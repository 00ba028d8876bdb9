//! What is done to volumes, processes and hosts. Each undoes itself when dropped.

pub mod ballast;
pub mod freeze;
pub mod injection;
pub mod inodes;
pub mod pressure;
pub mod rot;
pub mod short_writes;
pub mod size_limit;
pub mod wall_clock;
