//! One disk of a run, and how full it is.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::filesystem::Filesystem;
use super::{images, mounts, program};

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
    /// What it is.
    pub filesystem: Filesystem,
    /// Blocks kept for somebody else, in percent of all (ext4).
    pub reserved_percent: u32,
}

impl VolumeSpec {
    /// A tmpfs with as many inodes as the kernel gives.
    pub const fn of_bytes(bytes: u64) -> Self {
        Self { bytes, inodes: None, filesystem: Filesystem::Tmpfs, reserved_percent: 0 }
    }

    /// On another filesystem.
    pub const fn on(self, filesystem: Filesystem) -> Self {
        Self { filesystem, ..self }
    }

    /// With so many inodes.
    pub const fn with_inodes(self, inodes: u64) -> Self {
        Self { inodes: Some(inodes), ..self }
    }

    /// With blocks that only another user may take.
    pub const fn reserving(self, percent: u32) -> Self {
        Self { reserved_percent: percent, ..self }
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
    filesystem: Filesystem,
    /// The image and where it is mounted, for filesystems in images.
    image: Option<(PathBuf, PathBuf)>,
}

impl Disk {
    pub(super) fn new(folder: PathBuf, data: PathBuf, bytes: u64, kind: DiskKind) -> Self {
        Self { folder, data, bytes, kind, filesystem: Filesystem::Tmpfs, image: None }
    }

    pub(super) fn in_image(self, filesystem: Filesystem, file: PathBuf, mount: PathBuf) -> Self {
        Self { filesystem, image: Some((file, mount)), ..self }
    }

    /// What it is.
    pub fn filesystem(&self) -> Filesystem {
        self.filesystem
    }

    /// Short name, such as `disk-2`.
    pub fn name(&self) -> &str {
        let mount = self.image.as_ref().map_or(&self.folder, |(_, mount)| mount);
        mount.file_name().and_then(|name| name.to_str()).unwrap_or("a disk")
    }

    /// The mount point; [`Disk::folder`] may lie below it.
    pub fn mount(&self) -> &Path {
        self.image.as_ref().map_or(&self.folder, |(_, mount)| mount)
    }

    /// Makes it larger while it is mounted.
    ///
    /// # Errors
    /// [`super::Missing`] where this machine does not let us.
    pub fn grow(&self, bytes: u64) -> anyhow::Result<()> {
        match (self.filesystem, &self.image) {
            (Filesystem::BtrfsQuota, _) => images::limit(&self.folder, bytes),
            (_, None) => mounts::resize_tmpfs(&self.folder, bytes),
            (filesystem, Some((file, mount))) => {
                images::resize_file(file, bytes)?;
                images::grow(file, mount, filesystem)
            }
        }
    }

    /// Makes it smaller while it is mounted, where the kernel does that: tmpfs and btrfs quotas.
    ///
    /// # Errors
    /// What the kernel says; [`super::Missing`] for the others.
    pub fn shrink(&self, bytes: u64) -> anyhow::Result<()> {
        match self.filesystem {
            Filesystem::BtrfsQuota => images::limit(&self.folder, bytes),
            Filesystem::Tmpfs => mounts::resize_tmpfs(&self.folder, bytes),
            Filesystem::Ext4 | Filesystem::Xfs | Filesystem::Thin => Err(super::Missing::because(format!(
                "{} cannot shrink while it is mounted",
                self.filesystem.describe()
            ))),
        }
    }

    /// What is left after the power failed: only what was synced. Nothing may be open there.
    ///
    /// # Errors
    /// [`super::Missing`] for filesystems that cannot be shut down; what unmounting and mounting say.
    pub fn lose_power(&self) -> anyhow::Result<()> {
        let Some((file, mount)) = &self.image else {
            return Err(super::Missing::because("a tmpfs has nothing but its cache"));
        };
        program::run_if_able("xfs_io", &["-x", "-c", "shutdown", images::text(mount)?])?;
        mounts::unmount_now(mount)?;
        images::mount_image(file, mount, self.filesystem)
    }

    /// Makes the kernel find an error in the filesystem, after which it refuses to write (ext4, `errors=remount-ro`).
    ///
    /// # Errors
    /// [`super::Missing`] where that cannot be asked for.
    pub fn turn_read_only(&self) -> anyhow::Result<()> {
        let device = mounts::device_of(self.mount()).unwrap_or_default();
        let name = device.rsplit('/').next().unwrap_or_default();
        let trigger = format!("/sys/fs/ext4/{name}/trigger_fs_error");
        let file = rustix::fs::open(&trigger, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        let file = file.map_err(|errno| super::Missing::because(format!("{trigger}: {errno}")))?;
        // The kernel answers with the state that it has just entered.
        match rustix::io::write(&file, b"chaos") {
            Ok(_) | Err(Errno::ROFS) => Ok(()),
            Err(errno) => Err(errno).with_context(|| trigger),
        }
    }

    /// Makes a read-only filesystem writable again, by mounting it anew. Nothing may be open there.
    ///
    /// # Errors
    /// What unmounting, checking and mounting say.
    pub fn repair(&self) -> anyhow::Result<()> {
        let Some((file, mount)) = &self.image else { anyhow::bail!("a tmpfs is never repaired") };
        mounts::unmount_now(mount)?;
        // Status 1 means that it found something and mended it (e2fsck(8)).
        if let Err(error) = program::run("fsck.ext4", &["-f", "-y", images::text(file)?])
            && !format!("{error:#}").contains("exit status: 1")
        {
            return Err(error);
        }
        images::mount_image(file, mount, self.filesystem)
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
            // What statvfs says of a subvolume knows nothing of its limit.
            DiskKind::Tmpfs if self.filesystem == Filesystem::BtrfsQuota => {
                let used = blocks_below(&self.folder);
                Ok(Space {
                    capacity_bytes: self.bytes,
                    free_bytes: self.bytes.saturating_sub(used),
                    free_inodes: None,
                })
            }
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
