//! Commands that end by themselves.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_chaos::process;
use plimsoll_host::Clock;
use tokio::io::AsyncWriteExt as _;

/// Longest time that a command may take before the test fails.
const LIMIT: Duration = Duration::from_secs(60);

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said on the side.
    pub stderr: String,
}

/// Runs the `plimsoll` binary with `arguments` until it ends, and gives it `input` to read.
///
/// # Errors
/// When it can't be started, or doesn't end within a minute; it is killed then.
pub async fn run_to_end(arguments: &[&str], input: &str) -> anyhow::Result<Ended> {
    let binary = process::find_binary()?;
    let mut child = tokio::process::Command::new(&binary)
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("run {}", binary.display()))?;
    let mut stdin = child.stdin.take().context("a pipe to the command")?;
    let ended = async {
        // A command that does not read its input has closed it.
        drop(stdin.write_all(input.as_bytes()).await);
        drop(stdin);
        child.wait_with_output().await
    };
    let output = Clock::real()
        .timeout(LIMIT, ended)
        .await
        .with_context(|| format!("plimsoll {} does not end", arguments.join(" ")))?
        .context("wait for the command")?;
    Ok(Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
