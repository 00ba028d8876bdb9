//! The trial that a volume passes before it takes records again: it repeats what failed.

use super::level::{Canary, Repeat};
use crate::fs::{Disk, DiskError, FailureCause, OpenMode};

/// The trial's file, in the root of the volume; one that a crash left is removed by the next trial.
pub const CANARY_FILE: &str = "canary";

const PATTERN: [u8; 4096] = [0xA5; 4096];
/// Bytes that a trial writes.
pub(crate) const WRITE_BYTES: u64 = 4096;

/// Creates a file, repeats what failed, writes, syncs, reads back and removes the file.
///
/// # Errors
/// `OutOfSpace`: answer `CanaryFailed`. `VolumeFailed` (also when what is read is not what was written):
/// the volume is Failed. Others pass by themselves.
pub fn run(disk: &dyn Disk, canary: Canary) -> Result<(), DiskError> {
    remove(disk)?;
    let outcome = attempt(disk, canary.repeat);
    let removed = remove(disk);
    outcome.and(removed)
}

fn remove(disk: &dyn Disk) -> Result<(), DiskError> {
    match disk.remove_file(CANARY_FILE) {
        Ok(()) | Err(DiskError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn attempt(disk: &dyn Disk, repeat: Repeat) -> Result<(), DiskError> {
    let file = disk.open(CANARY_FILE, OpenMode::CreateNew)?;
    let offset = match repeat {
        Repeat::Allocate { bytes } => {
            file.allocate(0, bytes)?;
            0
        }
        Repeat::Create => 0,
        Repeat::WriteAt { offset } => offset,
    };
    file.write_at(&PATTERN, offset)?;
    file.sync_data()?;
    let mut found = [0; PATTERN.len()];
    let taken = file.read_at(&mut found, offset)?;
    if taken == found.len() && found == PATTERN {
        Ok(())
    } else {
        Err(DiskError::VolumeFailed { cause: FailureCause::IoError, operation: "canary" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::{MemoryDisk, MemoryDiskSettings};
    use plimsoll_proto::disk::DiskCause;

    fn trial(disk: &MemoryDisk, repeat: Repeat) -> Option<DiskCause> {
        match run(disk, Canary { attempt: 1, repeat }) {
            Ok(()) => None,
            Err(DiskError::OutOfSpace { cause, .. }) => Some(cause),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_fails_for_as_long_as_what_failed_would_fail_and_leaves_nothing() {
        let disk = MemoryDisk::new(MemoryDiskSettings::plain(1 << 20));
        let allocate = Repeat::Allocate { bytes: 1 << 19 };
        let far = Repeat::WriteAt { offset: 1 << 30 };
        assert_eq!(trial(&disk, allocate), None);
        disk.take_bytes(1 << 19);
        disk.take_bytes(4096);
        assert_eq!(trial(&disk, allocate), Some(DiskCause::Bytes));
        assert_eq!(trial(&disk, Repeat::Create), None);
        disk.release();
        disk.take_all_inodes();
        assert_eq!(trial(&disk, Repeat::Create), Some(DiskCause::Inodes));
        disk.release();
        disk.resize(|s| s.file_bytes_max = Some(1 << 20));
        assert_eq!(trial(&disk, far), Some(DiskCause::Limit));
        assert_eq!(disk.available_bytes(), 1 << 20);
        disk.set_sync_fails(true);
        let failed = run(&disk, Canary { attempt: 1, repeat: Repeat::Create });
        assert!(matches!(failed, Err(DiskError::VolumeFailed { .. })));
    }
}
