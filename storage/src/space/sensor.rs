//! From what `statvfs` says to what the volume does. Without a thread and without a clock: the owner asks
//! [`Sensor::next_sample_in`], samples on a lane of its own ([`crate::fs::Disk::space`] may never return) and
//! feeds what it got, or [`Observation::NoAnswer`] after [`ANSWER_DEADLINE`].

use std::time::Duration;

use plimsoll_proto::disk::{DiskCause, DiskLevel};

use super::level::{Command, Event, Facts, LevelMachine, LevelView, Repeat};
use super::marks::{MarkSettings, Marks, MarksInvalid, VolumeShape};
use super::operator::{Borrowed, Drill, Operator};
use super::plausibility::Plausibility;
use super::trend::Trend;
use crate::fs::{DiskError, SpaceSample};

/// A sample that takes longer is unknown, and unknown is never plenty.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// What a fast writer puts into a page cache, in bytes a millisecond (2 GiB/s).
const FAST_BYTES_PER_MS: u64 = (2 << 30) / 1000;
/// Short of ReadOnly nothing is sampled more often, however small the volume.
const SAMPLE_OFTEN: Duration = Duration::from_millis(100);

/// How a volume is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SensorSettings {
    /// Where the levels begin and end.
    pub marks: MarkSettings,
    /// Bytes this volume may use, whatever the filesystem has.
    pub byte_limit: Option<u64>,
}

/// Our own accounts at the moment of a sample. All in bytes unless named otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OwnUse {
    /// Taken by all files of the volume: written, preallocated, reserve.
    pub used: u64,
    /// Of these, allocated for records and not written yet.
    pub preallocated_unused: u64,
    /// Written since the volume was opened; never goes back.
    pub written_total: u64,
    /// Replicas that take appends.
    pub active_replicas: u64,
    /// Whether allocation reserves ([`crate::fs::Disk::reserves`]).
    pub reserves: bool,
}

/// What came of asking for a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// An answer.
    Sample(SpaceSample),
    /// An error.
    Failed(DiskError),
    /// Nothing within [`ANSWER_DEADLINE`].
    NoAnswer,
}

/// The senses of one volume.
#[derive(Clone, Debug)]
pub struct Sensor {
    settings: SensorSettings,
    marks: Marks,
    trend: Trend,
    plausibility: Plausibility,
    level: LevelMachine,
    last_sample: SpaceSample,
    marks_refused: u64,
    operator: Operator,
}

impl Sensor {
    /// Begins with the first sample, which the opener of the volume takes itself.
    ///
    /// # Errors
    /// [`MarksInvalid`]: the configuration does not fit this volume; say so and stop.
    pub fn open(
        settings: SensorSettings,
        sample: SpaceSample,
        own: OwnUse,
        now: Duration,
    ) -> Result<Self, MarksInvalid> {
        let marks = Marks::new(&settings.marks, shape(&settings, &sample, &own))?;
        let mut plausibility = Plausibility::default();
        let believed = plausibility.judge(&sample, own.written_total, now).is_ok();
        let mut trend = Trend::default();
        let facts = facts(&settings, &sample, &own, &mut trend, now);
        let mut level = LevelMachine::new(facts, &marks, now);
        if !believed {
            // Never open as plenty on a sample that can't be true. The level says so from the start.
            let _ = level.handle(Event::SensorUnknown, &marks, now);
        }
        Ok(Self {
            settings,
            marks,
            trend,
            plausibility,
            level,
            last_sample: sample,
            marks_refused: 0,
            operator: Operator::default(),
        })
    }

    /// How long to wait for the next sample: the worse the level, the shorter, and never longer than a fast
    /// writer needs for half of what is left above the mark of ReadOnly.
    pub fn next_sample_in(&self) -> Duration {
        let by_level = Duration::from_millis(match self.level.level() {
            DiskLevel::Normal | DiskLevel::Failed => 1000,
            DiskLevel::Reclaim => 250,
            DiskLevel::Throttle => 100,
            DiskLevel::ReadOnly => 50,
        });
        let left = self.view().facts.free_bytes.saturating_sub(self.marks.bytes(DiskLevel::ReadOnly).enter);
        by_level.min(Duration::from_millis(left / FAST_BYTES_PER_MS / 2).max(SAMPLE_OFTEN))
    }

