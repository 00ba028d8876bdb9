//! What a run that was killed has left: mounts, processes, folders.

use std::path::{Path, PathBuf};

use super::mounts;

/// Folder of all runs of this user.
pub(super) fn base() -> PathBuf {
    std::env::temp_dir().join(format!("plimsoll-chaos-{}", rustix::process::geteuid().as_raw()))
}

/// Removes the runs whose process is gone.
pub(super) fn sweep(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let run = entry.path();
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if is_chaos(pid) {
            continue;
        }
        kill_servers_of(&run);
        for mount in mounts::below(&run) {
            mounts::unmount(&mount);
        }
        drop(std::fs::remove_dir_all(&run));
    }
}

/// Whether `pid` is a living run; another program may have got the number since.
fn is_chaos(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|comm| comm.trim_end().starts_with("plimsoll-chaos"))
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
