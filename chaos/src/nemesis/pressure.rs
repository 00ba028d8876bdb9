//! Little processor time or memory for one process: control groups.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};

use crate::rig::Missing;

const ROOT: &str = "/sys/fs/cgroup";

/// A control group with one process in it. Dropped, it lets the process go and is removed.
#[derive(Debug)]
pub struct Squeezed {
    folder: PathBuf,
    /// Where its processes go back to.
    root: PathBuf,
}

impl Squeezed {
    /// Gives a process `percent` of one processor.
    ///
    /// # Errors
    /// [`Missing`] without control groups that can do that.
    pub fn processor(pid: u32, percent: u32) -> anyhow::Result<Self> {
        const PERIOD_US: u32 = 100_000;
        let quota = PERIOD_US / 100 * percent;
        Self::create(
            "cpu",
            pid,
            &[("cpu.cfs_period_us", PERIOD_US.to_string()), ("cpu.cfs_quota_us", quota.to_string())],
            &[("cpu.max", format!("{quota} {PERIOD_US}"))],
        )
    }

    /// Kills a process as soon as it takes one more page: a limit below what it has.
    ///
    /// # Errors
    /// [`Missing`] without control groups that can do that.
    pub fn memory(pid: u32, bytes: u64) -> anyhow::Result<Self> {
        let limit = bytes.to_string();
        Self::create("memory", pid, &[("memory.limit_in_bytes", limit.clone())], &[("memory.max", limit)])
    }

    fn create(
        controller: &str,
        pid: u32,
        version_1: &[(&str, String)],
        version_2: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let (root, settings) = if Path::new(ROOT).join(controller).is_dir() {
            (Path::new(ROOT).join(controller), version_1)
        } else {
            (PathBuf::from(ROOT), version_2)
        };
        let folder = root.join(format!("plimsoll-chaos-{pid}"));
        let made = std::fs::create_dir(&folder);
        made.map_err(|error| Missing::because(format!("no control group {controller}: {error}")))?;
        let group = Self { folder, root };
        for (name, value) in settings {
            write(&group.folder.join(name), value)
                .map_err(|error| Missing::because(format!("no limit of {controller}: {error:#}")))?;
        }
        // In version 1 memory stays charged where it was taken: what comes from now on counts.
        write(&group.folder.join("cgroup.procs"), &pid.to_string())?;
        Ok(group)
    }

    /// Lets the process go.
    pub fn end(self) {}
}

impl Drop for Squeezed {
    fn drop(&mut self) {
        let inside = std::fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines() {
            drop(write(&self.root.join("cgroup.procs"), pid));
        }
        drop(std::fs::remove_dir(&self.folder));
    }
}

fn write(path: &Path, value: &str) -> anyhow::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open {}", path.display()))?;
    rustix::io::write(&file, value.as_bytes()).with_context(|| format!("write {}", path.display()))?;
    Ok(())
}
