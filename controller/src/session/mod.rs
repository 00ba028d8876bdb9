//! The doors of the controller: gRPC services over the Raft runtime, and the loop that decides on the leader.
//!
//! What it does not do: it changes no state by itself. Every change is proposed as an entry that names what it
//! expects; what sessions answer is what became of it when it was applied.
//!
//! ```text
//! storage nodes --Control--> facts (leader-local) --> decisions --propose--> RaftHandle
//! everybody <--Metadata.Watch-- view <---------------------------------------'
//! people, clients --Admin--> reads of the view, proposals
//! ```

mod admin;
mod alter;
mod answer;
mod control;
mod decisions;
mod duty;
mod elect;
mod facts;
mod heartbeat;
mod loans;
mod members;
mod metadata;
mod metrics;
mod moves;
mod moving;
mod offsets_topic;
mod probe;
mod producer_ids;
mod request;
mod shared;
mod status;
#[cfg(test)]
mod testing;
mod topics;

pub use admin::AdminService;
pub use control::ControlService;
pub use decisions::decide;
pub use metadata::MetadataService;
pub use shared::{SessionSettings, Shared};
