//! Mounting and unmounting.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::mount::{MountFlags, UnmountFlags};

use super::VolumeSpec;

/// Mounts a tmpfs at `path`.
pub(super) fn mount_tmpfs(path: &Path, spec: &VolumeSpec) -> anyhow::Result<()> {
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

/// Gives a mounted tmpfs another size; the kernel refuses less than is in use (tmpfs(5)).
pub(super) fn resize_tmpfs(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let options = CString::new(format!("size={bytes}")).context("options without NUL")?;
    rustix::mount::mount_remount(path, MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())
        .with_context(|| format!("resize the tmpfs at {}", path.display()))
}

/// The device that is mounted at `path`.
pub(super) fn device_of(path: &Path) -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut entries = table.lines().filter_map(|line| line.split_once(' '));
    entries
        .rfind(|(_, rest)| rest.split(' ').next().is_some_and(|found| Path::new(found) == path))
        .map(|(device, _)| device.to_owned())
}

/// Unmounts for good; fails while a file is open there.
pub(super) fn unmount_now(path: &Path) -> anyhow::Result<()> {
    rustix::mount::unmount(path, UnmountFlags::empty()).with_context(|| format!("unmount {}", path.display()))
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
