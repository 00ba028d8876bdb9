//! The level of one volume as a state machine: facts and failures in, transitions and commands out.
//!
//! ```text
//!              free below a mark, or full soon: at once
//!   Normal ---> Reclaim ---> Throttle ---> ReadOnly( full -> [held] -> probing )      any -> Failed
//!      ^-----------^------------^--------------------------------------'canary passed
//!              free at the exit mark, within the budget of changes          left only by reopening
//! ```

use std::time::Duration;

use plimsoll_proto::disk::{DiskCause, DiskLevel};

use super::changes::ChangeBudget;
use super::due::{due, pressure_permille, shortage, wanted};
use super::marks::Marks;
pub use super::view::LevelView;
use crate::fs::FailureCause;

/// Unclassified failures in a row that make a volume Failed.
const UNCLASSIFIED_MAX: u32 = 3;
/// A canary that has not answered by then counts as failed.
const CANARY_DEADLINE: Duration = Duration::from_secs(5);
/// Pause after a failed canary: doubled from here to [`CANARY_RETRY_MAX`], well below the 2 s of G8.
const CANARY_RETRY_FIRST: Duration = Duration::from_millis(100);
const CANARY_RETRY_MAX: Duration = Duration::from_secs(1);
/// Commands to reclaim repeat no faster than this.
const RECLAIM_INTERVAL: Duration = Duration::from_millis(200);
/// The least a canary allocates.
const CANARY_BYTES_MIN: u64 = 64 * 1024;

/// Why a volume is at its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelCause {
    /// A resource is short, or a hold runs.
    Disk(DiskCause),
    /// It fills so fast that it will be full soon.
    FillingFast,
    /// The sensor does not know, which is never plenty.
    Unknown,
    /// The device failed.
    Failure(FailureCause),
}

/// What an accepted sample says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Free bytes, own unused preallocation included, the byte limit respected.
    pub free_bytes: u64,
    /// What a shortage of bytes is called: `Bytes`, or `Limit` when the configured limit is nearer.
    pub scarce: DiskCause,
    /// Free inodes; `None` when the filesystem does not say.
    pub free_inodes: Option<u64>,
    /// At the present slope.
    pub time_to_full: Option<Duration>,
}

/// Something that bears on the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An accepted sample.
    Sample(Facts),
    /// No answer in time, or three impossible ones.
    SensorUnknown,
    /// A write, allocation or creation met ENOSPC, EDQUOT or EFBIG.
    NoSpace {
        /// As classified at the door.
        cause: DiskCause,
        /// What exactly failed, to be repeated by the canary.
        repeat: Repeat,
    },
    /// The canary of this attempt went through.
    CanaryPassed {
        /// From its command.
        attempt: u64,
    },
    /// The canary of this attempt met the full disk still.
    CanaryFailed {
        /// From its command.
        attempt: u64,
        /// As classified at the door; `None` when it failed otherwise.
        cause: Option<DiskCause>,
    },
    /// The device failed.
    VolumeFailed(FailureCause),
    /// A failure with a number that nobody classified.
    Unclassified,
}

/// What failed, so that the canary can repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Allocating so many bytes.
    Allocate {
        /// How many.
        bytes: u64,
    },
    /// Creating a file.
    Create,
    /// Writing at this offset of a file (the file size limit).
    WriteAt {
        /// Where.
        offset: u64,
    },
}

/// A trial before re-admission: do what failed, then write, sync and read back; remove the trial file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// To be given back with the outcome.
    pub attempt: u64,
    /// What to do.
    pub repeat: Repeat,
}

/// One change of level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: DiskLevel,
    /// Now.
    pub to: DiskLevel,
    /// Why; `None` at Normal.
    pub cause: Option<LevelCause>,
    /// When.
    pub at: Duration,
    /// Free bytes as last known.
    pub free_bytes: u64,
}

