//! The disk of the host.
//!
//! Everything goes through the handle of the data directory (`openat` and friends), so that a mount that
//! vanishes under the path is never confused with the empty directory that appears in its place.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{self as sys, AtFlags, FallocateFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, retry_on_intr};

use super::classify::{Operation, classify};
use super::{
    DirEntry, Disk, DiskError, DiskFile, FailureCause, LockGuard, MountIdentity, OpenMode, SpaceSample,
};

/// `STATX_MNT_ID_UNIQUE` of linux/stat.h (since 6.8): ids that are never used again while the host is up.
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// Filesystems (statfs magics of linux/magic.h) on which blocks from fallocate were measured to stay
/// writable when the disk is full.
const RESERVING: [u64; 3] = [
    0xEF53,      // ext4
    0x5846_5342, // xfs
    0x0102_1994, // tmpfs
];

/// One data directory on a filesystem of the host.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    dir: Arc<OwnedFd>,
    mount: MountIdentity,
    /// Falls to false when the filesystem turns out to have no fallocate.
    reserves: Arc<AtomicBool>,
    /// The lock that is held through this door.
    held: Arc<Mutex<Option<HeldFile>>>,
}

/// A file by its name and by what stood there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HeldFile {
    path: String,
    device: u64,
    inode: u64,
}

impl RealDisk {
    /// Opens the directory, making it and its parents when they are missing. One that exists needs no byte and
    /// no inode.
    ///
    /// # Errors
    /// `OutOfSpace` when it can't be made; `VolumeFailed`; `Unknown` (no permission, not a directory): say the
    /// path and stop.
    pub fn open(root: &Path) -> Result<Self, DiskError> {
        let dir = match open_root(root) {
            Err(Errno::NOENT) => {
                make_durably(root)?;
                open_root(root)
            }
            other => other,
        }
        .map_err(|errno| classify(Operation::Open, errno, 0, || None))?;
        let mount = MountIdentity { boot_id: boot_id(), mount_id: mount_id(&dir)? };
        let magic = sys::fstatfs(&dir).map_err(|errno| classify(Operation::Space, errno, 0, || None))?.f_type;
        let reserves = u64::try_from(magic).is_ok_and(|magic| RESERVING.contains(&magic));
        Ok(Self {
            root: root.to_path_buf(),
            dir: Arc::new(dir),
            mount,
            reserves: Arc::new(AtomicBool::new(reserves)),
            held: Arc::default(),
        })
    }

    /// As [`RealDisk::open`], of a directory that must be there: nothing is made.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` (no permission, not a directory); `VolumeFailed`.
    pub fn open_existing(root: &Path) -> Result<Self, DiskError> {
        match open_root(root) {
            Ok(_) => Self::open(root),
            Err(errno) => Err(classify(Operation::Open, errno, 0, || None)),
        }
    }

    fn error(&self, operation: Operation, errno: Errno) -> DiskError {
        classify(operation, errno, 0, || sample(&self.dir).ok())
    }
}

/// A directory whose entry is not synced would be gone after a power loss, with all that was synced in it.
fn make_durably(root: &Path) -> Result<(), DiskError> {
    let there = root.ancestors().skip(1).find(|dir| open_root(dir).is_ok());
    std::fs::create_dir_all(root).map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        classify(Operation::CreateDir, errno, 0, || None)
    })?;
    for dir in root.ancestors().skip(1) {
        // A parent that we may not open is the operator's to keep.
        if let Ok(parent) = open_root(dir) {
            sys::fsync(&parent).map_err(|errno| classify(Operation::SyncDir, errno, 0, || None))?;
        }
        if Some(dir) == there {
            break;
        }
    }
    Ok(())
}

fn open_root(root: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
    retry_on_intr(|| sys::open(root, flags, Mode::empty()))
}

/// Empty where /proc is not mounted: then a change of the mount alone tells.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn mount_id(dir: &OwnedFd) -> Result<u64, DiskError> {
    let ask = |mask| retry_on_intr(|| sys::statx(dir, "", AtFlags::EMPTY_PATH, mask));
    let unique = StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
    let found = ask(unique).map_err(|errno| classify(Operation::Stat, errno, 0, || None))?;
    if found.stx_mask & STATX_MNT_ID_UNIQUE != 0 {
        return Ok(found.stx_mnt_id);
    }
    let found = ask(StatxFlags::MNT_ID).map_err(|errno| classify(Operation::Stat, errno, 0, || None))?;
    // Plain mount ids are used again: the device number tells most of those cases apart.
    let device = (u64::from(found.stx_dev_major) << 32) | u64::from(found.stx_dev_minor);
    Ok(found.stx_mnt_id ^ device.rotate_left(20))
}

