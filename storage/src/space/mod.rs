//! Room on one volume: what is free, who may take it, what to delete and when to refuse.
//!
//! All policy is pure: samples, failures and the time (a [`std::time::Duration`] since any fixed start) go in,
//! levels and commands come out. Only [`reserve`] touches the disk. Nothing here asks for a clock, spawns,
//! sleeps or logs; the owner of a volume runs [`sensor::Sensor`] from its own thread.
//!
//! ```text
//!   statvfs, own accounts -> sensor: plausibility -> trend, marks -> level -> commands (reclaim, canary, ...)
//!   write that met ENOSPC ------------------------------------------^
//!   append -> admission (level, ledger, running reclaim) -> ledger: reserve, then commit or forfeit
//! ```

pub mod admission;
pub mod canary;
pub mod changes;
mod due;
pub mod ledger;
pub mod level;
pub mod marks;
pub mod operator;
pub mod plausibility;
pub mod reclaim;
pub mod reserve;
pub mod sensor;
pub mod slots;
pub mod spare;
pub mod trend;
mod view;

pub use admission::{Demand, RefuseReason, RunningReclaim, Verdict, admit};
pub use ledger::{LedgerSet, Refusal, Reservation, SpaceLedger};
pub use level::{Canary, Command, LevelCause, LevelView, Repeat, Transition};
pub use marks::{MarkSettings, Marks, MarksInvalid};
pub use operator::{Borrowed, Drill};
pub use reclaim::{ReclaimPlan, ReclaimReason, ReplicaFacts, SegmentFacts, Want};
pub use reserve::PhysicalReserve;
pub use sensor::{Observation, OwnUse, Sensor, SensorSettings};
pub use slots::TwoSlotFile;
pub use spare::SpareFiles;
