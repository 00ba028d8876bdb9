//! A producer as a [`Sink`] of records.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, Sink};

use super::{Delivery, Producer};
use crate::error::ProduceError;
use crate::record::Record;

/// A [`Producer`] as a [`Sink`]; see [`Producer::into_sink`].
///
/// `feed` waits while the buffer of the producer is full, `flush` and `close` until every record is acknowledged. The
/// first record that fails is the error of whatever is called next, with the record in it; the sink goes on working.
///
/// ```no_run
/// use futures::{SinkExt, StreamExt, stream};
/// use plimsoll_client::{Producer, Record};
///
/// # async fn example(producer: Producer) -> Result<(), Box<dyn std::error::Error>> {
/// let records = stream::iter(["EWR-IAH", "LGA-IAH"]).map(|flight| Ok(Record::new(flight)));
/// records.forward(producer.into_sink()).await?; // acknowledged, every one
/// # Ok(())
/// # }
/// ```
#[must_use = "a sink sends nothing by itself"]
pub struct ProducerSink {
    producer: Producer,
    /// A record that waits for room.
    accepting: Option<BoxFuture<'static, Result<Delivery, ProduceError>>>,
    deliveries: FuturesUnordered<Delivery>,
    ending: Option<Ending>,
}

/// A flush or close of the producer under way.
struct Ending {
    closes: bool,
    done: BoxFuture<'static, ()>,
}

impl fmt::Debug for ProducerSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerSink")
            .field("producer", &self.producer)
            .field("unacknowledged", &self.deliveries.len())
            .finish_non_exhaustive()
    }
}

impl ProducerSink {
    pub(crate) fn new(producer: Producer) -> Self {
        Self { producer, accepting: None, deliveries: FuturesUnordered::new(), ending: None }
    }

    /// Waits until the record at hand is accepted.
    fn poll_accepted(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ProduceError>> {
        if let Some(accepting) = &mut self.accepting {
            let accepted = ready!(accepting.as_mut().poll(context));
            self.accepting = None;
            self.deliveries.push(accepted?);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes note of what was answered, without waiting.
    fn answered(&mut self, context: &mut Context<'_>) -> Result<(), ProduceError> {
        while let Poll::Ready(Some(answer)) = self.deliveries.poll_next_unpin(context) {
            answer?;
        }
        Ok(())
    }

    fn poll_end(&mut self, context: &mut Context<'_>, close: bool) -> Poll<Result<(), ProduceError>> {
        ready!(self.poll_accepted(context))?;
        if self.ending.as_ref().is_none_or(|ending| ending.closes != close) {
            let producer = self.producer.clone();
            let done = async move { if close { producer.close().await } else { producer.flush().await } };
            self.ending = Some(Ending { closes: close, done: done.boxed() });
        }
        if let Some(ending) = &mut self.ending {
            ready!(ending.done.as_mut().poll(context));
            self.ending = None;
        }
        while let Some(answer) = ready!(self.deliveries.poll_next_unpin(context)) {
            answer?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Sink<Record> for ProducerSink {
    type Error = ProduceError;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), ProduceError>> {
        self.answered(context)?;
        self.poll_accepted(context)
    }

    fn start_send(mut self: Pin<&mut Self>, record: Record) -> Result<(), ProduceError> {
        assert!(self.accepting.is_none(), "start_send is called after poll_ready was ready");
        let producer = self.producer.clone();
        self.accepting = Some(async move { producer.send(record).await }.boxed());
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), ProduceError>> {
        self.poll_end(context, false)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), ProduceError>> {
        self.poll_end(context, true)
    }
}
