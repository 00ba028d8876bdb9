//! Which storage nodes live, and whose volumes are stuck.
//!
//! Pure: events with the time they happened go in, commands come out. The judge never acts by itself; what
//! it asks for is proposed as an entry that names the incarnation and state it was judged by, so that a late
//! verdict can't touch a new run.
//!
//! ```text
//! heartbeat ............ silence 6 s: suspect, probed directly and through two others every 500 ms
//!                        (other nodes; controllers where there are not two)
//!                        silence 9 s: offline   (39 s while many are silent, or while a probe is answered)
//! stream closed ........ probed at once; refused from two vantage points: offline
//! a run after one that died  online after 3 s of heartbeats; the third within 10 min after 10 s, then 20 s, ... 300 s
//! data path of a volume  stuck 5 s: stalled;  of all volumes 20 s: offline (disk_stall)
//! ```

mod flaps;
mod judge;
mod settings;
#[cfg(test)]
mod tests;
mod track;

use std::time::Duration;

use plimsoll_proto::ids::{Incarnation, SpuId, VolumeId};

use crate::cluster::{SpuState, VolumeState};

pub use judge::Judge;
pub use settings::LivenessSettings;

/// Something the judge takes into account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A heartbeat arrived, stamped before any queue.
    Heartbeat {
        /// The node.
        spu: SpuId,
        /// Its run.
        incarnation: Incarnation,
        /// For each volume, how long ago its worker last finished a turn.
        data_paths: Vec<(VolumeId, Duration)>,
    },
    /// The heartbeat connection ended. A reason to ask, never a verdict.
    StreamClosed {
        /// The node.
        spu: SpuId,
        /// Its run.
        incarnation: Incarnation,
    },
    /// A probe round ended.
    Probed {
        /// The node.
        spu: SpuId,
        /// Its run.
        incarnation: Incarnation,
        /// When the round began.
        started: Duration,
        /// What this controller saw.
        direct: Sight,
        /// What others saw that could be asked: nodes, or controllers.
        through: Vec<Sight>,
    },
    /// Time passed.
    Tick,
}

/// What a probe saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sight {
    /// The node answered.
    Answered,
    /// Nothing listens on its port.
    Refused,
    /// No answer.
    Silent,
}

/// What the judge asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Ask whether the node lives: directly on a new connection, and through two others.
    Probe {
        /// The node.
        spu: SpuId,
        /// Its run.
        incarnation: Incarnation,
    },
    /// Tell that a node stays at joining for longer, once for each run: it came back too often.
    Held {
        /// The node.
        spu: SpuId,
        /// How often it came back within the window.
        returns: u32,
        /// How long it must be heard.
        hold: Duration,
    },
    /// Propose another state of a node.
    SetSpuState {
        /// The node.
        spu: SpuId,
        /// Its run.
        incarnation: Incarnation,
        /// The state it was judged in.
        expected: SpuState,
        /// The state it is to have.
        wanted: SpuState,
        /// Why, for events.
        reason: &'static str,
    },
    /// Propose another state of a volume.
    SetVolumeState {
        /// The node.
        spu: SpuId,
        /// Its run.
        incarnation: Incarnation,
        /// The volume.
        volume: VolumeId,
        /// The state it was judged in.
        expected: VolumeState,
        /// The state it is to have.
        wanted: VolumeState,
    },
}
