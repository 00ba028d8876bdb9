//! What the last run of scenarios came to, kept for `report`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};

fn path() -> PathBuf {
    super::leftovers::base().join("last-run.json")
}

/// Keeps it.
///
/// # Errors
/// What the folder for temporary files says.
pub fn save(text: &str) -> anyhow::Result<()> {
    write(&path(), text)
}

/// Writes a file, in place of the one that was there.
///
/// # Errors
/// What `open(2)` and `write(2)` say.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH)
        .with_context(|| format!("create {}", path.display()))?;
    let mut left = text.as_bytes();
    while !left.is_empty() {
        let written = rustix::io::write(&file, left).with_context(|| format!("write {}", path.display()))?;
        left = left.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// What was kept.
///
/// # Errors
/// When nothing was.
pub fn load() -> anyhow::Result<String> {
    let path = path();
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}
