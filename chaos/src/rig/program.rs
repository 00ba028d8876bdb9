//! Programs of the host, run to their end.

use std::process::{Command, Stdio};

use anyhow::bail;

use super::missing::Missing;

/// Runs a program; what it printed.
///
/// # Errors
/// [`Missing`] when there is no such program; else what it said when its status is not 0.
pub fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return Err(Missing::because(format!("{program} does not run: {error}"))),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}: {}", arguments.join(" "), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As [`run`]; when it fails, this machine is not able to.
///
/// # Errors
/// [`Missing`], with what the program said.
pub fn run_if_able(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    run(program, arguments).map_err(|error| match Missing::of(&error) {
        Some(_) => error,
        None => Missing::because(format!("{error:#}")),
    })
}
