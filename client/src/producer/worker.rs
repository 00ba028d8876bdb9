//! The task that carries the batches of one partition: it runs the commands of the [`Window`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plimsoll_proto::batch::ProducerSequence;
use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, SpuId, VolumeId};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1::{self, ErrorDetail, ProduceRequest, ProduceResponse, Reason, produce_response};
use tokio::sync::{mpsc, watch};

use super::connection::{Connection, Incoming, Lost};
use super::core::{Core, PartitionQueue, count};
use super::event::ProducerEvent;
use super::held::{Held, Payload, hold};
use super::meaning::AckMeaning;
use super::settings::OnFull;
use super::turns::Turn;
use super::window::{Ack, BatchNo, Command, NO_ROOM_PAUSE, Route, Target, Window, WindowSettings};
use crate::error::ProduceErrorKind;
use crate::refusal::Refusal;

/// How long a leader may wait for its in-sync set before it answers.
const SERVER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Beyond the server's wait, before the connection counts as dead.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
/// How much longer than its pause a producer keeps its turn to try.
const TURN_GRACE: Duration = Duration::from_secs(1);
/// Answers taken at a time.
const INCOMING_MAX: usize = 64;

pub(crate) struct Worker {
    core: Arc<Core>,
    queue: Arc<PartitionQueue>,
    partition: PartitionId,
    window: Window,
    held: BTreeMap<BatchNo, Held>,
    popped: u64,
    connection: Option<Connection>,
    incoming: mpsc::Receiver<Incoming>,
    incoming_sender: mpsc::Sender<Incoming>,
    identities: mpsc::Receiver<Option<(ProducerId, ProducerEpoch)>>,
    identity_sender: mpsc::Sender<Option<(ProducerId, ProducerEpoch)>>,
    images: watch::Receiver<Arc<MetadataImage>>,
    turn: Arc<Turn>,
    /// This worker, among those that may take the turn.
    number: u64,
    opened: watch::Receiver<u64>,
    commands: Vec<Command>,
}

enum Woken {
    Incoming(Option<Incoming>),
    Identity(Option<(ProducerId, ProducerEpoch)>),
    Metadata(bool),
    Opened,
    Queue,
    Time,
}

impl Worker {
    pub(crate) fn new(
        core: Arc<Core>,
        queue: Arc<PartitionQueue>,
        index: u32,
        identity: Option<(ProducerId, ProducerEpoch)>,
    ) -> Self {
        let settings = &core.settings;
        let window = WindowSettings {
            partition: index,
            topic: core.topic.clone(),
            in_flight_max: settings.in_flight(),
            idempotent: settings.idempotent,
            fail_when_full: settings.on_full == OnFull::Fail,
            answer_max: SERVER_WAIT_MAX + ANSWER_GRACE,
            deadline: settings.deadline,
        };
        let window = Window::new(window, identity, &core.client.shared.host.random);
        let (incoming_sender, incoming) = mpsc::channel(INCOMING_MAX);
        let (identity_sender, identities) = mpsc::channel(1);
        let images = core.client.watch_metadata();
        let partition = PartitionId { topic_id: core.topic_id, index };
        let turn = core.client.shared.turns.of(partition);
        Self {
            core,
            queue,
            partition,
            window,
            held: BTreeMap::new(),
            popped: 0,
            connection: None,
            incoming,
            incoming_sender,
            identities,
            identity_sender,
            images,
            number: turn.enter(),
            opened: turn.opened(),
            turn,
            commands: Vec::new(),
        }
    }

