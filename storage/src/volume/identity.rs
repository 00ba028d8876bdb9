//! Whose directory this is, and how the last run ended.
//!
//! The file `volume` (two slots, see `log::slots`): cluster id 16, SPU id 4, volume id 16, end of the last run 1
//! (0 = under way or broken off, 1 = clean, 2 = the device failed; 16 more when a loss of the page cache is still to be
//! told), mount id 8, boot id as text. All integers are
//! big-endian.

use bytes::{Buf, BufMut};
use plimsoll_proto::ids::{ClusterId, SpuId, VolumeId};

use super::OpenError;
use crate::fs::{Disk, DiskError, MountIdentity, OpenMode};
use crate::log::SlotFile;
use crate::recovery::PARTITIONS_DIR;

const MAGIC: [u8; 4] = *b"PLVI";
const FILE: &str = "volume";
const BOOT_ID_BYTES_MAX: usize = 256;
const CLEAN: u8 = 1;
const FAILED: u8 = 2;
/// Added to the end of the last run.
const LOSS_UNTOLD: u8 = 16;

/// Whose directory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeIdentity {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The node.
    pub spu_id: SpuId,
    /// The directory itself.
    pub volume_id: VolumeId,
}

/// Reads whose directory it is without locking or changing it; `None` when it is fresh.
///
/// # Errors
/// [`OpenError::BadIdentity`] for a directory with partitions but no readable identity; `Disk`.
pub fn read_identity(disk: &dyn Disk) -> Result<Option<VolumeIdentity>, OpenError> {
    Ok(IdentityFile::open(disk)?.1.map(|state| state.identity))
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunState {
    pub(super) identity: VolumeIdentity,
    /// The last run closed the volume in order, with everything synced.
    pub(super) clean: bool,
    /// The device failed, in the last run or before, and logs hold records that no sync covers since.
    pub(super) failed: bool,
    /// A loss of the page cache was found, in the last run or before, and the owner has not said since that those
    /// who decide about the replicas know of it.
    pub(super) loss_untold: bool,
    /// Where the last run was.
    pub(super) mount: MountIdentity,
}

impl RunState {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.put_slice(&self.identity.cluster_id.0);
        out.put_u32(self.identity.spu_id.0);
        out.put_slice(&self.identity.volume_id.0);
        let untold = if self.loss_untold { LOSS_UNTOLD } else { 0 };
        out.put_u8(untold + if self.failed { FAILED } else { u8::from(self.clean) });
        out.put_u64(self.mount.mount_id);
        let boot = self.mount.boot_id.as_bytes();
        out.put_slice(&boot[..boot.len().min(BOOT_ID_BYTES_MAX)]);
        out
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let from = &mut bytes;
        let mut cluster = [0; 16];
        let mut volume = [0; 16];
        from.try_copy_to_slice(&mut cluster).ok()?;
        let spu_id = SpuId(from.try_get_u32().ok()?);
        from.try_copy_to_slice(&mut volume).ok()?;
        let end = from.try_get_u8().ok()?;
        let (end, loss_untold) = (end & !LOSS_UNTOLD, end & LOSS_UNTOLD != 0);
        let mount_id = from.try_get_u64().ok()?;
        let boot_id = std::str::from_utf8(from).ok()?.to_owned();
        Some(Self {
            identity: VolumeIdentity { cluster_id: ClusterId(cluster), spu_id, volume_id: VolumeId(volume) },
            clean: end == CLEAN,
            failed: end == FAILED,
            loss_untold,
            mount: MountIdentity { boot_id, mount_id },
        })
    }
}

/// The file; writing it again needs no space.
#[derive(Debug)]
pub(super) struct IdentityFile {
    slots: SlotFile,
    /// It was found or made.
    is_made: bool,
}

impl IdentityFile {
    /// Opens the file and reads it; `None` when the directory is fresh.
    pub(super) fn open(disk: &dyn Disk) -> Result<(Self, Option<RunState>), OpenError> {
        let failed = |error| OpenError::Disk { directory: disk.label(), error };
        let bad = |why| OpenError::BadIdentity { directory: disk.label(), why };
        let (slots, payload) = match SlotFile::open(disk, FILE.to_owned(), MAGIC) {
            Ok(opened) => opened,
            Err(DiskError::NotFound { .. }) => (SlotFile::absent(FILE.to_owned(), MAGIC), None),
            Err(error) => return Err(failed(error)),
        };
        let Some(payload) = payload else {
            let partitions = match disk.list(PARTITIONS_DIR) {
                Err(DiskError::NotFound { .. }) => Vec::new(),
                other => other.map_err(failed)?,
            };
            return if partitions.is_empty() {
                Ok((Self { slots, is_made: false }, None))
            } else {
                Err(bad("missing or damaged, and there are partitions"))
            };
        };
        match RunState::decode(&payload) {
            Some(state) => Ok((Self { slots, is_made: true }, Some(state))),
            None => Err(bad("not of this version")),
        }
    }

    /// Writes and syncs the state. A file that somebody removed is not made again: whoever finds it would take an
    /// empty directory for this volume.
    ///
    /// # Errors
    /// `NotFound` for a file that was there before; else as the disk says.
    pub(super) fn write(&mut self, disk: &dyn Disk, state: &RunState) -> Result<(), DiskError> {
        if self.is_made {
            drop(disk.open(FILE, OpenMode::Read)?);
        }
        self.slots.write(disk, &state.encode())?;
        self.is_made = true;
        Ok(())
    }
}
