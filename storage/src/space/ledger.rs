//! Who may take how much of what is free.
//!
//! Every append reserves its upper bound before its first byte is written, then commits what it took or
//! forfeits all of it. Classes that must go on when producers are refused find a floor that earlier classes
//! may not go below:
//!
//! ```text
//!   free - reserved:  |#### deletion ####|## control ##|## offsets ##|## catch-up ##|... produce ...
//!   floor of          0              control       offsets      catch-up        produce
//! ```

use std::collections::BTreeMap;

use plimsoll_proto::disk::{DiskCause, WriteClass};
use plimsoll_proto::ids::VolumeId;

use super::marks::percent_of;

/// All classes from first refused to last.
const CLASSES: [WriteClass; 5] = [
    WriteClass::Produce,
    WriteClass::FollowerCatchUp,
    WriteClass::ConsumerOffsets,
    WriteClass::ControlPlane,
    WriteClass::Deletion,
];

/// The standing reserve when none is configured: 1 % of the capacity, at least 2 MiB.
pub fn default_reserve_bytes(capacity_bytes: u64) -> u64 {
    percent_of(capacity_bytes, 1).max(2 << 20)
}

/// Bytes set aside for one append. Give it back exactly once, with [`SpaceLedger::commit`] or
/// [`SpaceLedger::forfeit`]; it can't be copied.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "commit or forfeit it, or the bytes stay reserved"]
pub struct Reservation {
    volume: VolumeId,
    class: WriteClass,
    bytes: u64,
}

impl Reservation {
    /// The upper bound that was reserved.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The class it was reserved for.
    pub fn class(&self) -> WriteClass {
        self.class
    }

    /// The volume it belongs to.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }
}

/// Why a reservation was refused; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed} bytes needed, {free} of {capacity} free for this class ({cause})")]
pub struct Refusal {
    /// Bytes that this class could still have.
    pub free: u64,
    /// Bytes that were asked for.
    pub needed: u64,
    /// Size of the volume.
    pub capacity: u64,
    /// What is short.
    pub cause: DiskCause,
}

/// The room of one volume and what is promised of it.
#[derive(Debug)]
pub struct SpaceLedger {
    volume: VolumeId,
    capacity: u64,
    free_at_sample: u64,
    committed_at_sample: u64,
    committed_total: u64,
    reserve: u64,
    scarce: DiskCause,
    reserved: BTreeMap<WriteClass, u64>,
    refused: BTreeMap<WriteClass, u64>,
}

impl SpaceLedger {
    /// A ledger that refuses everything until its first [`SpaceLedger::observe`]. `reserve_bytes` is the
    /// standing reserve of the later classes; see [`default_reserve_bytes`].
    pub fn new(volume: VolumeId, reserve_bytes: u64) -> Self {
        Self {
            volume,
            capacity: 0,
            free_at_sample: 0,
            committed_at_sample: 0,
            committed_total: 0,
            reserve: reserve_bytes,
            scarce: DiskCause::Bytes,
            reserved: CLASSES.into_iter().map(|class| (class, 0)).collect(),
            refused: CLASSES.into_iter().map(|class| (class, 0)).collect(),
        }
    }

    /// The same, after so many bytes were committed before.
    #[must_use]
    pub fn after(self, committed_total: u64) -> Self {
        Self { committed_total, committed_at_sample: committed_total, ..self }
    }

    /// The volume this ledger keeps.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// Takes over a sample. `committed_total_before` is [`SpaceLedger::committed_total`] from before the
    /// sample was asked for, so that what was committed meanwhile is not counted as free. `scarce` is what a
    /// refusal names: bytes of the filesystem, or the configured limit when that is nearer.
    pub fn observe(&mut self, free: u64, capacity: u64, scarce: DiskCause, committed_total_before: u64) {
        debug_assert!(committed_total_before <= self.committed_total, "a total from the future");
        self.free_at_sample = free;
        self.capacity = capacity;
        self.scarce = scarce;
        self.committed_at_sample = committed_total_before.min(self.committed_total);
    }

    /// A write met the full disk: nothing is free until the next sample, whatever the last one said.
    pub fn met_no_space(&mut self, cause: DiskCause) {
        self.free_at_sample = 0;
        self.committed_at_sample = self.committed_total;
        self.scarce = cause;
    }

    /// Changes the standing reserve, as when the capacity changed.
    pub fn set_reserve(&mut self, reserve_bytes: u64) {
        self.reserve = reserve_bytes;
    }

    /// Bytes committed since the ledger was made.
    pub fn committed_total(&self) -> u64 {
        self.committed_total
    }

    /// Bytes reserved and not given back yet.
    pub fn reserved(&self) -> u64 {
        self.reserved.values().copied().fold(0, u64::saturating_add)
    }

