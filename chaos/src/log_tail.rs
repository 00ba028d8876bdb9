//! Counts the lines that a process writes into its log, with the time at which each was seen.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

/// One log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was seen, by the caller's clock.
    pub seen: Duration,
    /// Without the line end.
    pub text: String,
}

/// Follows a growing file.
#[derive(Debug)]
pub struct LogTail {
    path: PathBuf,
    read_bytes: u64,
    partial: Vec<u8>,
    lines: Vec<Line>,
}

impl LogTail {
    /// Follows `path` from its beginning; it need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), read_bytes: 0, partial: Vec::new(), lines: Vec::new() }
    }

    /// Takes in what was added since the last call.
    pub fn poll(&mut self, now: Duration) {
        let Ok(file) = rustix::fs::open(&self.path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
            return;
        };
        let mut file = std::fs::File::from(file);
        let mut added = Vec::new();
        if file.seek(SeekFrom::Start(self.read_bytes)).is_err() || file.read_to_end(&mut added).is_err() {
            return;
        }
        self.read_bytes = self.read_bytes.saturating_add(u64::try_from(added.len()).unwrap_or(0));
        for byte in added {
            if byte == b'\n' {
                let text = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned();
                self.lines.push(Line { seen: now, text });
            } else {
                self.partial.push(byte);
            }
        }
    }

    /// All lines so far.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Lines seen in a half-open span of time.
    pub fn between(&self, from: Duration, to: Duration) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.seen >= from && line.seen < to)
    }
}
