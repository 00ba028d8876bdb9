//! The servers of a run: real processes of the `plimsoll` binary, started, killed and started again.

use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, bail};
use rustix::fs::{Mode, OFlags};

/// One server: how it is started, and the running process if there is one.
#[derive(Debug)]
pub struct Server {
    /// Such as `spu-2`.
    pub name: String,
    binary: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    environment: Vec<(String, String)>,
    namespace: Option<PathBuf>,
    child: Option<Child>,
}

impl Server {
    /// A server that is not started yet. Everything it prints is appended to `log`.
    pub fn new(name: &str, binary: &Path, arguments: Vec<String>, log: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            binary: binary.to_owned(),
            arguments,
            log,
            environment: Vec::new(),
            namespace: None,
            child: None,
        }
    }

    /// With these variables besides.
    pub fn with_environment(mut self, environment: Vec<(String, String)>) -> Self {
        self.environment = environment;
        self
    }

    /// In a network namespace of its own.
    pub fn in_namespace(mut self, namespace: Option<PathBuf>) -> Self {
        self.namespace = namespace;
        self
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The command, for people.
    pub fn command_line(&self) -> String {
        format!("{} {}", self.binary.display(), self.arguments.join(" "))
    }

    /// Process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts the process. Must be called from the main thread, whose end takes the process along.
    ///
    /// # Errors
    /// When the binary or the log can't be opened.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
        let log: OwnedFd = rustix::fs::open(&self.log, flags, Mode::RUSR | Mode::WUSR)
            .with_context(|| format!("open {}", self.log.display()))?;
        let mut command = Command::new(&self.binary);
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().context("duplicate a descriptor")?))
            .stderr(Stdio::from(log))
            .env("NO_COLOR", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            // A Ctrl-C at the terminal is for the run, which then stops its servers in order.
            .process_group(0);
        let namespace = match &self.namespace {
            None => None,
            Some(path) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let opened = rustix::fs::open(path, flags, Mode::empty());
                Some(opened.with_context(|| format!("open {}", path.display()))?)
            }
        };
        // SAFETY: between fork and exec only prctl(2) and setns(2) are called, which are async-signal-safe and
        // allocate nothing.
        unsafe {
            command.pre_exec(move || {
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
                if let Some(namespace) = &namespace {
                    rustix::thread::move_into_link_name_space(
                        namespace.as_fd(),
                        Some(rustix::thread::LinkNameSpaceType::Network),
                    )?;
                }
                Ok(())
            });
        }
        let child = command.spawn().with_context(|| format!("start {}", self.command_line()))?;
        self.child = Some(child);
        Ok(())
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// `kill -9` without waiting; [`Server::kill`] afterwards takes it away.
    pub fn strike(&self) {
        self.signal(rustix::process::Signal::KILL);
    }

    /// Asks the process to stop; [`Server::kill`] afterwards makes sure.
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Lets it stand still.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) else { return };
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _gone_already = rustix::process::kill_process(pid, signal);
        }
    }

    /// Its status if it has ended, which was expected; it can be started again then.
    ///
    /// # Errors
    /// What `waitpid(2)` says.
    pub fn ended(&mut self) -> anyhow::Result<Option<std::process::ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait().context("wait for a child")?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Fails with the end of its log when the process has ended by itself.
    ///
    /// # Errors
    /// The process ended.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait().context("wait for a child")?
        {
            bail!("{} ended by itself ({status}). Its last lines:\n{}", self.name, self.last_lines(15));
        }
        Ok(())
    }

    /// End of its log.
    pub fn last_lines(&self, count: usize) -> String {
        let text = std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Below the ports that the kernel gives to connections (ip(7), `ip_local_port_range`, from 32768 on): one of those may
/// be some client's by the time a server listens there.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// A port of the loopback interface that was free a moment ago, and another one with each call.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    /// So far apart do processes begin that were started one after the other.
    const APART: u32 = 7_919;
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    for _ in 0..count {
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let place = std::process::id().wrapping_mul(APART).wrapping_add(call) % count;
        let port = u16::try_from(PORTS.start + place)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on the loopback interface")
}

/// The `plimsoll` binary: named by `PLIMSOLL_BINARY`, or beside this program.
///
/// # Errors
/// When it is not there; the message says how to build it.
pub fn find_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("PLIMSOLL_BINARY") {
        return Ok(PathBuf::from(path));
    }
    let program = std::env::current_exe().context("path of this program")?;
    // A test binary lies one folder deeper than the programs.
    for folder in program.ancestors().skip(1).take(2) {
        let binary = folder.join("plimsoll");
        if binary.is_file() {
            return Ok(binary);
        }
    }
    bail!("there is no binary plimsoll beside {}: cargo build -p plimsoll-cli", program.display())
}