    pub(crate) async fn run(mut self) {
        self.metadata_changed();
        loop {
            self.pull();
            self.execute();
            match self.wait().await {
                Woken::Incoming(Some(incoming)) => self.came_in(incoming),
                Woken::Identity(identity) => self.identity(identity),
                Woken::Metadata(true) => self.metadata_changed(),
                // The handles of both channels are held by this worker and its client.
                Woken::Incoming(None) | Woken::Metadata(false) => return,
                Woken::Queue => {}
                Woken::Opened => {
                    self.window.opened(self.core.client.shared.host.clock.now(), &mut self.commands);
                }
                Woken::Time => self.window.tick(self.core.client.shared.host.clock.now(), &mut self.commands),
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        let at = self.wake_at();
        let clock = &self.core.client.shared.host.clock;
        let time = async {
            match at {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            incoming = self.incoming.recv() => Woken::Incoming(incoming),
            Some(identity) = self.identities.recv() => Woken::Identity(identity),
            changed = self.images.changed() => Woken::Metadata(changed.is_ok()),
            Ok(()) = self.opened.changed() => Woken::Opened,
            () = self.queue.wake.notified() => Woken::Queue,
            () = time => Woken::Time,
        }
    }

    fn wake_at(&self) -> Option<Duration> {
        let settings = &self.core.settings;
        let accumulator = self.queue.lock();
        let lingered = if self.window.wants_batch() { accumulator.ready_at(settings.linger) } else { None };
        let expired = accumulator.oldest().map(|since| since.saturating_add(settings.deadline));
        [self.window.wake_at(), lingered, expired].into_iter().flatten().min()
    }

    /// Moves batches into the window as it wants them, and those whose deadline has passed, to fail there.
    fn pull(&mut self) {
        let now = self.core.client.shared.host.clock.now();
        let settings = &self.core.settings;
        loop {
            let sealed = {
                let mut accumulator = self.queue.lock();
                let expired =
                    accumulator.oldest().is_some_and(|since| now >= since.saturating_add(settings.deadline));
                if !expired && !self.window.wants_batch() {
                    return;
                }
                let flushing = expired || self.core.flushing.load(Ordering::Relaxed) > 0;
                accumulator.pop(now, settings.linger, flushing)
            };
            let Some(sealed) = sealed else { return };
            let deadline = sealed.since.saturating_add(settings.deadline);
            let records = sealed.builder.len();
            // The payload must be at hand before the window asks for it to be sent.
            self.held.insert(self.popped, hold(sealed));
            self.popped += 1;
            let batch = self.window.enqueue(records, deadline, now, &mut self.commands);
            debug_assert_eq!(batch + 1, self.popped, "window and worker number batches alike");
            if deadline <= now {
                self.window.tick(now, &mut self.commands);
            }
        }
    }

    fn came_in(&mut self, incoming: Incoming) {
        self.take_in(incoming);
        for _ in 0..INCOMING_MAX {
            match self.incoming.try_recv() {
                Ok(incoming) => self.take_in(incoming),
                Err(_) => return,
            }
        }
    }

    fn take_in(&mut self, incoming: Incoming) {
        let now = self.core.client.shared.host.clock.now();
        match incoming {
            Incoming::Answer(answer) => self.answer(*answer, now),
            Incoming::Lost(lost) => {
                if self.connection.as_ref().is_some_and(|connection| connection.number == lost.number) {
                    self.connection = None;
                }
                self.window.connection_lost(&lost, now, &mut self.commands);
            }
        }
    }

    fn answer(&mut self, answer: ProduceResponse, now: Duration) {
        let spu = SpuId(answer.spu_id);
        match answer.result {
            Some(produce_response::Result::Ack(ack)) => {
                let stored = ack.meaning() != v1::AckMeaning::None;
                let ack = Ack {
                    spu,
                    leader_epoch: LeaderEpoch(answer.leader_epoch),
                    base_offset: Offset::new(ack.base_offset).ok().filter(|_| stored),
                    duplicate: ack.duplicate,
                    meaning: AckMeaning::of(&ack),
                };
                self.window.acked(answer.request_id, ack, now, &mut self.commands);
            }
            Some(produce_response::Result::Error(detail)) => {
                let counters = &self.core.counters;
                count(&counters.refused_batches, 1);
                count(&counters.disk_full_batches, u64::from(detail.reason() == Reason::DiskFull));
                self.window.refused(answer.request_id, spu, Refusal::new(detail), now, &mut self.commands);
            }
            None => {
                let detail = ErrorDetail::unknown(Reason::Unspecified, "the answer has no result");
                self.window.refused(answer.request_id, spu, Refusal::new(detail), now, &mut self.commands);
            }
        }
    }

    fn identity(&mut self, identity: Option<(ProducerId, ProducerEpoch)>) {
        let now = self.core.client.shared.host.clock.now();
        match identity {
            Some((id, epoch)) => self.window.identity(id, epoch, now, &mut self.commands),
            None => self.window.no_identity(now, &mut self.commands),
        }
    }

    fn metadata_changed(&mut self) {
        let route = route_of(&self.images.borrow_and_update(), self.partition);
        let now = self.core.client.shared.host.clock.now();
        self.window.route(route, now, &mut self.commands);
    }

    fn execute(&mut self) {
        while !self.commands.is_empty() {
            for command in std::mem::take(&mut self.commands) {
                match command {
                    Command::NewIdentity => self.ask_identity(),
                    Command::Send { batch, request, connection, target, stamp } => {
                        self.send(batch, request, connection, &target, stamp);
                    }
                    Command::Acked { batch, ack } => self.acked(batch, ack),
                    Command::Failed { batch, kind } => self.failed(batch, kind),
                    Command::AskTurn => self.ask_turn(),
                    Command::Opened => self.turn.open(),
                    Command::Tell(event) => self.tell(event),
                }
            }
            self.pull();
        }
        let queue = &self.queue;
        queue.takes.store(self.window.takes(), Ordering::Relaxed);
        let done_below = self.held.first_key_value().map_or(self.popped, |(batch, _)| *batch);
        queue.done_below.send_if_modified(|known| std::mem::replace(known, done_below) != done_below);
    }

    /// It is kept until the next try and a little longer.
    fn ask_turn(&mut self) {
        let now = self.core.client.shared.host.clock.now();
        let granted = self.turn.take(self.number, now, now.saturating_add(NO_ROOM_PAUSE + TURN_GRACE));
        self.window.turn(granted, now, &mut self.commands);
    }

    fn ask_identity(&self) {
        let (client, sender) = (self.core.client.clone(), self.identity_sender.clone());
        let ask = async move {
            let identity = client.admin().init_producer().await.ok();
            // An error means that the worker is gone.
            sender.send(identity).await.ok();
        };
        self.core.client.shared.host.tasks.spawn("producer id", ask).detach();
    }

    fn send(
        &mut self,
        batch: BatchNo,
        request: u64,
        connection: u64,
        target: &Target,
        stamp: Option<ProducerSequence>,
    ) {
        let now = self.core.client.shared.host.clock.now();
        let Some(held) = self.held.get_mut(&batch) else { return };
        let bytes = match held.encode(stamp) {
            Ok(bytes) => bytes,
            Err(error) => {
                let detail = ErrorDetail::not_written(Reason::InvalidArgument, error.to_string());
                return self.window.refused(
                    request,
                    target.spu,
                    Refusal::new(detail),
                    now,
                    &mut self.commands,
                );
            }
        };
        held.sends = held.sends.saturating_add(1);
        count(&self.core.counters.resent_batches, u64::from(held.sends > 1));
        if self.connection.as_ref().is_none_or(|open| open.number != connection) {
            self.connection = None;
            match self.connect(connection, target) {
                Ok(open) => self.connection = Some(open),
                Err(why) => {
                    let lost = Lost { number: connection, why, sent: false };
                    return self.window.connection_lost(&lost, now, &mut self.commands);
                }
            }
        }
        let request = ProduceRequest {
            request_id: request,
            topic_id: self.partition.topic_id.to_bytes(),
            partition: self.partition.index,
            leader_epoch: target.leader_epoch.0,
            acks: self.core.settings.acks.wire().into(),
            timeout_ms: u32::try_from(SERVER_WAIT_MAX.as_millis()).unwrap_or(u32::MAX),
            batch: bytes,
        };
        if !self.connection.as_ref().is_some_and(|open| open.send(request)) {
            let sent = self.connection.take().is_some_and(|open| open.has_sent());
            let lost = Lost { number: connection, why: "the stream takes no more".to_owned(), sent };
            self.window.connection_lost(&lost, now, &mut self.commands);
        }
    }

    fn connect(&self, number: u64, target: &Target) -> Result<Connection, String> {
        let shared = &self.core.client.shared;
        let client = shared.connections.spu(&target.address).map_err(|invalid| invalid.to_string())?;
        let in_flight_max = self.core.settings.in_flight();
        Ok(Connection::open(&shared.host.tasks, client, number, in_flight_max, self.incoming_sender.clone()))
    }

    fn acked(&mut self, batch: BatchNo, ack: Ack) {
        let Some(held) = self.held.remove(&batch) else { return };
        let counters = &self.core.counters;
        count(&counters.acked_records, u64::from(held.records));
        count(&counters.acked_batches, 1);
        count(&counters.duplicate_batches, u64::from(ack.duplicate));
        if let Payload::Encoded { bytes, .. } = &held.payload {
            count(&counters.acked_bytes, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        }
        held.completion.acked(ack);
    }

    fn failed(&mut self, batch: BatchNo, kind: ProduceErrorKind) {
        let Some(held) = self.held.remove(&batch) else { return };
        count(&self.core.counters.failed_records, u64::from(held.records));
        held.give_up(kind);
    }

    fn tell(&self, event: ProducerEvent) {
        let counters = &self.core.counters;
        match &event {
            ProducerEvent::Rerouted { .. } => count(&counters.reroutes, 1),
            ProducerEvent::ConnectionLost { .. } => count(&counters.connections_lost, 1),
            ProducerEvent::Refused { .. }
            | ProducerEvent::LeaderChanged { .. }
            | ProducerEvent::Acked { .. }
            | ProducerEvent::Failed { .. } => {}
        }
        // An error means that nobody listens.
        drop(self.core.events.send(event));
    }
}

impl Drop for Worker {
    /// A delivery always resolves, also when the producer is dropped.
    fn drop(&mut self) {
        self.turn.leave(self.number);
        let mut accumulator = self.queue.lock();
        accumulator.close();
        let waiting = std::iter::from_fn(|| accumulator.pop(Duration::MAX, Duration::ZERO, true)).map(hold);
        let held = std::mem::take(&mut self.held).into_values();
        held.chain(waiting).for_each(|held| held.give_up(ProduceErrorKind::Closed));
    }
}

/// What the metadata say of a partition that was there before.
fn route_of(image: &MetadataImage, id: PartitionId) -> Route {
    let Some(topic) = image.topics.get(&id.topic_id) else { return Route::Gone };
    let Some(partition) = image.partition(&id).filter(|partition| partition.leader != 0) else {
        return Route::NoLeader;
    };
    let spu = SpuId(partition.leader);
    let Some(address) = image.address(spu) else { return Route::NoLeader };
    let takes_writes = |spu: u32| {
        let replica = partition.replicas.iter().find(|replica| replica.spu_id == spu);
        let volume = replica.and_then(|replica| VolumeId::from_slice(&replica.volume_id).ok());
        volume.is_none_or(|volume| {
            let state = image.volume_state(SpuId(spu), volume);
            matches!(state, v1::VolumeState::Writable | v1::VolumeState::Unspecified)
        })
    };
    let writable = takes_writes(partition.leader);
    let copies = partition.in_sync.iter().filter(|spu| takes_writes(**spu)).count();
    let wanted = topic.config.as_ref().map_or(0, |config| config.min_in_sync);
    let enough = u32::try_from(partition.in_sync.len()).is_ok_and(|members| members >= wanted);
    let leader_epoch = LeaderEpoch(partition.leader_epoch);
    Route::Leader(Target { spu, address: address.to_owned(), leader_epoch, writable, copies, enough })
}
