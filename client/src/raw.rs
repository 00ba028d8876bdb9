//! A client without batching, idempotence, retries and backoff: what a careless client does to a node.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use plimsoll_proto::batch::{BatchBuilder, Compression, NewRecord};
use plimsoll_proto::ids::PartitionId;
use plimsoll_proto::v1::{ErrorDetail, ProduceRequest, Reason, produce_response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::Client;
use crate::error::{ProduceError, ProduceErrorKind};
use crate::metadata::why;
use crate::producer::Acks;
use crate::refusal::Refusal;

/// Sends the same batch to one node again and again, over one stream; see
/// [`Client::raw_produce`](crate::Client::raw_produce).
///
/// ```no_run
/// use plimsoll_client::{Client, PartitionId, Reason};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let topic_id = client.topic_id("flights").ok_or("no such topic")?;
/// let careless = client.raw_produce("10.0.0.11:7011", PartitionId { topic_id, index: 0 }, 1);
/// let report = careless.run(b"on time", 1_000_000).await?;
/// println!("{} of {} refused for lack of space", report.refused_for(Reason::DiskFull), report.sent);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before run()"]
pub struct RawProducer {
    client: Client,
    address: String,
    partition: PartitionId,
    leader_epoch: u32,
    acks: Acks,
    window: usize,
}

/// What a [`RawProducer`] was answered.
///
/// ```
/// use plimsoll_client::{RawReport, Reason};
///
/// assert_eq!(RawReport::default().refused_for(Reason::DiskFull), 0);
/// ```
#[derive(Clone, Debug, Default)]
pub struct RawReport {
    /// Requests sent.
    pub sent: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Typed refusals.
    pub refused: u64,
    /// Typed refusals by reason, such as `DISK_FULL`.
    pub refused_by_reason: BTreeMap<&'static str, u64>,
    /// The first typed refusal, whole.
    pub first_refusal: Option<ErrorDetail>,
    /// The last typed refusal, whole.
    pub last_refusal: Option<ErrorDetail>,
    /// Why the stream ended early, when it did; requests without an answer are neither acked nor refused.
    pub broken: Option<String>,
}

impl RawProducer {
    pub(crate) fn new(client: Client, address: String, partition: PartitionId, leader_epoch: u32) -> Self {
        Self { client, address, partition, leader_epoch, acks: Acks::Leader, window: 64 }
    }

    /// Which acknowledgement is asked for. Default [`Acks::Leader`].
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self
    }

    /// Requests without an answer at once. Default 64.
    pub fn window(mut self, requests: usize) -> Self {
        self.window = requests.clamp(1, 65_536);
        self
    }

    /// Sends `count` batches of one record with `value` each, and waits for their answers. A broken stream is
    /// told in the report, not as an error.
    ///
    /// # Errors
    /// `Invalid` when the address or the value can't be used; nothing was sent.
    pub async fn run(&self, value: &[u8], count: u64) -> Result<RawReport, ProduceError> {
        let batch = one_record(value).map_err(|why| ProduceError::new(ProduceErrorKind::Invalid(why)))?;
        self.run_batch(batch, count, || false).await
    }

    /// As [`RawProducer::run`] with a batch that is encoded already, which may be malformed on purpose; ends
    /// early when `stop` says so.
    ///
    /// # Errors
    /// `Invalid` when the address can't be used; nothing was sent.
    pub async fn run_batch(
        &self,
        batch: Bytes,
        count: u64,
        stop: impl Fn() -> bool,
    ) -> Result<RawReport, ProduceError> {
        let connected = self.client.shared.connections.spu(&self.address);
        let mut spu =
            connected.map_err(|invalid| ProduceError::new(ProduceErrorKind::Invalid(invalid.to_string())))?;
        let (requests, outgoing) = mpsc::channel(self.window);
        let mut report = RawReport::default();
        // Some servers answer the call only after the first request.
        self.fill(&requests, &batch, count, &mut report);
        let mut answers = match spu.produce(ReceiverStream::new(outgoing)).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => {
                report.broken = Some(why(&status));
                return Ok(report);
            }
        };
        let mut answered = 0;
        while answered < report.sent {
            match answers.next().await {
                Some(Ok(answer)) => {
                    answered += 1;
                    report.take(answer.result);
                    if !stop() {
                        let allowed =
                            count.min(answered.saturating_add(u64::try_from(self.window).unwrap_or(1)));
                        self.fill(&requests, &batch, allowed, &mut report);
                    }
                }
                Some(Err(status)) => {
                    report.broken = Some(why(&status));
                    break;
                }
                None => {
                    report.broken = Some("the server closed the stream".to_owned());
                    break;
                }
            }
        }
        Ok(report)
    }

    /// Sends up to the request `allowed`, exclusive, as far as the window takes them.
    fn fill(
        &self,
        requests: &mpsc::Sender<ProduceRequest>,
        batch: &Bytes,
        allowed: u64,
        report: &mut RawReport,
    ) {
        while report.sent < allowed {
            let request = ProduceRequest {
                request_id: report.sent + 1,
                topic_id: self.partition.topic_id.to_bytes(),
                partition: self.partition.index,
                leader_epoch: self.leader_epoch,
                acks: self.acks.wire().into(),
                timeout_ms: 10_000,
                batch: batch.clone(),
            };
            if requests.try_send(request).is_err() {
                return;
            }
            report.sent += 1;
        }
    }
}

impl RawReport {
    fn take(&mut self, result: Option<produce_response::Result>) {
        match result {
            Some(produce_response::Result::Ack(_)) => self.acked += 1,
            Some(produce_response::Result::Error(detail)) => {
                self.refused += 1;
                *self.refused_by_reason.entry(Refusal::new(detail.clone()).reason_name()).or_default() += 1;
                self.first_refusal.get_or_insert_with(|| detail.clone());
                self.last_refusal = Some(detail);
            }
            None => {
                self.refused += 1;
                let name = plimsoll_proto::status::reason_name(Reason::Unspecified);
                *self.refused_by_reason.entry(name).or_default() += 1;
            }
        }
    }

    /// Typed refusals with this reason.
    pub fn refused_for(&self, reason: Reason) -> u64 {
        self.refused_by_reason.get(plimsoll_proto::status::reason_name(reason)).copied().unwrap_or(0)
    }
}

fn one_record(value: &[u8]) -> Result<Bytes, String> {
    let mut builder = BatchBuilder::new(Compression::None);
    let record = NewRecord { value: Some(value), ..Default::default() };
    builder.push(&record).map_err(|error| error.to_string())?;
    builder.build_shared().map_err(|error| error.to_string())
}
