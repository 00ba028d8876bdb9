//! A limit on the size of files for one process: a write that crosses it takes a part and is cut short, the next one
//! gets EFBIG.

use std::path::Path;

use anyhow::Context as _;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::rig::Missing;

/// The limit. Dropped, it is lifted.
#[derive(Debug)]
pub struct SizeLimit {
    pid: Pid,
    before: Rlimit,
}

impl SizeLimit {
    /// No file of the process becomes longer than this.
    ///
    /// # Errors
    /// [`Missing`] where limits of another process may not be set.
    pub fn set(pid: u32, bytes: u64) -> anyhow::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id")?;
        let limit = Rlimit { current: Some(bytes), maximum: None };
        let before = prlimit(Some(pid), Resource::Fsize, limit)
            .map_err(|errno| Missing::because(format!("no limit of another process: {errno}")))?;
        Ok(Self { pid, before })
    }

    /// Lifts it.
    pub fn lift(self) {}
}

impl Drop for SizeLimit {
    fn drop(&mut self) {
        let _process_has_ended = prlimit(Some(self.pid), Resource::Fsize, self.before);
    }
}

/// Length of the longest segment below a folder.
pub fn longest_log(data: &Path) -> u64 {
    let mut longest = 0;
    for entry in std::fs::read_dir(data).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            longest = longest.max(longest_log(&path));
        } else if path.extension().is_some_and(|extension| extension == "log") {
            longest = longest.max(entry.metadata().map_or(0, |found| found.len()));
        }
    }
    longest
}
