//! The store of consumer offsets: a replicated log that lives in one file of fixed size.
//!
//! ```text
//!   partitions/TOPIC_ID-INDEX/offsets-area    a ring, every block written when the file is made
//!   partitions/TOPIC_ID-INDEX/checkpoint      two slots: where the log starts in the ring, and its ends
//!
//!   |- free -|= snapshot =|= commit =|= commit =| ... |= commit =|------- free -------|
//!            ^ log start: always a snapshot, or the beginning of everything        ^ log end
//! ```
//!
//! To replication it is a log as any other: record batches with offsets and leader epochs, read, appended, cut and
//! trimmed by offset. It is small for another reason: a leader appends a *snapshot* (one batch with the newest value of
//! every key) when half of the ring is taken, and trims the log to it once it is committed. So the file depends on the
//! number of keys, not of commits, and no append ever asks the filesystem for a block, an inode or a name.
//!
//! What it does not do: it knows no group member, no session and no peer; `spu` does.

mod area;
mod checkpoint;
mod keep;
mod look;
mod open;
mod record;
mod ring;
mod table;
#[cfg(test)]
mod tests;

pub use area::OffsetsError;
pub(crate) use area::{AreaFailure, AreaLog};
pub(crate) use look::{AreaCheckpoint, AreaFiles};
pub(crate) use open::{AREA_NAME, OpenedArea, is_area, open_area};
pub use record::{Change, GroupValue, OffsetValue, SNAPSHOT_SHARE};
pub use table::{GroupOffsets, OffsetsTable};
