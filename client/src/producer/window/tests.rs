//! The window, driven by hand: what is sent, in which order, with which sequence.

use plimsoll_proto::v1::{DiskDetail, ErrorDetail, LeaderHint};

use super::pause::{DISK_NEWS_JITTER, LEADER_NEWS_JITTER, NO_ROOM_PAUSE};
use super::*;
use crate::producer::AckMeaning;
use plimsoll_proto::ids::LeaderEpoch;

const DEADLINE: Duration = Duration::from_secs(60);

struct Driver {
    window: Window,
    now: Duration,
    /// Sends not yet looked at: batch, request, connection, spu, sequence.
    sent: Vec<(BatchNo, u64, u64, u32, Option<i32>)>,
    acked: Vec<BatchNo>,
    failed: Vec<(BatchNo, ProduceErrorKind)>,
    identities: usize,
    reroutes: Vec<(u32, u32)>,
    /// Whether it is this producer's turn when it asks.
    turn: bool,
    asked: usize,
    opened: usize,
}

fn target(spu: u32, epoch: u32) -> Target {
    Target {
        spu: SpuId(spu),
        address: format!("node-{spu}:7011"),
        leader_epoch: LeaderEpoch(epoch),
        writable: true,
        copies: 3,
        enough: true,
    }
}

impl Driver {
    fn new(idempotent: bool, in_flight_max: usize, fail_when_full: bool) -> Self {
        let settings = WindowSettings {
            partition: 0,
            topic: "flights".to_owned(),
            in_flight_max,
            idempotent,
            fail_when_full,
            answer_max: Duration::from_secs(15),
            deadline: DEADLINE,
        };
        let identity = Some((ProducerId(1), ProducerEpoch(0)));
        let window = Window::new(settings, identity, &Random::seeded(1));
        let mut driver = Self {
            window,
            now: Duration::ZERO,
            sent: Vec::new(),
            acked: Vec::new(),
            failed: Vec::new(),
            identities: 0,
            reroutes: Vec::new(),
            turn: true,
            asked: 0,
            opened: 0,
        };
        driver.route(Route::Leader(target(1, 1)));
        driver
    }

    fn with(&mut self, step: impl FnOnce(&mut Window, Duration, &mut Vec<Command>)) {
        let mut out = Vec::new();
        step(&mut self.window, self.now, &mut out);
        self.take(out);
    }

    fn take(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::NewIdentity => self.identities += 1,
                Command::Send { batch, request, connection, target, stamp } => {
                    let sequence = stamp.map(|stamp| stamp.base.to_i32());
                    self.sent.push((batch, request, connection, target.spu.0, sequence));
                }
                Command::Acked { batch, .. } => self.acked.push(batch),
                Command::Failed { batch, kind } => self.failed.push((batch, kind)),
                Command::AskTurn => {
                    self.asked += 1;
                    let (granted, mut more) = (self.turn, Vec::new());
                    self.window.turn(granted, self.now, &mut more);
                    self.take(more);
                }
                Command::Opened => self.opened += 1,
                Command::Tell(ProducerEvent::Rerouted { from, to, .. }) => self.reroutes.push((from.0, to.0)),
                Command::Tell(_) => {}
            }
        }
    }

    fn route(&mut self, route: Route) {
        self.with(|window, now, out| window.route(route, now, out));
    }

    fn enqueue(&mut self, batches: usize) {
        for _ in 0..batches {
            self.with(|window, now, out| {
                window.enqueue(10, now + DEADLINE, now, out);
            });
        }
    }

    fn ack(&mut self, request: u64, duplicate: bool) {
        let ack = Ack {
            spu: SpuId(1),
            leader_epoch: LeaderEpoch(1),
            base_offset: None,
            duplicate,
            meaning: AckMeaning::Sent,
        };
        self.with(|window, now, out| window.acked(request, ack, now, out));
    }

    fn refuse(&mut self, request: u64, detail: ErrorDetail) {
        self.with(|window, now, out| window.refused(request, SpuId(1), Refusal::new(detail), now, out));
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.with(|window, now, out| window.tick(now, out));
    }

    /// Moves to the time that the window asks for.
    fn advance_to_wake(&mut self) {
        let at = self.window.wake_at().expect("the window waits for something");
        self.advance(at.saturating_sub(self.now));
    }

    /// Batch numbers and sequences sent since the last look, and the requests by batch.
    fn look(&mut self) -> (Vec<(BatchNo, Option<i32>)>, Vec<u64>) {
        let sent = std::mem::take(&mut self.sent);
        (sent.iter().map(|s| (s.0, s.4)).collect(), sent.iter().map(|s| s.1).collect())
    }
}

