//! What runs while things break: producers that go on, consumers that follow, and the history of both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use plimsoll_client::{Acks, Client, Delivery, Outcome, Producer, ProducerEvent, Record, StartAt, TopicId};
use plimsoll_history::{Answer, Event, History, Payload, Promise};
use plimsoll_host::{Host, Task};
use plimsoll_proto::ids::PartitionId;
use plimsoll_proto::v1::Reason;
use tokio::sync::{broadcast, mpsc};

/// How long a producer goes on trying.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one producer does.
#[derive(Clone, Debug)]
pub struct LoadSpec {
    /// Where to.
    pub topic: String,
    /// To these partitions in turn; to all when empty.
    pub partitions: Vec<u32>,
    /// Tells producers apart.
    pub id: u64,
    /// Records a second.
    pub rate_per_s: u32,
    /// Size of each record.
    pub record_bytes: usize,
    /// When a record counts as delivered.
    pub acks: Acks,
    /// Whether repetitions are told apart.
    pub idempotent: bool,
    /// Whether records have keys, which then choose the partition.
    pub keyed: bool,
}

impl LoadSpec {
    /// Idempotent, acks=all, without keys, to all partitions.
    pub fn new(topic: &str, rate_per_s: u32, record_bytes: usize) -> Self {
        Self {
            topic: topic.to_owned(),
            partitions: Vec::new(),
            id: 0,
            rate_per_s,
            record_bytes,
            acks: Acks::All,
            idempotent: true,
            keyed: false,
        }
    }
}

/// One typed refusal.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// When.
    pub at: Duration,
    /// Of which partition.
    pub partition: u32,
    /// By whom.
    pub spu: u32,
    /// Why.
    pub reason: Reason,
    /// From the request to the answer.
    pub after: Duration,
}

/// One acknowledged batch.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    /// When.
    pub at: Duration,
    /// Of which partition.
    pub partition: u32,
    /// By whom.
    pub spu: u32,
}

/// What happened to one producer.
#[derive(Debug, Default)]
pub struct Log {
    /// In order of time.
    pub acks: Vec<Ack>,
    /// Every typed refusal.
    pub refused: Vec<Refused>,
    /// When a record was sent, and how long it took to be acknowledged.
    pub latencies: Vec<(Duration, Duration)>,
    /// Records that failed for good, and why the first did.
    pub failed: (u64, Option<String>),
}

/// Everything that was sent, told and read in a run.
#[derive(Debug, Default)]
pub struct Evidence {
    history: Mutex<History>,
}

