//! What all services of one controller share.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::Host;
use plimsoll_host::config::Secret;
use plimsoll_proto::ids::{ControllerId, SpuId};
use plimsoll_proto::v1::{self, ErrorDetail, entry::Change};
use tokio::sync::{mpsc, watch};

use super::answer;
use super::facts::FactsTable;
use super::producer_ids::ProducerIds;
use crate::cluster::{Effect, Outcome, RULES_VERSION};
use crate::liveness::{Event, LivenessSettings};
use crate::raft_runtime::{ProposeError, Proposed, RaftHandle, Vantage, View};

/// Most events that wait for the judge; beyond it heartbeats are dropped, the next one is due anyway.
pub(super) const EVENTS_WAITING_MAX: usize = 4096;

/// How long no relief begins by itself after somebody called one off.
const RELIEF_HELD: Duration = Duration::from_secs(600);

/// Settings of sessions and decisions. [`SessionSettings::default`] is what operators get.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionSettings {
    /// How long a proposal may take before its outcome is unknown. Default 5 s.
    pub propose_timeout: Duration,
    /// How long a read waits for a majority to confirm the leader. Default 2 s.
    pub read_timeout: Duration,
    /// How long creating a topic waits for nodes to join. Default 8 s.
    pub placement_wait: Duration,
    /// Longest pause between two updates of a metadata watch. Default 1 s.
    pub bookmark_interval: Duration,
    /// Pause between two digests of a metadata watch. Default 30 s.
    pub digest_interval: Duration,
    /// Pause between two turns of the judge. Default 100 ms.
    pub tick: Duration,
    /// Pause between two leaderships that return or make way. Default 500 ms.
    pub leader_move_interval: Duration,
    /// Facts older than this say nothing any more. Default 3 s.
    pub facts_fresh: Duration,
    /// How long one probe may take. Default 1 s.
    pub probe_timeout: Duration,
    /// Partitions that move to other nodes at the same time, because a node is drained or a volume is short of room.
    /// Default 4; with 0 none moves unless somebody asks for it.
    pub replica_moves_max: u32,
    /// How long a volume must be short of room (at Throttle or worse) before replicas leave it. Default 60 s.
    pub relief_after: Duration,
    /// Whether the internal topic of consumer groups is made before the first group is used. Default true.
    pub offsets_topic_early: bool,
    /// What a storage node must know to register. Default none: every node may.
    pub join_token: Option<Secret>,
    /// The only storage nodes that may register. Default none named: every node may.
    pub spus: BTreeSet<SpuId>,
    /// Timings of the judge.
    pub liveness: LivenessSettings,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            propose_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(2),
            placement_wait: Duration::from_secs(8),
            bookmark_interval: Duration::from_secs(1),
            digest_interval: Duration::from_secs(30),
            tick: Duration::from_millis(100),
            leader_move_interval: Duration::from_millis(500),
            facts_fresh: Duration::from_secs(3),
            probe_timeout: Duration::from_secs(1),
            replica_moves_max: 4,
            relief_after: Duration::from_secs(60),
            offsets_topic_early: true,
            join_token: None,
            spus: BTreeSet::new(),
            liveness: LivenessSettings::default(),
        }
    }
}

impl SessionSettings {
    /// Checks what must agree.
    ///
    /// # Errors
    /// A sentence for people that names both settings.
    pub fn check(&self) -> Result<(), String> {
        self.liveness.check()?;
        if self.tick >= self.liveness.pause_after {
            return Err(
                "tick must be below liveness pause_after, or every turn looks like a pause".to_owned()
            );
        }
        if self.bookmark_interval.is_zero() || self.tick.is_zero() {
            return Err("tick and bookmark_interval must not be 0".to_owned());
        }
        if self.spus.contains(&SpuId(0)) {
            return Err("spus must not name 0: ids of storage nodes start at 1".to_owned());
        }
        if self.join_token.as_ref().is_some_and(|token| token.0.is_empty()) {
            return Err("join_token must not be empty; leave it out to let every node join".to_owned());
        }
        Ok(())
    }
}

/// Handles and settings; clones share them.
#[derive(Clone, Debug)]
pub struct Shared {
    pub(super) host: Host,
    pub(super) id: ControllerId,
    pub(super) settings: SessionSettings,
    pub(super) raft: RaftHandle,
    pub(super) vantage: Vantage,
    pub(super) facts: FactsTable,
    pub(super) events: mpsc::Sender<(Duration, Event)>,
    pub(super) producer_ids: Arc<ProducerIds>,
    /// The term in which the judge of this leadership follows every registered node.
    judging: watch::Sender<u64>,
    /// Until then no relief begins by itself: somebody called one off.
    relief_held_until: watch::Sender<Duration>,
    stopping: watch::Receiver<bool>,
}

impl Shared {
    /// The parts that services share, and the queue that [`super::decide`] empties. `stopping` turns true when
    /// the controller stops: streams end.
    pub fn new(
        host: Host,
        id: ControllerId,
        settings: SessionSettings,
        raft: RaftHandle,
        vantage: Vantage,
        stopping: watch::Receiver<bool>,
    ) -> (Self, mpsc::Receiver<(Duration, Event)>) {
        let (events, queue) = mpsc::channel(EVENTS_WAITING_MAX);
        let facts = FactsTable::default();
        let producer_ids = Arc::new(ProducerIds::default());
        let judging = watch::Sender::new(0);
        let relief_held_until = watch::Sender::new(Duration::ZERO);
        (
            Self {
                host,
                id,
                settings,
                raft,
                vantage,
                facts,
                events,
                producer_ids,
                judging,
                relief_held_until,
                stopping,
            },
            queue,
        )
    }

