//! A preallocated file that is deleted when the metadata store needs its room.
//!
//! A foreign writer may take what the deletion frees; the store checks again before it goes on. Nothing that must
//! work depends on winning that race.

use plimsoll_storage::fs::{DiskError, OpenMode, SharedDisk};

/// See the module.
pub(super) struct Ballast {
    disk: SharedDisk,
    path: String,
    bytes: u64,
    held: bool,
}

impl Ballast {
    pub(super) fn new(disk: SharedDisk, path: &str, bytes: u64) -> Self {
        let held = disk.open(path, OpenMode::Read).and_then(|file| file.allocated_bytes());
        let held = held.is_ok_and(|allocated| allocated >= bytes);
        Self { disk, path: path.to_owned(), bytes, held }
    }

    /// Bytes that [`Ballast::release`] would free.
    pub(super) fn held_bytes(&self) -> u64 {
        if self.held { self.bytes } else { 0 }
    }

    /// Gives the room back.
    pub(super) fn release(&mut self) {
        self.held = false;
        drop(self.disk.remove_file(&self.path));
    }

    /// Takes the room again. Failing is fine: it is tried after the next write.
    pub(super) fn renew(&mut self) {
        if self.held || self.bytes == 0 {
            return;
        }
        let made = match self.disk.open(&self.path, OpenMode::CreateNew) {
            Err(DiskError::AlreadyExists { .. }) => self.disk.open(&self.path, OpenMode::Write),
            other => other,
        };
        self.held = made.and_then(|file| file.allocate(0, self.bytes)).is_ok();
        if !self.held {
            self.release();
        }
    }
}
