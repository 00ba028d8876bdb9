//! The one door to the disk.
//!
//! Everything that Plimsoll stores goes through [`Disk`] and [`DiskFile`]; nothing above sees a path of the
//! host or an `io::Error`. A disk is rooted at one data directory; paths are relative to it, use `/`, and
//! are made by this program only.
//!
//! Rules that every implementation keeps (one conformance suite checks them):
//! - Writing and syncing are separate. What was written but not synced may be gone, whole or in part, after
//!   a crash of the machine; it is there after a crash of the process.
//! - A file created, renamed or removed is durable only after [`Disk::sync_dir`] of its directory.
//! - A write either takes all bytes or fails with how many it took; the caller cuts back before it does
//!   anything else.
//! - `allocate` reserves blocks without changing the length. Where `reserves()` says true, writes into
//!   allocated bytes do not meet a full disk.
//! - Errors are classified here and nowhere else ([`DiskError`]).

pub mod classify;
#[cfg(test)]
mod conformance;
#[cfg(any(test, feature = "memory-disk"))]
pub mod faulty;
#[cfg(any(test, feature = "memory-disk"))]
pub mod memory;
pub mod real;

use std::fmt;
use std::sync::Arc;

use plimsoll_proto::disk::DiskCause;

/// Why an operation at the door failed, by what the caller must do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// No room: ENOSPC, EDQUOT or EFBIG before any acknowledgement. Recoverable: cut back what was written
    /// in part, refuse, reclaim. Never returned by a sync.
    #[error("out of space ({cause}) in {operation}")]
    OutOfSpace {
        /// Which resource ran out.
        cause: DiskCause,
        /// The operation, for people.
        operation: &'static str,
        /// Bytes the failed write did take; 0 for other operations.
        written: u64,
    },
    /// The device or filesystem failed: EIO, EROFS, ENODEV, ESTALE, or any failed sync. Final for the volume.
    #[error("volume failed ({cause}) in {operation}")]
    VolumeFailed {
        /// What failed.
        cause: FailureCause,
        /// The operation, for people.
        operation: &'static str,
    },
    /// The file or directory is not there.
    #[error("not found in {operation}")]
    NotFound {
        /// The operation, for people.
        operation: &'static str,
    },
    /// The file is there already.
    #[error("already exists in {operation}")]
    AlreadyExists {
        /// The operation, for people.
        operation: &'static str,
    },
    /// Another process holds the lock of this directory.
    #[error("locked by another process")]
    Locked,
    /// Too few file descriptors, or memory; passes by itself.
    #[error("out of handles or memory in {operation} (errno {errno})")]
    Exhausted {
        /// The operating system's number.
        errno: i32,
        /// The operation, for people.
        operation: &'static str,
    },
    /// Not classified. Three in a row on a volume make it Failed{append_errors}.
    #[error("errno {errno} in {operation}")]
    Unknown {
        /// The operating system's number, 0 when it gave none.
        errno: i32,
        /// The operation, for people.
        operation: &'static str,
    },
}

/// What failed about a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureCause {
    /// The device reported an input/output error.
    IoError,
    /// The filesystem became read-only.
    ReadOnlyFilesystem,
    /// A sync failed; what was written since the last good one is in doubt.
    SyncFailed,
    /// The mount is gone or is another one, or the directory was emptied or replaced while it was in use.
    Vanished,
    /// Three unclassified failures in a row.
    AppendErrors,
}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoError => "io_error",
            Self::ReadOnlyFilesystem => "read_only_filesystem",
            Self::SyncFailed => "sync_failed",
            Self::Vanished => "vanished",
            Self::AppendErrors => "append_errors",
        })
    }
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading; the file must exist.
    Read,
    /// Reading and writing; the file must exist. Needs no space.
    Write,
    /// Reading and writing; the file must not exist. Needs an inode.
    CreateNew,
}

/// What one `statvfs` of the volume says, unprocessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceSample {
    /// Size of the filesystem in bytes (`f_blocks * f_frsize`).
    pub total_bytes: u64,
    /// Bytes an ordinary process may still take (`f_bavail`, never `f_bfree`).
    pub available_bytes: u64,
    /// All inodes (`f_files`); 0 means that the filesystem does not say.
    pub total_inodes: u64,
    /// Inodes an ordinary process may still take (`f_favail`).
    pub available_inodes: u64,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// Name within the directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Which boot and which mount this is: a change of either means that the page cache was lost.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MountIdentity {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Unique id of the mount (`statx` STATX_MNT_ID_UNIQUE, else STATX_MNT_ID with the device number).
    pub mount_id: u64,
}

