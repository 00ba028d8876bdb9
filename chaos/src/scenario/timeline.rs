//! What a run looked like over time, for the report.

use serde::{Deserialize, Serialize};

/// Everything with a time. Times are milliseconds since the run began.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Timeline {
    /// Names of the volumes, in the order of the samples.
    pub volumes: Vec<Volume>,
    /// In order of time.
    pub samples: Vec<Sample>,
    /// What the scenario said.
    pub story: Vec<Moment>,
    /// What the cluster committed.
    pub transitions: Vec<Moment>,
    /// What the storage nodes logged.
    pub log_lines: Vec<Moment>,
}

/// A volume and its marks, in percent of its size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Such as `disk-2`.
    pub name: String,
    /// Free space at which levels are entered: Reclaim, Throttle, ReadOnly; and at which ReadOnly is left.
    pub marks_percent: [f64; 4],
}

/// The state at one time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub ms: u64,
    /// Free space of each volume, in percent.
    pub free_percent: Vec<f64>,
    /// Level of each volume, as on the wire; 0 when it is not known.
    pub level: Vec<i32>,
    /// Records acknowledged so far.
    pub acked: u64,
    /// Batches refused so far.
    pub refused: u64,
    /// Records read so far.
    pub read: u64,
    /// Partitions that each storage node leads.
    pub leaders: Vec<u32>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// When.
    pub ms: u64,
    /// Whose it is, such as `spu-2`; empty for the scenario.
    pub who: String,
    /// What.
    pub what: String,
}

impl Timeline {
    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }
}
