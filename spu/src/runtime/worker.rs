//! The worker of one volume: it alone holds the volume and its replicas, and answers in turns.
//!
//! A turn takes what is queued, up to a limit, then syncs once for all appends that need it, moves high
//! watermarks, answers, and publishes. Nothing in here waits for anything but the disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use plimsoll_host::Host;
use plimsoll_host::log_budget::LogBudget;
use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{LeaderEpoch, PartitionEpoch, PartitionId};
use plimsoll_proto::v1;
use plimsoll_storage::volume::Volume;
use tokio::sync::{mpsc, oneshot, watch};

use super::job::ControlRequest;
use super::levels::LevelLog;
use super::rebuild::Rebuilding;
use super::refusal::{self, Place};
use super::replica::{Replica, Role};
use super::space::SampleSeen;
use super::work::{Pulse, QueuedProduce, Routes, Shared, VolumeView, Work};
use crate::replica::ProposalOutcome;

/// Produces taken in one turn at most: bounds how long others wait, and feeds one sync.
const PRODUCES_A_TURN: usize = 256;
const WORKS_A_TURN: usize = 64;
/// Batches held back at most, in number and bytes; beyond it the queue is not read.
const HELD_MAX: usize = 1024;
const HELD_BYTES_MAX: usize = 32 << 20;
/// Longest pause between two turns: proof of life, ticks, lag.
const IDLE_TURN: Duration = Duration::from_millis(100);
/// How often the volume's own upkeep runs.
const TICK: Duration = Duration::from_millis(50);

/// The answer to a proposed in-sync set, on its way.
pub(super) type ProposalAnswer =
    futures::future::BoxFuture<'static, (PartitionId, LeaderEpoch, PartitionEpoch, ProposalOutcome)>;

pub(super) struct Worker {
    pub(super) host: Host,
    pub(super) shared: Arc<Shared>,
    pub(super) place: Place,
    pub(super) volume: Volume,
    pub(super) replicas: BTreeMap<PartitionId, Replica>,
    /// Replicas that lost their page cache and have not caught up since.
    pub(super) cache_lost: BTreeSet<PartitionId>,
    pub(super) held: VecDeque<QueuedProduce>,
    pub(super) held_bytes: usize,
    /// Appended to or cut since the last end of a turn.
    pub(super) dirty: BTreeSet<PartitionId>,
    pub(super) proposals: FuturesUnordered<ProposalAnswer>,
    pub(super) control: mpsc::Sender<ControlRequest>,
    pub(super) view: watch::Sender<Arc<VolumeView>>,
    pub(super) pulse: Pulse,
    pub(super) levels: LevelLog,
    /// What was last asked of the controller about this volume, and when.
    pub(super) asked: Option<(v1::VolumeState, Duration)>,
    /// Answers to followers so far.
    pub(super) answers: u64,
    pub(super) waiters: usize,
    /// Partitions with somebody waiting for records or for the in-sync set: a turn looks at no others.
    pub(super) waited_on: BTreeSet<PartitionId>,
    /// How often a replica here stopped because its history is not its leader's.
    pub(super) replica_stops: u64,
    /// The device failed; everybody who waited has been told.
    pub(super) failed: bool,
    /// A replica could not be made or deleted; tried again.
    pub(super) missing: bool,
    pub(super) retried_at: Duration,
    pub(super) rebuilding: Rebuilding,
    pub(super) sampled_at: Duration,
    pub(super) sample_pause: watch::Sender<Duration>,
    pub(super) log_budget: LogBudget,
    pub(super) ticked_at: Option<Duration>,
    pub(super) shown_at: Option<Duration>,
    pub(super) reported_at: Option<Duration>,
    pub(super) inbox: Inbox,
}

/// Where a worker's work comes from.
pub(super) struct Inbox {
    pub(super) produce: mpsc::Receiver<QueuedProduce>,
    pub(super) work: mpsc::Receiver<Work>,
    pub(super) routes: watch::Receiver<Arc<Routes>>,
    pub(super) samples: watch::Receiver<Option<SampleSeen>>,
    /// Tells that cluster time was heard of again.
    pub(super) cluster_time: watch::Receiver<i64>,
}

/// What woke the worker.
enum Wake {
    Produce(QueuedProduce),
    Work(Work),
    Routes,
    Sample,
    Proposal((PartitionId, LeaderEpoch, PartitionEpoch, ProposalOutcome)),
    Time,
    /// Every handle is gone: nobody can ask any more.
    Abandoned,
}

impl Worker {
    /// Works until it is told to stop, or, as if it had crashed, until nobody holds a handle.
    pub(super) async fn run(mut self) {
        self.reconcile();
        self.end_turn();
        loop {
            let wake = self.wait().await;
            if matches!(wake, Wake::Abandoned) {
                return;
            }
            let mut stop = self.on_wake(wake);
            for _ in 0..WORKS_A_TURN {
                let Ok(work) = self.inbox.work.try_recv() else { break };
                stop = stop.or(self.on_work(work));
            }
            self.release_held();
            for _ in 0..PRODUCES_A_TURN {
                if !self.takes_produce() {
                    break;
                }
                let Ok(queued) = self.inbox.produce.try_recv() else { break };
                self.on_produce(queued);
            }
            self.end_turn();
            if let Some(done) = stop {
                self.stop();
                // Whoever asked may have gone; the volume is closed all the same.
                let _ = done.send(());
                return;
            }
        }
    }

