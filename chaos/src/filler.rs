//! Something outside of Plimsoll that takes space on a volume until there is none.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_host::Clock;
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, open};
use rustix::io::{Errno, pwrite};

use crate::rig::{Disk, DiskKind, Space};

/// How a fill went; times are of the clock that was passed in.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// First moment at which `statvfs` showed less than the mark.
    pub crossed: Option<Duration>,
    /// First moment at which the filesystem answered ENOSPC.
    pub enospc: Option<Duration>,
    /// What `statvfs` said right after the last ENOSPC.
    pub full: Space,
}

impl Fill {
    /// From when on the volume was full: the mark crossed or ENOSPC, whichever was earlier.
    pub fn began(&self) -> Option<Duration> {
        match (self.crossed, self.enospc) {
            (Some(crossed), Some(enospc)) => Some(crossed.min(enospc)),
            (crossed, enospc) => crossed.or(enospc),
        }
    }
}

/// Something foreign that takes space: a file on a real disk, less of the byte limit on a simulated one. Given back
/// when dropped.
#[derive(Debug)]
pub struct Filler {
    disk: Disk,
    /// The file on a real disk.
    file: Option<(PathBuf, OwnedFd)>,
    /// Where that file is while it is not open.
    let_go: Option<PathBuf>,
    taken_bytes: u64,
}

const STEP_BYTES: u64 = 256 << 10;
/// The smallest block of the filesystems in use: at this size ENOSPC means that nothing is left.
const LAST_STEP_BYTES: u64 = 4 << 10;

impl Filler {
    /// Starts with nothing taken.
    ///
    /// # Errors
    /// What `open(2)` says.
    pub fn create(disk: &Disk) -> anyhow::Result<Self> {
        let file = match disk.kind() {
            DiskKind::Tmpfs => {
                let path = disk.folder().join("foreign-file");
                let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
                let file = open(&path, flags, Mode::RUSR | Mode::WUSR)
                    .with_context(|| format!("create {}", path.display()))?;
                Some((path, file))
            }
            DiskKind::Simulated => None,
        };
        Ok(Self { disk: disk.clone(), file, let_go: None, taken_bytes: 0 })
    }

    /// Bytes taken so far.
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// Takes up to `bytes` more. Returns whether the disk answered ENOSPC with not even a block left.
    ///
    /// # Errors
    /// Any other answer of the filesystem.
    pub fn take(&mut self, bytes: u64) -> anyhow::Result<bool> {
        let Some((path, file)) = &self.file else { return self.take_of_limit(bytes) };
        let mut left = bytes;
        let mut step = STEP_BYTES.min(bytes.max(LAST_STEP_BYTES));
        while left > 0 {
            match grow(file, &mut self.taken_bytes, step) {
                Ok(()) => left = left.saturating_sub(step),
                Err(Errno::NOSPC | Errno::DQUOT) if step > LAST_STEP_BYTES => {
                    step = (step / 4).max(LAST_STEP_BYTES)
                }
                Err(Errno::NOSPC | Errno::DQUOT) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).with_context(|| format!("fill {}", path.display())),
            }
        }
        Ok(false)
    }

    fn take_of_limit(&mut self, bytes: u64) -> anyhow::Result<bool> {
        let free_bytes = self.disk.space()?.free_bytes;
        let step = bytes.min(free_bytes);
        if step >= LAST_STEP_BYTES {
            self.taken_bytes = self.taken_bytes.saturating_add(step);
            self.disk.set_limit_bytes(self.disk.bytes().saturating_sub(self.taken_bytes))?;
        }
        Ok(step < bytes)
    }

    /// Gives back up to `bytes`.
    ///
    /// # Errors
    /// What `ftruncate(2)` says.
    pub fn give_back(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.taken_bytes = self.taken_bytes.saturating_sub(bytes);
        match &self.file {
            Some((path, file)) => rustix::fs::ftruncate(file, self.taken_bytes)
                .with_context(|| format!("shorten {}", path.display())),
            None => self.disk.set_limit_bytes(self.disk.bytes().saturating_sub(self.taken_bytes)),
        }
    }

    /// Fills the volume at about `bytes_per_s` until ENOSPC, and goes on taking what is given back until
    /// `settled` has passed without a byte to take.
    ///
    /// # Errors
    /// As [`Filler::take`].
    pub async fn fill(
        &mut self,
        clock: &Clock,
        bytes_per_s: u64,
        mark_bytes: u64,
        settled: Duration,
    ) -> anyhow::Result<Fill> {
        const TICK: Duration = Duration::from_millis(5);
        let step = (bytes_per_s / 200).max(LAST_STEP_BYTES);
        let mut fill = Fill { crossed: None, enospc: None, full: self.disk.space()? };
        let mut quiet_since: Option<Duration> = None;
        loop {
            let before = self.taken_bytes;
            let full = self.take(step)?;
            let now = clock.now();
            let seen = self.disk.space()?;
            if seen.free_bytes < mark_bytes && fill.crossed.is_none() {
                fill.crossed = Some(now);
            }
            if full {
                fill.enospc.get_or_insert(now);
                fill.full = seen;
                let grew = self.taken_bytes > before;
                let since = if grew { now } else { *quiet_since.get_or_insert(now) };
                quiet_since = Some(since);
                if now.saturating_sub(since) >= settled {
                    return Ok(fill);
                }
            } else {
                quiet_since = None;
            }
            clock.sleep(TICK).await;
        }
    }

    /// Gives everything back. The space is free when this returns.
    ///
    /// # Errors
    /// What `unlink(2)` says.
    pub fn remove(mut self) -> anyhow::Result<()> {
        self.release()
    }

    /// Makes what was taken durable and keeps it without an open file, so that the disk can be unmounted. From then on
    /// it can only be removed.
    ///
    /// # Errors
    /// What `fsync(2)` says.
    pub fn let_go(&mut self) -> anyhow::Result<()> {
        let Some((path, file)) = self.file.take() else { return Ok(()) };
        rustix::fs::fsync(&file).with_context(|| format!("sync {}", path.display()))?;
        self.let_go = Some(path);
        Ok(())
    }

    fn release(&mut self) -> anyhow::Result<()> {
        if let Some(path) = self.let_go.take() {
            return rustix::fs::unlink(&path).with_context(|| format!("unlink {}", path.display()));
        }
        match self.file.take() {
            Some((path, file)) => {
                // Closed first: an unlinked file keeps its blocks until the last handle is gone.
                drop(file);
                rustix::fs::unlink(&path).with_context(|| format!("unlink {}", path.display()))
            }
            None if self.disk.kind() == DiskKind::Simulated => self.disk.set_limit_bytes(self.disk.bytes()),
            None => Ok(()),
        }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _gone_or_not_there = self.release();
    }
}

fn grow(file: &OwnedFd, taken_bytes: &mut u64, bytes: u64) -> Result<(), Errno> {
    match fallocate(file, FallocateFlags::empty(), *taken_bytes, bytes) {
        Err(Errno::OPNOTSUPP) => {
            let zeros = vec![0u8; usize::try_from(bytes).map_err(|_| Errno::INVAL)?];
            let written = pwrite(file, &zeros, *taken_bytes)?;
            *taken_bytes = taken_bytes.saturating_add(u64::try_from(written).unwrap_or(0));
            if written < zeros.len() { Err(Errno::NOSPC) } else { Ok(()) }
        }
        Err(errno) => Err(errno),
        Ok(()) => {
            *taken_bytes = taken_bytes.saturating_add(bytes);
            Ok(())
        }
    }
}
