//! One server of a test cluster.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use plimsoll_host::Host;
use rustix::process::{Pid, Signal};

use super::error::TestkitError;
use super::spawn;

/// Exit code of a server whose port is taken; part of the command line's contract.
const PORT_IN_USE: i32 = 6;
/// Pause between two looks at a process that is to end.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// A controller or a storage node of a [`TestCluster`](super::TestCluster): a process that can be killed, stopped,
/// frozen and started again.
///
/// ```no_run
/// # async fn example(cluster: &mut plimsoll_client::testkit::TestCluster) -> Result<(), Box<dyn std::error::Error>> {
/// let node = cluster.spu(1);
/// node.pause(); // alive and silent
/// node.resume();
/// node.stop(std::time::Duration::from_secs(10)).await; // in order, as for an upgrade
/// node.start()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestServer {
    name: String,
    address: String,
    binary: PathBuf,
    arguments: Vec<String>,
    data: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl TestServer {
    pub(super) fn start_new(
        kind: &str,
        id: u32,
        address: &str,
        binary: &Path,
        folder: &Path,
        more: Vec<String>,
    ) -> Result<Self, TestkitError> {
        let name = format!("{kind}-{id}");
        let data = folder.join(&name);
        std::fs::create_dir(&data).map_err(|error| TestkitError::host("make a folder", &data, &error))?;
        let port = address.rsplit(':').next().unwrap_or_default();
        let listen = format!("127.0.0.1:{port}");
        let mut arguments =
            [kind, "run", "--id", &id.to_string(), "--listen", &listen].map(str::to_owned).to_vec();
        arguments.extend(["--data-dir".to_owned(), data.display().to_string()]);
        arguments.extend(more);
        let log = folder.join(format!("{name}.log"));
        let (binary, address) = (binary.to_owned(), address.to_owned());
        let mut server = Self { name, address, binary, arguments, data, log, child: None };
        server.start()?;
        Ok(server)
    }

    /// Such as `spu-2`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is reached, as `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Where everything that it prints goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it, on the same address and data. Without effect while it runs. It takes a moment until it serves: wait
    /// with [`Client::wait_metadata`](crate::Client::wait_metadata), or let the SDK retry.
    ///
    /// # Errors
    /// [`TestkitError::Host`] when the binary can't be run.
    pub fn start(&mut self) -> Result<(), TestkitError> {
        if self.child.is_some() {
            return Ok(());
        }
        let wrong = |error| TestkitError::host("start", &self.binary, &error);
        let log = spawn::append_to(&self.log)?;
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments).env("NO_COLOR", "1").stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(wrong)?).stderr(log);
        // What is set for clients must not reach the servers.
        let ours = std::env::vars_os()
            .map(|(key, _)| key)
            .filter(|key| key.to_string_lossy().starts_with("PLIMSOLL_") && key != "PLIMSOLL_LOG");
        ours.for_each(|key| {
            command.env_remove(key);
        });
        self.child = Some(spawn::spawn(command).map_err(wrong)?);
        Ok(())
    }

    /// `kill -9`, and waits until the process is gone. Without effect when it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it is gone already.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Asks it to stop in order and waits until it is gone; killed after `limit`. Whether it ended by itself.
    pub async fn stop(&mut self, limit: Duration) -> bool {
        self.signal(Signal::TERM);
        let clock = Host::real().clock;
        let deadline = clock.now().saturating_add(limit);
        while let Some(child) = &mut self.child {
            if matches!(child.try_wait(), Ok(Some(_))) {
                self.child = None;
                return true;
            }
            if clock.now() >= deadline {
                self.kill();
                return false;
            }
            clock.sleep(LOOK_PAUSE).await;
        }
        true
    }

    /// Freezes the process: its connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends [`TestServer::pause`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// The last lines of its log.
    pub fn log_end(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let text = text.unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        let end = all.get(all.len().saturating_sub(lines)..).unwrap_or_default();
        format!("{}: {}", self.name, end.join("\n"))
    }

    /// Fails when it has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), TestkitError> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match child.try_wait() {
            Ok(Some(status)) if status.code() == Some(PORT_IN_USE) => Err(TestkitError::PortTaken),
            Ok(Some(status)) => {
                let (name, log) = (self.name.clone(), self.log_end(15));
                Err(TestkitError::Ended { name, status: status.to_string(), log })
            }
            Ok(None) | Err(_) => Ok(()),
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // An error means that it is gone already.
            let _gone = rustix::process::kill_process(pid, signal);
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
    }
}
