//! What the judge remembers of one run of a node.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_proto::ids::{Incarnation, VolumeId};

use super::settings::LivenessSettings;
use crate::cluster::{Spu, VolumeState};

/// One tracked run.
#[derive(Clone, Debug)]
pub(super) struct Track {
    pub(super) incarnation: Incarnation,
    /// Last heartbeat, or the start of tracking: a fresh deadline.
    pub(super) last_heard: Duration,
    /// First heartbeat heard without a gap since.
    pub(super) heard_since: Option<Duration>,
    /// The connection ended after the last heartbeat.
    pub(super) closed: bool,
    /// A probe was answered.
    pub(super) answered: Option<Duration>,
    /// Last probe round that was asked for.
    pub(super) probed: Option<Duration>,
    /// Two vantage points saw the port refuse.
    pub(super) refused: bool,
    /// It was told that this run is held at joining.
    pub(super) held_told: bool,
    pub(super) volumes: BTreeMap<VolumeId, DataPath>,
    asked: BTreeMap<Subject, Duration>,
}

/// What a proposal is about, so that it isn't repeated with every tick.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Subject {
    Node,
    Volume(VolumeId),
}

/// The last word about a volume's data path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DataPath {
    pub(super) age: Duration,
    /// Since when it moves again.
    pub(super) moving_since: Duration,
    /// How often it was seen to stall in this run.
    pub(super) stalls: u32,
    pub(super) stalled: bool,
}

impl Track {
    pub(super) fn new(incarnation: Incarnation, now: Duration) -> Self {
        Self {
            incarnation,
            last_heard: now,
            heard_since: None,
            closed: false,
            answered: None,
            probed: None,
            refused: false,
            held_told: false,
            volumes: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        at: Duration,
        data_paths: &[(VolumeId, Duration)],
        settings: &LivenessSettings,
    ) {
        let gap = at.saturating_sub(self.last_heard) >= settings.suspect_after;
        if self.heard_since.is_none() || gap {
            self.heard_since = Some(at);
        }
        self.last_heard = self.last_heard.max(at);
        self.closed = false;
        self.refused = false;
        self.volumes.retain(|id, _| data_paths.iter().any(|(reported, _)| reported == id));
        for (id, age) in data_paths {
            let first = DataPath { age: *age, moving_since: at, stalls: 0, stalled: false };
            self.volumes.entry(*id).or_insert(first).report(at, *age, settings);
        }
    }

    pub(super) fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last_heard)
    }

    /// Whether all data paths have been stuck for so long. Failed volumes are out of service already and say
    /// nothing about the node.
    pub(super) fn all_stuck(&self, record: &Spu, limit: Duration) -> bool {
        let failed = |id: &VolumeId| {
            record.volumes.get(id).is_some_and(|volume| matches!(volume.state, VolumeState::Failed { .. }))
        };
        let mut in_service = self.volumes.iter().filter(|(id, _)| !failed(id)).peekable();
        in_service.peek().is_some() && in_service.all(|(_, path)| path.age >= limit)
    }

    /// Whether to propose now; remembers that it was proposed.
    pub(super) fn ask(&mut self, subject: Subject, now: Duration, settings: &LivenessSettings) -> bool {
        let due = self.asked.get(&subject).is_none_or(|at| now.saturating_sub(*at) >= settings.repeat_after);
        if due {
            self.asked.insert(subject, now);
        }
        due
    }

    /// The judge itself was away for `gap`: for the node that time did not pass, neither as silence nor as time during
    /// which it was heard or its volumes moved.
    pub(super) fn credit(&mut self, gap: Duration) {
        let later = |at: Duration| at.saturating_add(gap);
        self.last_heard = later(self.last_heard);
        self.heard_since = self.heard_since.map(later);
        self.answered = self.answered.map(later);
        for path in self.volumes.values_mut() {
            path.moving_since = later(path.moving_since);
        }
    }
}

impl DataPath {
    fn report(&mut self, at: Duration, age: Duration, settings: &LivenessSettings) {
        self.age = age;
        if age >= settings.volume_stalled_after {
            if !self.stalled {
                self.stalls = self.stalls.saturating_add(1);
            }
            self.stalled = true;
            self.moving_since = at;
        } else if self.stalled {
            self.stalled = false;
            self.moving_since = at;
        }
    }

    /// Whether it has moved again for long enough, the longer the more often it stalled.
    pub(super) fn is_well(&self, now: Duration, settings: &LivenessSettings) -> bool {
        let doublings = self.stalls.saturating_sub(1).min(16);
        let hold = settings.stall_hold.saturating_mul(1 << doublings).min(settings.stall_hold_max);
        !self.stalled && now.saturating_sub(self.moving_since) >= hold
    }
}
