//! The processes of a local cluster, found again by the files in its folder.
//!
//! ```text
//! DIR/cluster.json        what it consists of
//! DIR/controller-1.pid    process id, while it should run
//! DIR/controller-1.log    text log
//! DIR/controller-1/       data directory
//! DIR/spu-1...            the same for each storage node
//! ```

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::exit::{Code, Failure};
use crate::files;

const FILE: &str = "cluster.json";

/// What a local cluster consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Local {
    version: u32,
    pub(super) members: Vec<Member>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    Controller,
    Spu,
}

/// One process, for programs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Process {
    role: Role,
    id: u32,
    address: String,
    /// Absent when it does not run.
    pid: Option<u32>,
    /// Before the command.
    was_running: bool,
    data_dir: String,
    log: String,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Member {
    pub(super) role: Role,
    pub(super) id: u32,
    pub(super) address: String,
}

/// Where a local cluster lives when nothing is said.
pub(super) fn default_dir() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    home.join(".plimsoll").join("local")
}

/// `--dir` of the commands for a local cluster.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DirArgs {
    /// Folder of the local cluster [default: ~/.plimsoll/local]
    #[arg(long, env = "PLIMSOLL_DIR")]
    pub(super) dir: Option<PathBuf>,
}

impl DirArgs {
    /// The folder as an absolute path, so that processes can be told by it.
    pub(super) fn path(&self) -> Result<PathBuf, Failure> {
        let dir = self.dir.clone().unwrap_or_else(default_dir);
        Ok(std::path::absolute(dir)?)
    }
}

impl Member {
    pub(super) fn name(&self) -> String {
        match self.role {
            Role::Controller => format!("controller-{}", self.id),
            Role::Spu => format!("spu-{}", self.id),
        }
    }

    pub(super) fn log(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.log", self.name()))
    }

    fn pid_file(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.pid", self.name()))
    }

    /// Its process id, if it runs. A process id that was given to another program meanwhile is not it.
    pub(super) fn running(&self, dir: &Path) -> Option<u32> {
        let pid: u32 = std::fs::read_to_string(self.pid_file(dir)).ok()?.trim().parse().ok()?;
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let data = dir.join(self.name());
        let ours = arguments
            .split(|byte| *byte == 0)
            .any(|argument| argument == data.as_os_str().as_encoded_bytes());
        ours.then_some(pid)
    }

    pub(super) fn started(&self, dir: &Path, pid: u32) -> Result<(), Failure> {
        Ok(files::replace(&self.pid_file(dir), &format!("{pid}\n"))?)
    }

    pub(super) fn stopped(&self, dir: &Path) -> Result<(), Failure> {
        Ok(files::remove(&self.pid_file(dir))?)
    }

    /// Asks it to stop in order; whether it ran.
    pub(super) fn terminate(&self, dir: &Path) -> Result<bool, Failure> {
        let Some(pid) = self.running(dir) else { return Ok(false) };
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        match pid.map(|pid| rustix::process::kill_process(pid, Signal::TERM)) {
            Some(Ok(())) => Ok(true),
            Some(Err(rustix::io::Errno::SRCH)) | None => Ok(false),
            Some(Err(error)) => Err(Failure::new(Code::Failed, format!("stopping {}: {error}", self.name()))),
        }
    }
}

impl Local {
    pub(super) fn new(members: Vec<Member>) -> Self {
        Self { version: 1, members }
    }

    /// Reads what is in the folder; `None` when no cluster was started there.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = dir.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::new(Code::Failed, format!("{}: {error}", path.display()))),
        };
        let unreadable = |why: String| {
            Failure::new(Code::Configuration, format!("{} is not of a local cluster: {why}", path.display()))
        };
        let local: Self = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        if local.version != 1 {
            return Err(unreadable(format!("version {} is not known", local.version)));
        }
        Ok(Some(local))
    }

    pub(super) fn save(&self, dir: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).map_err(std::io::Error::from)?;
        Ok(files::replace(&dir.join(FILE), &(text + "\n"))?)
    }

    pub(super) fn of(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.role == role)
    }

    /// The list that every server and client gets.
    pub(super) fn controllers(&self) -> Vec<String> {
        self.of(Role::Controller).map(|member| format!("{}@{}", member.id, member.address)).collect()
    }

    /// What it consists of and what runs now.
    pub(super) fn processes(&self, dir: &Path) -> Vec<Process> {
        let process = |member: &Member| {
            let pid = member.running(dir);
            Process {
                role: member.role,
                id: member.id,
                address: member.address.clone(),
                pid,
                was_running: pid.is_some(),
                data_dir: dir.join(member.name()).display().to_string(),
                log: member.log(dir).display().to_string(),
            }
        };
        self.members.iter().map(process).collect()
    }

    /// The same after a start: as before, with the process ids of now.
    pub(super) fn after_start(&self, dir: &Path, before: Vec<Process>) -> Vec<Process> {
        let pids = self.members.iter().map(|member| member.running(dir));
        before.into_iter().zip(pids).map(|(process, pid)| Process { pid, ..process }).collect()
    }

    pub(super) fn running(&self, dir: &Path) -> Vec<&Member> {
        self.members.iter().filter(|member| member.running(dir).is_some()).collect()
    }
}
