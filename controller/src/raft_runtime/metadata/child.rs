//! The metadata store in a process of its own, so that RocksDB can abort that process and no other.
//!
//! ```text
//!   metadata lane --- one call at a time ---> keeper (lane) === socket ===> plimsoll controller-store
//!                                               starts, times, kills, reaps       serve(): RocksStore
//! ```
//!
//! A process that ends, hangs or talks nonsense is [`MetadataError::Interrupted`]; the next call with a whole state
//! starts another one, once the former is gone. The room is looked at by the store in the process, before it opens or
//! writes.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use plimsoll_host::Host;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::mpsc;

use super::frames::{Answer, Contents, HEADER_BYTES, Request, body_of, frame, message_in};
use super::{Batch, MetadataError, MetadataStore, RocksSettings, Stored, serve};

/// How long a process may take for one answer, before it counts as hung.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How long a process may take to close its store when it is not needed any more.
const CLOSE_MAX: Duration = Duration::from_secs(3);
/// How long a process may take to be gone once it is dead. On a frozen disk it takes as long as that.
const GONE_MAX: Duration = Duration::from_secs(1);
/// Of what a process said last, so much is kept.
const LAST_WORDS_BYTES: usize = 512;

/// How the process of a store is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreProgram {
    /// A program that calls [`serve`](super::serve()).
    pub path: PathBuf,
    /// Its arguments before those of the store.
    pub arguments: Vec<OsString>,
}

/// See the module. Dropping it waits until the process is gone, four seconds at most.
pub struct ChildStore {
    /// `None` while it is dropped.
    calls: Option<mpsc::Sender<Call>>,
    ended: Receiver<()>,
}

struct Call {
    request: Request,
    answer: SyncSender<Result<Answer, MetadataError>>,
}

impl ChildStore {
    /// A store in `settings.dir` of the data directory `root`, kept by processes of `program`. Starts none yet. `host`
    /// must have real threads.
    pub fn new(host: &Host, program: StoreProgram, root: &Path, settings: &RocksSettings) -> Self {
        Self::with_limit(host, program, root, settings, ANSWER_MAX)
    }

    fn with_limit(
        host: &Host,
        mut program: StoreProgram,
        root: &Path,
        settings: &RocksSettings,
        answer_max: Duration,
    ) -> Self {
        program.arguments.extend(serve::arguments(root, settings));
        // One call at a time; the one that makes it waits.
        let (calls, waiting) = mpsc::channel(1);
        let (over, ended) = sync_channel(1);
        let keeper =
            Keeper { host: host.clone(), program, answer_max, running: None, former: None, why: None };
        host.tasks.spawn_lane("store keeper", move || {
            Box::pin(async move {
                keeper.run(waiting).await;
                drop(over);
            })
        });
        Self { calls: Some(calls), ended }
    }

    fn call(&self, request: Request) -> Result<Answer, MetadataError> {
        let gone = || MetadataError::Interrupted("its keeper is gone".to_owned());
        let (answer, answered) = sync_channel(1);
        let calls = self.calls.as_ref().ok_or_else(gone)?;
        calls.try_send(Call { request, answer }).map_err(|_| gone())?;
        // Bounded by the keeper.
        answered.recv().map_err(|_| gone())?
    }
}

impl Drop for ChildStore {
    fn drop(&mut self) {
        self.calls = None;
        // It never sends: this is its end.
        let _ended = self.ended.recv();
    }
}

impl MetadataStore for ChildStore {
    fn load(&mut self) -> Result<Option<Stored>, MetadataError> {
        let answer = self.call(Request { write: None })?;
        answer
            .stored
            .map(Stored::try_from)
            .transpose()
            .map_err(|error| MetadataError::Interrupted(error.to_string()))
    }

    fn write(&mut self, batch: &Batch) -> Result<(), MetadataError> {
        self.call(Request { write: Some(Contents::from(batch)) }).map(drop)
    }
}

struct Keeper {
    host: Host,
    program: StoreProgram,
    answer_max: Duration,
    running: Option<Running>,
    /// Killed, and not gone yet. It may still have the store open.
    former: Option<Child>,
    /// Why the last one ended by itself, until somebody was told.
    why: Option<String>,
}

struct Running {
    process: Child,
    connection: UnixStream,
    stderr: Option<ChildStderr>,
}

/// Why a process serves no more.
#[derive(Debug, thiserror::Error)]
enum Useless {
    #[error("it ended")]
    Ended,
    #[error("it did not answer within {0:?}")]
    Hangs(Duration),
    #[error("it talks nonsense: {0}")]
    TalksNonsense(io::Error),
}

