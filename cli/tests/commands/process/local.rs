//! A cluster of processes on this machine, as `plimsoll cluster start --local` makes it.

#![allow(clippy::unwrap_used, reason = "a test")]

use rustix::process::Pid;
use serde_json::Value;

use super::{Folder, command, free_cluster_port};

/// Controllers and storage nodes, stopped at the end.
pub(crate) struct Local {
    pub(crate) folder: Folder,
    pub(crate) dir: String,
    /// Where they are, with commas.
    pub(crate) controllers: String,
    started: Value,
}

impl Local {
    pub(crate) fn start(name: &str, controllers: u32, spus: u32) -> Self {
        let folder = Folder::new(name);
        let dir = folder.path("cluster");
        let mut local = Self { folder, dir, controllers: String::new(), started: Value::Null };
        let port = free_cluster_port().to_string();
        let start = ["cluster", "start", "--local", "--dir", &local.dir, "--byte-limit", "64MiB"];
        let (controllers, spus) = (controllers.to_string(), spus.to_string());
        let size = ["--controllers", &controllers, "--spus", &spus, "--port", &port, "-o", "json"];
        let (code, out, err) = local.run(&[&start[..], &size].concat());
        assert_eq!(code, 0, "{out}{err}");
        local.started = serde_json::from_str(&out).unwrap();
        let named = local.started["controllers"].as_array().unwrap().iter();
        local.controllers = named.map(|at| at.as_str().unwrap()).collect::<Vec<_>>().join(",");
        local
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = command(arguments);
        command.env("XDG_CONFIG_HOME", self.folder.path("config"));
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    pub(crate) fn must(&self, line: &str) {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (code, out, err) = self.run(&arguments);
        assert_eq!(code, 0, "{line}: {out}{err}");
    }
}

impl Local {
    /// What a command prints as JSON, of the cluster.
    pub(crate) fn json(&self, line: &str) -> Value {
        let line = format!("{line} -o json --controller {}", self.controllers);
        let (code, out, err) = self.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(code, 0, "{line}: {out}{err}");
        serde_json::from_str(&out).unwrap()
    }

    /// The process of a storage node.
    pub(crate) fn spu_pid(&self, id: u64) -> Pid {
        let processes = self.started["processes"].as_array().unwrap();
        let found = processes.iter().find(|process| process["role"] == "spu" && process["id"] == id);
        Pid::from_raw(i32::try_from(found.unwrap()["pid"].as_u64().unwrap()).unwrap()).unwrap()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        drop(self.run(&["cluster", "stop", "--dir", &self.dir]));
    }
}
