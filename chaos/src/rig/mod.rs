//! Small real filesystems, and a folder for everything a run leaves behind while it lasts.
//!
//! As root: tmpfs mounts. Otherwise the program runs itself again in namespaces of its own (`unshare -Urm`),
//! where it may mount. Where neither works, or when it is asked for, disks are simulated: a plain folder and a byte
//! limit inside of the server. Everything is undone when a [`Rig`] is dropped, and what earlier runs left is removed by
//! the next one.

mod disk;
mod filesystem;
mod images;
pub mod last_run;
mod leftovers;
mod missing;
mod mounts;
mod namespace;
pub mod network;
pub mod program;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

pub use disk::{Disk, DiskKind, Space, VolumeSpec, share, space};
pub use filesystem::Filesystem;
pub use missing::Missing;
pub use namespace::{Privilege, privilege};

/// The folder and the mounts of one run.
#[derive(Debug)]
pub struct Rig {
    root: PathBuf,
    kind: DiskKind,
    mounted: Vec<PathBuf>,
    keep: bool,
}

impl Rig {
    /// Makes the folder of this run, after removing what earlier runs of the same user left.
    ///
    /// # Errors
    /// When the folder for temporary files cannot be used.
    pub fn create(keep: bool, kind: DiskKind) -> anyhow::Result<Self> {
        let base = leftovers::base();
        std::fs::create_dir_all(&base).with_context(|| format!("create {}", base.display()))?;
        leftovers::sweep(&base);
        let root = base.join(leftovers::new_run());
        std::fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
        Ok(Self { root, kind, mounted: Vec::new(), keep })
    }

    /// Folder of the run.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the volumes made so far are.
    pub fn kind(&self) -> DiskKind {
        self.kind
    }

    /// A plain folder inside of the run's folder.
    ///
    /// # Errors
    /// What `mkdir(2)` says.
    pub fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.root.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// A disk: a mount of its own where that is possible and wanted.
    ///
    /// # Errors
    /// When not even a folder can be made; [`Missing`] for a filesystem that this machine does not have.
    pub fn volume(&mut self, name: &str, spec: VolumeSpec) -> anyhow::Result<Disk> {
        let path = self.folder(name)?;
        if spec.filesystem != Filesystem::Tmpfs {
            return self.volume_in_image(name, path, spec);
        }
        if self.kind == DiskKind::Tmpfs {
            match mounts::mount_tmpfs(&path, &spec) {
                Ok(()) => self.mounted.push(path.clone()),
                Err(error) => {
                    tracing::warn!("no filesystem of its own for {}: {error:#}", path.display());
                    self.kind = DiskKind::Simulated;
                }
            }
        }
        let data = self.folder(&format!("{name}/data"))?;
        Ok(Disk::new(path, data, spec.bytes, self.kind))
    }

    fn volume_in_image(&mut self, name: &str, path: PathBuf, spec: VolumeSpec) -> anyhow::Result<Disk> {
        let backing = self.folder(&format!("{name}-image"))?;
        let image = images::make(&path, &backing, spec)?;
        // They are undone from the last to the first: the image before what it lies on.
        self.mounted.extend(image.mounted.into_iter().rev());
        let data = image.volume.join("data");
        std::fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
        Ok(Disk::new(image.volume, data, spec.bytes, self.kind).in_image(spec.filesystem, image.file, path))
    }

    /// Undoes everything now.
    pub fn clean(&mut self) {
        if self.keep {
            return;
        }
        for path in self.mounted.drain(..).rev() {
            mounts::unmount(&path);
        }
        drop(std::fs::remove_dir_all(&self.root));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.clean();
    }
}