    async fn wait(&mut self) -> Wake {
        let deadline = self.next_deadline();
        let takes_produce = self.takes_produce();
        tokio::select! {
            work = self.inbox.work.recv() => work.map_or(Wake::Abandoned, Wake::Work),
            Some(queued) = self.inbox.produce.recv(), if takes_produce => Wake::Produce(queued),
            Ok(()) = self.inbox.routes.changed() => Wake::Routes,
            Ok(()) = self.inbox.samples.changed() => Wake::Sample,
            Some(answer) = self.proposals.next(), if !self.proposals.is_empty() => Wake::Proposal(answer),
            () = self.host.clock.sleep_until(deadline) => Wake::Time,
        }
    }

    fn on_wake(&mut self, wake: Wake) -> Option<oneshot::Sender<()>> {
        match wake {
            Wake::Produce(queued) => self.on_produce(queued),
            Wake::Work(work) => return self.on_work(work),
            Wake::Routes => self.reconcile(),
            Wake::Sample => self.on_sample(),
            Wake::Proposal((partition, epoch, expected, outcome)) => {
                self.on_proposal(&partition, epoch, expected, outcome);
            }
            Wake::Time | Wake::Abandoned => {}
        }
        None
    }

    fn on_work(&mut self, work: Work) -> Option<oneshot::Sender<()>> {
        match work {
            Work::Fetch { job, deadline, reply } => self.on_fetch(job, deadline, reply),
            Work::ListOffsets { job, reply } => {
                let answer = self.list_offsets(&job);
                drop(reply.send(answer));
            }
            Work::Replicate(work) => self.on_replicate(work),
            Work::StoreOffsets(work) => self.on_store_offsets(work),
            Work::ReadOffsets(work) => self.on_read_offsets(work),
            Work::Positions { leader, reply } => drop(reply.send(self.positions(leader))),
            Work::Standing { partition, reply } => drop(reply.send(self.standing(&partition))),
            Work::Replicated { leader, asked, answers, reply } => {
                self.on_replicated(leader, &asked, answers);
                let _ = reply.send(());
            }
            Work::Order(order) => self.on_order(order),
            Work::LossTold => self.volume.loss_told(),
            Work::Stop { reply } => return Some(reply),
        }
        None
    }

    fn takes_produce(&self) -> bool {
        self.held.len() < HELD_MAX && self.held_bytes < HELD_BYTES_MAX
    }

    pub(super) fn now(&self) -> Duration {
        self.host.clock.now()
    }

    /// Cluster time, milliseconds since 1970: the own wall clock as corrected by heartbeats.
    pub(super) fn cluster_ms(&self) -> u64 {
        self.host.clock.wall_ms().saturating_add_signed(*self.shared.clock_offset_ms.borrow())
    }

    fn next_deadline(&self) -> Duration {
        let now = self.now();
        let mut next = now + IDLE_TURN;
        if self.levels_matter() {
            next = now + TICK;
        }
        if let Some(held) = self.held.front() {
            next = next.min(self.look_again_at(held));
        }
        for replica in self.waited_on.iter().filter_map(|partition| self.replicas.get(partition)) {
            let fetches = replica.waiting_fetches.iter().map(|waiter| waiter.deadline).min();
            for at in [replica.waiting_acks.next_deadline(), fetches].into_iter().flatten() {
                next = next.min(at);
            }
        }
        next.max(now)
    }

    fn levels_matter(&self) -> bool {
        self.view.borrow().level > DiskLevel::Normal
    }

    /// What every turn ends with.
    fn end_turn(&mut self) {
        let now = self.now();
        self.settle_dirty();
        self.answer_late(now);
        if self.ticked_at.is_none_or(|at| now.saturating_sub(at) >= TICK) {
            self.ticked_at = Some(now);
            self.tick_volume(now);
            self.tick_leaders(now);
        }
        self.publish(now);
        self.pulse.beat(self.now());
    }

    /// Answers what waits and closes the volume in order.
    fn stop(mut self) {
        for queued in std::mem::take(&mut self.held) {
            self.refuse(queued, refusal::shutting_down());
        }
        self.inbox.produce.close();
        while let Ok(queued) = self.inbox.produce.try_recv() {
            self.refuse(queued, refusal::shutting_down());
        }
        let partitions: Vec<PartitionId> = self.replicas.keys().copied().collect();
        for partition in partitions {
            self.step_down(&partition, &refusal::shutting_down());
        }
        let wall_ms = self.cluster_ms();
        if let Err(error) = self.volume.close(wall_ms) {
            tracing::warn!(volume = %self.place.path, %error, "volume was not closed in order");
        }
    }

    /// Answers everything that waits for this replica: it no longer leads. Appends are there, but nobody
    /// here can say whether they will be committed.
    pub(super) fn step_down(&mut self, partition: &PartitionId, why: &v1::ErrorDetail) {
        let Some(replica) = self.replicas.get_mut(partition) else { return };
        replica.role = Role::Idle;
        replica.wake_followers();
        for token in replica.waiting_acks.take_all() {
            let mut detail = why.clone();
            detail.outcome = v1::Outcome::Unknown.into();
            drop(token.reply.send(v1::produce_response::Result::Error(detail)));
        }
        for waiter in std::mem::take(&mut replica.waiting_fetches) {
            self.waiters -= 1;
            drop(waiter.reply.send(Err(why.clone())));
        }
    }
}
