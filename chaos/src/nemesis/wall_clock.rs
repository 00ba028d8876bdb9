//! A wall clock that jumps, for one process: libfaketime. What counts up since the start is left alone.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};

use crate::rig::Missing;

/// Where Debian and others put the library.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// The clock of one process.
#[derive(Clone, Debug)]
pub struct WallClock {
    file: PathBuf,
    library: &'static str,
}

impl WallClock {
    /// A right one, that can be set later.
    ///
    /// # Errors
    /// [`Missing`] without libfaketime.
    pub fn create(file: PathBuf) -> anyhow::Result<Self> {
        let library = LIBRARIES.into_iter().find(|library| Path::new(library).exists());
        let library = library.ok_or_else(|| Missing::because("libfaketime is not installed"))?;
        let clock = Self { file, library };
        clock.set_offset_s(0)?;
        Ok(clock)
    }

    /// What the process has to be started with (faketime(1)).
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("LD_PRELOAD", self.library.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Lets it jump: seconds ahead of the right time, or behind it.
    ///
    /// # Errors
    /// What the folder says.
    pub fn set_offset_s(&self, seconds: i64) -> anyhow::Result<()> {
        let new = self.file.with_extension("new");
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&new, flags, Mode::RUSR | Mode::WUSR)
            .with_context(|| format!("create {}", new.display()))?;
        rustix::io::write(&file, format!("{seconds:+}\n").as_bytes()).context("write an offset")?;
        rustix::fs::rename(&new, &self.file).context("rename an offset")
    }
}
