//! The marks between the levels of a disk.
//!
//! ```text
//!   free bytes   0        read-only      throttle       reclaim                        capacity
//!                |------------|--------------|--------------|-----------------------------|
//!                  ReadOnly       Throttle       Reclaim              Normal
//!   entered when free < enter; left when free >= exit = enter + min(5 % of capacity, 20 GiB)
//! ```

use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;

const GIB: u64 = 1 << 30;

/// A mark as configured: a share of the capacity, but at most some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Percent of the capacity, 1 to 90.
    pub percent: u64,
    /// Never more than this many bytes.
    pub bytes_max: u64,
}

impl Mark {
    fn of(self, capacity: u64) -> u64 {
        percent_of(capacity, self.percent).min(self.bytes_max)
    }
}

/// A level that is entered early because the disk fills fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoonMark {
    /// Only below this percentage of free bytes.
    pub percent: u64,
    /// Entered below this time to full, left at twice of it.
    pub time_to_full: Duration,
}

/// Marks as configured, the same for volumes of all sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkSettings {
    /// Free bytes below which pressure retention runs. Default 15 %, at most 100 GiB.
    pub reclaim: Mark,
    /// Free bytes below which producers are delayed. Default 10 %, at most 50 GiB.
    pub throttle: Mark,
    /// Free bytes below which produce is refused. Default 5 %, at most 20 GiB.
    pub read_only: Mark,
    /// Reclaim ahead of its mark. Default below 30 % with less than 10 minutes left.
    pub reclaim_soon: SoonMark,
    /// Throttle ahead of its mark. Default below 20 % with less than 60 seconds left.
    pub throttle_soon: SoonMark,
    /// Distance from enter to exit. Default 5 %, at most 20 GiB.
    pub exit: Mark,
    /// Inodes that each active replica keeps free (a roll takes three files). Default 3.
    pub inodes_per_replica: u64,
}

impl Default for MarkSettings {
    fn default() -> Self {
        let soon = |percent, seconds| SoonMark { percent, time_to_full: Duration::from_secs(seconds) };
        Self {
            reclaim: Mark { percent: 15, bytes_max: 100 * GIB },
            throttle: Mark { percent: 10, bytes_max: 50 * GIB },
            read_only: Mark { percent: 5, bytes_max: 20 * GIB },
            reclaim_soon: soon(30, 600),
            throttle_soon: soon(20, 60),
            exit: Mark { percent: 5, bytes_max: 20 * GIB },
            inodes_per_replica: 3,
        }
    }
}

/// Marks that contradict each other or do not fit the volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarksInvalid {
    /// A percentage outside 1 to 90.
    #[error("{mark} mark of {percent} % is not between 1 % and 90 %")]
    Percent {
        /// Which.
        mark: &'static str,
        /// Its value.
        percent: u64,
    },
    /// Two marks in the wrong order.
    #[error("{lower} mark of {lower_value} {unit} must be below the {upper} mark of {upper_value} {unit}")]
    Order {
        /// The one that must be lower.
        lower: &'static str,
        /// Its value.
        lower_value: u64,
        /// The one that must be higher.
        upper: &'static str,
        /// Its value.
        upper_value: u64,
        /// `%`, `bytes` or `seconds`.
        unit: &'static str,
    },
    /// The volume is too small to tell the levels apart.
    #[error("capacity of {capacity} bytes is below the minimum of {minimum} bytes")]
    TooSmall {
        /// Of the volume.
        capacity: u64,
        /// The smallest that works.
        minimum: u64,
    },
}

impl MarkSettings {
    /// Smallest volume in bytes.
    pub const CAPACITY_MIN: u64 = 1 << 20;

