//! The loop of the leading controller: it hears, judges and proposes.
//!
//! It never waits for a proposal: those run beside it, and what they were for is judged again until the applied
//! state shows it.

use std::time::Duration;

use plimsoll_host::Task;
use plimsoll_proto::group::OFFSETS_TOPIC;
use plimsoll_proto::v1::{self, entry::Change};
use tokio::sync::mpsc;

use super::loans::next_note;
use super::moving::Moving;
use super::offsets_topic::OffsetsTopic;
use super::shared::{EVENTS_WAITING_MAX, Shared};
use super::{probe, topics};
use crate::election::{LeaderMove, next_leader_move};
use crate::liveness::{Command, Event, Judge};
use crate::placement;
use crate::raft_runtime::View;

/// Decides while this controller leads, and waits while it does not. Ends when the controller stops.
pub async fn decide(shared: Shared, mut queue: mpsc::Receiver<(Duration, Event)>) {
    let mut views = shared.raft.watch();
    loop {
        let mut leads = false;
        tokio::select! {
            biased;
            () = shared.stopped() => {}
            view = views.wait_for(|view| view.is_leader) => leads = view.is_ok(),
        }
        if !leads {
            return;
        }
        lead(&shared, &mut queue).await;
    }
}

async fn lead(shared: &Shared, queue: &mut mpsc::Receiver<(Duration, Event)>) {
    shared.facts.clear();
    while queue.try_recv().is_ok() {}
    let view = shared.raft.view();
    let now = shared.host.clock.now();
    let term = view.term;
    let judge = Judge::new(shared.settings.liveness, now, shared.host.clock.wall_ms(), &view.state);
    shared.judges_in(term);
    let logged = view.state.version().0;
    let moving = Moving::default();
    let mut turn = Turn {
        shared: shared.clone(),
        judge,
        tick_at: now,
        moves_at: now,
        leader_moving: None,
        noting: None,
        offsets: OffsetsTopic::new(now),
        moving,
        logged,
    };
    loop {
        let events = tokio::select! {
            biased;
            () = shared.stopped() => return,
            () = shared.host.clock.sleep_until(turn.tick_at) => until_tick(shared.host.clock.now(), queue),
            event = queue.recv() => event.into_iter().collect(),
        };
        if events.is_empty() {
            return;
        }
        for (at, event) in events {
            let view = shared.raft.view();
            if !view.is_leader || view.term != term {
                return;
            }
            turn.take(at, event, &view);
        }
    }
}

/// A tick at `now`, and before it everything that was received until then: what waits in the queue of a judge that is
/// slow is no silence.
fn until_tick(now: Duration, queue: &mut mpsc::Receiver<(Duration, Event)>) -> Vec<(Duration, Event)> {
    let mut events = Vec::with_capacity(queue.len() + 1);
    while events.len() < EVENTS_WAITING_MAX
        && let Ok(event) = queue.try_recv()
    {
        events.push(event);
    }
    events.push((now, Event::Tick));
    events
}

struct Turn {
    shared: Shared,
    judge: Judge,
    tick_at: Duration,
    moves_at: Duration,
    leader_moving: Option<Task>,
    noting: Option<Task>,
    offsets: OffsetsTopic,
    moving: Moving,
    /// Events of entries up to this index were logged.
    logged: u64,
}

impl Turn {
    fn take(&mut self, at: Duration, event: Event, view: &View) {
        let tick = event == Event::Tick;
        for command in self.judge.on(at, event, &view.state) {
            self.execute(command);
        }
        if tick {
            self.tick_at = at.saturating_add(self.shared.settings.tick);
            self.move_one_leader(at, view);
            self.note_one_loan(at, view);
            self.make_offsets_topic(at, view);
            self.moving.tick(&self.shared, at, view);
            self.log(view);
        }
    }

