//! What a test cluster asks of the machine: processes, ports, files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{OnceLock, mpsc};

use plimsoll_host::Tasks;

use super::error::TestkitError;
use super::ports::free_port;

type Job = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts a process that dies with this one, also when this one is killed.
///
/// The kernel sends the signal when the *thread* that started it ends (prctl(2), `PR_SET_PDEATHSIG`), and those of a
/// test do: so a thread that stays starts all of them.
pub(super) fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::SyncSender<Job>> = OnceLock::new();
    // A group of its own: Ctrl-C at the terminal ends the test, which then ends its servers.
    command.process_group(0);
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            Ok(())
        });
    }
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, waiting) = mpsc::sync_channel::<Job>(1);
        let work = move || {
            while let Ok((mut command, answer)) = waiting.recv() {
                // An error means that nobody waits any more; the child is dropped and not waited for.
                drop(answer.send(command.spawn()));
            }
        };
        // It runs until the process ends.
        drop(Tasks::threads().spawn_lane("testkit", move || Box::pin(async move { work() })));
        jobs
    });
    let (answer, child) = mpsc::sync_channel(1);
    let gone = || io::Error::other("the thread that starts processes is gone");
    spawner.send((command, answer)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

/// The `plimsoll` binary, if there is one.
pub(super) fn find_binary() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("PLIMSOLL_BINARY") {
        return Some(PathBuf::from(named));
    }
    let program = std::env::current_exe().ok()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Test programs lie in target/debug/deps, the binary one folder above.
    let beside = program.ancestors().skip(1).take(2).map(Path::to_owned);
    beside.chain(std::env::split_paths(&path)).map(|folder| folder.join("plimsoll")).find(|p| p.is_file())
}

/// Ports of the loopback interface that were free a moment ago, all different.
pub(super) fn free_ports(count: u32) -> Result<Vec<u16>, TestkitError> {
    (0..count).map(|_| free_port(0).map_err(|_| TestkitError::PortTaken)).collect()
}

#[expect(clippy::disallowed_methods, reason = "the log of a child process; no data of ours")]
pub(super) fn append_to(path: &Path) -> Result<File, TestkitError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|error| TestkitError::host("open", path, &error))
}

/// Puts a new text in the place of a file, whole.
#[expect(clippy::disallowed_methods, reason = "an order to a child process, as an operator gives it")]
pub(super) fn replace_file(folder: &Path, name: &str, text: &str) -> Result<(), TestkitError> {
    let (new, path) = (folder.join(format!("{name}.new")), folder.join(name));
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(&new, &path))
        .map_err(|error| TestkitError::host("write", &path, &error))
}