impl Keeper {
    async fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        loop {
            let call = tokio::select! {
                call = calls.recv() => call,
                () = ended(&mut self.running) => {
                    self.why = Some(self.end(Useless::Ended).await);
                    continue;
                }
            };
            let Some(Call { request, answer }) = call else { break };
            // Who asked waits for it.
            drop(answer.send(self.serve(request).await));
        }
        self.close().await;
    }

    async fn serve(&mut self, request: Request) -> Result<Answer, MetadataError> {
        if self.running.is_none() {
            let why = self.why.take();
            // What the next process finds may be less than a part builds on.
            if request.write.as_ref().is_some_and(|write| !write.replace_all) {
                let why = why.unwrap_or_else(|| "there is no process".to_owned());
                return Err(MetadataError::Interrupted(why));
            }
            self.start().await.map_err(MetadataError::Interrupted)?;
        }
        match self.exchange(&request).await {
            Ok(answer) => {
                if let Some(why) = &answer.begun_anew {
                    tracing::warn!(why, "metadata store is unreadable; it is rebuilt from the journal");
                }
                if answer.no_room { Err(MetadataError::NoRoom) } else { Ok(answer) }
            }
            Err(useless) => Err(MetadataError::Interrupted(self.end(useless).await)),
        }
    }

    async fn start(&mut self) -> Result<(), String> {
        if let Some(former) = &mut self.former {
            if !matches!(former.try_wait(), Ok(Some(_))) {
                return Err("the process before was killed and is not gone yet".to_owned());
            }
            self.former = None;
        }
        let started = Running::start(&self.program);
        self.running = Some(started.map_err(|error| format!("{}: {error}", self.program.path.display()))?);
        Ok(())
    }

    /// Sends the request and waits for its answer.
    async fn exchange(&mut self, request: &Request) -> Result<Answer, Useless> {
        let Some(Running { connection, .. }) = &mut self.running else { return Err(Useless::Ended) };
        let talk = async {
            connection.write_all(&frame(request)?).await?;
            let mut header = [0; HEADER_BYTES];
            connection.read_exact(&mut header).await?;
            let (length, checksum) = body_of(header)?;
            let mut body = Vec::new();
            // It grows with what arrives.
            connection.take(length).read_to_end(&mut body).await?;
            message_in(&body, length, checksum)
        };
        match self.host.clock.timeout(self.answer_max, talk).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Err(Useless::TalksNonsense(error))
            }
            Ok(Err(_)) => Err(Useless::Ended),
            Err(_) => Err(Useless::Hangs(self.answer_max)),
        }
    }

    /// Ends the process if it did not end by itself, and tells how and with which last words.
    async fn end(&mut self, why: Useless) -> String {
        let Some(mut running) = self.running.take() else { return why.to_string() };
        let process = &mut running.process;
        // The connection breaks a moment before the status is there.
        if matches!(why, Useless::Ended) {
            drop(self.host.clock.timeout(GONE_MAX, process.wait()).await);
        }
        drop(process.start_kill());
        let gone = self.host.clock.timeout(GONE_MAX, process.wait()).await;
        let Ok(Ok(status)) = gone else {
            self.former = Some(running.process);
            return why.to_string();
        };
        let said = match running.stderr {
            Some(stderr) => self.host.clock.timeout(GONE_MAX, last_words(stderr)).await.unwrap_or_default(),
            None => String::new(),
        };
        if said.is_empty() { format!("{why} ({status})") } else { format!("{why} ({status}): {said}") }
    }

    /// Lets the process close its store, and makes sure that it is gone.
    async fn close(mut self) {
        let Some(Running { mut process, connection, .. }) = self.running.take() else { return };
        drop(connection);
        if self.host.clock.timeout(CLOSE_MAX, process.wait()).await.is_err() {
            drop(process.start_kill());
            drop(self.host.clock.timeout(GONE_MAX, process.wait()).await);
        }
    }
}

/// Waits until the process has ended; for ever without one. Cancel safe.
async fn ended(running: &mut Option<Running>) {
    match running {
        Some(running) => drop(running.process.wait().await),
        None => std::future::pending().await,
    }
}

impl Running {
    fn start(program: &StoreProgram) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let connection = UnixStream::from_std(ours)?;
        let mut process = Command::new(&program.path)
            .arg0("plimsoll")
            .args(&program.arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stderr = process.stderr.take();
        Ok(Self { process, connection, stderr })
    }
}

/// The end of what a process that is gone wrote, in one line. A pipe holds no more than it takes to read it whole.
async fn last_words(stderr: ChildStderr) -> String {
    let mut all = Vec::new();
    drop(stderr.take(1 << 20).read_to_end(&mut all).await);
    let end = &all[all.len().saturating_sub(LAST_WORDS_BYTES)..];
    let text = String::from_utf8_lossy(end);
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests;
