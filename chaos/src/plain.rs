//! A plain client: the generated stubs and nothing else. No batching, no retries, no backoff, no metadata.
//! What a careless program does, and what shows a typed error exactly as it is sent.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use plimsoll_host::{ChannelOptions, Host};
use plimsoll_proto::batch::{BatchBuilder, Compression, NewRecord};
use plimsoll_proto::v1::spu_client::SpuClient;
use plimsoll_proto::v1::{self, ErrorDetail, produce_response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Where produces of a plain client go.
#[derive(Clone, Debug)]
pub struct Target {
    /// `HOST:PORT` of the storage node.
    pub address: String,
    /// The topic.
    pub topic_id: Bytes,
    /// The partition.
    pub partition: u32,
    /// As the client believes it.
    pub leader_epoch: u32,
}

impl Target {
    fn request(&self, request_id: u64, batch: &Bytes) -> v1::ProduceRequest {
        v1::ProduceRequest {
            request_id,
            topic_id: self.topic_id.clone(),
            partition: self.partition,
            leader_epoch: self.leader_epoch,
            acks: v1::Acks::Leader.into(),
            timeout_ms: 5_000,
            batch: batch.clone(),
        }
    }
}

/// What came of one produce.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Acknowledged.
    Acked,
    /// Refused, with the whole detail.
    Refused(Box<ErrorDetail>),
    /// No answer of the storage node: the connection broke, or a status that is not ours.
    Broken(String),
}

/// One record as a batch without a producer.
///
/// # Errors
/// When it does not fit into a batch.
pub fn batch_of(value: &[u8], wall_ms: u64) -> anyhow::Result<Bytes> {
    let mut builder = BatchBuilder::new(Compression::None);
    let timestamp_ms = i64::try_from(wall_ms).unwrap_or(i64::MAX);
    builder
        .push(&NewRecord { key: None, value: Some(value), headers: &[], timestamp_ms })
        .context("a record")?;
    Ok(builder.build().context("a batch")?.freeze())
}

fn connect(host: &Host, address: &str) -> anyhow::Result<SpuClient<Channel>> {
    let channel = host.network.channel(address, &ChannelOptions::default()).context("an address")?;
    Ok(SpuClient::new(channel).max_decoding_message_size(16 << 20))
}

/// A produce stream that is driven one request at a time.
#[derive(Debug)]
pub struct PlainProducer {
    target: Target,
    requests: mpsc::Sender<v1::ProduceRequest>,
    answers: tonic::Streaming<v1::ProduceResponse>,
    next_id: u64,
}

impl PlainProducer {
    /// Opens the stream.
    ///
    /// # Errors
    /// When the storage node cannot be reached.
    pub async fn open(host: &Host, target: Target) -> anyhow::Result<Self> {
        let mut client = connect(host, &target.address)?;
        let (requests, receiver) = mpsc::channel(512);
        let opening = client.produce(ReceiverStream::new(receiver));
        let answers = match host.clock.timeout(Duration::from_secs(3), opening).await {
            Ok(answer) => answer.map_err(|status| anyhow::anyhow!("{status}"))?.into_inner(),
            Err(_) => anyhow::bail!("{} did not open a produce stream within 3 s", target.address),
        };
        Ok(Self { target, requests, answers, next_id: 0 })
    }

    /// Sends one batch and waits for its answer.
    pub async fn produce(&mut self, batch: &Bytes) -> Answer {
        self.next_id += 1;
        if self.requests.send(self.target.request(self.next_id, batch)).await.is_err() {
            return Answer::Broken("the stream was closed".to_owned());
        }
        self.answer().await
    }

    async fn answer(&mut self) -> Answer {
        match self.answers.message().await {
            Ok(Some(response)) => match response.result {
                Some(produce_response::Result::Ack(_)) => Answer::Acked,
                Some(produce_response::Result::Error(detail)) => Answer::Refused(Box::new(detail)),
                None => Answer::Broken("an answer without a result".to_owned()),
            },
            Ok(None) => Answer::Broken("the stream was closed".to_owned()),
            Err(status) => match ErrorDetail::from_status(&status) {
                Some(detail) => Answer::Refused(Box::new(detail)),
                None => Answer::Broken(status.to_string()),
            },
        }
    }
}

