//! The producers of a run: one that chooses its partitions, one with keys, one without that fails at once.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use plimsoll_client::{
    Client, Delivered, OnFull, Outcome, ProduceError, ProduceErrorKind, ProducerBuilder, ProducerEvent,
    Record,
};
use plimsoll_history::{Answer, Event, Payload, Promise, Regained};
use plimsoll_host::Host;
use plimsoll_proto::ids::{Offset, PartitionId, TopicId};
use plimsoll_proto::status::reason_name;
use plimsoll_proto::v1::Reason;
use tokio::sync::broadcast::Receiver;

use super::observer::{PARTITIONS, Problem, TOPIC, connect};
use super::told::{Phase, Shared};

/// How many there are.
pub(super) const COUNT: usize = 3;
/// Of those that hold out.
const LONG: Duration = Duration::from_secs(90);
/// Of the one that does not.
const SHORT: Duration = Duration::from_secs(2);
/// Every delivery is resolved within its deadline and this.
const LATE_MAX: Duration = Duration::from_secs(2);
/// From a request to its refusal where nothing but disks without room is at fault: a server delays a batch for a second at
/// most before it says no. With processes and links at fault it is the producer's deadline that counts.
const REFUSED_WITHIN: Duration = Duration::from_millis(1_100);

#[derive(Clone, Copy, Debug)]
enum Habit {
    Chooses,
    Keyed,
    Hasty,
}

impl Habit {
    const ALL: [Self; COUNT] = [Self::Chooses, Self::Keyed, Self::Hasty];

    fn number(self) -> u64 {
        match self {
            Self::Chooses => 1,
            Self::Keyed => 2,
            Self::Hasty => 3,
        }
    }

    fn pace(self) -> Duration {
        match self {
            Self::Chooses => Duration::from_millis(25),
            Self::Keyed => Duration::from_millis(35),
            Self::Hasty => Duration::from_millis(60),
        }
    }

    fn deadline(self) -> Duration {
        match self {
            Self::Chooses | Self::Keyed => LONG,
            Self::Hasty => SHORT,
        }
    }

    fn settings(self, client: &Client) -> ProducerBuilder {
        let builder = client.producer(TOPIC).deadline(self.deadline());
        match self {
            Self::Chooses => builder,
            Self::Keyed => builder.on_full(OnFull::Wait).linger(Duration::from_millis(50)),
            Self::Hasty => builder.on_full(OnFull::Fail),
        }
    }

    fn record(self, number: u64, value: String) -> Record {
        match self {
            Self::Chooses => {
                Record::new(value).partition(u32::try_from(number % u64::from(PARTITIONS)).unwrap_or(0))
            }
            Self::Keyed => Record::new(value).key(format!("key {}", number % 17)),
            Self::Hasty => Record::new(value),
        }
    }
}

/// All producers, on one host.
pub(super) async fn produce(host: Host, told: Shared) -> Result<(), Problem> {
    while !told.borrow().topic_exists {
        host.clock.sleep(Duration::from_millis(10)).await;
    }
    let client = connect(&host).await?;
    let topic = loop {
        if let Some(topic) = client.topic_id(TOPIC) {
            break topic;
        }
        host.clock.sleep(Duration::from_millis(10)).await;
    };
    let all =
        Habit::ALL.map(|habit| Producing { habit, host: &host, client: &client, topic, told: &told }.run());
    futures::future::try_join_all(all).await.map(drop)
}

struct Producing<'a> {
    habit: Habit,
    host: &'a Host,
    client: &'a Client,
    topic: TopicId,
    told: &'a Shared,
}

struct Answered {
    number: u64,
    partition: PartitionId,
    payload: Payload,
    sent_at: Duration,
    result: Result<Delivered, ProduceError>,
}

/// What servers said to a producer.
struct Heard {
    events: Receiver<ProducerEvent>,
    until: Duration,
}

