//! The node at work: one worker for each volume, and the handle by which sessions, peers and the control
//! link reach them.
//!
//! What it does not do: it opens no connection and knows no stream; see `session`, `peer` and `control`.
//!
//! Start at [`Node::open`] and [`NodeHandle`].

mod byte_limit;
mod exchange;
mod follow;
mod handle;
mod job;
mod lead;
mod levels;
mod node;
mod offsets;
mod orders;
mod produce;
mod read;
mod rebuild;
mod reconcile;
mod refusal;
mod replica;
mod space;
mod work;
mod worker;

#[cfg(test)]
mod catch_up_tests;
#[cfg(test)]
mod kept_tests;
#[cfg(test)]
mod many_partitions_tests;
#[cfg(test)]
mod repeated_tests;
#[cfg(test)]
mod stop_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod volume_tests;
#[cfg(test)]
mod waiting_tests;

pub use exchange::{Following, POSITIONS_MAX};
pub use handle::NodeHandle;
pub use job::{
    ChangeInSync, ChangeVolume, ControlRequest, FetchFrom, FetchJob, Fetched, ListOffsetsJob, ProduceJob,
    ProduceResult,
};
pub use node::{Node, NodeError, NodeSettings, OpenReport, VolumeOpened, VolumeTuning};
pub use offsets::{GroupFloors, LedOffsets, OFFSETS_DELETED_AT_ONCE};