    /// Refusals of a class since the ledger was made.
    pub fn refused(&self, class: WriteClass) -> u64 {
        self.refused.get(&class).copied().unwrap_or(0)
    }

    /// Free bytes after all commitments and reservations.
    pub fn free(&self) -> u64 {
        let committed = self.committed_total - self.committed_at_sample;
        self.free_at_sample.saturating_sub(committed).saturating_sub(self.reserved())
    }

    /// Free bytes that a class may not go below.
    pub fn floor(&self, class: WriteClass) -> u64 {
        let quarters = match class {
            WriteClass::Produce => 4,
            WriteClass::FollowerCatchUp => 3,
            WriteClass::ConsumerOffsets => 2,
            WriteClass::ControlPlane => 1,
            WriteClass::Deletion => 0,
        };
        self.reserve / 4 * quarters
    }

    /// Free bytes that a class may still reserve.
    pub fn free_for(&self, class: WriteClass) -> u64 {
        self.free().saturating_sub(self.floor(class))
    }

    /// Whether a reservation would be given; changes nothing.
    ///
    /// # Errors
    /// [`Refusal`] with the figures for the error.
    pub fn check(&self, class: WriteClass, bytes: u64) -> Result<(), Refusal> {
        let free = self.free_for(class);
        if bytes <= free {
            return Ok(());
        }
        Err(Refusal { free, needed: bytes, capacity: self.capacity, cause: self.scarce })
    }

    /// Sets `bytes` aside for an append of `class`.
    ///
    /// # Errors
    /// [`Refusal`]; refuse or delay the append.
    ///
    /// # Panics
    /// When `volume` is not the ledger's own: a confusion of volumes in the caller.
    pub fn reserve(
        &mut self,
        volume: VolumeId,
        class: WriteClass,
        bytes: u64,
    ) -> Result<Reservation, Refusal> {
        assert_eq!(volume, self.volume, "reserving on another volume");
        if let Err(refusal) = self.check(class, bytes) {
            *self.refused.entry(class).or_default() += 1;
            return Err(refusal);
        }
        let free = self.free();
        *self.reserved.entry(class).or_default() += bytes;
        debug_assert_eq!(self.free() + bytes, free, "exactly these bytes were taken");
        Ok(Reservation { volume, class, bytes })
    }

    /// The append was written and took `used` bytes of its reservation; the rest is free again.
    ///
    /// # Panics
    /// When more was used than reserved, or the reservation is of another volume: bugs of the caller.
    pub fn commit(&mut self, reservation: Reservation, used: u64) {
        assert!(used <= reservation.bytes, "used {used} of {} reserved bytes", reservation.bytes);
        self.release(reservation);
        self.committed_total = self.committed_total.saturating_add(used);
    }

    /// The append was not written; all of its reservation is free again.
    ///
    /// # Panics
    /// When the reservation is of another volume: a bug of the caller.
    pub fn forfeit(&mut self, reservation: Reservation) {
        self.release(reservation);
    }

    fn release(&mut self, Reservation { volume, class, bytes }: Reservation) {
        assert_eq!(volume, self.volume, "a reservation of another volume");
        let reserved = self.reserved.entry(class).or_default();
        *reserved = reserved.checked_sub(bytes).expect("what is released was reserved before");
    }
}

/// The ledgers of all volumes of a node.
#[derive(Debug, Default)]
pub struct LedgerSet {
    ledgers: BTreeMap<VolumeId, SpaceLedger>,
}

impl LedgerSet {
    /// Adds the ledger of a volume, replacing a former one.
    pub fn insert(&mut self, ledger: SpaceLedger) {
        self.ledgers.insert(ledger.volume(), ledger);
    }

    /// The ledger of a volume.
    pub fn get_mut(&mut self, volume: VolumeId) -> Option<&mut SpaceLedger> {
        self.ledgers.get_mut(&volume)
    }

    /// As [`SpaceLedger::reserve`] on the ledger of that volume; one volume never pays for another.
    ///
    /// # Errors
    /// [`Refusal`] also for a volume that is not here: nothing is free there.
    pub fn reserve(
        &mut self,
        volume: VolumeId,
        class: WriteClass,
        bytes: u64,
    ) -> Result<Reservation, Refusal> {
        match self.ledgers.get_mut(&volume) {
            Some(ledger) => ledger.reserve(volume, class, bytes),
            None => Err(Refusal { free: 0, needed: bytes, capacity: 0, cause: DiskCause::Bytes }),
        }
    }

    /// As [`SpaceLedger::commit`].
    pub fn commit(&mut self, reservation: Reservation, used: u64) {
        if let Some(ledger) = self.ledgers.get_mut(&reservation.volume) {
            ledger.commit(reservation, used);
        }
    }