fn full() -> ErrorDetail {
    ErrorDetail::not_written(Reason::DiskFull, "no room")
        .retry_after(Duration::from_secs(5))
        .on_disk(DiskDetail { spu_id: 1, ..Default::default() })
}

fn disorder() -> ErrorDetail {
    ErrorDetail::not_written(Reason::OutOfOrderSequence, "a gap")
}

#[test]
fn batches_are_pipelined_in_order() {
    let mut d = Driver::new(true, 3, false);
    d.enqueue(4);
    let (sent, requests) = d.look();
    assert_eq!(sent, [(0, Some(0)), (1, Some(10)), (2, Some(20))]);
    assert!(!d.window.wants_batch());
    // Answers come in any order.
    d.ack(requests[1], false);
    assert_eq!(d.look().0, [(3, Some(30))]);
    d.ack(requests[0], false);
    assert_eq!(d.acked, [1, 0]);
    assert!(d.window.wants_batch());
}

#[test]
fn a_refused_batch_is_sent_again_before_those_behind_it() {
    let mut d = Driver::new(true, 3, false);
    d.enqueue(3);
    let (_, requests) = d.look();
    d.refuse(requests[0], full());
    d.refuse(requests[1], disorder());
    assert!(d.look().0.is_empty(), "one is still under way");
    d.refuse(requests[2], disorder());
    assert!(d.look().0.is_empty(), "the pause is on");
    assert!(!d.window.takes());
    d.advance_to_wake();
    // One batch tries the disk alone, with its old sequence.
    let (sent, requests) = d.look();
    assert_eq!(sent, [(0, Some(0))]);
    d.ack(requests[0], false);
    assert_eq!(d.look().0, [(1, Some(10)), (2, Some(20))]);
    assert!(d.window.takes());
}

#[test]
fn a_full_disk_is_left_for_the_new_leader_within_the_jitter() {
    let mut d = Driver::new(true, 5, false);
    d.enqueue(2);
    let (_, requests) = d.look();
    d.refuse(requests[0], full());
    d.refuse(requests[1], disorder());
    d.route(Route::Leader(target(2, 2)));
    d.advance(DISK_NEWS_JITTER);
    // One batch tries the new leader's disk.
    let (sent, requests) = d.look();
    assert_eq!(sent, [(0, Some(0))]);
    assert_eq!(d.reroutes, [(1, 2)]);
    d.ack(requests[0], false);
    assert_eq!(d.look().0, [(1, Some(10))]);
}

#[test]
fn new_leaders_that_are_full_too_are_asked_no_sooner() {
    let mut d = Driver::new(true, 5, false);
    d.route(Route::Leader(Target { writable: false, ..target(1, 1) }));
    d.enqueue(5);
    let (_, requests) = d.look();
    d.refuse(requests[0], full());
    requests[1..].iter().for_each(|request| d.refuse(*request, disorder()));
    for epoch in 2..6 {
        d.route(Route::NoLeader);
        d.route(Route::Leader(Target { writable: false, ..target(1 + epoch % 2, epoch) }));
        d.advance(NO_ROOM_PAUSE - Duration::from_millis(1));
        assert!(d.look().0.is_empty(), "epoch {epoch}");
        d.advance(Duration::from_millis(1));
        let (sent, requests) = d.look();
        assert_eq!(sent, [(0, Some(0))], "epoch {epoch}");
        d.refuse(requests[0], full());
    }
    d.route(Route::Leader(target(3, 6)));
    d.advance(DISK_NEWS_JITTER);
    assert_eq!(d.look().0, [(0, Some(0))]);
}

#[test]
fn a_writable_volume_wakes_who_waits() {
    let mut d = Driver::new(true, 5, false);
    d.route(Route::Leader(Target { writable: false, ..target(1, 1) }));
    d.enqueue(1);
    // Make the backoff long first.
    for _ in 0..8 {
        let (_, requests) = d.look();
        d.refuse(requests[0], full());
        d.advance_to_wake();
    }
    let (_, requests) = d.look();
    d.refuse(requests[0], full());
    d.route(Route::Leader(target(1, 1)));
    d.advance(DISK_NEWS_JITTER);
    assert_eq!(d.look().0, [(0, Some(0))]);
}

#[test]
fn where_the_metadata_tell_of_it_nobody_asks_before_the_pause_is_over() {
    for (detail, known) in [
        (full(), Target { writable: false, ..target(1, 1) }),
        (
            ErrorDetail::not_written(Reason::NotEnoughInSync, "1 of 2"),
            Target { enough: false, ..target(1, 1) },
        ),
    ] {
        let mut d = Driver::new(true, 5, false);
        d.route(Route::Leader(known));
        d.enqueue(1);
        for _ in 0..3 {
            let (sent, requests) = d.look();
            assert_eq!(sent, [(0, Some(0))]);
            d.refuse(requests[0], detail.clone());
            d.advance(NO_ROOM_PAUSE - Duration::from_millis(1));
            assert!(d.look().0.is_empty());
            d.advance(Duration::from_millis(1));
        }
        assert_eq!(d.asked, 3);
    }
}

