//! A data directory that can't be opened, in the place of its disk: everything on it fails.

use plimsoll_storage::fs::{
    DirEntry, Disk, DiskError, DiskFile, LockGuard, MountIdentity, OpenMode, SpaceSample,
};

/// See the module. So the volume fails like one whose device fails later, and the others start.
#[derive(Debug)]
pub(super) struct UnopenedDisk {
    label: String,
    error: DiskError,
}

impl UnopenedDisk {
    pub(super) fn new(label: String, error: DiskError) -> Self {
        Self { label, error }
    }

    fn fail<T>(&self) -> Result<T, DiskError> {
        Err(self.error.clone())
    }
}

impl Disk for UnopenedDisk {
    fn open(&self, _: &str, _: OpenMode) -> Result<Box<dyn DiskFile>, DiskError> {
        self.fail()
    }

    fn list(&self, _: &str) -> Result<Vec<DirEntry>, DiskError> {
        self.fail()
    }

    fn create_dir(&self, _: &str) -> Result<(), DiskError> {
        self.fail()
    }

    fn remove_file(&self, _: &str) -> Result<(), DiskError> {
        self.fail()
    }

    fn remove_dir(&self, _: &str) -> Result<(), DiskError> {
        self.fail()
    }

    fn rename(&self, _: &str, _: &str) -> Result<(), DiskError> {
        self.fail()
    }

    fn sync_dir(&self, _: &str) -> Result<(), DiskError> {
        self.fail()
    }

    fn space(&self) -> Result<SpaceSample, DiskError> {
        self.fail()
    }

    fn reserves(&self) -> bool {
        false
    }

    fn mount_identity(&self) -> MountIdentity {
        MountIdentity::default()
    }

    fn lock(&self, _: &str) -> Result<Box<dyn LockGuard>, DiskError> {
        self.fail()
    }

    fn label(&self) -> String {
        self.label.clone()
    }
}