    /// Checks the marks against each other, whatever the size of the volume.
    ///
    /// # Errors
    /// [`MarksInvalid`] names both values; fix the configuration.
    pub fn check(&self) -> Result<(), MarksInvalid> {
        let named = [
            ("read-only", self.read_only.percent),
            ("throttle", self.throttle.percent),
            ("reclaim", self.reclaim.percent),
            ("throttle-soon", self.throttle_soon.percent),
            ("reclaim-soon", self.reclaim_soon.percent),
            ("exit", self.exit.percent),
        ];
        for (mark, percent) in named {
            if !(1..=90).contains(&percent) {
                return Err(MarksInvalid::Percent { mark, percent });
            }
        }
        let (low, middle, high) = (self.read_only, self.throttle, self.reclaim);
        in_order("%", ("read-only", low.percent), ("throttle", middle.percent))?;
        in_order("%", ("throttle", middle.percent), ("reclaim", high.percent))?;
        in_order("bytes", ("read-only", low.bytes_max), ("throttle", middle.bytes_max))?;
        in_order("bytes", ("throttle", middle.bytes_max), ("reclaim", high.bytes_max))?;
        let (fast, slow) = (self.throttle_soon, self.reclaim_soon);
        in_order("%", ("throttle", middle.percent), ("throttle-soon", fast.percent))?;
        in_order("%", ("reclaim", high.percent), ("reclaim-soon", slow.percent))?;
        in_order("%", ("throttle-soon", fast.percent), ("reclaim-soon", slow.percent))?;
        let seconds = |soon: SoonMark| soon.time_to_full.as_secs();
        in_order("seconds", ("throttle-soon", seconds(fast)), ("reclaim-soon", seconds(slow)))
    }
}

fn in_order(
    unit: &'static str,
    (lower, lower_value): (&'static str, u64),
    (upper, upper_value): (&'static str, u64),
) -> Result<(), MarksInvalid> {
    if lower_value < upper_value {
        Ok(())
    } else {
        Err(MarksInvalid::Order { lower, lower_value, upper, upper_value, unit })
    }
}

/// `percent` of `value`, rounded down, for any value.
pub(super) fn percent_of(value: u64, percent: u64) -> u64 {
    let share = u128::from(value) * u128::from(percent) / 100;
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// What bounds the capacity that marks are computed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeShape {
    /// Bytes of the filesystem, or the configured limit when that is less.
    pub capacity_bytes: u64,
    /// Inodes of the filesystem; 0 when it does not say.
    pub total_inodes: u64,
    /// Replicas that take appends.
    pub active_replicas: u64,
    /// Whether allocation is a reservation; where it is not, every mark is one exit step higher.
    pub reserves: bool,
}

/// Enter and exit of one level for one resource; a value below `enter` enters, one at or above `exit` leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Band {
    /// Below this the level is entered.
    pub enter: u64,
    /// At or above this it is left.
    pub exit: u64,
}

impl Band {
    /// Whether `free` belongs to the level, which holds already or not.
    pub fn holds(self, free: u64, already: bool) -> bool {
        free < if already { self.exit } else { self.enter }
    }
}

/// Marks of one volume of a known size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    shape: VolumeShape,
    bytes: [Band; 3],
    inodes: [Band; 3],
    soon_bytes: [u64; 2],
    soon_time: [Duration; 2],
}

/// The levels that marks lead to, from best to worst.
pub(super) const MARKED: [DiskLevel; 3] = [DiskLevel::Reclaim, DiskLevel::Throttle, DiskLevel::ReadOnly];

impl Marks {
    /// Computes the marks for a volume; call again at each change of its shape.
    ///
    /// # Errors
    /// [`MarksInvalid`]: at start fix the configuration; at a live change keep the former marks.
    pub fn new(settings: &MarkSettings, shape: VolumeShape) -> Result<Self, MarksInvalid> {
        settings.check()?;
        let capacity = shape.capacity_bytes;
        if capacity < MarkSettings::CAPACITY_MIN {
            return Err(MarksInvalid::TooSmall { capacity, minimum: MarkSettings::CAPACITY_MIN });
        }
        let step = settings.exit.of(capacity);
        let raise = if shape.reserves { 0 } else { step };
        let band = |mark: Mark| {
            let enter = mark.of(capacity) + raise;
            Band { enter, exit: enter + step }
        };
        let bytes = [band(settings.reclaim), band(settings.throttle), band(settings.read_only)];
        in_order("bytes", ("read-only", bytes[2].enter), ("throttle", bytes[1].enter))?;
        in_order("bytes", ("throttle", bytes[1].enter), ("reclaim", bytes[0].enter))?;
        in_order("bytes", ("reclaim exit", bytes[0].exit), ("capacity", capacity))?;
        let soon = |soon: SoonMark| percent_of(capacity, soon.percent) + raise;
        Ok(Self {
            shape,
            bytes,
            inodes: inode_bands(settings, shape),
            soon_bytes: [soon(settings.reclaim_soon), soon(settings.throttle_soon)],
            soon_time: [settings.reclaim_soon.time_to_full, settings.throttle_soon.time_to_full],
        })
    }