#[test]
fn where_they_do_not_a_few_tries_come_soon() {
    for (detail, news) in [
        (full(), Target { writable: false, copies: 2, ..target(1, 1) }),
        (
            ErrorDetail::not_written(Reason::NotEnoughInSync, "1 of 2"),
            Target { copies: 1, enough: false, ..target(1, 1) },
        ),
    ] {
        let mut d = Driver::new(true, 5, false);
        d.enqueue(1);
        for _ in 0..4 {
            let (_, requests) = d.look();
            d.refuse(requests[0], detail.clone());
            d.advance(Duration::from_millis(500));
        }
        let (_, requests) = d.look();
        d.refuse(requests[0], detail);
        d.advance(NO_ROOM_PAUSE / 2);
        assert!(d.look().0.is_empty());
        // That things got worse is no news to go on; that they got better is.
        d.route(Route::Leader(news));
        d.advance(DISK_NEWS_JITTER);
        assert!(d.look().0.is_empty());
        d.route(Route::Leader(target(1, 1)));
        d.advance(DISK_NEWS_JITTER);
        let (sent, requests) = d.look();
        assert_eq!(sent, [(0, Some(0))]);
        d.ack(requests[0], false);
        assert_eq!(d.opened, 1);
    }
}

#[test]
fn out_of_turn_nothing_is_sent_until_another_gets_through() {
    let mut d = Driver::new(true, 5, false);
    d.turn = false;
    d.enqueue(1);
    let (_, requests) = d.look();
    d.refuse(requests[0], full());
    for _ in 0..3 {
        d.advance_to_wake();
        assert!(d.look().0.is_empty());
    }
    assert_eq!(d.asked, 3);
    d.with(|window, now, out| window.opened(now, out));
    d.advance(DISK_NEWS_JITTER);
    let (sent, requests) = d.look();
    assert_eq!(sent, [(0, Some(0))]);
    d.ack(requests[0], false);
    // What others meet is no news to one that gets through.
    d.enqueue(1);
    d.with(|window, now, out| window.opened(now, out));
    assert_eq!(d.look().0, [(1, Some(10))]);
}

#[test]
fn a_hint_of_a_newer_leader_is_followed_at_once() {
    let mut d = Driver::new(true, 5, false);
    d.enqueue(1);
    let (_, requests) = d.look();
    let hint = LeaderHint { spu_id: 3, address: "node-3:7011".to_owned(), leader_epoch: 4 };
    d.refuse(requests[0], ErrorDetail::not_written(Reason::NotLeader, "moved").led_by(Some(hint)));
    d.advance(LEADER_NEWS_JITTER);
    assert_eq!(d.sent.iter().map(|s| (s.0, s.3)).collect::<Vec<_>>(), [(0, 3)]);
    // Metadata that lag behind the hint take nothing back.
    d.route(Route::Leader(target(1, 1)));
    let (_, requests) = d.look();
    d.ack(requests[0], false);
    assert_eq!(d.acked, [0]);
}

#[test]
fn what_was_under_way_at_a_former_leader_keeps_its_sequence() {
    let mut d = Driver::new(true, 5, false);
    d.enqueue(2);
    let (_, old) = d.look();
    d.route(Route::Leader(target(2, 2)));
    d.advance(LEADER_NEWS_JITTER);
    assert!(d.sent[0].2 > 1, "another connection");
    let (sent, requests) = d.look();
    assert_eq!(sent, [(0, Some(0))]);
    // A late answer of the former leader counts for nothing.
    d.ack(old[0], false);
    assert!(d.acked.is_empty());
    d.ack(requests[0], true);
    let (sent, requests) = d.look();
    assert_eq!(sent, [(1, Some(10))]);
    d.ack(requests[0], false);
    assert_eq!(d.acked, [0, 1]);
}

/// A connection that broke while requests were under way.
fn lost(number: u64, why: &str) -> Lost {
    Lost { number, why: why.to_owned(), sent: true }
}