/// What a client without backoff was told.
#[derive(Clone, Debug, Default)]
pub struct Hammered {
    /// Typed refusals by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Refusals that did not say that nothing was written.
    pub not_clear: u64,
    /// Acknowledged: none is expected from a full node.
    pub acked: u64,
    /// Streams that broke.
    pub broken: u64,
}

impl Hammered {
    /// Typed refusals in total.
    pub fn total(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Takes in one answer.
    pub fn count(&mut self, answer: &Answer) {
        match answer {
            Answer::Acked => self.acked += 1,
            Answer::Broken(_) => self.broken += 1,
            Answer::Refused(detail) => {
                *self.refused.entry(plimsoll_proto::status::reason_name(detail.reason())).or_default() += 1;
                if detail.outcome() != v1::Outcome::NotWritten {
                    self.not_clear += 1;
                }
            }
        }
    }

    /// Adds another count.
    pub fn add(&mut self, other: &Self) {
        for (reason, count) in &other.refused {
            *self.refused.entry(reason).or_default() += count;
        }
        self.not_clear += other.not_clear;
        self.acked += other.acked;
        self.broken += other.broken;
    }
}

/// Sends produces as fast as they are answered, always `window` on their way, until `count` typed refusals have
/// come or `limit` has passed. A broken stream is opened again at once.
///
/// # Errors
/// When a batch can't be made.
pub async fn hammer(
    host: &Host,
    target: &Target,
    window: usize,
    count: u64,
    limit: Duration,
) -> anyhow::Result<Hammered> {
    let batch = batch_of(b"{\"phantom\":true}", host.clock.wall_ms())?;
    let mut told = Hammered::default();
    let deadline = host.clock.now() + limit;
    while told.total() < count && host.clock.now() < deadline {
        let Ok(mut stream) = PlainProducer::open(host, target.clone()).await else {
            told.broken += 1;
            host.clock.sleep(Duration::from_millis(5)).await;
            continue;
        };
        let left = deadline.saturating_sub(host.clock.now());
        let _in_time =
            host.clock.timeout(left, hammer_stream(&mut stream, &batch, window, count, &mut told)).await;
    }
    Ok(told)
}

async fn hammer_stream(
    stream: &mut PlainProducer,
    batch: &Bytes,
    window: usize,
    count: u64,
    told: &mut Hammered,
) {
    let mut in_flight = 0usize;
    loop {
        while in_flight < window && told.total() + u64::try_from(in_flight).unwrap_or(0) < count {
            stream.next_id += 1;
            if stream.requests.send(stream.target.request(stream.next_id, batch)).await.is_err() {
                told.broken += 1;
                return;
            }
            in_flight += 1;
        }
        if in_flight == 0 {
            return;
        }
        let answer = stream.answer().await;
        told.count(&answer);
        if matches!(answer, Answer::Broken(_)) {
            return;
        }
        in_flight -= 1;
    }
}

/// Asks one replica for its ends, whether it leads or not.
///
/// # Errors
/// What the storage node answers.
pub async fn ends(
    host: &Host,
    address: &str,
    topic_id: &Bytes,
    partition: u32,
) -> anyhow::Result<v1::ListOffsetsResponse> {
    let mut client = connect(host, address)?;
    let request = v1::ListOffsetsRequest {
        topic_id: topic_id.clone(),
        partition,
        any_replica: true,
        timestamp_ms: None,
    };
    match host.clock.timeout(Duration::from_secs(2), client.list_offsets(request)).await {
        Ok(answer) => Ok(answer.map_err(|status| anyhow::anyhow!("{status}"))?.into_inner()),
        Err(_) => anyhow::bail!("{address} did not tell its offsets within 2 s"),
    }
}
