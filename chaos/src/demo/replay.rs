//! The producer of the story: replays the flights at a pace, idempotent and with acks=all, and notes when what
//! was acknowledged by whom.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_client::{Acks, Client, Delivery, OnFull, Producer, ProducerEvent, Record, Refusal};
use plimsoll_host::{Host, Task};
use plimsoll_proto::v1::Reason;
use tokio::sync::{broadcast, mpsc};

use super::evidence::Evidence;
use crate::flights::Flight;

/// One acknowledged batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack {
    pub(super) at: Duration,
    pub(super) partition: u32,
    pub(super) spu: u32,
}

/// One refusal of the producer's batches.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) at: Duration,
    pub(super) refusal: Refusal,
}

/// What happened to the producer so far.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) acks: Vec<Ack>,
    pub(super) refused: Vec<Refused>,
    pub(super) rerouted: u64,
    pub(super) failed: Vec<String>,
}

/// The replay, shared by the tasks that run it and the story that steers it.
#[derive(Debug)]
pub(super) struct Replay {
    host: Host,
    rate: AtomicU64,
    limit: AtomicU64,
    sent: AtomicU64,
    acked: Mutex<Vec<bool>>,
    acked_count: AtomicU64,
    finished: AtomicBool,
    log: Mutex<Log>,
}

impl Replay {
    pub(super) fn new(host: Host, flights: usize) -> Arc<Self> {
        Arc::new(Self {
            host,
            rate: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            acked: Mutex::new(vec![false; flights]),
            acked_count: AtomicU64::new(0),
            finished: AtomicBool::new(false),
            log: Mutex::default(),
        })
    }