    /// The same with the mark of ReadOnly `bytes` lower, as far as it can be lent.
    #[must_use]
    pub fn lowered(mut self, bytes: u64) -> Self {
        let bytes = bytes.min(super::operator::borrowable(&self));
        let band = &mut self.bytes[index(DiskLevel::ReadOnly)];
        band.enter -= bytes;
        band.exit -= bytes;
        self
    }

    /// What the marks were computed for.
    pub fn shape(&self) -> VolumeShape {
        self.shape
    }

    /// Marks of free bytes of a level.
    ///
    /// # Panics
    /// For Normal and Failed, which no mark leads to.
    pub fn bytes(&self, level: DiskLevel) -> Band {
        self.bytes[index(level)]
    }

    /// Marks of free inodes of a level; all 0 where the filesystem does not count them.
    ///
    /// # Panics
    /// For Normal and Failed, which no mark leads to.
    pub fn inodes(&self, level: DiskLevel) -> Band {
        self.inodes[index(level)]
    }

    /// Whether a level is due because the disk fills fast. One that holds already is left at twice its time.
    pub(super) fn soon(
        &self,
        level: DiskLevel,
        free: u64,
        time_to_full: Option<Duration>,
        already: bool,
    ) -> bool {
        let slot = match level {
            DiskLevel::Reclaim => 0,
            DiskLevel::Throttle => 1,
            DiskLevel::Normal | DiskLevel::ReadOnly | DiskLevel::Failed => return false,
        };
        let mark = self.soon_time[slot];
        let mark = if already { mark * 2 } else { mark };
        free < self.soon_bytes[slot] && time_to_full.is_some_and(|left| left < mark)
    }
}

fn index(level: DiskLevel) -> usize {
    MARKED.iter().position(|marked| *marked == level).expect("only Reclaim, Throttle and ReadOnly have marks")
}