/// What the owner of the volume must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The level changed: one event, one log line, one metric change.
    Changed(Transition),
    /// Run the reclaim plan for these amounts; repeated while they are short. Both may be 0: then only what
    /// retention allows goes.
    Reclaim {
        /// Bytes up to the exit mark of Reclaim.
        bytes: u64,
        /// Inodes up to the exit mark of Reclaim.
        inodes: u64,
    },
    /// Back to Normal: pressure reclaim ends.
    StopReclaim,
    /// Cut all unused preallocation and make no more.
    GiveBackPreallocation,
    /// Ask the controller to move leaders of this volume to replicas with room.
    MoveLeaders,
    /// Try what failed and answer with the attempt's number.
    RunCanary(Canary),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Normal, Reclaim or Throttle.
    Open {
        level: DiskLevel,
        cause: Option<LevelCause>,
    },
    ReadOnly {
        cause: DiskCause,
        repeat: Repeat,
        phase: Phase,
    },
    Failed {
        cause: FailureCause,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No room yet.
    Full,
    /// Room, but too many recoveries lately.
    Held { until: Duration },
    /// A canary is under way.
    Probing { attempt: u64, since: Duration, failures: u32 },
    /// A canary failed; the next one waits.
    Retry { after: Duration, failures: u32 },
}

/// The level of one volume.
#[derive(Clone, Debug)]
pub struct LevelMachine {
    state: State,
    since: Duration,
    facts: Facts,
    known: bool,
    attempts: u64,
    unclassified: u32,
    reclaimed_at: Option<Duration>,
    budget: ChangeBudget,
}

impl LevelMachine {
    /// The level of a volume that is being opened, straight from its first sample.
    pub fn new(facts: Facts, marks: &Marks, now: Duration) -> Self {
        let state = match wanted(DiskLevel::Normal, &facts, marks) {
            (DiskLevel::ReadOnly, cause) => read_only(cause),
            (level, cause) => State::Open { level, cause },
        };
        Self {
            state,
            since: now,
            facts,
            known: true,
            attempts: 0,
            unclassified: 0,
            reclaimed_at: None,
            budget: ChangeBudget::default(),
        }
    }

    /// The level now.
    pub fn level(&self) -> DiskLevel {
        match self.state {
            State::Open { level, .. } => level,
            State::ReadOnly { .. } => DiskLevel::ReadOnly,
            State::Failed { .. } => DiskLevel::Failed,
        }
    }

    /// Takes an event; returns what to do, in order.
    pub fn handle(&mut self, event: Event, marks: &Marks, now: Duration) -> Vec<Command> {
        let mut commands = Vec::new();
        if matches!(self.state, State::Failed { .. }) {
            return commands;
        }
        match event {
            Event::Sample(facts) => {
                self.facts = facts;
                self.known = true;
                self.on_sample(marks, now, &mut commands);
            }
            Event::SensorUnknown => self.on_unknown(now, &mut commands),
            Event::NoSpace { cause, repeat } => self.on_no_space(cause, repeat, marks, now, &mut commands),
            Event::CanaryPassed { attempt } => self.on_canary_passed(attempt, marks, now, &mut commands),
            Event::CanaryFailed { attempt, cause } => self.on_canary_failed(attempt, cause, now),
            Event::VolumeFailed(cause) => self.enter(State::Failed { cause }, now, &mut commands),
            Event::Unclassified => {
                self.unclassified += 1;
                if self.unclassified >= UNCLASSIFIED_MAX {
                    let cause = FailureCause::AppendErrors;
                    self.enter(State::Failed { cause }, now, &mut commands);
                }
            }
        }
        self.demand_reclaim(marks, now, &mut commands);
        commands
    }

    /// An operation worked, so unclassified failures are no longer in a row.
    pub fn operation_worked(&mut self) {
        self.unclassified = 0;
    }