impl Evidence {
    /// Adds the next event.
    pub fn record(&self, event: Event) {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).record(event);
    }

    /// Looks at it.
    pub fn with<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        look(&self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A running producer. It stops when asked or dropped.
#[derive(Debug)]
pub struct Load {
    spec: LoadSpec,
    state: Arc<State>,
    _tasks: Vec<Task>,
}

#[derive(Debug)]
struct State {
    host: Host,
    acks: Acks,
    topic_id: TopicId,
    evidence: Arc<Evidence>,
    stop: AtomicBool,
    finished: AtomicBool,
    sent: AtomicU64,
    acked: AtomicU64,
    log: Mutex<Log>,
}

impl Load {
    /// Starts producing; idempotent, acks=all, waiting as long as it takes.
    ///
    /// # Errors
    /// When the topic is not there.
    pub async fn start(
        host: &Host,
        client: &Client,
        evidence: &Arc<Evidence>,
        spec: LoadSpec,
    ) -> anyhow::Result<Self> {
        let producer = client
            .producer(&spec.topic)
            .linger(Duration::from_millis(5))
            .deadline(PATIENCE)
            .acks(spec.acks)
            .idempotent(spec.idempotent);
        let producer = producer.build().await.with_context(|| format!("a producer of {}", spec.topic))?;
        let topic_id = client.topic_id(&spec.topic).context("a topic that has a producer")?;
        let state = Arc::new(State {
            host: host.clone(),
            acks: spec.acks,
            topic_id,
            evidence: Arc::clone(evidence),
            stop: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            log: Mutex::default(),
        });
        let (deliveries, answered) = mpsc::channel(100_000);
        let events = producer.events();
        let tasks = vec![
            host.tasks.spawn("load-events", Arc::clone(&state).follow(events, spec.id)),
            host.tasks.spawn("load-answers", Arc::clone(&state).collect(answered)),
            host.tasks.spawn("load", Arc::clone(&state).send(producer, spec.clone(), deliveries)),
        ];
        Ok(Self { spec, state, _tasks: tasks })
    }

    /// What it does.
    pub fn spec(&self) -> &LoadSpec {
        &self.spec
    }

    /// Sends nothing more.
    pub fn stop(&self) {
        self.state.stop.store(true, Ordering::Release);
    }

    /// Whether everything that was sent is answered, after a stop.
    pub fn finished(&self) -> bool {
        self.state.finished.load(Ordering::Acquire)
    }

    /// Records handed over.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::Relaxed)
    }

    /// Records acknowledged.
    pub fn acked(&self) -> u64 {
        self.state.acked.load(Ordering::Relaxed)
    }

    /// Records acknowledged and batches refused so far, at any later time.
    pub fn counters(&self) -> impl Fn() -> (u64, u64) + Send + Sync + 'static {
        let state = Arc::clone(&self.state);
        move || {
            let refused = state.log.lock().unwrap_or_else(PoisonError::into_inner).refused.len();
            (state.acked.load(Ordering::Relaxed), u64::try_from(refused).unwrap_or(u64::MAX))
        }
    }

    /// Looks at what happened so far.
    pub fn with_log<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.state.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    async fn send(
        self: Arc<Self>,
        producer: Producer,
        spec: LoadSpec,
        deliveries: mpsc::Sender<(Payload, Duration, Delivery)>,
    ) {
        const TICK: Duration = Duration::from_millis(10);
        let partitions = match spec.partitions.is_empty() {
            true => (0..producer.partitions()).collect(),
            false => spec.partitions.clone(),
        };
        let count = u64::try_from(partitions.len()).unwrap_or(1).max(1);
        let began = self.host.clock.now();
        let mut number = 0u64;
        let mut due = 0.0;
        let mut last = began;
        while !self.stop.load(Ordering::Acquire) {
            self.host.clock.sleep(TICK).await;
            let now = self.host.clock.now();
            let rate = f64::from(spec.rate_per_s);
            // What was missed while waiting is not made up for in one burst.
            due = (due + rate * now.saturating_sub(last).as_secs_f64()).min(rate.mul_add(0.2, 1.0));
            last = now;
            while due >= 1.0 && !self.stop.load(Ordering::Acquire) {
                due -= 1.0;
                let value = value_of(spec.id, number, spec.record_bytes);
                // A key for each partition, so that the order within a key is that within a partition.
                let key = spec.keyed.then(|| Bytes::from(format!("key-{}", number % count)));
                let payload = Payload::of(key.as_deref(), Some(&value));
                let turn = usize::try_from(number % count).unwrap_or(0);
                let partition = partitions.get(turn).copied().unwrap_or(0);
                number += 1;
                let whole = self.partition(partition);
                let record = Record { key, ..Record::new(value) };
                // Before the send: an acknowledgement may come before this task runs again.
                self.evidence.record(Event::Sent { producer: spec.id, partition: whole, payload });
                match producer.send(record.partition(partition)).await {
                    Ok(delivery) => {
                        self.sent.fetch_add(1, Ordering::Relaxed);
                        let sent = self.host.clock.now();
                        if deliveries.send((payload, sent, delivery)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        let answer = Answer::Refused;
                        self.evidence.record(Event::Answered { partition: whole, payload, answer });
                        self.failed(&error.to_string());
                    }
                }
            }
        }
        drop(deliveries);
        producer.flush().await;
        producer.close().await;
    }

    fn partition(&self, index: u32) -> PartitionId {
        PartitionId { topic_id: self.topic_id, index }
    }

    async fn collect(self: Arc<Self>, mut answered: mpsc::Receiver<(Payload, Duration, Delivery)>) {
        while let Some((payload, sent, delivery)) = answered.recv().await {
            let partition = self.partition(delivery.partition());
            let answer = match delivery.await {
                Ok(delivered) => {
                    self.acked.fetch_add(1, Ordering::Relaxed);
                    let took = self.host.clock.now().saturating_sub(sent);
                    self.log.lock().unwrap_or_else(PoisonError::into_inner).latencies.push((sent, took));
                    match (delivered.offset, self.acks) {
                        (Some(offset), Acks::All) => Answer::Acked { offset, promise: Promise::Replicated },
                        (Some(offset), Acks::Leader) => Answer::Acked { offset, promise: Promise::Leader },
                        (_, Acks::None) | (None, _) => Answer::Unknown,
                    }
                }
                Err(error) => {
                    self.failed(&error.to_string());
                    match error.outcome() {
                        Outcome::NotWritten => Answer::Refused,
                        Outcome::Unknown => Answer::Unknown,
                    }
                }
            };
            self.evidence.record(Event::Answered { partition, payload, answer });
        }
        self.finished.store(true, Ordering::Release);
    }

    fn failed(&self, why: &str) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.failed.0 += 1;
        log.failed.1.get_or_insert_with(|| why.to_owned());
    }

    async fn follow(self: Arc<Self>, mut events: broadcast::Receiver<ProducerEvent>, client: u64) {
        let mut led = BTreeSet::new();
        loop {
            let event = match events.recv().await {
                Ok(event) => event,
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            };
            let at = self.host.clock.now();
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                ProducerEvent::Acked { partition, spu, leader_epoch: epoch, .. } => {
                    if led.insert((partition, epoch, spu)) {
                        let partition = self.partition(partition);
                        self.evidence.record(Event::Led { partition, epoch, spu, incarnation: None });
                    }
                    log.acks.push(Ack { at, partition, spu: spu.0 });
                }
                ProducerEvent::Refused { partition, spu, refusal, after, .. } => {
                    // Nodes stand still and networks lose what they carry: the bars of the scenarios allow less.
                    self.evidence.record(Event::Refused {
                        client,
                        partition: self.partition(partition),
                        typed: refusal.reason() != Reason::Unspecified,
                        after,
                        budget: PATIENCE,
                    });
                    log.refused.push(Refused { at, partition, spu: spu.0, reason: refusal.reason(), after });
                }
                ProducerEvent::Rerouted { .. }
                | ProducerEvent::LeaderChanged { .. }
                | ProducerEvent::ConnectionLost { .. }
                | ProducerEvent::Failed { .. } => {}
            }
        }
    }
}

