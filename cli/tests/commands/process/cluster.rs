//! A cluster of one process, and what is asked of it.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll_host::Host;
use serde_json::Value;

use super::{Folder, Server, command, free_addresses};

/// A cluster in one process, on ports and in a folder of its own.
pub(crate) struct Cluster {
    pub(crate) folder: Folder,
    pub(crate) controller: String,
    pub(crate) server: Server,
}

/// However busy the machine is.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// Somebody else may be faster to take a port that is free.
const STARTS_MAX: u32 = 5;
/// How a server ends whose port is in use.
const PORT_IN_USE: Option<i32> = Some(6);

impl Cluster {
    pub(crate) fn start(name: &str) -> Self {
        let mut folder = Folder::new(name);
        for start in 1..=STARTS_MAX {
            match Self::serving(folder, start, free_addresses()) {
                Ok(cluster) => return cluster,
                Err(unused) => folder = unused,
            }
        }
        panic!("no port stays free");
    }

    /// Waits until the node is online; the folder again when a port was taken.
    fn serving(folder: Folder, start: u32, [controller, spu]: [String; 2]) -> Result<Self, Folder> {
        let data = folder.path(&format!("data-{start}"));
        let serve = ["standalone", "--data-dir", &data, "--listen", &controller, "--spu-listen", &spu];
        // However full the machine's own disk is.
        let serve = [&serve[..], &["--byte-limit", "256MiB"]].concat();
        let log = folder.path("server.log");
        let output = folder.append_to("server.log");
        let server = Server(command(&serve).stderr(output).spawn().expect("the binary runs"));
        let mut cluster = Self { folder, controller, server };
        let clock = Host::real().clock;
        let until = clock.now() + WAIT_MAX;
        while !cluster.ask(&["spu", "list"]).1.contains("online") {
            let told = || std::fs::read_to_string(&log).unwrap_or_default();
            // One that has ended is not waited for.
            match cluster.server.0.try_wait().expect("it can be waited for") {
                Some(status) if status.code() == PORT_IN_USE => return Err(cluster.folder),
                Some(status) => panic!("the server ended ({status}): {}", told()),
                None => assert!(clock.now() < until, "it does not serve: {}", told()),
            }
        }
        Ok(cluster)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.args(["--controller", &self.controller]);
        command.env("XDG_CONFIG_HOME", self.folder.0.join("config"));
        command
    }

    pub(crate) fn ask(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().expect("the binary runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        (output.status.code().expect("it ends by itself"), text(output.stdout), text(output.stderr))
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let (code, out, err) = self.ask(&[arguments, &["-o", "json"]].concat());
        let json = serde_json::from_str(&out);
        json.unwrap_or_else(|error| panic!("{arguments:?} ended with {code}: {error}: {out}{err}"))
    }

    /// Asks until the answer is as wanted; the commands themselves take time enough.
    pub(crate) fn wait(&self, arguments: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let clock = Host::real().clock;
        let until = clock.now() + WAIT_MAX;
        loop {
            let answer = self.json(arguments);
            if wanted(&answer) {
                return answer;
            }
            assert!(clock.now() < until, "{arguments:?}: {answer:#}");
        }
    }

    pub(crate) fn produce(&self, arguments: &[&str], input: &[u8]) -> (i32, String) {
        let arguments = [&["produce"], arguments].concat();
        let mut child = self
            .command(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        // One that ends before it has read all closes the pipe.
        drop(child.stdin.take().expect("piped").write_all(input));
        let output = child.wait_with_output().expect("it ends");
        (output.status.code().expect("by itself"), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn a_server_whose_port_was_taken_is_not_waited_for() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = (taken.local_addr().expect("bound").to_string(), taken);
    let [free] = free_addresses();
    let started = Cluster::serving(Folder::new("taken-port"), 1, [free, taken.0]);
    assert!(started.is_err(), "another port is tried");
}