    fn on_sample(&mut self, marks: &Marks, now: Duration, commands: &mut Vec<Command>) {
        match self.state {
            State::Open { level, .. } => match wanted(level, &self.facts, marks) {
                (to, cause) if to == level => self.state = State::Open { level, cause },
                (DiskLevel::ReadOnly, cause) => self.enter(read_only(cause), now, commands),
                (to, cause) if to > level => self.enter(State::Open { level: to, cause }, now, commands),
                (to, cause) => {
                    if self.budget.improvement_at(to, now) <= now {
                        self.enter(State::Open { level: to, cause }, now, commands);
                    }
                }
            },
            State::ReadOnly { cause, repeat, phase } => {
                match shortage(DiskLevel::ReadOnly, &self.facts, marks, true) {
                    Some(cause) => self.state = State::ReadOnly { cause, repeat, phase: Phase::Full },
                    None => self.seek_recovery(cause, repeat, phase, now, commands),
                }
            }
            State::Failed { .. } => {}
        }
    }

    fn seek_recovery(
        &mut self,
        cause: DiskCause,
        repeat: Repeat,
        phase: Phase,
        now: Duration,
        commands: &mut Vec<Command>,
    ) {
        let mut probe = |machine: &mut Self, failures| {
            machine.attempts += 1;
            let attempt = machine.attempts;
            commands.push(Command::RunCanary(Canary { attempt, repeat }));
            Phase::Probing { attempt, since: now, failures }
        };
        let next = match phase {
            Phase::Full => {
                let until = self.budget.recovery_at(now);
                if until > now { Phase::Held { until } } else { probe(self, 0) }
            }
            Phase::Held { until } if until <= now => probe(self, 0),
            Phase::Retry { after, failures } if after <= now => probe(self, failures),
            Phase::Probing { since, failures, .. } if now.saturating_sub(since) >= CANARY_DEADLINE => {
                retry_phase(failures, now)
            }
            Phase::Held { .. } | Phase::Retry { .. } | Phase::Probing { .. } => phase,
        };
        self.state = State::ReadOnly { cause, repeat, phase: next };
    }

    fn on_unknown(&mut self, now: Duration, commands: &mut Vec<Command>) {
        self.known = false;
        match self.state {
            State::Open { level: DiskLevel::Normal, .. } => {
                let cause = Some(LevelCause::Unknown);
                self.enter(State::Open { level: DiskLevel::Reclaim, cause }, now, commands);
            }
            State::ReadOnly { cause, repeat, .. } => {
                self.state = State::ReadOnly { cause, repeat, phase: Phase::Full };
            }
            State::Open { .. } | State::Failed { .. } => {}
        }
    }

    fn on_no_space(
        &mut self,
        cause: DiskCause,
        repeat: Repeat,
        marks: &Marks,
        now: Duration,
        commands: &mut Vec<Command>,
    ) {
        let repeat = bounded(repeat, marks);
        let state = State::ReadOnly { cause, repeat, phase: Phase::Full };
        match self.state {
            State::Open { .. } => self.enter(state, now, commands),
            // A canary that runs while a write fails proves nothing.
            State::ReadOnly { phase: Phase::Held { .. } | Phase::Full | Phase::Probing { .. }, .. } => {
                self.state = state;
            }
            State::ReadOnly { phase: phase @ Phase::Retry { .. }, .. } => {
                self.state = State::ReadOnly { cause, repeat, phase };
            }
            State::Failed { .. } => {}
        }
    }

    fn on_canary_passed(&mut self, answered: u64, marks: &Marks, now: Duration, commands: &mut Vec<Command>) {
        let State::ReadOnly { phase: Phase::Probing { attempt, .. }, .. } = self.state else { return };
        if attempt != answered || !self.known {
            return;
        }
        let marked = [DiskLevel::Throttle, DiskLevel::Reclaim];
        let found = marked.into_iter().find_map(|level| due(level, true, &self.facts, marks));
        let (level, cause) = found.map_or((DiskLevel::Normal, None), |(level, cause)| (level, Some(cause)));
        self.budget.record_recovery(now);
        self.enter(State::Open { level, cause }, now, commands);
    }

    fn on_canary_failed(&mut self, answered: u64, found: Option<DiskCause>, now: Duration) {
        let State::ReadOnly { cause, repeat, phase: Phase::Probing { attempt, failures, .. } } = self.state
        else {
            return;
        };
        if attempt == answered {
            let cause = found.unwrap_or(cause);
            self.state = State::ReadOnly { cause, repeat, phase: retry_phase(failures, now) };
        }
    }

