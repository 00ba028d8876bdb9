//! How one partition's log behaves, from its topic's configuration.

use std::time::Duration;

/// When appended bytes are made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FlushPolicy {
    /// When the operating system sees fit. Survives the process, not the machine. The default.
    #[default]
    Os,
    /// At least this often.
    Interval(Duration),
    /// Before an append is acknowledged; [`crate::volume::Volume::sync`] commits a group of appends at once.
    Ack,
}

/// What may be deleted when the volume is short of space and retention alone does not help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnPressure {
    /// Nothing beyond retention: produce is refused. The default.
    #[default]
    Refuse,
    /// The oldest data, down to `min_retention` and the floors of active groups.
    Trim,
    /// As `Trim`, also what active groups have not read.
    TrimPastActiveGroups,
}

/// Settings of one log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSettings {
    /// When appended bytes are made durable.
    pub flush: FlushPolicy,
    /// Size at which a segment is sealed. Default 128 MiB; never more than a 32nd of the volume, never less
    /// than 64 KiB.
    pub segment_bytes_max: u64,
    /// Age at which a segment is sealed. Default 7 days.
    pub segment_age_max: Duration,
    /// Greatest batch from a producer, in bytes. Default 1 MiB.
    pub batch_bytes_max: usize,
    /// Bytes beyond which the oldest segments are deleted. Default none.
    pub retention_bytes_max: Option<u64>,
    /// Age of a segment's last append beyond which it is deleted. Default 7 days.
    pub retention_age_max: Option<Duration>,
    /// Age that pressure never trims below. Default 1 hour.
    pub min_retention: Duration,
    /// What pressure may delete.
    pub on_pressure: OnPressure,
    /// The log is an offsets area of so many bytes; see [`crate::offsets`]. Default none: an ordinary log.
    pub offsets_area_bytes: Option<u64>,
}

impl LogSettings {
    /// Smallest effective segment size.
    pub const SEGMENT_BYTES_MIN: u64 = 64 * 1024;

    /// Segment size on a volume of this capacity: at most a 32nd of it.
    pub fn effective_segment_bytes(&self, capacity_bytes: u64) -> u64 {
        self.segment_bytes_max.min(capacity_bytes / 32).max(Self::SEGMENT_BYTES_MIN)
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            flush: FlushPolicy::Os,
            segment_bytes_max: 128 << 20,
            segment_age_max: 7 * DAY,
            batch_bytes_max: 1 << 20,
            retention_bytes_max: None,
            retention_age_max: Some(7 * DAY),
            min_retention: Duration::from_secs(60 * 60),
            on_pressure: OnPressure::Refuse,
            offsets_area_bytes: None,
        }
    }
}
