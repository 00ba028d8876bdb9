//! Errors of system calls, put in by strace.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use crate::rig::Missing;

/// What the calls of a process do from now on; as they always did when dropped.
#[derive(Debug)]
pub struct Injection {
    strace: Child,
}

impl Injection {
    /// Attaches to a process. `rule` is one of strace's `inject` expressions, such as
    /// `fdatasync:error=EIO` (strace(1)).
    ///
    /// # Errors
    /// [`Missing`] without strace, or where it may not attach.
    pub fn attach(pid: u32, rule: &str) -> anyhow::Result<Self> {
        let calls = rule.split(':').next().context("an inject expression")?;
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-o", "/dev/null"])
            .args(["-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={rule}")])
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe and allocates nothing.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
                Ok(())
            });
        }
        let strace = command.spawn().map_err(|error| Missing::because(format!("strace: {error}")))?;
        Ok(Self { strace })
    }

    /// Whether every thread of the process is under it by now.
    pub fn is_on(&self, pid: u32) -> bool {
        traces(self.strace.id(), pid)
    }

    /// Whether strace has given up, which it does at once where it may not attach.
    pub fn gave_up(&mut self) -> bool {
        self.strace.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Detaches.
    pub fn end(self) {}
}

impl Drop for Injection {
    fn drop(&mut self) {
        // Asked to end it detaches, and the process goes on; killed it might leave it stopped.
        if let Some(pid) = i32::try_from(self.strace.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        drop(self.strace.wait());
    }
}

/// Whether a tracer has every thread of a process.
pub(super) fn traces(tracer: u32, pid: u32) -> bool {
    let tasks: Vec<_> =
        std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().collect();
    let traced = |task: &std::fs::DirEntry| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let by = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        by.is_some_and(|by| by.trim() == tracer.to_string())
    };
    !tasks.is_empty() && tasks.iter().all(traced)
}
