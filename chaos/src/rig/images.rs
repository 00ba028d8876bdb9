//! Filesystems in image files. The images lie on a tmpfs of their own: a sync there costs nothing, so that what is
//! measured is the program and not the disk of this machine.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};

use super::filesystem::Filesystem;
use super::program::{run, run_if_able};
use super::{VolumeSpec, mounts};

/// Least size that mkfs.xfs takes.
const XFS_BYTES_MIN: u64 = 320 << 20;
/// btrfs below its quota.
const BTRFS_BYTES: u64 = 512 << 20;
/// How much more a thin volume promises than is there.
const THIN_PROMISE: u64 = 3;

/// A mounted image.
#[derive(Debug)]
pub(super) struct Image {
    /// The image file.
    pub(super) file: PathBuf,
    /// What to unmount, in this order.
    pub(super) mounted: Vec<PathBuf>,
    /// Where the volume lies; not always the mount point.
    pub(super) volume: PathBuf,
}

/// Makes the image and mounts it at `path`.
pub(super) fn make(path: &Path, backing: &Path, spec: VolumeSpec) -> anyhow::Result<Image> {
    let promised = match spec.filesystem {
        Filesystem::Xfs => spec.bytes.max(XFS_BYTES_MIN),
        Filesystem::BtrfsQuota => BTRFS_BYTES.max(spec.bytes * 2),
        Filesystem::Thin => spec.bytes * THIN_PROMISE,
        Filesystem::Tmpfs | Filesystem::Ext4 => spec.bytes,
    };
    // Room for growth, and never more than is used; of a thin volume only what it really has.
    let real = if spec.filesystem == Filesystem::Thin { spec.bytes } else { promised * 3 };
    mounts::mount_tmpfs(backing, &VolumeSpec::of_bytes(real))
        .map_err(|error| super::Missing::because(format!("{error:#}")))?;
    let mut mounted = vec![backing.to_owned()];
    let file = backing.join("image");
    let made = make_on(path, &file, promised, spec);
    match made {
        Ok(volume) => {
            mounted.insert(0, path.to_owned());
            Ok(Image { file, mounted, volume })
        }
        Err(error) => {
            mounts::unmount(path);
            mounts::unmount(backing);
            Err(error)
        }
    }
}

fn make_on(path: &Path, file: &Path, promised: u64, spec: VolumeSpec) -> anyhow::Result<PathBuf> {
    resize_file(file, promised)?;
    let image = text(file)?;
    let inodes = spec.inodes.map(|count| count.to_string());
    let reserved = spec.reserved_percent.to_string();
    match spec.filesystem {
        Filesystem::Tmpfs => {}
        Filesystem::Ext4 | Filesystem::Thin => {
            let mut arguments = vec!["-q", "-F", "-m", &reserved];
            if let Some(inodes) = &inodes {
                arguments.extend(["-N", inodes]);
            }
            // A thin volume has no room for a journal that is written in full.
            if spec.filesystem == Filesystem::Thin {
                arguments.extend(["-E", "lazy_itable_init=1,nodiscard"]);
            }
            arguments.push(image);
            run_if_able("mkfs.ext4", &arguments)?;
        }
        Filesystem::Xfs => drop(run_if_able("mkfs.xfs", &["-q", "-f", image])?),
        Filesystem::BtrfsQuota => drop(run_if_able("mkfs.btrfs", &["-q", "-f", "-m", "single", image])?),
    }
    mount_image(file, path, spec.filesystem)?;
    if spec.filesystem != Filesystem::BtrfsQuota {
        return Ok(path.to_owned());
    }
    let volume = path.join("volume");
    run_if_able("btrfs", &["quota", "enable", text(path)?])?;
    run_if_able("btrfs", &["subvolume", "create", text(&volume)?])?;
    limit(&volume, spec.bytes)?;
    Ok(volume)
}

/// Mounts an image again, or for the first time.
pub(super) fn mount_image(file: &Path, path: &Path, filesystem: Filesystem) -> anyhow::Result<()> {
    let options = match filesystem {
        // 1234 is nobody: the reserved blocks are not for root either.
        Filesystem::Ext4 => "loop,errors=remount-ro,resuid=1234",
        Filesystem::Thin => "loop,errors=remount-ro",
        Filesystem::Tmpfs | Filesystem::Xfs | Filesystem::BtrfsQuota => "loop",
    };
    run_if_able("mount", &["-o", options, text(file)?, text(path)?]).map(drop)
}

/// Sets the quota of a btrfs subvolume.
pub(super) fn limit(volume: &Path, bytes: u64) -> anyhow::Result<()> {
    run_if_able("btrfs", &["qgroup", "limit", &bytes.to_string(), text(volume)?]).map(drop)
}

/// Gives an image file another size.
pub(super) fn resize_file(file: &Path, bytes: u64) -> anyhow::Result<()> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let opened = rustix::fs::open(file, flags, Mode::RUSR | Mode::WUSR)
        .with_context(|| format!("create {}", file.display()))?;
    rustix::fs::ftruncate(&opened, bytes).with_context(|| format!("size of {}", file.display()))
}

/// Makes a mounted filesystem as large as its image has become.
pub(super) fn grow(file: &Path, path: &Path, filesystem: Filesystem) -> anyhow::Result<()> {
    let device = mounts::device_of(path).context("the device of a mount")?;
    run("losetup", &["-c", &device])?;
    match filesystem {
        Filesystem::Ext4 | Filesystem::Thin => drop(run_if_able("resize2fs", &[&device])?),
        Filesystem::Xfs => drop(run_if_able("xfs_growfs", &[text(path)?])?),
        Filesystem::Tmpfs | Filesystem::BtrfsQuota => {
            anyhow::bail!("{} does not grow with an image", file.display())
        }
    }
    Ok(())
}

pub(super) fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is not text")
}
