//! The judge: from what was heard to what is proposed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use plimsoll_proto::ids::{Incarnation, SpuId, VolumeId};

use super::flaps::Flaps;
use super::settings::LivenessSettings;
use super::track::{Subject, Track};
use super::{Command, Event, Sight};
use crate::cluster::{ClusterState, Spu, SpuState, VolumeState};

/// Judges the nodes of one leadership; a new leader makes a new judge, which gives every registered node a
/// fresh deadline.
#[derive(Debug)]
pub struct Judge {
    settings: LivenessSettings,
    tracks: BTreeMap<SpuId, Track>,
    last_turn: Duration,
    /// Nodes declared offline by silence, and when.
    silenced: VecDeque<(Duration, SpuId)>,
    flaps: Flaps,
}

impl Judge {
    /// A judge that starts at `now`, which is `wall_ms` since 1970, with every node of `state` that is not offline.
    pub fn new(settings: LivenessSettings, now: Duration, wall_ms: u64, state: &ClusterState) -> Self {
        let mut judge = Self {
            settings,
            tracks: BTreeMap::new(),
            last_turn: now,
            silenced: VecDeque::new(),
            flaps: Flaps::default(),
        };
        judge.flaps.follow(now, Some(wall_ms), state, &settings);
        judge.follow(now, state);
        judge
    }

    /// Takes one event that happened at `at`. `state` is the applied state.
    pub fn on(&mut self, at: Duration, event: Event, state: &ClusterState) -> Vec<Command> {
        self.credit_pause(at);
        self.follow(at, state);
        match event {
            Event::Heartbeat { spu, incarnation, data_paths } => {
                let settings = self.settings;
                if let Some(track) = self.track(spu, incarnation) {
                    track.heartbeat(at, &data_paths, &settings);
                }
                self.judge_one(spu, at, state)
            }
            Event::StreamClosed { spu, incarnation } => {
                if let Some(track) = self.track(spu, incarnation) {
                    // A stream that was replaced may end late: the node was heard since, or will be.
                    track.closed = true;
                }
                self.judge_one(spu, at, state)
            }
            Event::Probed { spu, incarnation, started, direct, through } => {
                if let Some(track) = self.track(spu, incarnation) {
                    take_sights(track, at, started, direct, &through);
                }
                self.judge_one(spu, at, state)
            }
            Event::Tick => self.tick(at, state),
        }
    }

    fn tick(&mut self, now: Duration, state: &ClusterState) -> Vec<Command> {
        let window = self.settings.mass_window;
        while self.silenced.front().is_some_and(|(at, _)| now.saturating_sub(*at) > window) {
            self.silenced.pop_front();
        }
        let spus: Vec<_> = self.tracks.keys().copied().collect();
        spus.into_iter().flat_map(|spu| self.judge_one(spu, now, state)).collect()
    }

    /// Ticks come often; a judge that had no turn for long was itself away, and nobody was silent meanwhile.
    fn credit_pause(&mut self, now: Duration) {
        let gap = now.saturating_sub(self.last_turn);
        self.last_turn = self.last_turn.max(now);
        if gap >= self.settings.pause_after {
            self.tracks.values_mut().for_each(|track| track.credit(gap));
        }
    }

    /// Tracks exactly the runs that are registered and not offline.
    fn follow(&mut self, now: Duration, state: &ClusterState) {
        self.flaps.follow(now, None, state, &self.settings);
        let live = |spu: &SpuId| state.spu(*spu).filter(|record| record.state.is_live());
        self.tracks.retain(|spu, track| live(spu).is_some_and(|r| r.incarnation == track.incarnation));
        for (spu, record) in state.spus() {
            if record.state.is_live() {
                self.tracks.entry(*spu).or_insert_with(|| Track::new(record.incarnation, now));
            }
        }
    }

    /// The track of that very run; late news of another run changes nothing.
    fn track(&mut self, spu: SpuId, incarnation: Incarnation) -> Option<&mut Track> {
        self.tracks.get_mut(&spu).filter(|track| track.incarnation == incarnation)
    }

    fn judge_one(&mut self, spu: SpuId, now: Duration, state: &ClusterState) -> Vec<Command> {
        let held = self.is_held(now);
        let settings = self.settings;
        let hold = self.flaps.hold(spu, now, &settings);
        let (Some(track), Some(record)) = (self.tracks.get_mut(&spu), state.spu(spu)) else {
            return Vec::new();
        };
        let mut commands = Vec::new();
        if wants_probe(track, now, &settings) {
            track.probed = Some(now);
            commands.push(Command::Probe { spu, incarnation: track.incarnation });
        }
        if !hold.is_zero() && record.state == SpuState::Joining && !track.held_told {
            track.held_told = true;
            commands.push(Command::Held { spu, returns: self.flaps.returns(spu, now), hold });
        }
        if let Some((wanted, reason)) = verdict(track, record, now, (held, hold), &settings) {
            if track.ask(Subject::Node, now, &settings) {
                let (incarnation, expected) = (track.incarnation, record.state);
                commands.push(Command::SetSpuState { spu, incarnation, expected, wanted, reason });
            }
            if (reason == SILENT || reason == UNHEARD)
                && self.silenced.iter().all(|(_, silenced)| *silenced != spu)
            {
                self.silenced.push_back((now, spu));
            }
            return commands;
        }
        for (id, volume) in &record.volumes {
            if let Some(wanted) = volume_verdict(track, *id, &volume.state, now, &settings)
                && track.ask(Subject::Volume(*id), now, &settings)
            {
                let expected = volume.state.clone();
                let incarnation = track.incarnation;
                commands.push(Command::SetVolumeState { spu, incarnation, volume: *id, expected, wanted });
            }
        }
        commands
    }

