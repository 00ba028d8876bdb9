//! Consensus: the Raft lane, its journal, and the metadata store behind the applied state.
//!
//! ```text
//!   sessions ── RaftHandle ──▶ lane (own thread) ── Journal ──▶ two preallocated files
//!      ▲                        │   ▲                             (votes, entries, snapshots)
//!      └──── watch(View) ◀──────┤   └── PeerService ◀── peers
//!                               ├── one sender task per peer
//!                               └── metadata lane ── MetadataStore (RocksDB in a child process; only when there is room)
//! ```
//!
//! What it does not do: it decides nothing about the cluster. Entries are applied by
//! [`crate::cluster::ClusterState`], sessions propose them.
//!
//! A full disk: opening, votes and appends write only into bytes that were allocated and written when the data
//! directory was made. When those are used up the journal compacts by snapshot; when even that does not help,
//! this controller freezes (it neither votes nor leads), serves reads of what it has applied and tries again by
//! itself. RocksDB is never on a path that must work, and in a process of its own (it aborts the process on a full disk).

#[cfg(test)]
mod cluster_test;
mod disk_room;
mod election;
#[cfg(test)]
mod full_disk_test;
mod handle;
mod identity;
pub mod journal;
mod lane;
mod log_store;
mod members;
pub mod metadata;
mod node;
mod parts;
mod peers;
mod pending;
mod propose;
mod publish;
mod service;
mod settings;
mod start;
#[cfg(test)]
mod start_test;
#[cfg(test)]
pub(crate) mod testing;
mod vantage;
mod wire;

pub use disk_room::DiskRoom;
pub use handle::{JournalState, PeerStatus, ProposeError, Proposed, RaftHandle, View};
#[cfg(any(test, feature = "memory-metadata"))]
pub use identity::MemoryIdentity;
pub use identity::{DataDir, DataDirError, Identity};
pub use service::PeerService;
pub use settings::RaftSettings;
pub use start::{StartError, start};
pub(crate) use vantage::Run;
pub use vantage::Vantage;
