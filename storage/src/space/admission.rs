//! Accept, delay or refuse: the answer to one batch.

use std::time::Duration;

use plimsoll_proto::disk::{DiskCause, DiskLevel, WriteClass};

use super::ledger::{Refusal, SpaceLedger};
use super::level::{LevelCause, LevelView};
use crate::fs::FailureCause;

/// A batch is never held longer than this before it is appended or refused.
pub const DELAY_MAX: Duration = Duration::from_secs(1);
/// Waiting for a reclaim ends here: together with detection a refusal still comes within a second.
pub const RECLAIM_WAIT_MAX: Duration = Duration::from_millis(750);
/// A delay is asked again after at most this, so that room which comes back early is used.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What asks for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Who writes.
    pub class: WriteClass,
    /// Upper bound in bytes.
    pub bytes: u64,
    /// How long it was delayed already.
    pub waited: Duration,
}

/// A reclaim that is under way; the default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunningReclaim {
    /// Bytes it is still going to free.
    pub bytes_to_come: u64,
}

/// Admission's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Reserve and append.
    Accept,
    /// Hold the batch, read no further on its stream, and ask again after this time.
    Delay {
        /// At most [`DELAY_MAX`] in total.
        retry_after: Duration,
    },
    /// Answer with the typed error; nothing was appended.
    Refuse {
        /// Its content.
        reason: RefuseReason,
    },
}

/// Why a batch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseReason {
    /// DISK_FULL.
    DiskFull {
        /// What is short, or `Hold`.
        cause: DiskCause,
        /// The level.
        level: DiskLevel,
        /// Bytes free for this class.
        free_bytes: u64,
        /// Bytes the batch needs.
        needed_bytes: u64,
        /// Size of the volume.
        capacity_bytes: u64,
        /// Upper bound for waiting.
        retry_after: Duration,
    },
    /// VOLUME_FAILED.
    VolumeFailed {
        /// What failed.
        cause: FailureCause,
    },
}

/// Judges one batch. Pure: the ledger is only asked, the caller reserves after `Accept`.
pub fn admit(
    view: &LevelView,
    ledger: &SpaceLedger,
    reclaim: RunningReclaim,
    demand: Demand,
    now: Duration,
) -> Verdict {
    let room = ledger.check(demand.class, demand.bytes);
    match view.level {
        DiskLevel::Failed => {
            let cause = match view.cause {
                Some(LevelCause::Failure(cause)) => cause,
                _ => FailureCause::IoError,
            };
            Verdict::Refuse { reason: RefuseReason::VolumeFailed { cause } }
        }
        DiskLevel::ReadOnly if demand.class == WriteClass::Produce => {
            let covered = view.recovery_bytes.saturating_add(demand.bytes);
            let comes = view.facts.free_bytes.saturating_add(reclaim.bytes_to_come) >= covered;
            let by_bytes = matches!(view.disk_cause(), DiskCause::Bytes | DiskCause::Limit);
            wait_or_refuse(view, ledger, demand, comes && by_bytes && reclaim.bytes_to_come > 0, now)
        }
        DiskLevel::Normal | DiskLevel::Reclaim | DiskLevel::Throttle | DiskLevel::ReadOnly => match room {
            Err(refusal) => {
                let comes = refusal.free.saturating_add(reclaim.bytes_to_come) >= refusal.needed;
                wait_or_refuse(view, ledger, demand, comes && reclaim.bytes_to_come > 0, now)
            }
            Ok(()) => throttle(view, demand),
        },
    }
}

/// G5: while a reclaim that covers the demand runs, a producer waits instead of being refused.
fn wait_or_refuse(
    view: &LevelView,
    ledger: &SpaceLedger,
    demand: Demand,
    comes: bool,
    now: Duration,
) -> Verdict {
    let left = RECLAIM_WAIT_MAX.saturating_sub(demand.waited);
    if comes && !left.is_zero() {
        return Verdict::Delay { retry_after: left.min(LOOK_AGAIN) };
    }
    let refusal = match ledger.check(demand.class, demand.bytes) {
        Err(refusal) => refusal,
        Ok(()) => Refusal {
            free: ledger.free_for(demand.class),
            needed: demand.bytes,
            capacity: view.capacity_bytes,
            cause: view.disk_cause(),
        },
    };
    let cause = if view.level == DiskLevel::ReadOnly { view.disk_cause() } else { refusal.cause };
    Verdict::Refuse {
        reason: RefuseReason::DiskFull {
            cause,
            level: view.level,
            free_bytes: refusal.free,
            needed_bytes: refusal.needed,
            capacity_bytes: view.capacity_bytes,
            retry_after: view.retry_after(now),
        },
    }
}

/// Producers wait in proportion to how near ReadOnly is; later classes never do.
fn throttle(view: &LevelView, demand: Demand) -> Verdict {
    if view.level != DiskLevel::Throttle || demand.class != WriteClass::Produce {
        return Verdict::Accept;
    }
    let delay = DELAY_MAX.mul_f64(f64::from(u32::try_from(view.pressure_permille).unwrap_or(1000)) / 1000.0);
    match delay.min(DELAY_MAX).saturating_sub(demand.waited) {
        Duration::ZERO => Verdict::Accept,
        left => Verdict::Delay { retry_after: left },
    }
}

