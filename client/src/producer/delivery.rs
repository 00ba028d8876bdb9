//! The promise for one record: it resolves with the batch that the record travels in.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use plimsoll_proto::batch::{self, Limits};
use plimsoll_proto::ids::Offset;

use super::meaning::AckMeaning;
use super::window::Ack;
use crate::error::{ProduceError, ProduceErrorKind};
use crate::record::Record;

/// Where an acknowledged record is.
///
/// ```
/// use plimsoll_client::{AckMeaning, Delivered, Offset};
///
/// let meaning = AckMeaning::Replicated(3);
/// let delivered = Delivered { partition: 2, offset: Offset::new(41).ok(), duplicate: false, meaning };
/// assert_eq!(delivered.offset.map(Offset::get), Some(41));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// The partition.
    pub partition: u32,
    /// Its position there; absent with [`Acks::None`](crate::Acks::None).
    pub offset: Option<Offset>,
    /// An earlier attempt had written it already; it is there once.
    pub duplicate: bool,
    /// What the acknowledgement means.
    pub meaning: AckMeaning,
}

/// Resolves when the record is acknowledged, or can't be any more. Dropping it takes nothing back. Takes 16 bytes.
///
/// ```
/// use plimsoll_client::{Client, Record};
///
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/cluster.rs"));
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #     with_cluster(1, |cluster| example(cluster.client))
/// # }
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let producer = client.producer("flights").build().await?;
/// let first = producer.send(Record::new("EWR-IAH")).await?;
/// let second = producer.send(Record::new("LGA-IAH")).await?; // does not wait for the first
/// futures::future::try_join(first, second).await?; // both are safe
/// # assert_eq!(producer.stats().acked_records, 2);
/// # Ok(())
/// # }
/// ```
///
/// The compiler tells of one that is forgotten:
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// use plimsoll_client::{ProduceError, Producer, Record};
///
/// # async fn example(producer: Producer) -> Result<(), ProduceError> {
/// producer.send(Record::new("EWR-IAH")).await?;
/// # Ok(())
/// # }
/// ```
///
/// And takes one that is dropped on purpose:
///
/// ```
/// #![deny(unused_must_use)]
/// use plimsoll_client::{ProduceError, Producer, Record};
///
/// # async fn example(producer: Producer) -> Result<(), ProduceError> {
/// drop(producer.send(Record::new("EWR-IAH")).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a record is only safe once its delivery has resolved; drop it on purpose with `drop`"]
pub struct Delivery {
    completion: Arc<Completion>,
    /// Position of the record in its batch.
    index: u32,
}

/// What became of a batch; shared by the deliveries of its records.
#[derive(Debug)]
pub(crate) struct Completion {
    partition: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Who waits, by record.
    Pending(BTreeMap<u32, Waker>),
    Acked(Ack),
    /// With the encoded batch if there is one, to give records back from.
    Failed {
        kind: ProduceErrorKind,
        batch: Option<Bytes>,
    },
}

impl Delivery {
    pub(crate) fn new(completion: Arc<Completion>, index: u32) -> Self {
        Self { completion, index }
    }

    /// The partition that the record goes to.
    pub fn partition(&self) -> u32 {
        self.completion.partition
    }
}

impl Future for Delivery {
    type Output = Result<Delivered, ProduceError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let partition = self.completion.partition;
        let mut state = self.completion.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State::Pending(wakers) => {
                wakers
                    .entry(self.index)
                    .and_modify(|waker| waker.clone_from(context.waker()))
                    .or_insert_with(|| context.waker().clone());
                Poll::Pending
            }
            State::Acked(ack) => {
                let offset = ack.base_offset.and_then(|base| base.checked_add(u64::from(self.index)));
                let (duplicate, meaning) = (ack.duplicate, ack.meaning);
                Poll::Ready(Ok(Delivered { partition, offset, duplicate, meaning }))
            }
            State::Failed { kind, batch } => {
                let (kind, batch) = (kind.clone(), batch.clone());
                drop(state);
                Poll::Ready(Err(match batch.and_then(|batch| record_at(&batch, self.index, partition)) {
                    Some(record) => ProduceError::with_record(kind, record),
                    None => ProduceError::new(kind),
                }))
            }
        }
    }
}

impl Completion {
    pub(crate) fn new(partition: u32) -> Arc<Self> {
        Arc::new(Self { partition, state: Mutex::new(State::Pending(BTreeMap::new())) })
    }

    pub(crate) fn acked(&self, ack: Ack) {
        self.resolve(State::Acked(ack));
    }

    pub(crate) fn failed(&self, kind: ProduceErrorKind, batch: Option<Bytes>) {
        self.resolve(State::Failed { kind, batch });
    }

    fn resolve(&self, end: State) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Pending(wakers) = &mut *state {
            let wakers = std::mem::take(wakers);
            *state = end;
            drop(state);
            wakers.into_values().for_each(Waker::wake);
        }
    }
}

fn record_at(batch: &Bytes, index: u32, partition: u32) -> Option<Record> {
    let index = usize::try_from(index).ok()?;
    let record = batch::records(batch, &Limits::REPLICA).ok()?.nth(index)?.ok()?;
    Some(Record {
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|header| (String::from_utf8_lossy(&header.key).into_owned(), header.value))
            .collect(),
        timestamp_ms: Some(record.timestamp_ms),
        partition: Some(partition),
    })
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::batch::{BatchBuilder, Compression, NewRecord};
    use plimsoll_proto::ids::{LeaderEpoch, SpuId};

    use super::*;

    fn ack(base_offset: Option<Offset>) -> Ack {
        Ack {
            spu: SpuId(1),
            leader_epoch: LeaderEpoch(1),
            base_offset,
            duplicate: false,
            meaning: AckMeaning::Synced(3),
        }
    }

    #[tokio::test]
    async fn each_record_of_a_batch_gets_its_offset() {
        let completion = Completion::new(4);
        let deliveries = [0, 1, 2].map(|index| Delivery::new(Arc::clone(&completion), index));
        completion.acked(ack(Offset::new(10).ok()));
        for (delivery, offset) in deliveries.into_iter().zip(10u64..) {
            let delivered = delivery.await.expect("the batch was acknowledged");
            assert_eq!((delivered.partition, delivered.offset), (4, Offset::new(offset).ok()));
            assert_eq!(delivered.meaning, AckMeaning::Synced(3));
        }
    }

    #[tokio::test]
    async fn a_failed_delivery_gives_its_record_back() {
        let mut builder = BatchBuilder::new(Compression::None);
        for value in ["a", "b"] {
            let record = NewRecord { value: Some(value.as_bytes()), timestamp_ms: 7, ..Default::default() };
            builder.push(&record).expect("a small record fits");
        }
        let batch = builder.build_shared().expect("a batch with records can be built");
        let completion = Completion::new(0);
        let delivery = Delivery::new(Arc::clone(&completion), 1);
        completion.failed(ProduceErrorKind::Closed, Some(batch));
        // What came first counts.
        completion.acked(ack(None));
        let error = delivery.await.expect_err("the batch failed");
        assert_eq!(error.into_record(), Some(Record::new("b").timestamp_ms(7).partition(0)));
    }
}
