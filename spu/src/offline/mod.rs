//! The logs of a directory, read without a running node: for people who want to know what is on a disk.
//!
//! What it does not do: it never writes, takes no lock, and knows nothing of the cluster. Best of a stopped node:
//! the last batches of a log that is appended to may look torn.

use std::path::{Path, PathBuf};

use plimsoll_storage::fs::DiskError;
use plimsoll_storage::fs::real::RealDisk;
pub use plimsoll_storage::inspect::{
    BadBytes, Finding, FindingKind, LogFiles, Seen, SeenBatch, SeenSegment, Verified,
};

/// Why a directory can't be read.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// There is no such directory. Exit code 4.
    #[error("{directory} is not a directory that is there")]
    NotFound {
        /// As it was given.
        directory: PathBuf,
    },
    /// The directory has no log: it is neither a data directory nor one of a partition. Exit code 4.
    #[error("{directory} holds no log: give a data directory, or the directory of one partition in it")]
    NoLog {
        /// As it was given.
        directory: PathBuf,
    },
    /// The disk refuses: no permission, or it fails to read.
    #[error("{directory}: {error}")]
    Disk {
        /// As it was given.
        directory: PathBuf,
        /// What it said.
        error: DiskError,
    },
}

/// A directory with logs in it.
#[derive(Debug)]
pub struct OfflineLogs {
    directory: PathBuf,
    disk: RealDisk,
    logs: Vec<LogFiles>,
}

impl OfflineLogs {
    /// Finds the logs of a data directory, of its `partitions`, or of one partition's directory.
    ///
    /// # Errors
    /// [`OfflineError`]; give another directory.
    pub fn open(directory: &Path) -> Result<Self, OfflineError> {
        let failed = |error| match error {
            DiskError::NotFound { .. } => OfflineError::NotFound { directory: directory.to_path_buf() },
            error => OfflineError::Disk { directory: directory.to_path_buf(), error },
        };
        let disk = RealDisk::open_existing(directory).map_err(failed)?;
        let logs = plimsoll_storage::inspect::find_logs(&disk).map_err(failed)?;
        if logs.is_empty() {
            return Err(OfflineError::NoLog { directory: directory.to_path_buf() });
        }
        Ok(Self { directory: directory.to_path_buf(), disk, logs })
    }

    /// Its logs, in order of their directories.
    pub fn logs(&self) -> &[LogFiles] {
        &self.logs
    }

    /// Visits the segments and batches of a log; see [`LogFiles::walk`].
    ///
    /// # Errors
    /// `Disk`.
    pub fn walk(
        &self,
        log: &LogFiles,
        visit: impl FnMut(Seen<'_>) -> std::ops::ControlFlow<()>,
    ) -> Result<(), OfflineError> {
        log.walk(&self.disk, visit).map_err(|error| self.failed(error))
    }

    /// Checks every byte of a log; see [`LogFiles::verify`].
    ///
    /// # Errors
    /// `Disk`.
    pub fn verify(&self, log: &LogFiles) -> Result<Verified, OfflineError> {
        log.verify(&self.disk).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: DiskError) -> OfflineError {
        OfflineError::Disk { directory: self.directory.clone(), error }
    }
}
