//! Files of the command line that hold no records: profiles, muted codes, process ids, text logs.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::exit::{Code, Failure};

/// Where the settings of this user are kept: `$XDG_CONFIG_HOME/plimsoll`, else `~/.config/plimsoll`
/// (XDG Base Directory Specification).
///
/// # Errors
/// Exit code 7 when neither variable is set.
pub(crate) fn config_dir() -> Result<PathBuf, Failure> {
    let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = given("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| given("HOME").map(|home| home.join(".config")));
    base.map(|base| base.join("plimsoll")).ok_or_else(|| {
        let why = "neither XDG_CONFIG_HOME nor HOME says where settings are kept\nset one of them";
        Failure::new(Code::Configuration, why)
    })
}

/// Writes a whole file, replacing what was there in one step; its folder is made.
#[expect(clippy::disallowed_methods, reason = "settings and process ids; no records")]
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let next = path.with_extension("next");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&next)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&next, path)
}

/// A new file for writing; one that is there is an error, so that nothing is lost by a slip.
#[expect(clippy::disallowed_methods, reason = "reports for people; no records")]
pub(crate) fn create_new(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// A file for reading.
#[expect(clippy::disallowed_methods, reason = "input that somebody names; not a data directory")]
pub(crate) fn open(path: &Path) -> io::Result<std::fs::File> {
    std::fs::File::open(path)
}

/// Removes a file; one that is not there is removed already.
#[expect(clippy::disallowed_methods, reason = "process ids of local processes; no records")]
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A text log that a child process appends to.
#[expect(clippy::disallowed_methods, reason = "text logs of local processes; no records")]
pub(crate) fn log(path: &Path) -> io::Result<Stdio> {
    OpenOptions::new().append(true).create(true).open(path).map(Stdio::from)
}

/// The last lines of a text log, at most `lines`.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let Ok(text) = std::fs::read(path) else { return String::new() };
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
