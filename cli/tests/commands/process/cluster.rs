//! A cluster of one process, and what is asked of it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Folder, Server, command, free_addresses};

/// A cluster in one process, on ports and in a folder of its own.
pub(crate) struct Cluster {
    pub(crate) folder: Folder,
    pub(crate) controller: String,
    pub(crate) server: Server,
}

impl Cluster {
    pub(crate) fn start(name: &str) -> Self {
        let folder = Folder::new(name);
        let [controller, spu] = free_addresses();
        let data = folder.path("data");
        let serve = ["standalone", "--data-dir", &data, "--listen", &controller, "--spu-listen", &spu];
        // However full the machine's own disk is.
        let serve = [&serve[..], &["--byte-limit", "256MiB"]].concat();
        let server = Server(command(&serve).stderr(Stdio::null()).spawn().expect("the binary runs"));
        let cluster = Self { folder, controller, server };
        let online = || cluster.ask(&["spu", "list"]).1.contains("online");
        assert!((0..5000).any(|_| online()), "it serves");
        cluster
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
        let mut last = Value::Null;
        for _ in 0..5000 {
            last = self.json(arguments);
            if wanted(&last) {
                return last;
            }
        }
        panic!("{arguments:?}: {last:#}");
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