/// The same percentages, but at least a floor that grows with the replicas: 3, 4 and 5 thirds of it, so that the
/// levels stay apart. The floor itself never takes more than half of all inodes.
fn inode_bands(settings: &MarkSettings, shape: VolumeShape) -> [Band; 3] {
    let total = shape.total_inodes;
    if total == 0 {
        return [Band::default(); 3];
    }
    let floor = settings.inodes_per_replica.saturating_mul(shape.active_replicas).min(total * 3 / 10);
    let step = percent_of(total, settings.exit.percent).max(1);
    let band = |mark: Mark, thirds: u64| {
        let enter = percent_of(total, mark.percent).max(floor * thirds / 3);
        Band { enter, exit: enter + step }
    };
    [band(settings.reclaim, 5), band(settings.throttle, 4), band(settings.read_only, 3)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(capacity_bytes: u64) -> VolumeShape {
        VolumeShape { capacity_bytes, total_inodes: 1000, active_replicas: 4, reserves: true }
    }

    #[test]
    fn marks_are_shares_until_the_byte_caps_bite() {
        let marks = Marks::new(&MarkSettings::default(), shape(1000 * GIB)).unwrap();
        assert_eq!(marks.bytes(DiskLevel::Reclaim), Band { enter: 100 * GIB, exit: 120 * GIB });
        assert_eq!(marks.bytes(DiskLevel::Throttle), Band { enter: 50 * GIB, exit: 70 * GIB });
        assert_eq!(marks.bytes(DiskLevel::ReadOnly), Band { enter: 20 * GIB, exit: 40 * GIB });
        let marks = Marks::new(&MarkSettings::default(), shape(100_000_000)).unwrap();
        assert_eq!(marks.bytes(DiskLevel::Reclaim), Band { enter: 15_000_000, exit: 20_000_000 });
        assert_eq!(marks.bytes(DiskLevel::ReadOnly), Band { enter: 5_000_000, exit: 10_000_000 });
    }

    #[test]
    fn unreserved_volumes_have_marks_one_step_higher() {
        let unreserved = VolumeShape { reserves: false, ..shape(100_000_000) };
        let marks = Marks::new(&MarkSettings::default(), unreserved).unwrap();
        assert_eq!(marks.bytes(DiskLevel::ReadOnly), Band { enter: 10_000_000, exit: 15_000_000 });
    }

    #[test]
    fn a_band_is_exact_at_its_edges() {
        let band = Band { enter: 100, exit: 150 };
        for (free, already, holds) in [
            (99, false, true),
            (100, false, false),
            (101, false, false),
            (149, true, true),
            (150, true, false),
            (151, true, false),
        ] {
            assert_eq!(band.holds(free, already), holds, "{free} {already}");
        }
    }

    #[test]
    fn soon_is_left_at_twice_its_time() {
        let marks = Marks::new(&MarkSettings::default(), shape(100_000_000)).unwrap();
        let ms = |ms| Some(Duration::from_millis(ms));
        let reclaim = |free, left, already| marks.soon(DiskLevel::Reclaim, free, left, already);
        assert!(reclaim(29_999_999, ms(599_999), false));
        assert!(!reclaim(30_000_000, ms(599_999), false));
        assert!(!reclaim(29_999_999, ms(600_000), false));
        assert!(reclaim(29_999_999, ms(1_199_999), true));
        assert!(!reclaim(29_999_999, ms(1_200_000), true));
        assert!(!reclaim(29_999_999, None, true));
        assert!(marks.soon(DiskLevel::Throttle, 19_999_999, ms(59_999), false));
        assert!(!marks.soon(DiskLevel::ReadOnly, 1, ms(1), false));
    }

    #[test]
    fn inodes_have_a_floor_per_replica_and_may_be_unknown() {
        let settings = MarkSettings::default();
        let bands = |total_inodes, active_replicas| {
            let shape = VolumeShape { total_inodes, active_replicas, ..shape(100_000_000) };
            let marks = Marks::new(&settings, shape).unwrap();
            MARKED.map(|level| marks.inodes(level).enter)
        };
        assert_eq!(bands(1000, 4), [150, 100, 50]);
        assert_eq!(bands(1000, 40), [200, 160, 120]);
        assert_eq!(bands(1000, 4000), [500, 400, 300]);
        assert_eq!(bands(0, 4000), [0, 0, 0]);
    }

    #[test]
    fn contradictions_name_both_values() {
        let mut settings = MarkSettings::default();
        settings.throttle.percent = 15;
        let error = settings.check().unwrap_err().to_string();
        assert_eq!(error, "throttle mark of 15 % must be below the reclaim mark of 15 %");
        let mut settings = MarkSettings::default();
        settings.read_only.bytes_max = 50 * GIB;
        assert!(settings.check().unwrap_err().to_string().contains("53687091200 bytes"));
        let mut settings = MarkSettings::default();
        settings.read_only.percent = 0;
        assert!(matches!(settings.check(), Err(MarksInvalid::Percent { percent: 0, .. })));
        let settings = MarkSettings::default();
        let small = Marks::new(&settings, shape(MarkSettings::CAPACITY_MIN - 1));
        assert!(matches!(small, Err(MarksInvalid::TooSmall { .. })));
        assert!(Marks::new(&settings, shape(MarkSettings::CAPACITY_MIN)).is_ok());
        assert!(Marks::new(&settings, shape(u64::MAX)).is_ok());
    }
}