impl Producing<'_> {
    async fn run(self) -> Result<(), Problem> {
        let producer = self.habit.settings(self.client).build().await?;
        let mut heard = Heard { events: producer.events(), until: self.host.clock.now() };
        let mut waiting = FuturesUnordered::new();
        let mut number = 0u64;
        while self.told.borrow().phase < Phase::Drain {
            let value = self.value(number);
            let record = self.habit.record(number, value.clone());
            let key = record_key(self.habit, number);
            let payload = Payload::of(key.as_deref().map(str::as_bytes), Some(value.as_bytes()));
            let sent_at = self.host.clock.now();
            match producer.send(record).await {
                Ok(delivery) => {
                    let partition = PartitionId { topic_id: self.topic, index: delivery.partition() };
                    self.told.borrow_mut().events.push(Event::Sent {
                        producer: self.habit.number(),
                        partition,
                        payload,
                    });
                    waiting.push(async move {
                        Answered { number, partition, payload, sent_at, result: delivery.await }
                    });
                }
                // Never handed over: nothing to record.
                Err(error) => self.told.borrow_mut().line(sent_at, format!("not taken: {error}")),
            }
            number += 1;
            self.hear(&mut heard);
            let pause = self.host.clock.sleep(self.habit.pace());
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    biased;
                    Some(answered) = waiting.next() => self.answered(answered),
                    () = &mut pause => break,
                }
            }
        }
        while let Some(answered) = waiting.next().await {
            self.answered(answered);
            self.hear(&mut heard);
        }
        let at = self.host.clock.now();
        self.told.borrow_mut().line(at, format!("{:?} sent {number} records", self.habit));
        self.told.borrow_mut().drained += 1;
        producer.close().await;
        Ok(())
    }

    /// Mostly short, at times long enough for segments to roll and disks to move.
    fn value(&self, number: u64) -> String {
        let mut value = format!("{:?} {number} ", self.habit);
        let drawn = self.host.random.next_u64();
        if drawn.is_multiple_of(8) {
            let length = usize::try_from(drawn / 8 % 24_000).unwrap_or(0);
            value.extend(std::iter::repeat_n('.', length));
        }
        value
    }

    /// What servers said meanwhile.
    fn hear(&self, heard: &mut Heard) {
        // What was said since then was said then or later.
        let since = std::mem::replace(&mut heard.until, self.host.clock.now());
        let mut told = self.told.borrow_mut();
        let partition = |index| PartitionId { topic_id: self.topic, index };
        while let Ok(event) = heard.events.try_recv() {
            match event {
                ProducerEvent::Acked { partition: index, spu, leader_epoch, .. } => {
                    told.acknowledged_by(partition(index), leader_epoch, spu);
                }
                ProducerEvent::Refused { partition: index, refusal, after, .. } => {
                    // What has its offset is refused when its time is over: nobody can say before that.
                    let at_once = refusal.outcome() == Outcome::NotWritten
                        && told.undisturbed_since(since.saturating_sub(after));
                    told.events.push(Event::Refused {
                        client: self.habit.number(),
                        partition: partition(index),
                        typed: refusal.reason() != Reason::Unspecified,
                        after,
                        budget: if at_once { REFUSED_WITHIN } else { self.habit.deadline() + LATE_MAX },
                    });
                }
                ProducerEvent::Rerouted { .. }
                | ProducerEvent::LeaderChanged { .. }
                | ProducerEvent::ConnectionLost { .. }
                | ProducerEvent::Failed { .. } => {}
            }
        }
    }

    fn answered(&self, answered: Answered) {
        let Answered { number, partition, payload, sent_at, result } = answered;
        let at = self.host.clock.now();
        let took = at.saturating_sub(sent_at);
        let who = format!("{:?} {number} partition {}", self.habit, partition.index);
        if took > self.habit.deadline() + LATE_MAX {
            self.told.borrow_mut().broken(at, format!("{who}: answered only after {took:?}"));
        }
        match result {
            Ok(delivered) => {
                acked(self.told, partition, payload, delivered.offset);
                self.told.borrow_mut().regained(partition, Regained::Acknowledges, sent_at, at);
                self.told.borrow_mut().took.push((at, took));
                let again = if delivered.duplicate { " (a repetition)" } else { "" };
                let offset = delivered.offset.unwrap_or(Offset::ZERO);
                self.told
                    .borrow_mut()
                    .line(at, format!("{who} acked at {offset}, {} ms{again}", took.as_millis()));
            }
            Err(error) => self.failed(at, &who, partition, payload, &error),
        }
    }

    fn failed(
        &self,
        at: Duration,
        who: &str,
        partition: PartitionId,
        payload: Payload,
        error: &ProduceError,
    ) {
        let mut told = self.told.borrow_mut();
        let reason = error.reason().map_or("NO_ANSWER", reason_name);
        let answer = match error.outcome() {
            Outcome::NotWritten => {
                *told.refused.entry(reason).or_default() += 1;
                Answer::Refused
            }
            Outcome::Unknown => {
                told.unknown += 1;
                Answer::Unknown
            }
        };
        told.line(at, format!("{who} {answer:?} {reason}: {error}"));
        if matches!(error.kind, ProduceErrorKind::Refused(_)) && error.reason() == Some(Reason::Unspecified) {
            told.broken(at, format!("{who}: a refusal without a reason"));
        }
        // The one that holds out is told "no" by nobody: every fault ends before its deadline.
        if !matches!(self.habit, Habit::Hasty) {
            told.broken(at, format!("{who}: given up although faults end: {error}"));
        }
        told.events.push(Event::Answered { partition, payload, answer });
    }
}

fn record_key(habit: Habit, number: u64) -> Option<String> {
    matches!(habit, Habit::Keyed).then(|| format!("key {}", number % 17))
}

/// Records an acknowledgement.
pub(super) fn acked(told: &Shared, partition: PartitionId, payload: Payload, offset: Option<Offset>) {
    let mut told = told.borrow_mut();
    told.acked += 1;
    let answer = Answer::Acked { offset: offset.unwrap_or(Offset::ZERO), promise: Promise::Replicated };
    told.events.push(Event::Answered { partition, payload, answer });
}