    /// The one way from a level to another.
    fn enter(&mut self, state: State, now: Duration, commands: &mut Vec<Command>) {
        let from = self.level();
        self.state = state;
        let to = self.level();
        debug_assert_ne!(from, to, "a change changes");
        self.since = now;
        self.reclaimed_at = None;
        self.budget.record_change(now);
        let free_bytes = self.facts.free_bytes;
        commands.push(Command::Changed(Transition { from, to, cause: self.cause(), at: now, free_bytes }));
        let worse = to > from && to != DiskLevel::Failed;
        if worse && from < DiskLevel::Throttle && to >= DiskLevel::Throttle {
            commands.push(Command::GiveBackPreallocation);
            commands.push(Command::MoveLeaders);
        }
        if to == DiskLevel::Normal || to == DiskLevel::Failed {
            commands.push(Command::StopReclaim);
        }
    }

    fn demand_reclaim(&mut self, marks: &Marks, now: Duration, commands: &mut Vec<Command>) {
        let due = self.reclaimed_at.is_none_or(|at| now.saturating_sub(at) >= RECLAIM_INTERVAL);
        let level = self.level();
        if !due || level == DiskLevel::Normal || level == DiskLevel::Failed || !self.known {
            return;
        }
        self.reclaimed_at = Some(now);
        let goal = marks.bytes(DiskLevel::Reclaim).exit;
        let bytes = goal.saturating_sub(self.facts.free_bytes);
        let goal = marks.inodes(DiskLevel::Reclaim).exit;
        let inodes = self.facts.free_inodes.map_or(0, |free| goal.saturating_sub(free));
        commands.push(Command::Reclaim { bytes, inodes });
    }

    fn cause(&self) -> Option<LevelCause> {
        match self.state {
            State::Open { cause, .. } => cause,
            State::ReadOnly { phase: Phase::Held { .. }, .. } => Some(LevelCause::Disk(DiskCause::Hold)),
            State::ReadOnly { cause, .. } => Some(LevelCause::Disk(cause)),
            State::Failed { cause } => Some(LevelCause::Failure(cause)),
        }
    }

    /// What admission, heartbeats and people see.
    pub fn view(&self, marks: &Marks) -> LevelView {
        let hold_until = match self.state {
            State::ReadOnly { phase: Phase::Held { until }, .. } => Some(until),
            _ => None,
        };
        LevelView {
            level: self.level(),
            cause: self.cause(),
            since: self.since,
            facts: self.facts,
            known: self.known,
            capacity_bytes: marks.shape().capacity_bytes,
            hold_until,
            pressure_permille: pressure_permille(&self.facts, marks),
            recovery_bytes: marks.bytes(DiskLevel::ReadOnly).exit,
        }
    }
}

fn read_only(cause: Option<LevelCause>) -> State {
    let cause = match cause {
        Some(LevelCause::Disk(cause)) => cause,
        _ => DiskCause::Bytes,
    };
    let repeat = match cause {
        DiskCause::Inodes => Repeat::Create,
        _ => Repeat::Allocate { bytes: CANARY_BYTES_MIN },
    };
    State::ReadOnly { cause, repeat, phase: Phase::Full }
}

fn retry_phase(failures: u32, now: Duration) -> Phase {
    let pause = CANARY_RETRY_FIRST.saturating_mul(1 << failures.min(8)).min(CANARY_RETRY_MAX);
    Phase::Retry { after: now.saturating_add(pause), failures: failures.saturating_add(1) }
}

/// A canary must not ask for more than a volume at its exit mark has.
fn bounded(repeat: Repeat, marks: &Marks) -> Repeat {
    match repeat {
        Repeat::Allocate { bytes } => {
            let most = (marks.bytes(DiskLevel::ReadOnly).exit / 2).max(CANARY_BYTES_MIN);
            Repeat::Allocate { bytes: bytes.clamp(CANARY_BYTES_MIN, most) }
        }
        Repeat::Create | Repeat::WriteAt { .. } => repeat,
    }
}

#[cfg(test)]
#[path = "level_tests.rs"]
mod tests;
