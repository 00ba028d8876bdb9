//! A door that fails the k-th call.
//!
//! Run a scenario once to count its calls, then once for every k with every kind of fault:
//!
//! ```text
//! let (disk, faults) = FaultyDisk::new(inner);   run(disk);   let n = faults.calls();
//! for k in 1..=n { faults.arm(Fault { kind, call: k, then: Then::Works }); run(disk); check(); }
//! ```
//!
//! A kind that makes no sense for the k-th call (ENOSPC of a read) lets it through; [`Faults::fired`] says
//! whether and where it struck.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::classify::{Operation, classify};
use super::{
    DirEntry, Disk, DiskError, DiskFile, FailureCause, LockGuard, MountIdentity, OpenMode, SharedDisk,
    SpaceSample,
};

/// What a failing call answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// ENOSPC of create, make directory, rename, write and allocate.
    NoSpace,
    /// EDQUOT of the same.
    Quota,
    /// EFBIG of write, extend and allocate.
    FileTooBig,
    /// A write takes half of its bytes, then ENOSPC.
    ShortWrite,
    /// EIO of a write.
    WriteIo,
    /// EIO of a sync, of a file or a directory.
    SyncIo,
    /// EIO of a read.
    ReadIo,
    /// EROFS of everything that changes the disk.
    ReadOnlyFilesystem,
    /// EMFILE of open, create and list.
    OutOfHandles,
    /// EINVAL of everything but a sync: a number nobody classified.
    Unclassified,
    /// Everything fails: the process is dead from here on. Use with [`Then::StaysSo`] before a power loss.
    Dead,
}

/// What happens after the k-th call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Later calls work.
    Works,
    /// Every later call that the kind applies to fails as well.
    StaysSo,
}

/// A planned fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What it answers.
    pub kind: FaultKind,
    /// Which call, counted from 1 since [`Faults::arm`].
    pub call: u64,
    /// Once or from then on.
    pub then: Then,
}

#[derive(Debug, Default)]
struct Script {
    calls: u64,
    trace: Vec<(Operation, String)>,
    fault: Option<Fault>,
    fired: Vec<(u64, Operation)>,
}

/// Counts, plans and reports the faults of one [`FaultyDisk`]; every clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    script: Arc<Mutex<Script>>,
}

/// Wraps any disk.
#[derive(Clone)]
pub struct FaultyDisk {
    inner: SharedDisk,
    faults: Faults,
}

impl FaultyDisk {
    /// A door before `inner` that lets everything through until it is armed.
    pub fn new(inner: SharedDisk) -> (Self, Faults) {
        let faults = Faults::default();
        (Self { inner, faults: faults.clone() }, faults)
    }
}

impl Faults {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans a fault and counts from 0 again.
    pub fn arm(&self, fault: Fault) {
        *self.script() = Script { fault: Some(fault), ..Script::default() };
    }

    /// Everything works from now on; counts and trace stay.
    pub fn disarm(&self) {
        self.script().fault = None;
    }

    /// Forgets plan, counts and trace.
    pub fn reset(&self) {
        *self.script() = Script::default();
    }

    /// Calls through the door since the last arm or reset.
    pub fn calls(&self) -> u64 {
        self.script().calls
    }

    /// Each call with the path it was about.
    pub fn trace(&self) -> Vec<(Operation, String)> {
        self.script().trace.clone()
    }

    /// Which calls were made to fail.
    pub fn fired(&self) -> Vec<(u64, Operation)> {
        self.script().fired.clone()
    }

    /// Counts a call and says with which kind it must fail.
    fn enter(&self, operation: Operation, path: &str) -> Option<FaultKind> {
        let mut script = self.script();
        script.calls += 1;
        let call = script.calls;
        script.trace.push((operation, path.to_owned()));
        let fault = script.fault?;
        let due = match fault.then {
            Then::Works => call == fault.call,
            Then::StaysSo => call >= fault.call,
        };
        if !due || !fault.kind.applies(operation) {
            return None;
        }
        script.fired.push((call, operation));
        Some(fault.kind)
    }

    fn check(&self, operation: Operation, path: &str) -> Result<(), DiskError> {
        self.enter(operation, path).map_or(Ok(()), |kind| Err(kind.error(operation, 0)))
    }
}

impl FaultKind {
    /// All of them, for tests that go through each.
    pub const ALL: [Self; 11] = [
        Self::NoSpace,
        Self::Quota,
        Self::FileTooBig,
        Self::ShortWrite,
        Self::WriteIo,
        Self::SyncIo,
        Self::ReadIo,
        Self::ReadOnlyFilesystem,
        Self::OutOfHandles,
        Self::Unclassified,
        Self::Dead,
    ];

