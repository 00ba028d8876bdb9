//! A disk whose logs are mostly holes: big logs in no time and little room. Of a large batch only the beginning is
//! written; what was written is never read again where opening trusts it.

use plimsoll_storage::fs::real::RealDisk;
use plimsoll_storage::fs::{
    DirEntry, Disk, DiskError, DiskFile, LockGuard, MountIdentity, OpenMode, SpaceSample,
};

use crate::lab::wide;

/// Bytes of a batch that are really written.
const KEPT: usize = 4096;

pub(crate) struct SparseDisk(pub(crate) RealDisk);

struct SparseFile {
    inner: Box<dyn DiskFile>,
    is_log: bool,
}

impl Disk for SparseDisk {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Box<dyn DiskFile>, DiskError> {
        let inner = self.0.open(path, mode)?;
        Ok(Box::new(SparseFile { inner, is_log: path.ends_with(".log") }))
    }
    fn list(&self, dir: &str) -> Result<Vec<DirEntry>, DiskError> {
        self.0.list(dir)
    }
    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.0.create_dir(dir)
    }
    fn remove_file(&self, path: &str) -> Result<(), DiskError> {
        self.0.remove_file(path)
    }
    fn remove_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.0.remove_dir(dir)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.0.rename(from, to)
    }
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.0.sync_dir(dir)
    }
    fn space(&self) -> Result<SpaceSample, DiskError> {
        let real = self.0.space()?;
        Ok(SpaceSample { total_bytes: 4 << 40, available_bytes: 2 << 40, ..real })
    }
    fn reserves(&self) -> bool {
        self.0.reserves()
    }
    fn mount_identity(&self) -> MountIdentity {
        self.0.mount_identity()
    }
    fn lock(&self, path: &str) -> Result<Box<dyn LockGuard>, DiskError> {
        self.0.lock(path)
    }
    fn label(&self) -> String {
        self.0.label()
    }
}

impl DiskFile for SparseFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        self.inner.read_at(buf, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        if !self.is_log || bytes.len() <= KEPT {
            return self.inner.write_at(bytes, offset);
        }
        self.inner.write_at(&bytes[..KEPT], offset)?;
        self.inner.set_len(offset + wide(bytes.len()))
    }
    fn sync_data(&self) -> Result<(), DiskError> {
        self.inner.sync_data()
    }
    fn set_len(&self, len: u64) -> Result<(), DiskError> {
        self.inner.set_len(len)
    }
    fn allocate(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        if self.is_log { Ok(()) } else { self.inner.allocate(offset, len) }
    }
    fn len(&self) -> Result<u64, DiskError> {
        self.inner.len()
    }
    fn allocated_bytes(&self) -> Result<u64, DiskError> {
        self.inner.allocated_bytes()
    }
}
