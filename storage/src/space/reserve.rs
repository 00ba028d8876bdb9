//! The physical reserve: blocks and inodes that a foreign writer can't take, because they are ours already.
//!
//! ```text
//!   reserve/consumer-offsets.slots   reserve/control-plane.slots   reserve/deletion.slots    one record each
//!   reserve/spare-segment-N          reserve/spare-index-N                                   for rolls
//! ```
//!
//! Emergency writes overwrite these files in place. Nothing here is ever freed to make room: whoever frees a
//! ballast races a foreign writer for it.

use std::collections::BTreeMap;

use plimsoll_proto::disk::WriteClass;

use super::slots::{SlotError, TwoSlotFile};
use super::spare::{SET_BYTES, SpareFiles};
use crate::fs::{Disk, DiskError};

/// Where the reserve lives in the data directory.
pub const RESERVE_DIR: &str = "reserve";
/// Rolls that the spares serve before they must be made again.
const SPARE_SETS: u32 = 4;
/// The least a class gets, whatever the size of the reserve.
const CLASS_BYTES_MIN: u64 = 128 * 1024;

/// The classes that store a record of their own when the disk is full.
const CLASSES: [(WriteClass, &str); 3] = [
    (WriteClass::ConsumerOffsets, "reserve/consumer-offsets.slots"),
    (WriteClass::ControlPlane, "reserve/control-plane.slots"),
    (WriteClass::Deletion, "reserve/deletion.slots"),
];

/// What is set aside on one volume.
#[derive(Debug)]
pub struct PhysicalReserve {
    payload_max: u64,
    slots: BTreeMap<WriteClass, TwoSlotFile>,
    spares: Option<SpareFiles>,
}

impl PhysicalReserve {
    /// Opens the reserve and makes what is missing of `bytes`
    /// ([`default_reserve_bytes`](super::ledger::default_reserve_bytes)); also returns the newest record of
    /// each class. A reserve that exists opens without a free byte or inode. Files that can't be made on a full
    /// disk are missing until [`PhysicalReserve::replenish`]; files that exist keep their size.
    ///
    /// # Errors
    /// `VolumeFailed`, `Exhausted`, `Unknown`; never `OutOfSpace`.
    pub fn open(disk: &dyn Disk, bytes: u64) -> Result<(Self, BTreeMap<WriteClass, Vec<u8>>), DiskError> {
        let for_classes = bytes.saturating_sub(u64::from(SPARE_SETS) * SET_BYTES);
        let per_class = (for_classes / CLASSES.len() as u64).max(CLASS_BYTES_MIN);
        // Each record has two slots of whole blocks; 64 bytes are more than a slot's header.
        let slot_bytes = per_class / 2 / 4096 * 4096;
        let mut reserve = Self { payload_max: slot_bytes - 64, slots: BTreeMap::new(), spares: None };
        let mut records = BTreeMap::new();
        reserve.complete(disk, &mut records)?;
        Ok((reserve, records))
    }

    /// Makes what is still missing; call when the volume is Normal again. Tells whether all is there.
    ///
    /// # Errors
    /// As [`PhysicalReserve::open`].
    pub fn replenish(&mut self, disk: &dyn Disk) -> Result<bool, DiskError> {
        self.complete(disk, &mut BTreeMap::new())?;
        Ok(self.is_complete())
    }

    fn complete(
        &mut self,
        disk: &dyn Disk,
        records: &mut BTreeMap<WriteClass, Vec<u8>>,
    ) -> Result<(), DiskError> {
        match disk.create_dir(RESERVE_DIR).and_then(|()| self.complete_slots(disk, records)) {
            Ok(()) => {}
            Err(DiskError::OutOfSpace { .. }) => return self.find_spares(disk),
            Err(error) => return Err(error),
        }
        self.find_spares(disk)?;
        match self.spares.as_mut().map(|spares| spares.refill(disk)) {
            None | Some(Ok(()) | Err(DiskError::OutOfSpace { .. })) => Ok(()),
            Some(Err(error)) => Err(error),
        }
    }

    fn complete_slots(
        &mut self,
        disk: &dyn Disk,
        records: &mut BTreeMap<WriteClass, Vec<u8>>,
    ) -> Result<(), DiskError> {
        let mut full = None;
        for (class, path) in CLASSES {
            if self.slots.contains_key(&class) {
                continue;
            }
            match TwoSlotFile::open(disk, path, self.payload_max) {
                Ok((slots, record)) => {
                    self.slots.insert(class, slots);
                    records.extend(record.map(|record| (class, record)));
                }
                // The others may exist already and must open.
                Err(error @ DiskError::OutOfSpace { .. }) => full = Some(error),
                Err(error) => return Err(error),
            }
        }
        full.map_or_else(|| disk.sync_dir(""), Err)
    }

