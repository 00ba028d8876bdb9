//! Records of one partition on their way into batches. Pure: time is an argument.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::batch::{BatchBuilder, BatchError, Compression, NewRecord};
use tokio::sync::OwnedSemaphorePermit;

use super::delivery::{Completion, Delivery};

/// A batch that takes no more records.
#[derive(Debug)]
pub(crate) struct SealedBatch {
    pub(crate) builder: BatchBuilder,
    pub(crate) completion: Arc<Completion>,
    /// When its first record was accepted.
    pub(crate) since: Duration,
    /// Buffer that its records take.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(crate) struct Accumulator {
    partition: u32,
    compression: Compression,
    batch_bytes: usize,
    open: Option<SealedBatch>,
    sealed: VecDeque<SealedBatch>,
    popped: u64,
    closed: bool,
}

/// What came of a push.
#[derive(Debug)]
pub(crate) struct Pushed {
    pub(crate) delivery: Delivery,
    /// The worker has something to look at: a first record, or a full batch.
    pub(crate) wake: bool,
    /// A batch was closed.
    pub(crate) sealed: bool,
}

/// Why a record was not taken.
#[derive(Debug)]
pub(crate) enum NotTaken {
    Closed,
    Encode(BatchError),
}

impl Accumulator {
    pub(crate) fn new(partition: u32, compression: Compression, batch_bytes: usize) -> Self {
        Self {
            partition,
            compression,
            batch_bytes,
            open: None,
            sealed: VecDeque::new(),
            popped: 0,
            closed: false,
        }
    }

    /// Takes one record at time `now`.
    pub(crate) fn push(
        &mut self,
        record: &NewRecord<'_>,
        permit: Option<OwnedSemaphorePermit>,
        now: Duration,
    ) -> Result<Pushed, NotTaken> {
        if self.closed {
            return Err(NotTaken::Closed);
        }
        let mut sealed = false;
        let full = |open: &SealedBatch| {
            !open.builder.is_empty() && open.builder.plain_bytes() + record.bytes_max() > self.batch_bytes
        };
        if let Some(open) = self.open.take_if(|open| full(open)) {
            self.sealed.push_back(open);
            sealed = true;
        }
        let mut wake = sealed;
        let open = self.open.get_or_insert_with(|| {
            wake = true;
            SealedBatch {
                builder: BatchBuilder::new(self.compression),
                completion: Completion::new(self.partition),
                since: now,
                permit: None,
            }
        });
        let index = open.builder.len();
        open.builder.push(record).map_err(NotTaken::Encode)?;
        match (&mut open.permit, permit) {
            (Some(held), Some(more)) => held.merge(more),
            (none, more) => *none = more,
        }
        let delivery = Delivery::new(Arc::clone(&open.completion), index);
        if open.builder.plain_bytes() >= self.batch_bytes {
            self.sealed.extend(self.open.take());
            (wake, sealed) = (true, true);
        }
        Ok(Pushed { delivery, wake, sealed })
    }

    /// The next batch to send: one that is full, else the open one if it has waited for `linger` or
    /// `flushing`.
    pub(crate) fn pop(&mut self, now: Duration, linger: Duration, flushing: bool) -> Option<SealedBatch> {
        let batch = self.sealed.pop_front().or_else(|| {
            self.open.take_if(|open| {
                !open.builder.is_empty() && (flushing || now >= open.since.saturating_add(linger))
            })
        });
        self.popped += u64::from(batch.is_some());
        batch
    }

    /// Batches so far, popped or not. They are popped in the order of their making.
    pub(crate) fn batches(&self) -> u64 {
        let sealed = u64::try_from(self.sealed.len()).unwrap_or(u64::MAX);
        let open = self.open.as_ref().is_some_and(|open| !open.builder.is_empty());
        self.popped + sealed + u64::from(open)
    }

    /// When the oldest record here was accepted.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        let open = self.open.as_ref().filter(|open| !open.builder.is_empty());
        self.sealed.front().or(open).map(|batch| batch.since)
    }

    /// When `pop` gives a batch next without another push.
    pub(crate) fn ready_at(&self, linger: Duration) -> Option<Duration> {
        if let Some(batch) = self.sealed.front() {
            return Some(batch.since);
        }
        self.open
            .as_ref()
            .filter(|open| !open.builder.is_empty())
            .map(|open| open.since.saturating_add(linger))
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.open.as_ref().is_none_or(|open| open.builder.is_empty())
    }

    /// Takes no more records from now on.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_millis(5);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn record(value: &[u8]) -> NewRecord<'_> {
        NewRecord { value: Some(value), ..Default::default() }
    }

    #[test]
    fn an_open_batch_waits_for_linger_or_flush() {
        let mut accumulator = Accumulator::new(0, Compression::None, 1000);
        assert!(accumulator.pop(ms(0), LINGER, true).is_none());
        let first = accumulator.push(&record(b"a"), None, ms(10)).expect("taken");
        let second = accumulator.push(&record(b"b"), None, ms(12)).expect("taken");
        assert!(first.wake && !second.wake);
        assert_eq!(accumulator.ready_at(LINGER), Some(ms(15)));
        assert!(accumulator.pop(ms(14), LINGER, false).is_none());
        let batch = accumulator.pop(ms(15), LINGER, false).expect("linger has passed");
        assert_eq!((batch.builder.len(), batch.since), (2, ms(10)));
        assert!(accumulator.is_empty());

        let _third = accumulator.push(&record(b"c"), None, ms(20)).expect("taken");
        assert!(accumulator.pop(ms(20), LINGER, true).is_some());
    }

    #[test]
    fn a_full_batch_does_not_wait() {
        let mut accumulator = Accumulator::new(0, Compression::None, 300);
        let value = [7u8; 150];
        let first = accumulator.push(&record(&value), None, ms(0)).expect("taken");
        let second = accumulator.push(&record(&value), None, ms(0)).expect("taken");
        assert!(!first.sealed && second.sealed && second.wake);
        assert_eq!(accumulator.pop(ms(0), LINGER, false).map(|b| b.builder.len()), Some(1));
        assert!(accumulator.pop(ms(0), LINGER, false).is_none());
    }

    #[test]
    fn a_closed_one_takes_no_more_and_gives_what_it_has() {
        let mut accumulator = Accumulator::new(0, Compression::None, 300);
        let _first = accumulator.push(&record(b"a"), None, ms(0)).expect("taken");
        accumulator.close();
        assert!(matches!(accumulator.push(&record(b"b"), None, ms(0)), Err(NotTaken::Closed)));
        assert!(accumulator.pop(ms(0), LINGER, true).is_some());
    }
}