#[cfg(test)]
mod tests {
    use super::super::level::Facts;
    use super::*;
    use plimsoll_proto::ids::VolumeId;

    const NOW: Duration = Duration::from_secs(100);

    fn view(level: DiskLevel, free_bytes: u64) -> LevelView {
        LevelView {
            level,
            cause: (level != DiskLevel::Normal).then_some(LevelCause::Disk(DiskCause::Bytes)),
            since: NOW,
            facts: Facts { free_bytes, scarce: DiskCause::Bytes, free_inodes: None, time_to_full: None },
            known: true,
            capacity_bytes: 10_000,
            hold_until: None,
            pressure_permille: 500,
            recovery_bytes: 1000,
        }
    }

    fn ledger(free: u64) -> SpaceLedger {
        let mut ledger = SpaceLedger::new(VolumeId([0; 16]), 400);
        ledger.observe(free, 10_000, DiskCause::Bytes, 0);
        ledger
    }

    fn ask(
        level: DiskLevel,
        free: u64,
        coming: u64,
        class: WriteClass,
        bytes: u64,
        waited_ms: u64,
    ) -> Verdict {
        let demand = Demand { class, bytes, waited: Duration::from_millis(waited_ms) };
        admit(&view(level, free), &ledger(free), RunningReclaim { bytes_to_come: coming }, demand, NOW)
    }

    fn refused(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Refuse { .. })
    }

    fn delayed(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Delay { .. })
    }

    #[test]
    fn the_ledger_decides_to_the_byte_while_the_level_is_open() {
        for level in [DiskLevel::Normal, DiskLevel::Reclaim] {
            assert_eq!(ask(level, 5000, 0, WriteClass::Produce, 4599, 0), Verdict::Accept);
            assert_eq!(ask(level, 5000, 0, WriteClass::Produce, 4600, 0), Verdict::Accept);
            assert!(refused(ask(level, 5000, 0, WriteClass::Produce, 4601, 0)));
        }
    }

    #[test]
    fn a_covering_reclaim_delays_and_a_smaller_one_does_not() {
        let ask = |coming, waited| ask(DiskLevel::Reclaim, 5000, coming, WriteClass::Produce, 4700, waited);
        assert!(refused(ask(99, 0)));
        assert!(delayed(ask(100, 0)));
        assert!(delayed(ask(100, 749)));
        assert!(refused(ask(100, 750)));
    }

    #[test]
    fn read_only_refuses_produce_unless_a_reclaim_lifts_it_and_lets_the_rest_through() {
        let level = DiskLevel::ReadOnly;
        assert!(refused(ask(level, 800, 0, WriteClass::Produce, 10, 0)));
        assert!(refused(ask(level, 800, 209, WriteClass::Produce, 10, 0)));
        assert!(delayed(ask(level, 800, 210, WriteClass::Produce, 10, 0)));
        assert!(refused(ask(level, 800, 210, WriteClass::Produce, 10, 750)));
        for class in [WriteClass::FollowerCatchUp, WriteClass::ConsumerOffsets, WriteClass::ControlPlane] {
            assert_eq!(ask(level, 800, 0, class, 10, 0), Verdict::Accept, "{class:?}");
        }
        assert!(refused(ask(level, 300, 0, WriteClass::FollowerCatchUp, 1, 0)));
    }

    #[test]
    fn throttle_delays_produce_in_proportion_and_once() {
        let ask = |class, waited| ask(DiskLevel::Throttle, 5000, 0, class, 10, waited);
        assert_eq!(ask(WriteClass::Produce, 0), Verdict::Delay { retry_after: Duration::from_millis(500) });
        assert_eq!(ask(WriteClass::Produce, 499), Verdict::Delay { retry_after: Duration::from_millis(1) });
        assert_eq!(ask(WriteClass::Produce, 500), Verdict::Accept);
        assert_eq!(ask(WriteClass::FollowerCatchUp, 0), Verdict::Accept);
    }

    #[test]
    fn a_hold_is_named_with_its_end_and_failed_is_not_full() {
        let held = LevelView {
            cause: Some(LevelCause::Disk(DiskCause::Hold)),
            hold_until: Some(NOW + Duration::from_secs(7)),
            ..view(DiskLevel::ReadOnly, 5000)
        };
        let demand = Demand { class: WriteClass::Produce, bytes: 10, waited: Duration::ZERO };
        let verdict = admit(&held, &ledger(5000), RunningReclaim::default(), demand, NOW);
        let Verdict::Refuse { reason: RefuseReason::DiskFull { cause, retry_after, .. } } = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!((cause, retry_after), (DiskCause::Hold, Duration::from_secs(7)));
        let failed = LevelView {
            cause: Some(LevelCause::Failure(FailureCause::SyncFailed)),
            ..view(DiskLevel::Failed, 5000)
        };
        let verdict = admit(&failed, &ledger(5000), RunningReclaim::default(), demand, NOW);
        let reason = RefuseReason::VolumeFailed { cause: FailureCause::SyncFailed };
        assert_eq!(verdict, Verdict::Refuse { reason });
    }
}
