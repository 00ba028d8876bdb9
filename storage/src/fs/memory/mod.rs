//! A disk in memory that behaves like a bad one.
//!
//! It has a capacity in bytes and inodes, blocks, a root reserve, a quota and a file size limit; it knows what
//! would survive a power loss ([`MemoryDisk::power_loss`]); a foreign writer can take and give back all room
//! under a running volume; its `statvfs` can lie or hang and its syncs can fail. Deterministic: the same
//! calls and seeds give the same bytes.
//!
//! The handle is cheap to clone and every clone is the same disk.

mod image;
mod inode;
mod names;
mod power;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plimsoll_proto::disk::DiskCause;

use super::{
    DirEntry, Disk, DiskError, DiskFile, FailureCause, LockGuard, MountIdentity, OpenMode, SpaceSample,
};
use image::Image;
use names::Node;

/// Size and habits of a [`MemoryDisk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryDiskSettings {
    /// Size of the filesystem in bytes.
    pub capacity_bytes: u64,
    /// All inodes; 0 means that the filesystem neither counts nor limits them (btrfs).
    pub capacity_inodes: u64,
    /// Bytes per block; allocation is by whole blocks.
    pub block_bytes: u64,
    /// Bytes kept for root: part of the size, never available to us.
    pub root_reserve_bytes: u64,
    /// Limit of our own use, invisible to `statvfs`; past it writes get EDQUOT.
    pub quota_bytes: Option<u64>,
    /// Longest file; past it writes get EFBIG.
    pub file_bytes_max: Option<u64>,
    /// What a thin device really holds: writes beyond are taken, the next sync fails.
    pub thin_bytes: Option<u64>,
    /// Overwriting needs a free block, and allocation reserves nothing.
    pub copy_on_write: bool,
    /// Creating, making a directory and renaming need one free block.
    pub entries_need_block: bool,
}

impl MemoryDiskSettings {
    /// A plain disk of this size with 4 KiB blocks and 10,000 inodes.
    pub fn plain(capacity_bytes: u64) -> Self {
        Self {
            capacity_bytes,
            capacity_inodes: 10_000,
            block_bytes: 4096,
            root_reserve_bytes: 0,
            quota_bytes: None,
            file_bytes_max: None,
            thin_bytes: None,
            copy_on_write: false,
            entries_need_block: false,
        }
    }
}

/// How `statvfs` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatvfsFault {
    /// The truth.
    Honest,
    /// Always this, whatever the truth.
    Lies(SpaceSample),
    /// It would never return; modelled as `Unknown{errno: 110}` and [`MemoryDisk::hangs`], so that a test can
    /// give its sensor "no answer".
    Hangs,
}

/// What a power loss leaves of unsynced work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerLoss {
    /// Exactly what was synced.
    LosesAllUnsynced,
    /// By this seed: each unsynced 512-byte sector is there or not, lengths lie anywhere between the durable
    /// and the live one, and a prefix of the unsynced directory changes survives.
    Tears {
        /// The same seed tears the same way.
        seed: u64,
    },
}