    /// From now on writes of this term are accepted: the judge gives every registered node a fresh deadline.
    pub(super) fn judges_in(&self, term: u64) {
        self.judging.send_replace(term);
    }

    /// Somebody called a relief off: for a while none begins by itself. Forgotten when another controller leads.
    pub(super) fn hold_relief(&self) {
        self.relief_held_until.send_replace(self.host.clock.now().saturating_add(RELIEF_HELD));
    }

    /// Whether relief may begin by itself.
    pub(super) fn may_relieve(&self, now: Duration) -> bool {
        now >= *self.relief_held_until.borrow()
    }

    /// Whether the disks of the controllers have room for more topics.
    pub(super) fn room_to_grow(&self) -> Result<(), ErrorDetail> {
        let view = self.leading()?;
        view.room_to_grow().map_err(answer::no_room_to_grow)
    }

    /// The view, if this controller leads.
    pub(super) fn leading(&self) -> Result<Arc<View>, ErrorDetail> {
        let view = self.raft.view();
        if view.is_leader && *self.judging.borrow() == view.term {
            return Ok(view);
        }
        // Elected, but entries of former terms are not applied yet: a moment.
        let not_yet = view.leader == Some(self.id);
        Err(if not_yet {
            answer::no_quorum("this controller is taking over")
        } else {
            answer::not_leading_now(&view)
        })
    }

    /// The view once a majority confirmed that it is not old; any controller of a cluster with a leader.
    pub(super) async fn read(&self) -> Result<Arc<View>, ErrorDetail> {
        match self.raft.read_barrier(self.settings.read_timeout).await {
            Ok(index) => Ok(self.applied(index).await),
            // Its disk says nothing about the others: the caller asks them.
            Err(ProposeError::Disk { .. }) => Err(answer::no_quorum(
                "this controller can ask no majority: its own disk takes no entries; another one may answer",
            )),
            Err(error) => Err(answer::from_propose(error)).map_err(|detail: ErrorDetail| ErrorDetail {
                // A read has no effect to be unsure about.
                outcome: v1::Outcome::NotWritten.into(),
                ..detail
            }),
        }
    }

    /// The view when it reflects the entry at `index`.
    pub(super) async fn applied(&self, index: u64) -> Arc<View> {
        let mut views = self.raft.watch();
        let reached = views.wait_for(|view| view.applied_index >= index);
        if let Ok(Ok(view)) = self.host.clock.timeout(self.settings.read_timeout, reached).await {
            return Arc::clone(&view);
        }
        self.raft.view()
    }

    /// Proposes a change and waits until it is applied here.
    pub(super) async fn propose(&self, change: Change) -> Result<Proposed, ErrorDetail> {
        self.leading()?;
        let entry = v1::Entry {
            rules: RULES_VERSION,
            time_ms: self.host.clock.wall_ms(),
            change: Some(change),
            ..Default::default()
        };
        let proposed = self.raft.propose(entry, self.settings.propose_timeout).await;
        let proposed = proposed.map_err(answer::from_propose)?;
        self.applied(proposed.index).await;
        Ok(proposed)
    }

    /// Proposes a change that has to have its effect.
    pub(super) async fn change(&self, change: Change) -> Result<(u64, Effect), ErrorDetail> {
        let proposed = self.propose(change).await?;
        match proposed.applied {
            Outcome::Changed(effect) => Ok((proposed.index, effect)),
            Outcome::NoOp(mismatch) => Err(answer::mismatch(mismatch)),
        }
    }

    /// Tells the judge. A full queue drops the event: heartbeats repeat, and probes do too.
    pub(super) fn tell(&self, at: Duration, event: Event) {
        if self.events.try_send((at, event)).is_err() {
            tracing::debug!("the judge is behind; an event was dropped");
        }
    }

    /// Resolves when the controller stops. Cancel safe.
    pub(super) async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        // An error means that the controller is gone: stopped as well.
        drop(stopping.wait_for(|stopping| *stopping).await);
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_host::config::Secret;

    use super::*;
    use crate::session::testing::Alone;

    #[test]
    fn settings_that_do_not_agree_are_named() {
        type Set = fn(&mut SessionSettings);
        let rules: [(Set, &[&str]); 6] = [
            (|of| of.tick = of.liveness.pause_after, &["tick", "pause_after"]),
            (|of| of.tick = Duration::ZERO, &["tick"]),
            (|of| of.bookmark_interval = Duration::ZERO, &["bookmark_interval"]),
            (|of| of.join_token = Some(Secret(String::new())), &["join_token"]),
            (|of| of.spus = [SpuId(0)].into(), &["spus"]),
            (|of| of.liveness.confirm = of.liveness.probe_interval, &["probe_interval", "confirm"]),
        ];
        assert_eq!(SessionSettings::default().check(), Ok(()));
        for (set, named) in rules {
            let mut settings = SessionSettings::default();
            set(&mut settings);
            let why = settings.check().expect_err(named[0]);
            assert!(named.iter().all(|name| why.contains(name)), "{named:?}: {why}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_leader_accepts_writes_only_when_its_judge_follows_every_node() {
        let alone = Alone::start(SessionSettings::default()).await;
        let (shared, term) = (&alone.shared, alone.term);
        let change = || Change::AllocateProducerIds(v1::AllocateProducerIds { count: 1 });
        for judged in [0, term - 1] {
            shared.judges_in(judged);
            let refused = shared.propose(change()).await.unwrap_err();
            assert_eq!(refused.reason(), v1::Reason::NoQuorum, "{judged}");
        }
        shared.judges_in(term);
        shared.propose(change()).await.unwrap();
        alone.raft.stop(Duration::from_secs(1)).await;
    }
}
