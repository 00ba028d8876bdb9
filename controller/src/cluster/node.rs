//! Storage nodes and their volumes as the cluster knows them: two state machines.
//!
//! ```text
//! SPU:     registration -> joining -> online <-> suspect -> offline -> (registration)
//!                                        \-> draining ------^       (back to online when a drain is called off)
//! duty:    serving <-> cordoned | draining | offline       what an operator wants; stays across runs
//! volume:  writable <-> write_offline{reason} | stalled{reason} | failed{cause}
//! ```

use std::collections::BTreeMap;
use std::fmt;

use plimsoll_proto::ids::{Incarnation, SpuId, VolumeId};
use plimsoll_proto::v1;

/// Whether a storage node takes part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SpuState {
    /// Registered; not yet a target for replicas.
    Joining,
    /// Takes part in everything.
    Online,
    /// Silent; being asked whether it lives.
    Suspect,
    /// Stopping or being emptied: leads only what nobody else can.
    Draining,
    /// Gone; comes back only by registering.
    Offline,
}

impl SpuState {
    /// Whether the node may be given leaderships at all.
    pub fn is_live(self) -> bool {
        self != Self::Offline
    }

    /// The state as it travels.
    pub fn to_wire(self) -> v1::SpuState {
        match self {
            Self::Joining => v1::SpuState::Joining,
            Self::Online => v1::SpuState::Online,
            Self::Suspect => v1::SpuState::Suspect,
            Self::Draining => v1::SpuState::Draining,
            Self::Offline => v1::SpuState::Offline,
        }
    }

    /// Reads the state as it travels; `None` when the sender did not say.
    pub fn from_wire(state: v1::SpuState) -> Option<Self> {
        match state {
            v1::SpuState::Unspecified => None,
            v1::SpuState::Joining => Some(Self::Joining),
            v1::SpuState::Online => Some(Self::Online),
            v1::SpuState::Suspect => Some(Self::Suspect),
            v1::SpuState::Draining => Some(Self::Draining),
            v1::SpuState::Offline => Some(Self::Offline),
        }
    }
}

impl fmt::Display for SpuState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joining => "joining",
            Self::Online => "online",
            Self::Suspect => "suspect",
            Self::Draining => "draining",
            Self::Offline => "offline",
        })
    }
}

/// What an operator wants of a node; it stays across its runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Duty {
    /// Takes part in everything.
    #[default]
    Serving,
    /// Keeps what it has; gets no new replicas, and leaderships only where nobody else can lead.
    Cordoned,
    /// Gives its leaderships, then its replicas, to others.
    Draining,
    /// Stays offline: may not register.
    Offline,
}

impl Duty {
    /// The duty as it travels.
    pub fn to_wire(self) -> v1::SpuDuty {
        match self {
            Self::Serving => v1::SpuDuty::Serving,
            Self::Cordoned => v1::SpuDuty::Cordoned,
            Self::Draining => v1::SpuDuty::Draining,
            Self::Offline => v1::SpuDuty::Offline,
        }
    }

    /// Reads the duty as it travels; `None` for a value this build does not know.
    pub fn from_wire(duty: i32) -> Option<Self> {
        Some(match v1::SpuDuty::try_from(duty).ok()? {
            v1::SpuDuty::Serving => Self::Serving,
            v1::SpuDuty::Cordoned => Self::Cordoned,
            v1::SpuDuty::Draining => Self::Draining,
            v1::SpuDuty::Offline => Self::Offline,
        })
    }
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serving => "serving",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Offline => "offline",
        })
    }
}

/// Whether a volume takes writes, and why not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum VolumeState {
    /// Takes writes.
    Writable,
    /// Full: refuses produce, serves everything else.
    WriteOffline {
        /// What ran out.
        reason: String,
    },
    /// Its data path gives no sign of life.
    Stalled {
        /// How that was told.
        reason: String,
    },
    /// Its device failed. Failed is not full.
    Failed {
        /// What failed.
        cause: String,
    },
}

impl VolumeState {
    /// Whether the volume takes writes.
    pub fn is_writable(&self) -> bool {
        *self == Self::Writable
    }

    /// The kind of state as it travels.
    pub fn to_wire(&self) -> v1::VolumeState {
        match self {
            Self::Writable => v1::VolumeState::Writable,
            Self::WriteOffline { .. } => v1::VolumeState::WriteOffline,
            Self::Stalled { .. } => v1::VolumeState::Stalled,
            Self::Failed { .. } => v1::VolumeState::Failed,
        }
    }

    /// Why the volume is not writable; empty when it is.
    pub fn reason(&self) -> &str {
        match self {
            Self::Writable => "",
            Self::WriteOffline { reason } | Self::Stalled { reason } => reason,
            Self::Failed { cause } => cause,
        }
    }

    /// Reads the state as it travels; `None` when the sender did not say.
    pub fn from_wire(state: v1::VolumeState, reason: &str) -> Option<Self> {
        let reason = reason.to_owned();
        match state {
            v1::VolumeState::Unspecified => None,
            v1::VolumeState::Writable => Some(Self::Writable),
            v1::VolumeState::WriteOffline => Some(Self::WriteOffline { reason }),
            v1::VolumeState::Stalled => Some(Self::Stalled { reason }),
            v1::VolumeState::Failed => Some(Self::Failed { cause: reason }),
        }
    }

    /// The kind of state in a word, for events.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Writable => "writable",
            Self::WriteOffline { .. } => "write_offline",
            Self::Stalled { .. } => "stalled",
            Self::Failed { .. } => "failed",
        }
    }
}

/// One data directory of a storage node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    /// Where it is mounted on that node, for people.
    pub path: String,
    /// Whether it takes writes.
    pub state: VolumeState,
    /// Index of the entry that brought it into this state.
    pub since_index: u64,
    /// When that entry was made, milliseconds since 1970.
    pub since_ms: u64,
    /// By how much an operator has lowered its mark of read-only, as last noted.
    pub borrowed_bytes: u64,
}

/// One storage node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spu {
    /// The run that is registered.
    pub incarnation: Incarnation,
    /// What tells a repeated registration from a new run.
    pub start_nonce: Vec<u8>,
    /// Whether it takes part.
    pub state: SpuState,
    /// Where clients and peers reach it.
    pub address: String,
    /// Failure domain; empty when the operator named none.
    pub rack: String,
    /// Its data directories.
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// What its operator wants.
    pub duty: Duty,
    /// Index of the entry that brought it into its state.
    pub since_index: u64,
    /// When that entry was made, milliseconds since 1970.
    pub since_ms: u64,
}

impl Spu {
    /// The node as metadata shows it.
    pub fn to_info(&self, id: SpuId) -> v1::SpuInfo {
        v1::SpuInfo {
            spu_id: id.0,
            incarnation: self.incarnation.0,
            state: self.state.to_wire().into(),
            address: self.address.clone(),
            rack: self.rack.clone(),
            volumes: self
                .volumes
                .iter()
                .map(|(id, volume)| v1::VolumeInfo {
                    volume_id: id.to_bytes(),
                    path: volume.path.clone(),
                    state: volume.state.to_wire().into(),
                    reason: volume.state.reason().to_owned(),
                    since_index: volume.since_index,
                    borrowed_bytes: volume.borrowed_bytes,
                    since_ms: volume.since_ms,
                })
                .collect(),
            duty: self.duty.to_wire().into(),
            since_index: self.since_index,
            since_ms: self.since_ms,
        }
    }
}