/// A shared handle of one disk in memory.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    image: Arc<Mutex<Image>>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new(settings: MemoryDiskSettings) -> Self {
        Self { image: Arc::new(Mutex::new(Image::new(settings))) }
    }

    fn image(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Power is lost: unsynced work goes as `loss` says, every open handle is dead (`Vanished`), locks are
    /// free, the boot id changes, one-off faults are cleared.
    pub fn power_loss(&self, loss: PowerLoss) {
        self.image().power_loss(loss);
    }

    /// Changes size or habits of the live disk. Shrinking below what is used leaves 0 available.
    pub fn resize(&self, change: impl FnOnce(&mut MemoryDiskSettings)) {
        change(&mut self.image().settings);
    }

    /// A foreign writer takes up to `bytes` of what is available; returns how many it got.
    pub fn take_bytes(&self, bytes: u64) -> u64 {
        let mut image = self.image();
        let taken = bytes.min(image.available_bytes());
        image.foreign_bytes += taken;
        taken
    }

    /// A foreign writer takes every available byte.
    pub fn take_all_bytes(&self) -> u64 {
        self.take_bytes(u64::MAX)
    }

    /// A foreign writer takes every available inode.
    pub fn take_all_inodes(&self) -> u64 {
        let mut image = self.image();
        let taken = image.available_inodes();
        image.foreign_inodes += taken;
        taken
    }

    /// The foreign writer gives back up to that many bytes.
    pub fn release_bytes(&self, bytes: u64) {
        let mut image = self.image();
        image.foreign_bytes = image.foreign_bytes.saturating_sub(bytes);
    }

    /// The foreign writer gives everything back.
    pub fn release(&self) {
        let mut image = self.image();
        image.foreign_bytes = 0;
        image.foreign_inodes = 0;
    }

    /// While on, a foreign writer takes every byte and inode in the moment it becomes free.
    pub fn set_greedy(&self, greedy: bool) {
        let mut image = self.image();
        image.greedy = greedy;
        image.feed_greedy();
    }

    /// While on, every sync fails with EIO and what it should have synced stays unsynced.
    pub fn set_sync_fails(&self, fails: bool) {
        self.image().sync_fails = fails;
    }

    /// While on, everything that changes the disk gets EROFS.
    pub fn set_read_only(&self, read_only: bool) {
        self.image().read_only = read_only;
    }

    /// While on, everything fails as on a mount that is gone.
    pub fn set_vanished(&self, vanished: bool) {
        self.image().vanished = vanished;
    }

    /// How `statvfs` answers from now on.
    pub fn set_statvfs(&self, fault: StatvfsFault) {
        self.image().statvfs = fault;
    }

    /// Whether a real `statvfs` would not return now.
    pub fn hangs(&self) -> bool {
        self.image().statvfs == StatvfsFault::Hangs
    }

    /// What is really available, whatever `statvfs` says.
    pub fn available_bytes(&self) -> u64 {
        self.image().available_bytes()
    }

    /// Inodes really available.
    pub fn available_inodes(&self) -> u64 {
        self.image().available_inodes()
    }

    /// Bytes of files that are unlinked but still open.
    pub fn unlinked_open_bytes(&self) -> u64 {
        self.image().unlinked_open_bytes()
    }

    /// Handles open now: 0 after everything was dropped.
    pub fn open_handles(&self) -> u64 {
        self.image().open_handles()
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Box<dyn DiskFile>, DiskError> {
        let mut image = self.image();
        let inode = image.open(path, mode)?;
        let generation = image.generation;
        drop(image);
        Ok(Box::new(MemoryFile { disk: self.clone(), inode, generation, writable: mode != OpenMode::Read }))
    }

    fn list(&self, dir: &str) -> Result<Vec<DirEntry>, DiskError> {
        self.image().list(dir)
    }

    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.image().create_dir(dir)
    }

    fn remove_file(&self, path: &str) -> Result<(), DiskError> {
        self.image().remove_file(path)
    }

    fn remove_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.image().remove_dir(dir)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.image().rename(from, to)
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.image().sync_dir(dir)
    }

    fn space(&self) -> Result<SpaceSample, DiskError> {
        let image = self.image();
        if image.vanished || !image.locks_are_there() {
            return Err(DiskError::VolumeFailed { cause: FailureCause::Vanished, operation: "space" });
        }
        match image.statvfs {
            StatvfsFault::Honest => Ok(image.sample()),
            StatvfsFault::Lies(sample) => Ok(sample),
            StatvfsFault::Hangs => Err(DiskError::Unknown { errno: 110, operation: "space" }),
        }
    }

    fn reserves(&self) -> bool {
        !self.image().settings.copy_on_write
    }

    fn mount_identity(&self) -> MountIdentity {
        MountIdentity { boot_id: format!("memory-boot-{}", self.image().generation), mount_id: 1 }
    }

    fn lock(&self, path: &str) -> Result<Box<dyn LockGuard>, DiskError> {
        let mut image = self.image();
        let inode = match image.node(path) {
            Some(Node::File(inode)) => inode,
            Some(Node::Dir) | None => {
                let inode = image.open(path, OpenMode::CreateNew)?;
                image.close(inode);
                inode
            }
        };
        if image.locks.contains_key(&inode) {
            return Err(DiskError::Locked);
        }
        image.locks.insert(inode, path.to_owned());
        let generation = image.generation;
        drop(image);
        Ok(Box::new(MemoryLock { disk: self.clone(), inode, generation }))
    }

    fn label(&self) -> String {
        "memory".to_owned()
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: MemoryDisk,
    inode: u64,
    generation: u64,
}

impl LockGuard for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut image = self.disk.image();
        if image.generation == self.generation {
            image.locks.remove(&self.inode);
        }
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    inode: u64,
    generation: u64,
    writable: bool,
}

impl MemoryFile {
    /// The image, unless this handle died with the power.
    fn live(&self, operation: &'static str) -> Result<MutexGuard<'_, Image>, DiskError> {
        let image = self.disk.image();
        if image.generation != self.generation || image.vanished {
            return Err(DiskError::VolumeFailed { cause: FailureCause::Vanished, operation });
        }
        Ok(image)
    }

    fn changing(&self, operation: &'static str) -> Result<MutexGuard<'_, Image>, DiskError> {
        let image = self.live(operation)?;
        image.check_writable(operation)?;
        if !self.writable {
            // EBADF, as from a descriptor opened for reading.
            return Err(DiskError::Unknown { errno: 9, operation });
        }
        Ok(image)
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let mut image = self.disk.image();
        if image.generation == self.generation {
            image.close(self.inode);
        }
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        Ok(self.live("read")?.inode(self.inode).read(buf, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        self.changing("write")?.write(self.inode, bytes, offset)
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.live("sync")?.sync(self.inode)
    }

    fn set_len(&self, len: u64) -> Result<(), DiskError> {
        self.changing("set_len")?.set_len(self.inode, len)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.changing("allocate")?.allocate(self.inode, offset, len)
    }

    fn len(&self) -> Result<u64, DiskError> {
        Ok(self.live("stat")?.inode(self.inode).len())
    }

    fn allocated_bytes(&self) -> Result<u64, DiskError> {
        let image = self.live("stat")?;
        Ok(image.inode(self.inode).blocks() * image.settings.block_bytes)
    }
}

fn out_of_space(cause: DiskCause, operation: &'static str, written: u64) -> DiskError {
    DiskError::OutOfSpace { cause, operation, written }
}

#[cfg(test)]
mod tests;