/// A record that no other producer and no other number makes.
fn value_of(producer: u64, number: u64, bytes: usize) -> Bytes {
    let mut value = format!("{{\"producer\":{producer},\"n\":{number},\"pad\":\"").into_bytes();
    while value.len() + 2 < bytes {
        value.push(b'.');
    }
    value.extend_from_slice(b"\"}");
    Bytes::from(value)
}

/// A consumer of one topic, from the beginning on, for as long as it is not dropped.
#[derive(Debug)]
pub struct Reader {
    read: Arc<Mutex<BTreeMap<u32, u64>>>,
    failed: Arc<Mutex<Option<String>>>,
    _task: Task,
}

impl Reader {
    /// Starts reading, at most one record every `pause`.
    pub fn start(
        host: &Host,
        client: &Client,
        evidence: &Arc<Evidence>,
        topic: &str,
        id: u64,
        pause: Option<Duration>,
    ) -> anyhow::Result<Self> {
        let topic_id = client.topic_id(topic).context("a topic to read")?;
        let read = Arc::new(Mutex::new(BTreeMap::new()));
        let failed = Arc::new(Mutex::new(None));
        let (client, topic) = (client.clone(), topic.to_owned());
        let (evidence, counted, why, clock) =
            (Arc::clone(evidence), Arc::clone(&read), Arc::clone(&failed), host.clock.clone());
        let task = host.tasks.spawn("reader", async move {
            let consumer = client.consumer(topic).start(StartAt::Earliest).build().await;
            let ended = match consumer {
                Err(error) => error.to_string(),
                Ok(mut consumer) => loop {
                    let record = match consumer.next().await {
                        Some(Ok(record)) => record,
                        Some(Err(error)) => break error.to_string(),
                        None => break "the consumer ended".to_owned(),
                    };
                    let partition = PartitionId { topic_id, index: record.partition };
                    let payload = Payload::of(record.key.as_deref(), record.value.as_deref());
                    evidence.record(Event::Read { consumer: id, partition, offset: record.offset, payload });
                    counted
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(record.partition, record.offset.get() + 1);
                    if let Some(pause) = pause {
                        clock.sleep(pause).await;
                    }
                },
            };
            *why.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        });
        Ok(Self { read, failed, _task: task })
    }

    /// Records read, of all partitions; of a topic that nothing was deleted from.
    pub fn read(&self) -> u64 {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// As [`Reader::read`], at any later time.
    pub fn counter(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let read = Arc::clone(&self.read);
        move || read.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// Why it ended before its time, if it did.
    pub fn failed(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