#[test]
fn a_connection_that_was_never_made_has_written_nothing() {
    for idempotent in [true, false] {
        let mut d = Driver::new(idempotent, 1, false);
        d.enqueue(1);
        let connection = d.sent[0].2;
        d.look();
        let refused = Lost { sent: false, ..lost(connection, "nothing listens there") };
        d.with(|window, now, out| window.connection_lost(&refused, now, out));
        assert!(d.failed.is_empty(), "{:?}", d.failed);
        d.advance_to_wake();
        assert_eq!(d.look().0.len(), 1, "sent again");
        let connection = d.window.connection;
        let refused = Lost { sent: false, ..lost(connection, "nothing listens there") };
        d.with(|window, now, out| window.connection_lost(&refused, now, out));
        d.window.settings.answer_max = DEADLINE * 2;
        // Not while it is under way once more.
        d.route(Route::NoLeader);
        d.advance(DEADLINE);
        let (_, kind) = d.failed.pop().expect("given up");
        assert_eq!(crate::error::ProduceError::new(kind).outcome(), Outcome::NotWritten);
    }
}

#[test]
fn a_broken_connection_fails_batches_only_without_idempotence() {
    for (idempotent, failed) in [(true, 0), (false, 1)] {
        let mut d = Driver::new(idempotent, 1, false);
        d.enqueue(2);
        let connection = d.sent[0].2;
        d.look();
        d.with(|window, now, out| window.connection_lost(&lost(connection, "reset"), now, out));
        assert_eq!(d.failed.len(), failed);
        assert!(d.failed.iter().all(|(_, kind)| matches!(kind, ProduceErrorKind::ConnectionLost { .. })));
        d.advance_to_wake();
        let next = if idempotent { 0 } else { 1 };
        assert_eq!(d.look().0.first().map(|s| s.0), Some(next));
        // The end of a connection that was left before is no news.
        d.with(|window, now, out| window.connection_lost(&lost(connection, "reset"), now, out));
        assert_eq!(d.failed.len(), failed);
    }
}

#[test]
fn without_a_leader_batches_wait_until_there_is_one() {
    let mut d = Driver::new(true, 5, false);
    d.route(Route::NoLeader);
    d.enqueue(1);
    assert!(d.look().0.is_empty());
    d.route(Route::Leader(target(2, 2)));
    assert_eq!(d.look().0, [(0, Some(0))]);
}

#[test]
fn the_oldest_batch_out_of_order_twice_takes_another_producer_id() {
    let mut d = Driver::new(true, 2, false);
    d.enqueue(2);
    for _ in 0..2 {
        let (_, requests) = d.look();
        requests.into_iter().for_each(|request| d.refuse(request, disorder()));
    }
    assert_eq!(d.identities, 1);
    d.with(|window, now, out| window.identity(ProducerId(9), ProducerEpoch(0), now, out));
    assert_eq!(d.look().0, [(0, Some(0)), (1, Some(10))]);
    assert!(d.failed.is_empty());
}

/// Whatever a server answers, every batch ends once, and acknowledged sequences leave no gap.
#[test]
fn any_answers_end_every_batch_once() {
    for seed in 0..200 {
        let random = Random::seeded(seed);
        let mut d = Driver::new(true, 3, seed % 5 == 0);
        let mut under_way: Vec<(u64, u64)> = Vec::new();
        let mut enqueued = 0usize;
        for _ in 0..600 {
            let connections: Vec<(u64, u64)> = d.sent.drain(..).map(|s| (s.1, s.2)).collect();
            under_way.extend(connections);
            match random.below(8) {
                0 | 1 if enqueued < 40 => {
                    d.enqueue(1);
                    enqueued += 1;
                }
                2 => d.advance(random.jitter(Duration::from_secs(2))),
                3 => {
                    let spu = u32::try_from(random.below(3)).unwrap_or(0) + 1;
                    let epoch = u32::try_from(d.now.as_secs()).unwrap_or(0) + 2;
                    d.route(Route::Leader(target(spu, epoch)));
                }
                4 => {
                    if let Some((_, connection)) = under_way.last().copied() {
                        d.with(|window, now, out| window.connection_lost(&lost(connection, "x"), now, out));
                    }
                }
                _ => {
                    if let Some((request, _)) = under_way.pop() {
                        match random.below(5) {
                            0 => d.refuse(request, full()),
                            1 => d.refuse(request, disorder()),
                            2 => d.refuse(request, ErrorDetail::unknown(Reason::TimedOut, "late")),
                            _ => d.ack(request, false),
                        }
                    }
                }
            }
            if d.identities > 0 {
                d.identities = 0;
                d.with(|window, now, out| window.identity(ProducerId(7), ProducerEpoch(0), now, out));
            }
        }
        d.advance(DEADLINE + DEADLINE);
        d.advance(DEADLINE);
        let mut ended: Vec<u64> = d.acked.iter().copied().chain(d.failed.iter().map(|f| f.0)).collect();
        ended.sort_unstable();
        let all: Vec<u64> = (0..u64::try_from(enqueued).expect("few")).collect();
        assert_eq!(ended, all, "seed {seed}");
        assert!(d.window.is_empty(), "seed {seed}");
    }
}

mod failing;