    /// Takes what came of a sample; `own` is from the same moment.
    pub fn observe(&mut self, observation: Observation, own: OwnUse, now: Duration) -> Vec<Command> {
        if self.operator.expire(now) {
            self.renew_marks(self.marks.shape());
        }
        match observation {
            Observation::Sample(sample) => self.on_sample(sample, own, now),
            Observation::Failed(DiskError::VolumeFailed { cause, .. }) => {
                self.level.handle(Event::VolumeFailed(cause), &self.marks, now)
            }
            Observation::Failed(_) | Observation::NoAnswer => {
                self.level.handle(Event::SensorUnknown, &self.marks, now)
            }
        }
    }

    fn on_sample(&mut self, sample: SpaceSample, own: OwnUse, now: Duration) -> Vec<Command> {
        if self.plausibility.judge(&sample, own.written_total, now).is_err() {
            return if self.plausibility.is_stale() {
                self.level.handle(Event::SensorUnknown, &self.marks, now)
            } else {
                Vec::new()
            };
        }
        self.follow_shape(&sample, &own);
        self.last_sample = sample;
        let facts = facts(&self.settings, &sample, &own, &mut self.trend, now);
        let Some(drill) = self.running_drill(&facts) else {
            return self.level.handle(Event::Sample(facts), &self.marks, now);
        };
        let pretended =
            Facts { free_bytes: facts.free_bytes.min(drill.free_bytes), time_to_full: None, ..facts };
        let mut commands = self.level.handle(Event::Sample(pretended), &self.marks, now);
        // Nobody loses records to a drill.
        commands.retain(|command| !matches!(command, Command::Reclaim { .. }));
        commands
    }

    /// A drill ends when it becomes earnest.
    fn running_drill(&mut self, facts: &Facts) -> Option<Drill> {
        let short = facts.free_bytes < self.marks.bytes(DiskLevel::Reclaim).enter
            || facts.free_inodes.is_some_and(|free| free < self.marks.inodes(DiskLevel::Reclaim).enter);
        if short {
            self.operator.drill = None;
        }
        self.operator.drill
    }

    /// Capacity, inodes, replicas and limits change on a live volume.
    fn follow_shape(&mut self, sample: &SpaceSample, own: &OwnUse) {
        let new = shape(&self.settings, sample, own);
        let old = self.marks.shape();
        if new == old {
            return;
        }
        self.renew_marks(new);
        if new.capacity_bytes != old.capacity_bytes {
            self.trend.reset();
        }
    }

    fn renew_marks(&mut self, shape: VolumeShape) {
        let lent = self.operator.borrowed.map_or(0, |borrowed| borrowed.bytes);
        match Marks::new(&self.settings.marks, shape) {
            Ok(marks) => self.marks = marks.lowered(lent),
            Err(_) => self.marks_refused += 1,
        }
    }

    /// Lowers the mark of ReadOnly for a while, or ends that. It counts from the next sample.
    pub fn borrow(&mut self, borrowed: Option<Borrowed>) {
        self.operator.borrowed = borrowed;
        self.renew_marks(self.marks.shape());
    }

    /// Begins a drill, or ends it. It counts from the next sample.
    pub fn drill(&mut self, drill: Option<Drill>) {
        self.operator.drill = drill;
    }

    /// What is borrowed now.
    pub fn borrowed(&self) -> Option<Borrowed> {
        self.operator.borrowed
    }

    /// The drill that runs now.
    pub fn running(&self) -> Option<Drill> {
        self.operator.drill
    }

