//! Folders and small filesystems of one test, gone when it ends.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use rustix::mount::{MountFlags, UnmountFlags};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// The folder of one test. Mounts and files are removed when it is dropped, also after a failure.
#[derive(Debug)]
pub struct Scratch {
    root: PathBuf,
    mounted: Vec<PathBuf>,
}

impl Scratch {
    /// An empty folder that no other test uses.
    ///
    /// # Errors
    /// When the folder for temporary files can't be used.
    pub fn new() -> anyhow::Result<Self> {
        let name = format!("plimsoll-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
        Ok(Self { root, mounted: Vec::new() })
    }

    /// Where everything lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A folder inside.
    ///
    /// # Errors
    /// What `mkdir(2)` says.
    pub fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.root.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// A tmpfs of `bytes` inside. Needs the right to mount; see [`skip`].
    ///
    /// # Errors
    /// What `mount(2)` says.
    pub fn tmpfs(&mut self, name: &str, bytes: u64) -> anyhow::Result<PathBuf> {
        let path = self.folder(name)?;
        let options = CString::new(format!("size={bytes},mode=0755")).context("options without NUL")?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("plimsoll-test", &path, "tmpfs", flags, options.as_c_str())
            .with_context(|| format!("mount a tmpfs at {}", path.display()))?;
        self.mounted.push(path.clone());
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for path in self.mounted.drain(..).rev() {
            let _gone_already = rustix::mount::unmount(&path, UnmountFlags::DETACH);
        }
        drop(std::fs::remove_dir_all(&self.root));
    }
}

/// Says that a test could not run here, in the form that `scripts/test` counts.
pub fn skip(test: &str, reason: &dyn std::fmt::Display) {
    println!("SKIPPED {test}: {reason}");
}
