//! Consuming one topic.

mod beyond;
mod builder;
mod chunk;
mod partitions;
mod reader;
mod settings;
mod source;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use plimsoll_proto::ids::Offset;
use tokio::sync::broadcast;

use self::chunk::Chunk;
use self::partitions::{Arrived, Partitions, offset_of};
use crate::error::ConsumeError;
use crate::record::ConsumedRecord;

pub use self::builder::ConsumerBuilder;
pub use self::settings::{ConsumerEvent, OnTrimmed, StartAt};

/// Reads committed records of a topic, in order within each partition, across changes of leader, restarts
/// and trimming.
///
/// It is a [`Stream`]; [`Consumer::next`] is the same without the trait. Both are cancel safe: no record is
/// lost when the future is dropped. After an error, or with
/// [`until_end`](ConsumerBuilder::until_end) at the end, the stream ends.
///
/// # Isolation
/// There is one level, *read committed*: nothing beyond the high watermark is ever delivered, which is the end of
/// what every in-sync copy has. A record that was read can't disappear again as long as one of them stays intact.
///
/// ```
/// use plimsoll_client::{Client, StartAt};
///
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/cluster.rs"));
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #     with_cluster(1, |cluster| example(cluster.client))
/// # }
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// # let producer = client.producer("flights").build().await?;
/// # producer.send(plimsoll_client::Record::new("EWR-IAH")).await?.await?;
/// # let mut read = 0;
/// let mut consumer = client.consumer("flights").start(StartAt::Earliest).until_end().build().await?;
/// while let Some(record) = consumer.next().await {
///     let record = record?;
///     println!("{}/{}: {:?}", record.partition, record.offset, record.value);
/// #   read += 1;
/// }
/// # assert_eq!(read, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer {
    partitions: Partitions,
    current: Option<(u32, Chunk)>,
    /// Of the topic when the consumer was built.
    count: u32,
    failed: bool,
}

impl Consumer {
    pub(crate) fn new(partitions: Partitions, count: u32) -> Self {
        Self { partitions, current: None, count, failed: false }
    }

    /// The next record of any partition; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, ConsumeError>> {
        std::future::poll_fn(|context| self.poll_record(context)).await
    }

    /// What happens, trimming above all. The first receiver has everything since the consumer was built, later
    /// ones what comes from now on. A listener that lags by more than 1024 events misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<ConsumerEvent> {
        self.partitions.events()
    }

    /// Records that were trimmed before they were read, of all partitions, since the consumer was built.
    pub fn trimmed_records(&self) -> u64 {
        self.partitions.trimmed_records()
    }

    /// The partitions that are read, paused ones included, in order.
    pub fn assigned(&self) -> Vec<u32> {
        self.partitions.assigned()
    }

    /// Offset of the record that comes next of a partition: what to remember in order to go on there. `None` when
    /// the partition is not read, or when the place to start at is not known yet.
    pub fn position(&self, partition: u32) -> Option<Offset> {
        self.partitions.position(partition)
    }

    /// Reads a partition from `start`; one that is read already goes on there.
    ///
    /// # Errors
    /// `UnknownPartition`; nothing was changed.
    pub fn assign(&mut self, partition: u32, start: StartAt) -> Result<(), ConsumeError> {
        let count = self.count.max(self.partitions.source().partitions());
        if partition >= count {
            return Err(ConsumeError::UnknownPartition { partition, partitions: count });
        }
        self.forget(partition);
        self.partitions.start(partition, start, None);
        Ok(())
    }

    /// Stops reading a partition; the position that was reached, when it is known.
    pub fn revoke(&mut self, partition: u32) -> Option<Offset> {
        self.forget(partition);
        self.partitions.stop(partition).and_then(offset_of)
    }

    /// Goes on elsewhere in a partition. No record of the old place comes after this call. A paused partition stays
    /// paused.
    ///
    /// # Errors
    /// `UnknownPartition` when it is not read: see [`Consumer::assign`].
    pub fn seek(&mut self, partition: u32, to: StartAt) -> Result<(), ConsumeError> {
        self.forget(partition);
        if self.partitions.seek(partition, to) {
            Ok(())
        } else {
            Err(ConsumeError::UnknownPartition { partition, partitions: self.count })
        }
    }

    /// Delivers nothing more of a partition and fetches nothing of it, until [`Consumer::resume`]. What was read
    /// ahead is dropped and read again then. Without effect when the partition is not read.
    pub fn pause(&mut self, partition: u32) {
        self.forget(partition);
        self.partitions.pause(partition);
    }

    /// Ends a pause; the next record is the one behind the last that was delivered.
    pub fn resume(&mut self, partition: u32) {
        self.partitions.resume(partition);
    }

    /// Drops what is at hand of a partition and was not delivered.
    fn forget(&mut self, partition: u32) {
        self.current.take_if(|(of, _)| *of == partition);
    }

    fn poll_record(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<ConsumedRecord, ConsumeError>>> {
        loop {
            if let Some((partition, chunk)) = &mut self.current {
                if let Some(record) = chunk.next() {
                    self.partitions.delivered(&record);
                    return Poll::Ready(Some(Ok(record)));
                }
                let (partition, next) = (*partition, chunk.next);
                self.partitions.passed(partition, next);
                self.current = None;
            }
            if self.failed || self.partitions.all_ended() {
                return Poll::Ready(None);
            }
            // The channel never closes: the consumer holds a sender for readers to come.
            let Some(item) = ready!(self.partitions.items.poll_recv(context)) else {
                return Poll::Ready(None);
            };
            match self.partitions.arrived(item) {
                Arrived::Chunk(partition, chunk) => self.current = Some((partition, chunk)),
                Arrived::Nothing => {}
                Arrived::Failed(error) => {
                    self.failed = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumedRecord, ConsumeError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_record(context)
    }
}
