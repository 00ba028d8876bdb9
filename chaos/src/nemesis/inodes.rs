//! Foreign files until there is no inode left.

use std::path::PathBuf;

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::rig::Disk;

/// Empty files of somebody else; gone when dropped.
#[derive(Debug)]
pub struct InodeFiller {
    folder: PathBuf,
    made: u32,
}

impl InodeFiller {
    /// Makes files until the filesystem has no inode for another.
    ///
    /// # Errors
    /// Any answer of the filesystem but ENOSPC.
    pub fn fill(disk: &Disk) -> anyhow::Result<Self> {
        let folder = disk.folder().join("foreign");
        std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let mut filler = Self { folder, made: 0 };
        loop {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            match rustix::fs::open(filler.folder.join(filler.made.to_string()), flags, Mode::RUSR) {
                Ok(_) => filler.made += 1,
                Err(Errno::NOSPC | Errno::DQUOT) => return Ok(filler),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// How many.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Takes them all away.
    ///
    /// # Errors
    /// What `unlink(2)` says.
    pub fn remove(self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.folder).context("remove foreign files")
    }
}

impl Drop for InodeFiller {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}
