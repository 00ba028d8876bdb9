//! A disk whose syncs take a while.

use std::time::Duration;

use plimsoll_storage::fs::real::RealDisk;
use plimsoll_storage::fs::{
    DirEntry, Disk, DiskError, DiskFile, LockGuard, MountIdentity, OpenMode, SpaceSample,
};

/// See the module.
pub(crate) struct SlowDisk {
    pub(crate) inner: RealDisk,
    /// Every sync takes at least this.
    pub(crate) sync: Duration,
}

struct SlowFile {
    inner: Box<dyn DiskFile>,
    sync: Duration,
}

/// Does `work` and waits until so much time has passed. Busy: a sleep may be much longer than asked for.
#[expect(clippy::disallowed_methods, reason = "a bench takes the time")]
pub(crate) fn at_least<T>(time: Duration, work: impl FnOnce() -> T) -> T {
    let start = std::time::Instant::now();
    let result = work();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
    result
}

impl Disk for SlowDisk {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Box<dyn DiskFile>, DiskError> {
        let inner = self.inner.open(path, mode)?;
        Ok(Box::new(SlowFile { inner, sync: self.sync }))
    }
    fn list(&self, dir: &str) -> Result<Vec<DirEntry>, DiskError> {
        self.inner.list(dir)
    }
    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.inner.create_dir(dir)
    }
    fn remove_file(&self, path: &str) -> Result<(), DiskError> {
        self.inner.remove_file(path)
    }
    fn remove_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.inner.remove_dir(dir)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.inner.rename(from, to)
    }
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        at_least(self.sync, || self.inner.sync_dir(dir))
    }
    fn space(&self) -> Result<SpaceSample, DiskError> {
        self.inner.space()
    }
    fn reserves(&self) -> bool {
        self.inner.reserves()
    }
    fn mount_identity(&self) -> MountIdentity {
        self.inner.mount_identity()
    }
    fn lock(&self, path: &str) -> Result<Box<dyn LockGuard>, DiskError> {
        self.inner.lock(path)
    }
    fn label(&self) -> String {
        self.inner.label()
    }
}

impl DiskFile for SlowFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        self.inner.read_at(buf, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        self.inner.write_at(bytes, offset)
    }
    fn sync_data(&self) -> Result<(), DiskError> {
        at_least(self.sync, || self.inner.sync_data())
    }
    fn set_len(&self, len: u64) -> Result<(), DiskError> {
        self.inner.set_len(len)
    }
    fn allocate(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.inner.allocate(offset, len)
    }
    fn len(&self) -> Result<u64, DiskError> {
        self.inner.len()
    }
    fn allocated_bytes(&self) -> Result<u64, DiskError> {
        self.inner.allocated_bytes()
    }
}