    /// One line for each committed transition of a node or volume; partitions follow from those.
    fn log(&mut self, view: &View) {
        for event in view.state.events_after(self.logged) {
            let (spu, from, to, reason) = (event.spu_id, &event.from, &event.to, &event.reason);
            match event.kind.as_str() {
                "leader_changed"
                | "in_sync_changed"
                | "reassignment_started"
                | "reassignment_finished"
                | "reassignment_cancelled" => {
                    tracing::debug!(
                        kind = event.kind,
                        partition = event.partition,
                        from,
                        to,
                        reason,
                        "applied"
                    );
                }
                kind => tracing::info!(kind, index = event.index, spu, from, to, reason, "applied"),
            }
        }
        self.logged = view.state.version().0;
    }

    fn execute(&self, command: Command) {
        match command {
            Command::Probe { spu, incarnation } => {
                self.beside("probe", probe::round(self.shared.clone(), spu, incarnation));
            }
            Command::Held { spu, returns, hold } => tracing::warn!(
                %spu, returns, hold_s = hold.as_secs(),
                "an SPU came back too often lately: it takes leaderships and new replicas again when it was heard for so long"
            ),
            Command::SetSpuState { spu, incarnation, expected, wanted, reason } => {
                tracing::debug!(%spu, %incarnation, from = %expected, to = %wanted, reason, "proposing a state of an SPU");
                self.propose(Change::SetSpuState(v1::SetSpuState {
                    spu_id: spu.0,
                    incarnation: incarnation.0,
                    expected: expected.to_wire().into(),
                    wanted: wanted.to_wire().into(),
                    reason: reason.to_owned(),
                }));
            }
            Command::SetVolumeState { spu, incarnation, volume, expected, wanted } => {
                tracing::debug!(%spu, %volume, from = expected.name(), to = wanted.name(), "proposing a state of a volume");
                self.propose(Change::SetVolumeState(v1::SetVolumeState {
                    spu_id: spu.0,
                    volume_id: volume.to_bytes(),
                    incarnation: incarnation.0,
                    expected: expected.to_wire().into(),
                    wanted: wanted.to_wire().into(),
                    reason: wanted.reason().to_owned(),
                }));
            }
        }
    }

    /// Leaders return, or make way, one at a time.
    fn move_one_leader(&mut self, now: Duration, view: &View) {
        let busy = self.leader_moving.as_ref().is_some_and(|moving| !moving.is_finished());
        if busy || now < self.moves_at {
            return;
        }
        self.moves_at = now.saturating_add(self.shared.settings.leader_move_interval);
        let levels = self.shared.facts.levels(now.saturating_sub(self.shared.settings.facts_fresh));
        if let Some(change) = next_leader_move(&view.state, &levels).and_then(|next| move_leader(view, next))
        {
            let shared = self.shared.clone();
            self.leader_moving = Some(self.shared.host.tasks.spawn("move leader", propose(shared, change)));
        }
    }

    /// What operators borrowed, one at a time.
    fn note_one_loan(&mut self, now: Duration, view: &View) {
        if self.noting.as_ref().is_some_and(|noting| !noting.is_finished()) {
            return;
        }
        let shared = self.shared.clone();
        let since = now.saturating_sub(shared.settings.facts_fresh);
        if let Some(note) = next_note(&view.state, |spu| shared.facts.get(spu), since) {
            let task = propose(self.shared.clone(), Change::NoteLoan(note));
            self.noting = Some(self.shared.host.tasks.spawn("note a loan", task));
        }
    }

    /// The internal topic of consumer groups, while there is room for all of its copies.
    fn make_offsets_topic(&mut self, now: Duration, view: &View) {
        if !self.shared.settings.offsets_topic_early {
            return;
        }
        let Some(nodes) = self.offsets.due(&view.state, now) else { return };
        let since = now.saturating_sub(self.shared.settings.facts_fresh);
        let (targets, _) = placement::targets(&view.state, &self.shared.facts.volumes(since));
        if usize::try_from(placement::nodes(&targets)).is_ok_and(|with_room| with_room < nodes) {
            return;
        }
        let shared = self.shared.clone();
        self.beside("offsets topic", async move {
            let request = v1::CreateTopicRequest { name: OFFSETS_TOPIC.to_owned(), config: None };
            if let Err(error) = topics::create(&shared, request).await {
                tracing::debug!(reason = ?error.reason(), error.message, "the offsets topic was not made");
            }
        });
    }