    /// As [`SpaceLedger::forfeit`].
    pub fn forfeit(&mut self, reservation: Reservation) {
        if let Some(ledger) = self.ledgers.get_mut(&reservation.volume) {
            ledger.forfeit(reservation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: VolumeId = VolumeId([1; 16]);
    const RESERVE: u64 = 4000;

    fn ledger(free: u64) -> SpaceLedger {
        let mut ledger = SpaceLedger::new(VOLUME, RESERVE);
        ledger.observe(free, 100_000, DiskCause::Bytes, 0);
        ledger
    }

    #[test]
    fn each_class_is_refused_at_its_own_floor_to_the_byte() {
        let floors = [4000, 3000, 2000, 1000, 0];
        for (class, floor) in CLASSES.into_iter().zip(floors) {
            assert_eq!(ledger(10_000).floor(class), floor);
            for (bytes, fits) in [(9999 - floor, true), (10_000 - floor, true), (10_001 - floor, false)] {
                let outcome = ledger(10_000).reserve(VOLUME, class, bytes);
                assert_eq!(outcome.is_ok(), fits, "{class:?} {bytes}");
            }
        }
    }

    #[test]
    fn a_refusal_carries_the_figures_and_changes_nothing() {
        let mut ledger = ledger(10_000);
        let refusal = ledger.reserve(VOLUME, WriteClass::Produce, 6001).unwrap_err();
        let expected = Refusal { free: 6000, needed: 6001, capacity: 100_000, cause: DiskCause::Bytes };
        assert_eq!(refusal, expected);
        assert_eq!((ledger.free(), ledger.refused(WriteClass::Produce)), (10_000, 1));
        assert!(ledger.reserve(VOLUME, WriteClass::Produce, u64::MAX).is_err());
    }

    #[test]
    fn what_is_reserved_is_committed_or_forfeited() {
        let mut ledger = ledger(10_000);
        let first = ledger.reserve(VOLUME, WriteClass::Produce, 3000).unwrap();
        let second = ledger.reserve(VOLUME, WriteClass::Produce, 3000).unwrap();
        assert!(ledger.reserve(VOLUME, WriteClass::Produce, 1).is_err());
        ledger.commit(first, 1000);
        assert_eq!((ledger.free(), ledger.reserved()), (6000, 3000));
        ledger.forfeit(second);
        assert_eq!((ledger.free(), ledger.reserved()), (9000, 0));
    }

    #[test]
    fn a_sample_that_is_older_than_a_commit_does_not_count_it_as_free() {
        let mut ledger = ledger(10_000);
        let before = ledger.committed_total();
        let reservation = ledger.reserve(VOLUME, WriteClass::Produce, 1000).unwrap();
        ledger.commit(reservation, 1000);
        ledger.observe(10_000, 100_000, DiskCause::Bytes, before);
        assert_eq!(ledger.free(), 9000);
        ledger.observe(9000, 100_000, DiskCause::Bytes, ledger.committed_total());
        assert_eq!(ledger.free(), 9000);
    }

    #[test]
    fn the_write_error_is_the_truth() {
        let mut ledger = ledger(10_000);
        ledger.met_no_space(DiskCause::Quota);
        let refusal = ledger.reserve(VOLUME, WriteClass::Deletion, 1).unwrap_err();
        assert_eq!((refusal.free, refusal.cause), (0, DiskCause::Quota));
    }

    #[test]
    fn a_fresh_ledger_gives_nothing() {
        let mut ledger = SpaceLedger::new(VOLUME, RESERVE);
        assert!(ledger.reserve(VOLUME, WriteClass::Deletion, 1).is_err());
        assert_eq!(default_reserve_bytes(100 << 20), 2 << 20);
        assert_eq!(default_reserve_bytes(1000 << 20), 10 << 20);
    }

    #[test]
    fn one_volume_never_pays_for_another() {
        let mut set = LedgerSet::default();
        set.insert(ledger(10_000));
        assert!(set.reserve(VolumeId([2; 16]), WriteClass::Deletion, 1).is_err());
        let reservation = set.reserve(VOLUME, WriteClass::Produce, 10).unwrap();
        set.commit(reservation, 10);
        assert_eq!(set.get_mut(VOLUME).unwrap().free(), 9990);
    }

    #[test]
    #[should_panic(expected = "used 11 of 10")]
    fn using_more_than_reserved_is_a_bug() {
        let mut ledger = ledger(10_000);
        let reservation = ledger.reserve(VOLUME, WriteClass::Produce, 10).unwrap();
        ledger.commit(reservation, 11);
    }
}