/// A data directory on some filesystem. All methods block; call them on a lane of their own.
pub trait Disk: Send + Sync {
    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, `OutOfSpace` (an inode or a directory block), `VolumeFailed`.
    fn open(&self, path: &str, mode: OpenMode) -> Result<Box<dyn DiskFile>, DiskError>;
    /// Entries of a directory in order of name.
    ///
    /// # Errors
    /// `NotFound`, `VolumeFailed`.
    fn list(&self, dir: &str) -> Result<Vec<DirEntry>, DiskError>;
    /// Makes a directory; its parent must exist. One that exists already is fine.
    ///
    /// # Errors
    /// `OutOfSpace`, `VolumeFailed`.
    fn create_dir(&self, dir: &str) -> Result<(), DiskError>;
    /// Unlinks a file. Its bytes are free only when the last handle is closed.
    ///
    /// # Errors
    /// `NotFound`, `VolumeFailed`.
    fn remove_file(&self, path: &str) -> Result<(), DiskError>;
    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `VolumeFailed`.
    fn remove_dir(&self, dir: &str) -> Result<(), DiskError>;
    /// Renames, replacing what stands at `to`. May need a block: not for emergency paths.
    ///
    /// # Errors
    /// `NotFound`, `OutOfSpace`, `VolumeFailed`.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;
    /// Makes creations, renames and removals in `dir` durable.
    ///
    /// # Errors
    /// `VolumeFailed{SyncFailed}`; final.
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError>;
    /// What the filesystem says of its room. Advice: a write error is the truth.
    ///
    /// # Errors
    /// `VolumeFailed{Vanished}` when the mount is gone, or the file of a lock that is held: what is written then is
    /// found by nobody.
    fn space(&self) -> Result<SpaceSample, DiskError>;
    /// Whether `allocate` is a real reservation here (not on copy-on-write filesystems, nor where fallocate
    /// is missing).
    fn reserves(&self) -> bool;
    /// Boot and mount, to tell a lost page cache.
    fn mount_identity(&self) -> MountIdentity;
    /// Takes the directory for this process until the guard is dropped. Works at 0 bytes and 0 inodes when the
    /// lock file exists.
    ///
    /// # Errors
    /// `Locked`; `OutOfSpace` when the lock file can't be made.
    fn lock(&self, path: &str) -> Result<Box<dyn LockGuard>, DiskError>;
    /// The place for people: a path of the host, or a label.
    fn label(&self) -> String;
}

/// Holds a directory lock until dropped.
pub trait LockGuard: Send + Sync + fmt::Debug {}

/// An open file. Positions are explicit; there is no cursor.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// `VolumeFailed`, `Unknown`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError>;
    /// Writes all bytes at `offset`. Not durable before [`DiskFile::sync_data`].
    ///
    /// # Errors
    /// `OutOfSpace{written}` after a short write: cut back to the last good length first.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError>;
    /// Makes contents and length durable.
    ///
    /// # Errors
    /// Always `VolumeFailed{SyncFailed}`, whatever the errno. Never sync again afterwards.
    fn sync_data(&self) -> Result<(), DiskError>;
    /// Cuts or extends the length. Cutting frees whole blocks beyond it, also preallocated ones.
    ///
    /// # Errors
    /// `VolumeFailed`, `Unknown`.
    fn set_len(&self, len: u64) -> Result<(), DiskError>;
    /// Reserves blocks for `[offset, offset + len)` without changing the length (`fallocate(KEEP_SIZE)`). On a
    /// filesystem without fallocate it does nothing, and [`Disk::reserves`] says false from then on.
    ///
    /// # Errors
    /// `OutOfSpace`: nothing or a part was reserved.
    fn allocate(&self, offset: u64, len: u64) -> Result<(), DiskError>;
    /// The length in bytes.
    ///
    /// # Errors
    /// `VolumeFailed`, `Unknown`.
    fn len(&self) -> Result<u64, DiskError>;
    /// Whether the length is 0.
    ///
    /// # Errors
    /// As [`DiskFile::len`].
    fn is_empty(&self) -> Result<bool, DiskError> {
        self.len().map(|len| len == 0)
    }
    /// Bytes of blocks that the file occupies, written or only allocated.
    ///
    /// # Errors
    /// `VolumeFailed`, `Unknown`.
    fn allocated_bytes(&self) -> Result<u64, DiskError>;
}

/// A disk shared by the parts of one volume.
pub type SharedDisk = Arc<dyn Disk>;
