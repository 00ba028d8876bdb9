//! Something outside of Plimsoll that takes space on a volume until there is none.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_host::Clock;
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, open};
use rustix::io::{Errno, pwrite};

/// What `statvfs` says of a filesystem, in bytes. Free is `f_bavail`: what a process without privileges may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size.
    pub capacity_bytes: u64,
    /// Usable.
    pub free_bytes: u64,
}

impl Space {
    /// Free share, from 0 to 1.
    pub fn free_share(&self) -> f64 {
        share(self.free_bytes, self.capacity_bytes)
    }
}

/// `part` of `whole`, from 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "a share for a gauge; 52 bits are plenty")]
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Asks the filesystem of `path`.
///
/// # Errors
/// What `statvfs(2)` says.
pub fn space(path: &Path) -> anyhow::Result<Space> {
    let stat = rustix::fs::statvfs(path).with_context(|| format!("statvfs {}", path.display()))?;
    Ok(Space {
        capacity_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

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

/// A foreign file that takes space; removed when dropped.
#[derive(Debug)]
pub struct Filler {
    path: PathBuf,
    directory: PathBuf,
    file: Option<OwnedFd>,
    taken_bytes: u64,
}

const STEP_BYTES: u64 = 256 << 10;
/// The smallest block of the filesystems in use: at this size ENOSPC means that nothing is left.
const LAST_STEP_BYTES: u64 = 4 << 10;

impl Filler {
    /// Starts with an empty file in `directory`.
    ///
    /// # Errors
    /// What `open(2)` says.
    pub fn create(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join("foreign-file");
        let c_path = CString::new(path.as_os_str().as_encoded_bytes()).context("a path without NUL")?;
        let file = open(c_path, OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
            .with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path, directory: directory.to_owned(), file: Some(file), taken_bytes: 0 })
    }

    /// Bytes taken so far.
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// Takes up to `bytes` more. Returns whether the filesystem answered ENOSPC with not even a block left.
    ///
    /// # Errors
    /// Any other answer of the filesystem.
    pub fn take(&mut self, bytes: u64) -> anyhow::Result<bool> {
        let mut left = bytes;
        let mut step = STEP_BYTES.min(bytes.max(LAST_STEP_BYTES));
        while left > 0 {
            match self.grow(step) {
                Ok(()) => left = left.saturating_sub(step),
                Err(Errno::NOSPC | Errno::DQUOT) if step > LAST_STEP_BYTES => {
                    step = (step / 4).max(LAST_STEP_BYTES)
                }
                Err(Errno::NOSPC | Errno::DQUOT) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).with_context(|| format!("fill {}", self.path.display())),
            }
        }
        Ok(false)
    }

    fn grow(&mut self, bytes: u64) -> Result<(), Errno> {
        let Some(file) = &self.file else { return Err(Errno::BADF) };
        match fallocate(file, FallocateFlags::empty(), self.taken_bytes, bytes) {
            Err(Errno::OPNOTSUPP) => {
                let zeros = vec![0u8; usize::try_from(bytes).map_err(|_| Errno::INVAL)?];
                let written = pwrite(file, &zeros, self.taken_bytes)?;
                self.taken_bytes = self.taken_bytes.saturating_add(u64::try_from(written).unwrap_or(0));
                if written < zeros.len() { Err(Errno::NOSPC) } else { Ok(()) }
            }
            Err(errno) => Err(errno),
            Ok(()) => {
                self.taken_bytes = self.taken_bytes.saturating_add(bytes);
                Ok(())
            }
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
        let mut fill = Fill { crossed: None, enospc: None, full: space(&self.directory)? };
        let mut quiet_since: Option<Duration> = None;
        loop {
            let before = self.taken_bytes;
            let full = self.take(step)?;
            let now = clock.now();
            let seen = space(&self.directory)?;
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
        self.unlink().with_context(|| format!("unlink {}", self.path.display()))
    }

    fn unlink(&mut self) -> Result<(), Errno> {
        // Closed first: an unlinked file keeps its blocks until the last handle is gone.
        if self.file.take().is_some() { rustix::fs::unlink(&self.path) } else { Ok(()) }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _gone_or_not_there = self.unlink();
    }
}