fn sample(dir: &OwnedFd) -> Result<SpaceSample, Errno> {
    retry_on_intr(|| sys::fstatvfs(dir)).map(|found| sample_of(&found))
}

/// What an ordinary process may take: `f_bfree` and `f_ffree` also count what the filesystem keeps for root
/// (statvfs(3); a 64 MiB ext4 gave ENOSPC with 4.7 MB of `f_bfree` left).
fn sample_of(found: &sys::StatVfs) -> SpaceSample {
    SpaceSample {
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        available_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        total_inodes: found.f_files,
        available_inodes: found.f_favail,
    }
}

/// The root is written as "" or "." by callers.
fn relative(path: &str) -> &str {
    debug_assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".."), "outside the root");
    if path.is_empty() { "." } else { path }
}

impl Disk for RealDisk {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Box<dyn DiskFile>, DiskError> {
        let (operation, flags) = match mode {
            OpenMode::Read => (Operation::Open, OFlags::RDONLY),
            OpenMode::Write => (Operation::Open, OFlags::RDWR),
            OpenMode::CreateNew => (Operation::Create, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL),
        };
        let flags = flags | OFlags::CLOEXEC;
        let permissions = Mode::from_raw_mode(0o640);
        let fd = retry_on_intr(|| sys::openat(&*self.dir, relative(path), flags, permissions))
            .map_err(|errno| self.error(operation, errno))?;
        Ok(Box::new(RealFile { fd, reserves: Arc::clone(&self.reserves) }))
    }

    fn list(&self, dir: &str) -> Result<Vec<DirEntry>, DiskError> {
        let failed = |errno| self.error(Operation::List, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            retry_on_intr(|| sys::openat(&*self.dir, relative(dir), flags, Mode::empty())).map_err(failed)?;
        let mut entries = Vec::new();
        for entry in sys::Dir::new(fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Names of ours are ASCII; others are not ours and are left alone.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let is_dir = match entry.file_type() {
                FileType::Unknown => self.is_dir(dir, name)?,
                known => known == FileType::Directory,
            };
            entries.push(DirEntry { name: name.to_owned(), is_dir });
        }
        entries.sort();
        Ok(entries)
    }

    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        let permissions = Mode::from_raw_mode(0o750);
        match retry_on_intr(|| sys::mkdirat(&*self.dir, relative(dir), permissions)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(self.error(Operation::CreateDir, errno)),
        }
    }

    fn remove_file(&self, path: &str) -> Result<(), DiskError> {
        retry_on_intr(|| sys::unlinkat(&*self.dir, relative(path), AtFlags::empty()))
            .map_err(|errno| self.error(Operation::RemoveFile, errno))
    }

    fn remove_dir(&self, dir: &str) -> Result<(), DiskError> {
        retry_on_intr(|| sys::unlinkat(&*self.dir, relative(dir), AtFlags::REMOVEDIR))
            .map_err(|errno| self.error(Operation::RemoveDir, errno))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        retry_on_intr(|| sys::renameat(&*self.dir, relative(from), &*self.dir, relative(to)))
            .map_err(|errno| self.error(Operation::Rename, errno))
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| sys::openat(&*self.dir, relative(dir), flags, Mode::empty()))
            .map_err(|errno| self.error(Operation::Open, errno))?;
        sys::fsync(&fd).map_err(|errno| self.error(Operation::SyncDir, errno))
    }

    fn space(&self) -> Result<SpaceSample, DiskError> {
        let failed = |errno| self.error(Operation::Space, errno);
        let vanished =
            || DiskError::VolumeFailed { cause: FailureCause::Vanished, operation: Operation::Space.name() };
        // A lazily unmounted filesystem goes on answering through our handle: ask the path what is there now.
        let now = open_root(&self.root).map_err(failed)?;
        if mount_id(&now)? != self.mount.mount_id {
            return Err(vanished());
        }
        // So do the open files of a directory that somebody emptied, or put another one in the place of.
        let held = held(&self.held).clone();
        if let Some(held) = held
            && !is_there(&now, &held).map_err(failed)?
        {
            return Err(vanished());
        }
        sample(&self.dir).map_err(failed)
    }

    fn reserves(&self) -> bool {
        self.reserves.load(Ordering::Relaxed)
    }

    fn mount_identity(&self) -> MountIdentity {
        self.mount.clone()
    }

    fn lock(&self, path: &str) -> Result<Box<dyn LockGuard>, DiskError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let permissions = Mode::from_raw_mode(0o640);
        let fd = retry_on_intr(|| sys::openat(&*self.dir, relative(path), flags, permissions))
            .map_err(|errno| self.error(Operation::Create, errno))?;
        let file = File::from(fd);
        fs2::FileExt::try_lock_exclusive(&file).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
            self.error(Operation::Lock, errno)
        })?;
        let found = sys::fstat(&file).map_err(|errno| self.error(Operation::Stat, errno))?;
        *held(&self.held) =
            Some(HeldFile { path: path.to_owned(), device: found.st_dev, inode: found.st_ino });
        Ok(Box::new(RealLock { _file: file, held: Arc::clone(&self.held) }))
    }

    fn label(&self) -> String {
        self.root.display().to_string()
    }
}

