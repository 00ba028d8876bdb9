//! What tests of this module share.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use plimsoll_storage::fs::{Disk, OpenMode};

/// A directory that goes when dropped.
pub(crate) struct TempDir {
    path: PathBuf,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        let unique =
            format!("plimsoll-{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.path));
    }
}

/// Overwrites the beginning of every file in `dir`.
pub(crate) fn overwrite_all(disk: &dyn Disk, dir: &str, with: &[u8]) {
    for entry in disk.list(dir).expect("the directory is there") {
        let path = format!("{dir}/{}", entry.name);
        let file = disk.open(&path, OpenMode::Write).expect("the file is there");
        file.set_len(0).expect("cutting works");
        file.write_at(with, 0).expect("there is room");
    }
}