    /// Whether so many are silent at once that the fault is likely elsewhere.
    fn is_held(&self, now: Duration) -> bool {
        let limit = self.settings.suspect_after;
        let silent = self.tracks.iter().filter(|(spu, track)| {
            track.silence(now) >= limit && self.silenced.iter().all(|(_, gone)| gone != *spu)
        });
        let all = self.tracks.len() + self.gone();
        silent.count() + self.silenced.len() > (all / 3).max(1)
    }

    fn gone(&self) -> usize {
        self.silenced.iter().filter(|(_, spu)| !self.tracks.contains_key(spu)).count()
    }
}

const SILENT: &str = "silent";
/// It lives, but can be told nothing and change no set: what it leads must not wait for it for ever.
const UNHEARD: &str = "answers, but sends no heartbeats";

fn take_sights(track: &mut Track, at: Duration, started: Duration, direct: Sight, through: &[Sight]) {
    if track.last_heard > started {
        return;
    }
    if direct == Sight::Answered || through.contains(&Sight::Answered) {
        track.answered = Some(at);
        track.refused = false;
    } else {
        track.refused = direct == Sight::Refused && through.contains(&Sight::Refused);
    }
}

fn wants_probe(track: &Track, now: Duration, settings: &LivenessSettings) -> bool {
    let worth = track.closed || track.silence(now) >= settings.suspect_after;
    worth && track.probed.is_none_or(|at| now.saturating_sub(at) >= settings.probe_interval)
}

fn verdict(
    track: &Track,
    record: &Spu,
    now: Duration,
    (held, back_after): (bool, Duration),
    settings: &LivenessSettings,
) -> Option<(SpuState, &'static str)> {
    let silence = track.silence(now);
    if track.refused {
        return Some((SpuState::Offline, "port refuses"));
    }
    let answered =
        track.answered.is_some_and(|at| at > track.last_heard && now.saturating_sub(at) < settings.confirm);
    let hold = if held || answered { settings.mass_hold } else { Duration::ZERO };
    if silence >= settings.offline_after().saturating_add(hold) {
        return Some((SpuState::Offline, if answered { UNHEARD } else { SILENT }));
    }
    // One that is offline registers again at once. With disks that are still stuck it stays at joining: its volumes are
    // stalled, so it leads nothing and is told of; offline again and again it would be one fault told for ever.
    if record.state != SpuState::Joining && track.all_stuck(record, settings.node_stalled_after) {
        return Some((SpuState::Offline, "disk_stall"));
    }
    if silence >= settings.suspect_after {
        let newly = matches!(record.state, SpuState::Joining | SpuState::Online);
        return newly.then_some((SpuState::Suspect, "no heartbeat"));
    }
    let heard_for = track.heard_since.map(|since| track.last_heard.saturating_sub(since));
    match record.state {
        SpuState::Suspect if heard_for.is_some_and(|heard| heard >= back_after) => {
            Some((SpuState::Online, "heard again"))
        }
        SpuState::Joining
            if heard_for.is_some_and(|heard| heard >= settings.join_age.max(back_after))
                && !track.all_stuck(record, settings.volume_stalled_after) =>
        {
            let reason = if back_after.is_zero() { "joined" } else { "joined after a hold" };
            Some((SpuState::Online, reason))
        }
        SpuState::Joining | SpuState::Suspect | SpuState::Online | SpuState::Draining | SpuState::Offline => {
            None
        }
    }
}

fn volume_verdict(
    track: &Track,
    id: VolumeId,
    state: &VolumeState,
    now: Duration,
    settings: &LivenessSettings,
) -> Option<VolumeState> {
    let path = track.volumes.get(&id)?;
    match state {
        VolumeState::Writable if path.stalled => {
            Some(VolumeState::Stalled { reason: "data path is stuck".to_owned() })
        }
        VolumeState::Stalled { .. } if path.is_well(now, settings) => Some(VolumeState::Writable),
        VolumeState::Writable
        | VolumeState::WriteOffline { .. }
        | VolumeState::Stalled { .. }
        | VolumeState::Failed { .. } => None,
    }
}
