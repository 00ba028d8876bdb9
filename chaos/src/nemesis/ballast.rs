//! Bytes that are really written: what allocating alone does not use up below a thin volume.

use std::path::PathBuf;

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};

use crate::rig::Disk;

/// A foreign file full of bytes; gone when dropped.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
    bytes: u64,
    end: String,
}

impl Ballast {
    /// Writes and syncs up to so many bytes; less when the disk takes no more.
    ///
    /// # Errors
    /// What `open(2)` says.
    pub fn write(disk: &Disk, bytes: u64) -> anyhow::Result<Self> {
        let path = disk.folder().join("ballast");
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .with_context(|| format!("create {}", path.display()))?;
        let mut ballast = Self { path, bytes: 0, end: "all of it".to_owned() };
        // Zeros could be left out by what lies below.
        let block: Vec<u8> = (0u8..=255).cycle().take(1 << 20).collect();
        while ballast.bytes < bytes {
            match rustix::io::write(&file, &block) {
                Ok(written) => ballast.bytes += u64::try_from(written).unwrap_or(0),
                Err(errno) => {
                    ballast.end = format!("write: {errno}");
                    break;
                }
            }
        }
        if let Err(errno) = rustix::fs::fsync(&file) {
            ballast.end = format!("fsync: {errno}");
        }
        Ok(ballast)
    }

    /// Bytes that the filesystem took.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it said in the end.
    pub fn how_it_ended(&self) -> &str {
        &self.end
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _gone_or_broken = rustix::fs::unlink(&self.path);
    }
}
