//! What a run that was killed has left: mounts, processes, folders.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::mounts;

/// Folder of all runs of this user.
pub(super) fn base() -> PathBuf {
    std::env::temp_dir().join(format!("plimsoll-chaos-{}", super::namespace::user()))
}

/// Name for the folder of a new run: the process, when that process began, and a number within it.
pub(super) fn new_run() -> String {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let pid = std::process::id();
    let began = began(pid).unwrap_or_default();
    format!("{pid}-{began}-{}", RUNS.fetch_add(1, Ordering::Relaxed))
}

/// Removes the runs whose process is gone.
pub(super) fn sweep(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let run = entry.path();
        let name = entry.file_name();
        let Some((pid, rest)) = name.to_str().and_then(|name| name.split_once('-')) else { continue };
        let (Ok(pid), Some((time, _))) = (pid.parse::<u32>(), rest.split_once('-')) else { continue };
        // Another program may have got the number since; it began at another time.
        if began(pid).is_some_and(|began| began == time) {
            continue;
        }
        kill_servers_of(&run);
        for mount in mounts::below(&run) {
            mounts::unmount(&mount);
        }
        drop(std::fs::remove_dir_all(&run));
    }
}

/// When a process began, in ticks since the machine did (field 22 of `/proc/PID/stat`, proc_pid_stat(5)).
fn began(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; counting starts behind it, with field 3.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

/// Kills the processes whose command line names a path inside of `run`.
fn kill_servers_of(run: &Path) {
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(command_line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let mut arguments = command_line.split(|byte| *byte == 0);
        let is_server = arguments.next().is_some_and(|program| program.ends_with(b"plimsoll"));
        let inside = format!("{}/", run.display());
        if is_server
            && arguments.any(|argument| argument.starts_with(inside.as_bytes()))
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
