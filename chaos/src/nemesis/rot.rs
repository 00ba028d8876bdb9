//! Bytes that change where nobody wrote.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};

/// Flips one bit in the middle of a file.
///
/// # Errors
/// What `pread(2)` and `pwrite(2)` say.
pub fn flip_a_bit(file: &Path) -> anyhow::Result<()> {
    let opened = rustix::fs::open(file, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open {}", file.display()))?;
    let bytes = u64::try_from(rustix::fs::fstat(&opened).context("size of a file")?.st_size)?;
    let at = bytes / 2;
    let mut byte = [0u8];
    rustix::io::pread(&opened, &mut byte, at).context("read a byte")?;
    byte[0] ^= 0x10;
    rustix::io::pwrite(&opened, &byte, at).context("write a byte")?;
    rustix::fs::fsync(&opened).context("sync")
}

/// Segment files below a folder that are no longer written: all but the newest of each partition.
pub fn sealed_segments(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut logs = Vec::new();
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log")
                && entry.metadata().is_ok_and(|found| found.len() > 0)
            {
                logs.push(path);
            }
        }
        // Named by their first offset, with zeros in front.
        logs.sort();
        logs.pop();
        found.extend(logs);
    }
    found
}
