//! The one place where numbers of the operating system become [`DiskError`].
//!
//! Classified by raw errno and by operation, never by text: the same ENOSPC is recoverable from a write and
//! final from a sync (a thin volume answered EIO to the first fsync and OK to the second, so a failed sync is
//! never asked again).

use plimsoll_proto::disk::DiskCause;
use rustix::io::Errno;

use super::{DiskError, FailureCause, SpaceSample};

/// What was asked of the operating system when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Opening what exists.
    Open,
    /// Creating a file.
    Create,
    /// Reading a directory.
    List,
    /// Making a directory.
    CreateDir,
    /// Unlinking a file.
    RemoveFile,
    /// Removing a directory.
    RemoveDir,
    /// Renaming.
    Rename,
    /// Syncing a directory.
    SyncDir,
    /// `statvfs`.
    Space,
    /// Locking the directory.
    Lock,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Syncing a file.
    Sync,
    /// Cutting or extending.
    SetLen,
    /// Reserving blocks.
    Allocate,
    /// Asking for length or blocks.
    Stat,
}

impl Operation {
    /// The word for people and counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::List => "list",
            Self::CreateDir => "create_dir",
            Self::RemoveFile => "remove_file",
            Self::RemoveDir => "remove_dir",
            Self::Rename => "rename",
            Self::SyncDir => "sync_dir",
            Self::Space => "space",
            Self::Lock => "lock",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::SetLen => "set_len",
            Self::Allocate => "allocate",
            Self::Stat => "stat",
        }
    }

    /// Whether it may need an inode, so that ENOSPC does not say which resource ran out.
    const fn may_need_inode(self) -> bool {
        matches!(self, Self::Create | Self::CreateDir | Self::Rename)
    }
}

/// Classifies `errno` of `operation`; `written` is what a failed write did take. `space` is asked only when
/// ENOSPC leaves open whether bytes or inodes ran out.
pub fn classify(
    operation: Operation,
    errno: Errno,
    written: u64,
    space: impl FnOnce() -> Option<SpaceSample>,
) -> DiskError {
    let name = operation.name();
    if matches!(operation, Operation::Sync | Operation::SyncDir) {
        return DiskError::VolumeFailed { cause: FailureCause::SyncFailed, operation: name };
    }
    let full = |cause| DiskError::OutOfSpace { cause, operation: name, written };
    let failed = |cause| DiskError::VolumeFailed { cause, operation: name };
    match errno {
        Errno::NOSPC if operation.may_need_inode() => full(which_ran_out(space())),
        Errno::NOSPC => full(DiskCause::Bytes),
        Errno::DQUOT => full(DiskCause::Quota),
        Errno::FBIG => full(DiskCause::Limit),
        // UCLEAN is EFSCORRUPTED of ext4 and xfs, BADMSG is their EFSBADCRC.
        Errno::IO | Errno::REMOTEIO | Errno::UCLEAN | Errno::BADMSG => failed(FailureCause::IoError),
        Errno::ROFS => failed(FailureCause::ReadOnlyFilesystem),
        Errno::NODEV | Errno::NXIO | Errno::STALE | Errno::NOMEDIUM | Errno::SHUTDOWN | Errno::NOTCONN => {
            failed(FailureCause::Vanished)
        }
        Errno::NOENT if operation == Operation::Space => failed(FailureCause::Vanished),
        Errno::NOENT => DiskError::NotFound { operation: name },
        Errno::EXIST if matches!(operation, Operation::Create | Operation::CreateDir) => {
            DiskError::AlreadyExists { operation: name }
        }
        Errno::AGAIN if operation == Operation::Lock => DiskError::Locked,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS => {
            DiskError::Exhausted { errno: errno.raw_os_error(), operation: name }
        }
        other => DiskError::Unknown { errno: other.raw_os_error(), operation: name },
    }
}

/// `f_files == 0` means that the filesystem does not say (btrfs), not that inodes ran out.
fn which_ran_out(space: Option<SpaceSample>) -> DiskCause {
    match space {
        Some(s) if s.total_inodes > 0 && s.available_inodes == 0 => DiskCause::Inodes,
        _ => DiskCause::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(total_inodes: u64, available_inodes: u64) -> Option<SpaceSample> {
        Some(SpaceSample { total_bytes: 100, available_bytes: 50, total_inodes, available_inodes })
    }

    #[test]
    fn every_errno_has_its_class_by_operation() {
        use DiskError::{Exhausted, Locked, NotFound, OutOfSpace, Unknown, VolumeFailed};
        let full =
            |cause, operation: Operation| OutOfSpace { cause, operation: operation.name(), written: 0 };
        let failed = |cause, operation: Operation| VolumeFailed { cause, operation: operation.name() };
        let cases = [
            (Operation::Write, Errno::NOSPC, full(DiskCause::Bytes, Operation::Write)),
            (Operation::Allocate, Errno::DQUOT, full(DiskCause::Quota, Operation::Allocate)),
            (Operation::Write, Errno::FBIG, full(DiskCause::Limit, Operation::Write)),
            (Operation::Sync, Errno::NOSPC, failed(FailureCause::SyncFailed, Operation::Sync)),
            (Operation::Sync, Errno::DQUOT, failed(FailureCause::SyncFailed, Operation::Sync)),
            (Operation::Sync, Errno::INTR, failed(FailureCause::SyncFailed, Operation::Sync)),
            (Operation::SyncDir, Errno::IO, failed(FailureCause::SyncFailed, Operation::SyncDir)),
            (Operation::Write, Errno::IO, failed(FailureCause::IoError, Operation::Write)),
            (Operation::Create, Errno::ROFS, failed(FailureCause::ReadOnlyFilesystem, Operation::Create)),
            (Operation::Read, Errno::STALE, failed(FailureCause::Vanished, Operation::Read)),
            (Operation::Space, Errno::NOENT, failed(FailureCause::Vanished, Operation::Space)),
            (Operation::Open, Errno::NOENT, NotFound { operation: "open" }),
            (Operation::Lock, Errno::AGAIN, Locked),
            (Operation::Open, Errno::MFILE, Exhausted { errno: 24, operation: "open" }),
            (Operation::Read, Errno::INVAL, Unknown { errno: 22, operation: "read" }),
        ];
        for (operation, errno, expected) in cases {
            assert_eq!(classify(operation, errno, 0, || None), expected, "{operation:?} {errno:?}");
        }
    }

    #[test]
    fn a_failed_create_tells_inodes_from_bytes() {
        for (space, cause) in [
            (sample(10, 0), DiskCause::Inodes),
            (sample(10, 1), DiskCause::Bytes),
            (sample(0, 0), DiskCause::Bytes),
            (None, DiskCause::Bytes),
        ] {
            for operation in [Operation::Create, Operation::CreateDir] {
                let error = classify(operation, Errno::NOSPC, 0, || space);
                assert_eq!(error, DiskError::OutOfSpace { cause, operation: operation.name(), written: 0 });
            }
            let error = classify(Operation::Write, Errno::NOSPC, 7, || space);
            assert_eq!(
                error,
                DiskError::OutOfSpace { cause: DiskCause::Bytes, operation: "write", written: 7 }
            );
        }
    }
}
