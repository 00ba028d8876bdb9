//! Between the Raft lane and the metadata store: collects what changed, hands it over one batch at a time to a lane
//! of its own, and takes a refused batch back. A slow or hung store holds up nothing.

use std::time::Duration;

use plimsoll_host::log_budget::{Key, LogBudget};
use plimsoll_host::retry::Backoff;
use plimsoll_host::{Host, Lane};
use tokio::sync::mpsc;

use super::{Batch, Changes, MetadataError, MetadataStore};
use crate::cluster::{ClusterState, Touched};

/// More changed records than this are forgotten and the whole state is written instead.
const CHANGES_MAX: usize = 50_000;
const NO_ROOM_PAUSE: Duration = Duration::from_secs(5);
/// Pauses after the store's process was interrupted, growing while that repeats: one that can't be helped must cost
/// nothing.
const INTERRUPTED_PAUSE: Duration = Duration::from_secs(1);
const INTERRUPTED_PAUSE_MAX: Duration = Duration::from_secs(300);

/// What became of a batch.
pub(crate) struct Written {
    batch: Batch,
    result: Result<(), MetadataError>,
}

/// See the module.
pub(crate) struct MetadataFeed {
    lane: Lane,
    batches: mpsc::Sender<Batch>,
    written: mpsc::Receiver<Written>,
    interval: Duration,
    next_at: Duration,
    in_flight: bool,
    pending: Changes,
    /// What the store holds is not what `pending` builds on.
    replace_all: bool,
    dirty: bool,
    unusable: bool,
    /// A line said that it is not written.
    said_why: bool,
    interruptions: Backoff,
    budget: LogBudget,
}

impl MetadataFeed {
    /// Starts the store's lane. `up_to_date` says that the store holds what `pending` changes will build on.
    pub(crate) fn start(
        host: &Host,
        store: Box<dyn MetadataStore>,
        up_to_date: bool,
        interval: Duration,
    ) -> Self {
        let (batches, waiting) = mpsc::channel(1);
        let (done, written) = mpsc::channel(1);
        let lane = host.tasks.spawn_lane("metadata", move || Box::pin(run(store, waiting, done)));
        Self {
            lane,
            batches,
            written,
            interval,
            next_at: Duration::ZERO,
            in_flight: false,
            pending: Changes::new(),
            replace_all: !up_to_date,
            dirty: !up_to_date,
            unusable: false,
            said_why: false,
            interruptions: Backoff::new(INTERRUPTED_PAUSE, INTERRUPTED_PAUSE_MAX, &host.random),
            budget: LogBudget::new(),
        }
    }

    /// Notes what an applied entry changed.
    pub(crate) fn changed(&mut self, state: &ClusterState, touched: &Touched) {
        self.dirty = true;
        if self.replace_all || self.unusable {
            return;
        }
        self.pending.extend(state.changed_records(touched));
        if self.pending.len() > CHANGES_MAX {
            self.replaced();
        }
    }

    /// Notes that everything changed.
    pub(crate) fn replaced(&mut self) {
        self.pending.clear();
        self.replace_all = true;
        self.dirty = true;
    }

    /// Takes answers of the store and hands over what is due.
    pub(crate) fn tend(&mut self, state: &ClusterState, applied: (u64, u64), now: Duration) {
        while let Ok(written) = self.written.try_recv() {
            self.answered(written, now);
        }
        if self.dirty && !self.in_flight && !self.unusable && now >= self.next_at && applied.0 > 0 {
            self.hand_over(state, applied);
            self.next_at = now.saturating_add(self.interval);
        }
    }

    /// Hands over the rest without waiting for its time, when the store is free.
    pub(crate) fn finish(&mut self, state: &ClusterState, applied: (u64, u64), now: Duration) {
        self.next_at = Duration::ZERO;
        self.tend(state, applied, now);
    }

    /// Ends the store's lane; resolves when the store is closed.
    pub(crate) async fn close(self) {
        let Self { mut lane, batches, written, .. } = self;
        drop((batches, written));
        lane.finished().await;
    }

    fn hand_over(&mut self, state: &ClusterState, applied: (u64, u64)) {
        let changes = if self.replace_all {
            state.to_records().into_iter().map(|(key, value)| (key, Some(value))).collect()
        } else {
            std::mem::take(&mut self.pending)
        };
        let batch = Batch {
            changes,
            replace_all: self.replace_all,
            applied_index: applied.0,
            applied_term: applied.1,
        };
        match self.batches.try_send(batch) {
            Ok(()) => {
                self.in_flight = true;
                self.replace_all = false;
                self.dirty = false;
            }
            Err(_) => self.replaced(),
        }
    }

    fn answered(&mut self, written: Written, now: Duration) {
        self.in_flight = false;
        match written.result {
            Ok(()) => {
                self.interruptions.reset();
                if std::mem::take(&mut self.said_why) {
                    tracing::info!("metadata store is written again");
                }
            }
            Err(MetadataError::NoRoom) => {
                self.take_back(written.batch);
                self.next_at = now.saturating_add(NO_ROOM_PAUSE);
                if !std::mem::replace(&mut self.said_why, true) {
                    tracing::warn!(
                        "too little room for the metadata store; applied state is kept in memory and in the journal"
                    );
                }
            }
            Err(MetadataError::Interrupted(why)) => {
                self.replaced();
                let pause = self.interruptions.next_pause();
                self.next_at = now.saturating_add(pause);
                if let Some(suppressed) = self.budget.report(Key::new("metadata", "", "interrupted"), now) {
                    self.said_why = true;
                    tracing::warn!(
                        why,
                        suppressed,
                        "the process of the metadata store was interrupted; applied state is kept in memory and in the \
                         journal, and another process starts in {pause:?}"
                    );
                }
            }
            Err(MetadataError::Unusable(why)) => {
                tracing::error!(why, "metadata store is out of use until the next start; nothing is lost");
                self.unusable = true;
                self.pending.clear();
            }
        }
    }

    fn take_back(&mut self, batch: Batch) {
        self.dirty = true;
        if batch.replace_all {
            // Whatever came since is part of the whole state.
            self.replaced();
            return;
        }
        for (key, value) in batch.changes {
            self.pending.entry(key).or_insert(value);
        }
        if self.pending.len() > CHANGES_MAX {
            self.replaced();
        }
    }
}

async fn run(
    mut store: Box<dyn MetadataStore>,
    mut batches: mpsc::Receiver<Batch>,
    done: mpsc::Sender<Written>,
) {
    while let Some(batch) = batches.recv().await {
        let result = store.write(&batch);
        if done.send(Written { batch, result }).await.is_err() {
            break;
        }
    }
}