impl RealDisk {
    /// For filesystems whose directories do not tell the type of an entry.
    fn is_dir(&self, dir: &str, name: &str) -> Result<bool, DiskError> {
        let path = format!("{}/{name}", relative(dir));
        let found = retry_on_intr(|| sys::statat(&*self.dir, path.as_str(), AtFlags::SYMLINK_NOFOLLOW))
            .map_err(|errno| self.error(Operation::List, errno))?;
        Ok(FileType::from_raw_mode(found.st_mode) == FileType::Directory)
    }
}

/// The lock lives as long as the open file.
#[derive(Debug)]
struct RealLock {
    _file: File,
    held: Arc<Mutex<Option<HeldFile>>>,
}

impl LockGuard for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        *held(&self.held) = None;
    }
}

fn held(held: &Mutex<Option<HeldFile>>) -> MutexGuard<'_, Option<HeldFile>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a file still stands where it was taken. It is open, so that its number is nobody else's.
fn is_there(dir: &OwnedFd, file: &HeldFile) -> Result<bool, Errno> {
    match retry_on_intr(|| sys::statat(dir, relative(&file.path), AtFlags::SYMLINK_NOFOLLOW)) {
        Ok(found) => Ok((found.st_dev, found.st_ino) == (file.device, file.inode)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[derive(Debug)]
struct RealFile {
    fd: OwnedFd,
    reserves: Arc<AtomicBool>,
}

impl RealFile {
    fn error(operation: Operation, errno: Errno, written: usize) -> DiskError {
        classify(operation, errno, written as u64, || None)
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        let mut filled = 0;
        while filled < buf.len() {
            let rest = buf.get_mut(filled..).unwrap_or_default();
            match rustix::io::pread(&self.fd, rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(taken) => filled += taken,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Self::error(Operation::Read, errno, 0)),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        let mut written = 0;
        while written < bytes.len() {
            let rest = bytes.get(written..).unwrap_or_default();
            match rustix::io::pwrite(&self.fd, rest, offset.saturating_add(written as u64)) {
                Ok(0) => return Err(DiskError::Unknown { errno: 0, operation: Operation::Write.name() }),
                Ok(taken) => written += taken,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Self::error(Operation::Write, errno, written)),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        // Not retried on EINTR either: a failed sync is final, whatever the number.
        sys::fdatasync(&self.fd).map_err(|errno| Self::error(Operation::Sync, errno, 0))
    }

    fn set_len(&self, len: u64) -> Result<(), DiskError> {
        retry_on_intr(|| sys::ftruncate(&self.fd, len))
            .map_err(|errno| Self::error(Operation::SetLen, errno, 0))
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        if len == 0 {
            return Ok(());
        }
        match retry_on_intr(|| sys::fallocate(&self.fd, FallocateFlags::KEEP_SIZE, offset, len)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.reserves.store(false, Ordering::Relaxed);
                Ok(())
            }
            Err(errno) => Err(Self::error(Operation::Allocate, errno, 0)),
        }
    }

    fn len(&self) -> Result<u64, DiskError> {
        let found = sys::fstat(&self.fd).map_err(|errno| Self::error(Operation::Stat, errno, 0))?;
        u64::try_from(found.st_size).map_err(|_| Self::error(Operation::Stat, Errno::OVERFLOW, 0))
    }

    fn allocated_bytes(&self) -> Result<u64, DiskError> {
        let found = sys::fstat(&self.fd).map_err(|errno| Self::error(Operation::Stat, errno, 0))?;
        // st_blocks counts 512 bytes whatever the block size (stat(2)).
        Ok(u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(512))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_filesystem_keeps_for_root_is_not_available() {
        let found = sys::StatVfs {
            f_bsize: 65536,
            f_frsize: 4096,
            f_blocks: 1000,
            f_bfree: 500,
            f_bavail: 450,
            f_files: 200,
            f_ffree: 100,
            f_favail: 90,
            f_fsid: 0,
            f_flag: sys::StatVfsMountFlags::empty(),
            f_namemax: 255,
        };
        let expected = SpaceSample {
            total_bytes: 1000 * 4096,
            available_bytes: 450 * 4096,
            total_inodes: 200,
            available_inodes: 90,
        };
        assert_eq!(sample_of(&found), expected);
    }
}
