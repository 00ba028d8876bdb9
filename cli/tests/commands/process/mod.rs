//! The binary as its users run it.

pub(crate) mod cluster;
pub(crate) mod local;
#[path = "../../../../client/src/testkit/ports.rs"]
mod ports;
pub(crate) mod terminal;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder of its own, removed at the end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        #[expect(clippy::disallowed_methods, reason = "a file of the test")]
        std::fs::write(&path, text).expect("a file for the test");
        path.display().to_string()
    }

    /// Where a server may write what it says.
    pub(crate) fn append_to(&self, name: &str) -> Stdio {
        #[expect(clippy::disallowed_methods, reason = "a text log of a process")]
        let file = std::fs::OpenOptions::new().create(true).append(true).open(self.0.join(name));
        file.expect("a file for the test").into()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A server; killed at the end if it still runs.
pub(crate) struct Server(pub(crate) std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Addresses where nothing listens, and that no connection takes.
pub(crate) fn free_addresses<const N: usize>() -> [String; N] {
    [(); N].map(|()| format!("127.0.0.1:{}", ports::free_port(0).expect("a port")))
}

/// The first port of a local cluster: controllers take it and those behind it, storage nodes the tenth after it and
/// those behind.
pub(crate) fn free_cluster_port() -> u16 {
    ports::free_port(15).expect("ports")
}

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.args(arguments).stdin(Stdio::null());
    // Settings of whoever runs the tests must not count.
    command.env("XDG_CONFIG_HOME", env!("CARGO_TARGET_TMPDIR")).env_remove("NO_COLOR");
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("PLIMSOLL_")) {
        command.env_remove(key);
    }
    command
}

pub(crate) fn plimsoll(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(arguments).output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    (status.code().expect("it ends by itself"), text(stdout), text(stderr))
}

/// SIGTERM, which ends a server in order.
pub(crate) fn terminate(server: &mut Server) {
    let pid =
        i32::try_from(server.0.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    assert_eq!(server.0.wait().expect("it ends").code(), Some(0));
}
