//! The leaf of Plimsoll: wire messages, domain newtypes and the record batch codec.
//!
//! What it does not do: no files, no clock, no sockets, no tasks.
//!
//! Start at [`ids`] for the words, [`batch`] for the unit of storage and replication, [`v1`] for the
//! generated messages and services.

pub mod batch;
pub mod disk;
pub mod group;
pub mod ids;
pub mod image;
pub mod invalid;
pub mod status;

/// Messages and services of package `plimsoll.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::large_enum_variant,
    reason = "generated; the .proto files are the documentation"
)]
pub mod v1 {
    tonic::include_proto!("plimsoll.v1");

    /// Descriptors for server reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("plimsoll_descriptor");
}
