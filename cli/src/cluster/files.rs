//! Files of a local cluster that hold no records: what it consists of, process ids, text logs.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::process::Stdio;

/// Writes a whole file, replacing what was there in one step.
#[expect(clippy::disallowed_methods, reason = "process ids and settings of local processes; no records")]
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&next)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&next, path)
}

/// Removes a file; one that is not there is removed already.
#[expect(clippy::disallowed_methods, reason = "process ids of local processes; no records")]
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A text log that a child process appends to.
#[expect(clippy::disallowed_methods, reason = "text logs of local processes; no records")]
pub(super) fn log(path: &Path) -> io::Result<Stdio> {
    OpenOptions::new().append(true).create(true).open(path).map(Stdio::from)
}

/// The last lines of a text log, at most `lines`.
pub(super) fn tail(path: &Path, lines: usize) -> String {
    let Ok(text) = std::fs::read(path) else { return String::new() };
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
