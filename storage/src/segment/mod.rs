//! Segments: the files that a log is made of.
//!
//! ```text
//!   partitions/{topic_id}-{index}/
//!     checkpoint                   two slots, see log::slots
//!     {base_offset:020}.log        record batches and nothing else
//!     {base_offset:020}.index      sparse: offset -> position
//!     {base_offset:020}.timeindex  sparse: greatest timestamp so far -> offset
//! ```
//!
//! The indexes are hints: what they say is checked against the batch headers in the log, and an entry that is
//! missing costs time, never data. So no append ever fails because an index could not grow.

mod active;
mod handles;
mod index;
mod name;
mod sealed;
mod walk;

pub(crate) use active::{ActiveSegment, Room, load_index, open_index};
pub(crate) use handles::{ReadHandles, SegmentReader};
pub(crate) use index::{IndexContents, IndexFile, IndexKind, Seal, SparseIndex};
pub(crate) use name::{FileKind, parse_name, path_of};
pub(crate) use sealed::SealedSegment;
pub(crate) use walk::{Expect, Found, WalkEnd, verify_from, walk_headers};

/// Granularity of allocation; block size of the filesystems that matter.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// Rounds up to whole blocks.
pub(crate) fn whole_blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}
