//! Types of the protocol and of the host that methods of this crate take and give, each with an example.
//!
//! What it does not do: define any. Everything comes from `plimsoll-proto` or `plimsoll-host`; applications need
//! neither as a dependency.

pub(crate) mod cluster;
pub(crate) mod disks;
pub(crate) mod errors;
pub(crate) mod groups;
pub(crate) mod ids;
pub(crate) mod topics;