    /// Tells of an operation of the log that failed at the door, with what the canary should repeat.
    pub fn operation_failed(&mut self, error: &DiskError, repeat: Repeat, now: Duration) -> Vec<Command> {
        let event = match error {
            DiskError::OutOfSpace { cause: DiskCause::Inodes, .. } => {
                Event::NoSpace { cause: DiskCause::Inodes, repeat: Repeat::Create }
            }
            DiskError::OutOfSpace { cause, .. } => Event::NoSpace { cause: *cause, repeat },
            DiskError::VolumeFailed { cause, .. } => Event::VolumeFailed(*cause),
            DiskError::Unknown { .. } => Event::Unclassified,
            DiskError::NotFound { .. }
            | DiskError::AlreadyExists { .. }
            | DiskError::Locked
            | DiskError::Exhausted { .. } => return Vec::new(),
        };
        self.level.handle(event, &self.marks, now)
    }

    /// Tells that an operation worked, which ends a row of unclassified failures. Cheap.
    pub fn operation_worked(&mut self) {
        self.level.operation_worked();
    }

    /// Tells the outcome of [`super::canary::run`].
    pub fn canary_done(
        &mut self,
        attempt: u64,
        outcome: &Result<(), DiskError>,
        now: Duration,
    ) -> Vec<Command> {
        let event = match outcome {
            Ok(()) => Event::CanaryPassed { attempt },
            Err(DiskError::VolumeFailed { cause, .. }) => Event::VolumeFailed(*cause),
            Err(DiskError::OutOfSpace { cause, .. }) => Event::CanaryFailed { attempt, cause: Some(*cause) },
            Err(
                DiskError::NotFound { .. }
                | DiskError::AlreadyExists { .. }
                | DiskError::Locked
                | DiskError::Exhausted { .. }
                | DiskError::Unknown { .. },
            ) => Event::CanaryFailed { attempt, cause: None },
        };
        self.level.handle(event, &self.marks, now)
    }

    /// Changes the configured limit of a live volume; it counts from the next sample.
    pub fn set_byte_limit(&mut self, byte_limit: Option<u64>) {
        self.settings.byte_limit = byte_limit;
    }

    /// The level and its figures.
    pub fn view(&self) -> LevelView {
        self.level.view(&self.marks)
    }

    /// The marks in force.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Fill rates.
    pub fn trend(&self) -> &Trend {
        &self.trend
    }

    /// The last accepted sample.
    pub fn last_sample(&self) -> SpaceSample {
        self.last_sample
    }

    /// Samples dropped as impossible.
    pub fn dropped_samples(&self) -> u64 {
        self.plausibility.dropped_total()
    }

    /// Changes of capacity that the configured marks did not fit, so that the former marks stayed.
    pub fn marks_refused(&self) -> u64 {
        self.marks_refused
    }
}

fn shape(settings: &SensorSettings, sample: &SpaceSample, own: &OwnUse) -> VolumeShape {
    VolumeShape {
        capacity_bytes: settings.byte_limit.map_or(sample.total_bytes, |limit| limit.min(sample.total_bytes)),
        total_inodes: sample.total_inodes,
        active_replicas: own.active_replicas,
        reserves: own.reserves,
    }
}

/// free = min(available + own unused preallocation, limit - use).
fn facts(
    settings: &SensorSettings,
    sample: &SpaceSample,
    own: &OwnUse,
    trend: &mut Trend,
    now: Duration,
) -> Facts {
    let unused = own.preallocated_unused.min(own.used);
    let by_filesystem = sample.available_bytes.saturating_add(unused).min(sample.total_bytes);
    let written = own.used - unused;
    let (free_bytes, scarce) = match settings.byte_limit.map(|limit| limit.saturating_sub(written)) {
        Some(by_limit) if by_limit < by_filesystem => (by_limit, DiskCause::Limit),
        Some(_) | None => (by_filesystem, DiskCause::Bytes),
    };
    trend.observe(free_bytes, written, now);
    Facts {
        free_bytes,
        scarce,
        free_inodes: (sample.total_inodes > 0).then_some(sample.available_inodes),
        time_to_full: trend.time_to_full(free_bytes),
    }
}

#[cfg(test)]
#[path = "sensor_tests.rs"]
mod tests;