    /// Sets the pace in flights a second, up to flight number `limit`; behind it the replay goes on at a
    /// trickle, so that flights never stop.
    pub(super) fn pace(&self, rate: u64, limit: u64) {
        self.rate.store(rate, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Flights handed to the producer.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Distinct flights acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked_count.load(Ordering::Relaxed)
    }

    /// Whether everything was sent and answered.
    pub(super) fn finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Which flights were acknowledged.
    pub(super) fn acked_flights(&self) -> Vec<bool> {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at what happened so far.
    pub(super) fn with_log<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts the replay; it ends by itself with the last flight.
    pub(super) async fn start(
        self: &Arc<Self>,
        client: &Client,
        flights: Arc<Vec<Flight>>,
        evidence: &Arc<Evidence>,
    ) -> anyhow::Result<Vec<Task>> {
        let producer = client
            .producer("flights")
            .acks(Acks::All)
            .on_full(OnFull::Reroute)
            .linger(Duration::from_millis(10))
            .build()
            .await
            .context("the producer of flights")?;
        let events = producer.events();
        let (deliveries, answered) = mpsc::channel(200_000);
        let tasks = &self.host.tasks;
        Ok(vec![
            tasks.spawn("replay-events", Arc::clone(self).follow(events)),
            tasks.spawn("replay-deliveries", Arc::clone(self).collect(answered, Arc::clone(evidence))),
            tasks.spawn("replay", Arc::clone(self).send(producer, flights, deliveries, Arc::clone(evidence))),
        ])
    }

    async fn send(
        self: Arc<Self>,
        producer: Producer,
        flights: Arc<Vec<Flight>>,
        deliveries: mpsc::Sender<(usize, Delivery)>,
        evidence: Arc<Evidence>,
    ) {
        const TICK: Duration = Duration::from_millis(10);
        const TRICKLE_PER_S: f64 = 300.0;
        let mut waiting: VecDeque<(usize, &Flight)> = flights.iter().enumerate().collect();
        let mut credit = 0.0;
        let mut last = self.host.clock.now();
        while !waiting.is_empty() {
            self.host.clock.sleep(TICK).await;
            let now = self.host.clock.now();
            let behind_limit = self.sent() >= self.limit.load(Ordering::Relaxed);
            let rate = self.rate.load(Ordering::Relaxed);
            let rate = f64::from(u32::try_from(rate).unwrap_or(u32::MAX));
            let rate = if behind_limit { rate.min(TRICKLE_PER_S) } else { rate };
            let tick = now.saturating_sub(last);
            last = now;
            // After a time of waiting the pace goes on; it does not make up for what was missed in one burst.
            credit = (credit + rate * tick.as_secs_f64()).min(rate * 0.25 + 1.0);
            while credit >= 1.0 {
                credit -= 1.0;
                let Some((number, flight)) = waiting.pop_front() else { break };
                let record = Record::new(flight.value.clone()).key(flight.key.clone());
                match producer.send(record).await {
                    Ok(delivery) => {
                        self.sent.fetch_add(1, Ordering::Relaxed);
                        evidence.sent(delivery.partition(), number);
                        if deliveries.send((number, delivery)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => self.failed(format!("flight {number} was not accepted: {error}")),
                }
            }
        }
        producer.flush().await;
        drop(deliveries);
        producer.close().await;
    }

    async fn collect(
        self: Arc<Self>,
        mut answered: mpsc::Receiver<(usize, Delivery)>,
        evidence: Arc<Evidence>,
    ) {
        while let Some((number, delivery)) = answered.recv().await {
            match delivery.await {
                Ok(delivered) => {
                    if let Some(offset) = delivered.offset {
                        evidence.acked(delivered.partition, number, offset);
                    }
                    self.acked.lock().unwrap_or_else(PoisonError::into_inner)[number] = true;
                    self.acked_count.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => self.failed(format!("flight {number} was not acknowledged: {error}")),
            }
        }
        self.finished.store(true, Ordering::Release);
    }

    fn failed(&self, why: String) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.failed.len() < 20 {
            log.failed.push(why);
        }
    }

    async fn follow(self: Arc<Self>, mut events: broadcast::Receiver<ProducerEvent>) {
        loop {
            match events.recv().await {
                Ok(event) => self.note(event),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    self.failed(format!("{missed} events were missed"))
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    fn note(&self, event: ProducerEvent) {
        let at = self.host.clock.now();
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            ProducerEvent::Acked { partition, spu, .. } => log.acks.push(Ack { at, partition, spu: spu.0 }),
            ProducerEvent::Refused { refusal, .. } => log.refused.push(Refused { at, refusal }),
            ProducerEvent::Rerouted { .. } => log.rerouted += 1,
            ProducerEvent::LeaderChanged { .. }
            | ProducerEvent::ConnectionLost { .. }
            | ProducerEvent::Failed { .. } => {}
        }
    }
}

impl Log {
    /// Longest gap between two acknowledgements, leaving out gaps that touch one of the half-open `spans`.
    pub(super) fn longest_stall(&self, spans: &[(Duration, Duration)]) -> Option<Duration> {
        let gaps = self.acks.windows(2).map(|pair| (pair[0].at, pair[1].at));
        let outside = gaps.filter(|(from, to)| !spans.iter().any(|(start, end)| from < end && to > start));
        outside.map(|(from, to)| to.saturating_sub(from)).max()
    }

    /// First refusal for a full disk at or after `from`.
    pub(super) fn first_disk_full(&self, from: Duration) -> Option<&Refused> {
        self.refused.iter().find(|refused| refused.at >= from && refused.refusal.reason() == Reason::DiskFull)
    }

    /// First acknowledgement at or after `from` that satisfies `wanted`.
    pub(super) fn first_ack(&self, from: Duration, wanted: impl Fn(&Ack) -> bool) -> Option<Ack> {
        // Acks are in order of time; only the recent ones are looked at.
        let start = self.acks.partition_point(|ack| ack.at < from);
        self.acks.get(start..)?.iter().find(|ack| wanted(ack)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stall_leaves_out_act_four() {
        let ms = Duration::from_millis;
        let ack = |at| Ack { at: ms(at), partition: 0, spu: 1 };
        let log = Log { acks: [0, 10, 400, 410, 5_000, 5_010].map(ack).to_vec(), ..Log::default() };
        assert_eq!(log.longest_stall(&[]), Some(ms(4_590)));
        assert_eq!(log.longest_stall(&[(ms(500), ms(5_000))]), Some(ms(390)));
        assert_eq!(log.longest_stall(&[(ms(0), ms(6_000))]), None);
        assert_eq!(log.first_ack(ms(11), |_| true).map(|ack| ack.at), Some(ms(400)));
    }
}
