//! One disk of a run, and how full it is.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};

/// What the disks of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DiskKind {
    /// A filesystem of its own for each volume.
    Tmpfs,
    /// A folder each on a shared filesystem, with a byte limit inside the process. Not a real disk.
    Simulated,
}

impl DiskKind {
    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Simulated => "simulated",
        }
    }
}

/// A disk that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Its size.
    pub bytes: u64,
    /// Its inodes; `None` leaves that to the kernel.
    pub inodes: Option<u64>,
}

impl VolumeSpec {
    /// With as many inodes as the kernel gives.
    pub fn of_bytes(bytes: u64) -> Self {
        Self { bytes, inodes: None }
    }
}

/// What a filesystem says of its space, in bytes. Free is `f_bavail`: what a process without privileges may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size.
    pub capacity_bytes: u64,
    /// Usable.
    pub free_bytes: u64,
    /// Files that may still be made; `None` where nobody counts.
    pub free_inodes: Option<u64>,
}

/// `part` of `whole`, from 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "a share for a gauge; 52 bits are plenty")]
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Asks the filesystem of `path`.
///
/// # Errors
/// What `statvfs(2)` says.
pub fn space(path: &Path) -> anyhow::Result<Space> {
    let stat = rustix::fs::statvfs(path).with_context(|| format!("statvfs {}", path.display()))?;
    Ok(Space {
        capacity_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        free_inodes: (stat.f_files > 0).then_some(stat.f_favail),
    })
}

/// A volume of a storage node, and what surrounds it.
#[derive(Clone, Debug)]
pub struct Disk {
    folder: PathBuf,
    data: PathBuf,
    bytes: u64,
    kind: DiskKind,
}

impl Disk {
    pub(super) fn new(folder: PathBuf, data: PathBuf, bytes: u64, kind: DiskKind) -> Self {
        Self { folder, data, bytes, kind }
    }

    /// Where it is mounted; what others put there takes space.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The data directory of a server, on this disk.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its size when nobody has taken anything.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it is a real one.
    pub fn kind(&self) -> DiskKind {
        self.kind
    }

    /// How full it is: as the filesystem says, or for a simulated one by its size and the blocks in use. What a
    /// foreign writer has taken of a simulated one is known to that writer only.
    ///
    /// # Errors
    /// What `statvfs(2)` says.
    pub fn space(&self) -> anyhow::Result<Space> {
        match self.kind {
            DiskKind::Tmpfs => space(&self.folder),
            DiskKind::Simulated => {
                let limit = self.limit_bytes();
                Ok(Space {
                    capacity_bytes: self.bytes,
                    free_bytes: limit.saturating_sub(blocks_below(&self.data)),
                    free_inodes: None,
                })
            }
        }
    }

    fn limit_file(&self) -> PathBuf {
        self.data.join("byte-limit")
    }

    /// Limit in force for a simulated disk.
    fn limit_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(self.limit_file()).unwrap_or_default();
        text.trim().parse().unwrap_or(self.bytes)
    }

    /// Tells the server how much of a simulated disk is left for it.
    pub(crate) fn set_limit_bytes(&self, limit_bytes: u64) -> anyhow::Result<()> {
        let new = self.folder.join("byte-limit.new");
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&new, flags, Mode::RUSR | Mode::WUSR)
            .with_context(|| format!("create {}", new.display()))?;
        rustix::io::write(&file, format!("{limit_bytes}\n").as_bytes()).context("write a byte limit")?;
        rustix::fs::rename(&new, self.limit_file()).context("rename a byte limit")
    }
}

/// Bytes of all blocks below a folder. Files that go away meanwhile count nothing.
fn blocks_below(folder: &Path) -> u64 {
    /// Unit of `st_blocks`, whatever the filesystem's own is (stat(2)).
    const BLOCK_BYTES: u64 = 512;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(found) = entry.metadata() else { continue };
        bytes += if found.is_dir() { blocks_below(&entry.path()) } else { found.blocks() * BLOCK_BYTES };
    }
    bytes
}
