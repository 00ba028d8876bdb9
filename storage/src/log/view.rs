//! What others see of a log.

use plimsoll_proto::ids::{LeaderEpoch, Offset};

/// The offsets of a log.
///
/// ```text
///   log_start        high_watermark      log_end
///      v                   v                v
///  ----[===================|================)------
///      |<-- consumers ---->|
///      |<------- followers and epochs ----->|
///                  ^
///             durable_end, anywhere up to log_end
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offsets {
    log_start: Offset,
    high_watermark: Offset,
    log_end: Offset,
    durable_end: Offset,
}

impl Offsets {
    /// # Panics
    /// Unless `log_start <= high_watermark <= log_end` and `durable_end <= log_end`.
    pub fn new(log_start: Offset, high_watermark: Offset, log_end: Offset, durable_end: Offset) -> Self {
        assert!(
            log_start <= high_watermark,
            "log start {log_start} is beyond the high watermark {high_watermark}"
        );
        assert!(high_watermark <= log_end, "high watermark {high_watermark} is beyond the log end {log_end}");
        assert!(durable_end <= log_end, "durable end {durable_end} is beyond the log end {log_end}");
        Self { log_start, high_watermark, log_end, durable_end }
    }

    /// First offset that is there.
    pub fn log_start(self) -> Offset {
        self.log_start
    }

    /// End of committed records, exclusive.
    pub fn high_watermark(self) -> Offset {
        self.high_watermark
    }

    /// Offset of the next record.
    pub fn log_end(self) -> Offset {
        self.log_end
    }

    /// End of what a successful sync covers, exclusive.
    pub fn durable_end(self) -> Offset {
        self.durable_end
    }
}

/// A copy of the state of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogView {
    /// First offset that is there.
    pub log_start: Offset,
    /// End of committed records, exclusive.
    pub high_watermark: Offset,
    /// Offset of the next record.
    pub log_end: Offset,
    /// End of what a successful sync covers, exclusive.
    pub durable_end: Offset,
    /// Greatest leader epoch in the log or noted.
    pub last_epoch: Option<LeaderEpoch>,
    /// Bytes of batches.
    pub bytes: u64,
    /// Bytes allocated ahead of the batches.
    pub preallocated_bytes: u64,
    /// Segments, the active one included.
    pub segments: usize,
    /// A sync failed: nothing at or above `durable_end` counts any more, and nothing is appended until the
    /// log is cut.
    pub sync_failed: bool,
    /// Some offsets below `log_end` are damaged, or were lost from the durable part; see the open report.
    pub damaged: bool,
}

/// The answer to an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Offset of the first record; of the original when the batch is a duplicate.
    pub base_offset: Offset,
    /// Offset behind the last record of this batch.
    pub end_offset: Offset,
    /// End of the log.
    pub log_end: Offset,
    /// Whether the batch was in the log before; nothing was appended then.
    pub duplicate: bool,
}