    fn propose(&self, change: Change) {
        self.beside("propose", propose(self.shared.clone(), change));
    }

    fn beside(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.shared.host.tasks.spawn(name, work).detach();
    }
}

fn move_leader(view: &View, next: LeaderMove) -> Option<Change> {
    let partition = view.state.partition(next.partition)?;
    Some(Change::MoveLeader(v1::MoveLeader {
        topic_id: next.partition.topic_id.to_bytes(),
        partition: next.partition.index,
        partition_epoch: partition.partition_epoch.0,
        leader: next.to.0,
        leader_incarnation: view.state.incarnation(next.to)?.0,
        reason: next.reason.to_owned(),
    }))
}

/// Proposes once. A failure is not repeated here: the judge asks again while it still holds.
async fn propose(shared: Shared, change: Change) {
    match shared.propose(change).await {
        Ok(proposed) => tracing::debug!(index = proposed.index, outcome = ?proposed.applied, "decided"),
        Err(error) => tracing::debug!(reason = ?error.reason(), error.message, "a decision was not taken"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use plimsoll_proto::ids::SpuId;

    use super::*;
    use crate::cluster::SpuState;
    use crate::cluster::testing::Cluster;
    use crate::liveness::LivenessSettings;

    const BEAT: Duration = Duration::from_millis(500);

    /// A judge of three nodes whose every turn takes `turn`, with a queue for `room` events that nobody waits for.
    /// All nodes but the third beat on time, for `length`. Returns who is to have another state, and which.
    fn judged(turn: Duration, room: usize, length: Duration) -> BTreeMap<SpuId, SpuState> {
        let state = Cluster::of(3).state;
        let settings = LivenessSettings::default();
        let start = Duration::from_secs(100);
        let mut judge = Judge::new(settings, start, 0, &state);
        let (events, mut queue) = mpsc::channel(room);
        let (mut beat_at, mut now) = (start, start);
        let mut wanted = BTreeMap::new();
        while now < start + length {
            while beat_at <= now {
                for spu in [1, 2].map(SpuId) {
                    let incarnation = state.incarnation(spu).unwrap();
                    let beat = Event::Heartbeat { spu, incarnation, data_paths: Vec::new() };
                    // As a session does: what finds no place is dropped.
                    drop(events.try_send((beat_at, beat)));
                }
                beat_at += BEAT;
            }
            for (at, event) in until_tick(now, &mut queue) {
                for command in judge.on(at, event, &state) {
                    if let Command::SetSpuState { spu, wanted: state, .. } = command {
                        wanted.insert(spu, state);
                    }
                }
            }
            now += turn;
        }
        wanted
    }

    #[test]
    fn a_heartbeat_is_judged_by_its_receipt_however_late_it_is_read() {
        let all = [Duration::from_millis(100), Duration::from_millis(900), Duration::from_secs(8)];
        for turn in all {
            let wanted = judged(turn, EVENTS_WAITING_MAX, Duration::from_secs(60));
            assert!(
                !wanted.contains_key(&SpuId(1)) && !wanted.contains_key(&SpuId(2)),
                "{turn:?}: {wanted:?}"
            );
        }
        let silent = judged(Duration::from_millis(900), EVENTS_WAITING_MAX, Duration::from_secs(60));
        assert_eq!(silent.get(&SpuId(3)), Some(&SpuState::Offline), "a silent one is found all the same");
    }

    #[test]
    fn a_full_queue_accuses_nobody() {
        // Sixteen beats of each while the judge is away, and room for the first two: seven seconds seem silent.
        let wanted = judged(Duration::from_secs(8), 4, Duration::from_secs(60));
        assert!(!wanted.contains_key(&SpuId(1)) && !wanted.contains_key(&SpuId(2)), "{wanted:?}");
    }
}
