//! Mounting and unmounting.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::mount::{MountFlags, UnmountFlags};

use super::VolumeSpec;

/// Mounts a tmpfs at `path`.
pub(super) fn mount_tmpfs(path: &Path, spec: VolumeSpec) -> anyhow::Result<()> {
    let inodes = spec.inodes.map_or_else(String::new, |inodes| format!(",nr_inodes={inodes}"));
    let options =
        CString::new(format!("size={},mode=0755{inodes}", spec.bytes)).context("options without NUL")?;
    rustix::mount::mount(
        "plimsoll-chaos",
        path,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        options.as_c_str(),
    )
    .with_context(|| format!("mount a tmpfs at {}", path.display()))
}

/// Unmounts, also when files are still open there.
pub(super) fn unmount(path: &Path) {
    let _not_mounted = rustix::mount::unmount(path, UnmountFlags::DETACH);
}

/// Mount points below `folder`, deepest first.
pub(super) fn below(folder: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| path.starts_with(folder))
        .collect();
    found.sort();
    found.reverse();
    found
}