    fn find_spares(&mut self, disk: &dyn Disk) -> Result<(), DiskError> {
        if self.spares.is_none() {
            match SpareFiles::open(disk, RESERVE_DIR, SPARE_SETS) {
                Ok(spares) => self.spares = Some(spares),
                Err(DiskError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether every file of the reserve is there with all its blocks.
    pub fn is_complete(&self) -> bool {
        let spares = self.spares.as_ref().map_or(0, SpareFiles::bytes);
        self.slots.len() == CLASSES.len()
            && self.slots.values().all(TwoSlotFile::is_allocated)
            && spares >= u64::from(SPARE_SETS) * SET_BYTES
    }

    /// Replaces the record of a class in place; durable on return, needs no room.
    ///
    /// # Errors
    /// `TooLarge`; `Disk(NotFound)` when the class has no file (yet); `Disk(OutOfSpace)` only where allocation
    /// does not reserve; `Disk(VolumeFailed)`. The former record stays.
    pub fn store(&mut self, class: WriteClass, payload: &[u8]) -> Result<(), SlotError> {
        match self.slots.get_mut(&class) {
            Some(slots) => slots.store(payload),
            None => Err(SlotError::Disk(DiskError::NotFound { operation: "store in the reserve" })),
        }
    }

    /// The newest record of a class.
    ///
    /// # Errors
    /// `VolumeFailed`, `Unknown`.
    pub fn load(&self, class: WriteClass) -> Result<Option<Vec<u8>>, DiskError> {
        self.slots.get(&class).map_or(Ok(None), TwoSlotFile::load)
    }

    /// Longest record of a class in bytes; 0 when it has no file.
    pub fn payload_max(&self, class: WriteClass) -> u64 {
        self.slots.get(&class).map_or(0, TwoSlotFile::payload_max)
    }

    /// The spare files for rolls; `None` while the directory could not be made.
    pub fn spares(&mut self) -> Option<&mut SpareFiles> {
        self.spares.as_mut()
    }

    /// Bytes of disk that the reserve holds now.
    pub fn bytes(&self) -> u64 {
        let slots: u64 = self.slots.values().map(TwoSlotFile::bytes).sum();
        slots + self.spares.as_ref().map_or(0, SpareFiles::bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::faulty::{Fault, FaultKind, FaultyDisk, Then};
    use crate::fs::memory::{MemoryDisk, MemoryDiskSettings, PowerLoss};
    use std::sync::Arc;

    const MIB: u64 = 1 << 20;

    #[test]
    fn it_takes_what_it_was_given_and_opens_on_a_full_disk() {
        let disk = MemoryDisk::new(MemoryDiskSettings::plain(8 * MIB));
        let (mut reserve, records) = PhysicalReserve::open(&disk, 2 * MIB).unwrap();
        assert!(records.is_empty() && reserve.is_complete());
        assert_eq!(8 * MIB - disk.available_bytes(), reserve.bytes());
        assert!(reserve.bytes() <= 2 * MIB && reserve.bytes() > 2 * MIB - 64 * 1024);
        reserve.store(WriteClass::ConsumerOffsets, b"before").unwrap();
        disk.set_greedy(true);
        for round in 0..3_u8 {
            reserve.store(WriteClass::ConsumerOffsets, &[round; 1000]).unwrap();
            drop(reserve);
            disk.power_loss(PowerLoss::LosesAllUnsynced);
            let (again, records) = PhysicalReserve::open(&disk, 2 * MIB).unwrap();
            assert_eq!(records.get(&WriteClass::ConsumerOffsets), Some(&vec![round; 1000]));
            assert!(again.is_complete());
            reserve = again;
        }
    }

    #[test]
    fn a_first_start_on_a_full_disk_goes_on_without_and_completes_later() {
        let disk = MemoryDisk::new(MemoryDiskSettings::plain(8 * MIB));
        disk.take_all_bytes();
        disk.take_all_inodes();
        let (mut reserve, _) = PhysicalReserve::open(&disk, 2 * MIB).unwrap();
        assert!(!reserve.is_complete() && reserve.spares().is_none());
        assert!(reserve.store(WriteClass::ControlPlane, b"x").is_err());
        disk.release();
        assert!(reserve.replenish(&disk).unwrap());
        reserve.store(WriteClass::ControlPlane, b"x").unwrap();
        assert_eq!(reserve.load(WriteClass::ControlPlane).unwrap().as_deref(), Some(&b"x"[..]));
    }
    /// Stores a second record; opening and storing may be cut off anywhere.
    fn scenario(disk: &dyn Disk) -> Result<(), SlotError> {
        let (mut reserve, _) = PhysicalReserve::open(disk, 2 * MIB)?;
        reserve.store(WriteClass::ControlPlane, b"second")?;
        reserve.replenish(disk)?;
        Ok(())
    }

    #[test]
    fn no_failing_call_loses_a_record_or_keeps_the_reserve_from_completing() {
        let mut struck = 0;
        for fresh in [true, false] {
            let prepared = || {
                let memory = MemoryDisk::new(MemoryDiskSettings::plain(8 * MIB));
                if !fresh {
                    let (mut reserve, _) = PhysicalReserve::open(&memory, 2 * MIB).unwrap();
                    reserve.store(WriteClass::ControlPlane, b"first").unwrap();
                }
                let (disk, faults) = FaultyDisk::new(Arc::new(memory.clone()));
                (memory, disk, faults)
            };
            let (_, disk, faults) = prepared();
            scenario(&disk).unwrap();
            let calls = faults.calls();
            for (kind, call, then) in FaultKind::ALL.into_iter().flat_map(|kind| {
                (1..=calls).flat_map(move |call| [(kind, call, Then::Works), (kind, call, Then::StaysSo)])
            }) {
                let (memory, disk, faults) = prepared();
                faults.arm(Fault { kind, call, then });
                let stored = scenario(&disk);
                struck += faults.fired().len().min(1);
                faults.disarm();
                drop(disk);
                memory.power_loss(PowerLoss::LosesAllUnsynced);
                let (mut reserve, mut records) = PhysicalReserve::open(&memory, 2 * MIB).unwrap();
                let found = records.remove(&WriteClass::ControlPlane);
                let before = if fresh { None } else { Some(b"first".to_vec()) };
                let after = Some(b"second".to_vec());
                let allowed = found == after || (found == before && stored.is_err());
                assert!(allowed, "{kind:?} {call} {then:?}: {found:?}, {stored:?}");
                assert!(reserve.replenish(&memory).unwrap(), "{kind:?} {call} {then:?}");
            }
        }
        println!("{struck} faults struck");
        assert!(struck > 200);
    }
}