    fn applies(self, operation: Operation) -> bool {
        use Operation as Op;
        match self {
            Self::NoSpace | Self::Quota => {
                matches!(operation, Op::Create | Op::CreateDir | Op::Rename | Op::Write | Op::Allocate)
            }
            Self::FileTooBig => matches!(operation, Op::Write | Op::Allocate),
            Self::ShortWrite | Self::WriteIo => operation == Op::Write,
            Self::SyncIo => matches!(operation, Op::Sync | Op::SyncDir),
            Self::ReadIo => matches!(operation, Op::Read | Op::List),
            Self::ReadOnlyFilesystem => matches!(
                operation,
                Op::Create
                    | Op::CreateDir
                    | Op::RemoveFile
                    | Op::RemoveDir
                    | Op::Rename
                    | Op::Write
                    | Op::SetLen
                    | Op::Allocate
            ),
            Self::OutOfHandles => matches!(operation, Op::Open | Op::Create | Op::List),
            Self::Unclassified => !matches!(operation, Op::Sync | Op::SyncDir),
            Self::Dead => true,
        }
    }

    fn error(self, operation: Operation, written: u64) -> DiskError {
        let errno = match self {
            Self::NoSpace | Self::ShortWrite => Errno::NOSPC,
            Self::Quota => Errno::DQUOT,
            Self::FileTooBig => Errno::FBIG,
            Self::WriteIo | Self::SyncIo | Self::ReadIo => Errno::IO,
            Self::ReadOnlyFilesystem => Errno::ROFS,
            Self::OutOfHandles => Errno::MFILE,
            Self::Unclassified => Errno::INVAL,
            Self::Dead => {
                let cause = FailureCause::Vanished;
                return DiskError::VolumeFailed { cause, operation: operation.name() };
            }
        };
        classify(operation, errno, written, || None)
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Box<dyn DiskFile>, DiskError> {
        let operation = if mode == OpenMode::CreateNew { Operation::Create } else { Operation::Open };
        self.faults.check(operation, path)?;
        let inner = self.inner.open(path, mode)?;
        Ok(Box::new(FaultyFile { inner, path: path.to_owned(), faults: self.faults.clone() }))
    }

    fn list(&self, dir: &str) -> Result<Vec<DirEntry>, DiskError> {
        self.faults.check(Operation::List, dir)?;
        self.inner.list(dir)
    }

    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.faults.check(Operation::CreateDir, dir)?;
        self.inner.create_dir(dir)
    }

    fn remove_file(&self, path: &str) -> Result<(), DiskError> {
        self.faults.check(Operation::RemoveFile, path)?;
        self.inner.remove_file(path)
    }

    fn remove_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.faults.check(Operation::RemoveDir, dir)?;
        self.inner.remove_dir(dir)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.faults.check(Operation::Rename, to)?;
        self.inner.rename(from, to)
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.faults.check(Operation::SyncDir, dir)?;
        self.inner.sync_dir(dir)
    }

    fn space(&self) -> Result<SpaceSample, DiskError> {
        self.faults.check(Operation::Space, "")?;
        self.inner.space()
    }

    fn reserves(&self) -> bool {
        self.inner.reserves()
    }

    fn mount_identity(&self) -> MountIdentity {
        self.inner.mount_identity()
    }

    fn lock(&self, path: &str) -> Result<Box<dyn LockGuard>, DiskError> {
        self.faults.check(Operation::Lock, path)?;
        self.inner.lock(path)
    }

    fn label(&self) -> String {
        format!("faulty {}", self.inner.label())
    }
}

struct FaultyFile {
    inner: Box<dyn DiskFile>,
    path: String,
    faults: Faults,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        self.faults.check(Operation::Read, &self.path)?;
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        match self.faults.enter(Operation::Write, &self.path) {
            None => self.inner.write_at(bytes, offset),
            Some(FaultKind::ShortWrite) => {
                let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
                self.inner.write_at(half, offset)?;
                Err(FaultKind::ShortWrite.error(Operation::Write, half.len() as u64))
            }
            Some(kind) => Err(kind.error(Operation::Write, 0)),
        }
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.faults.check(Operation::Sync, &self.path)?;
        self.inner.sync_data()
    }

    fn set_len(&self, len: u64) -> Result<(), DiskError> {
        self.faults.check(Operation::SetLen, &self.path)?;
        self.inner.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.faults.check(Operation::Allocate, &self.path)?;
        self.inner.allocate(offset, len)
    }

    fn len(&self) -> Result<u64, DiskError> {
        self.faults.check(Operation::Stat, &self.path)?;
        self.inner.len()
    }

    fn allocated_bytes(&self) -> Result<u64, DiskError> {
        self.faults.check(Operation::Stat, &self.path)?;
        self.inner.allocated_bytes()
    }
}
