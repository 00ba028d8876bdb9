//! Why a node does not start, by what its operator must do.

use plimsoll_host::BindError;
use plimsoll_storage::fs::DiskError;
use plimsoll_storage::volume::OpenError;

use crate::control::Fatal;
use crate::runtime::NodeError;

/// A node did not start, or must not go on; nothing was changed by that.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong, or two don't agree. Exit code 7.
    #[error("configuration: {0}")]
    Configuration(String),
    /// The port is in use. Exit code 6.
    #[error("{address} is in use by another process; stop it or give another --listen")]
    PortInUse {
        /// The address.
        address: String,
    },
    /// Nothing can listen at the address. Exit code 7.
    #[error("{0}; give another --listen")]
    Unusable(BindError),
    /// Another process uses the data directory. Exit code 5.
    #[error("{directory} is in use by another process; stop it or give another --data-dir")]
    Locked {
        /// The directory.
        directory: String,
    },
    /// The data directory belongs to another node or cluster. Exit code 5.
    #[error("{0}; give the --id and the --controller that it belongs to, or another --data-dir")]
    OtherIdentity(String),
    /// The data directory can't be opened. Exit code 1.
    #[error("{directory}: {why}")]
    Directory {
        /// The directory.
        directory: String,
        /// What stands in the way.
        why: String,
    },
}

impl StartError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Locked { .. } | Self::OtherIdentity(_) => 5,
            Self::PortInUse { .. } => 6,
            Self::Configuration(_) | Self::Unusable(_) => 7,
            Self::Directory { .. } => 1,
        }
    }

    pub(super) fn disk(directory: &str, error: DiskError) -> Self {
        match error {
            DiskError::Locked => Self::Locked { directory: directory.to_owned() },
            other => Self::Directory { directory: directory.to_owned(), why: other.to_string() },
        }
    }
}

impl From<BindError> for StartError {
    fn from(error: BindError) -> Self {
        match error {
            BindError::AddressInUse { address } => Self::PortInUse { address },
            unusable @ BindError::Unusable { .. } => Self::Unusable(unusable),
        }
    }
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Locked { directory } => Self::Locked { directory },
            foreign @ OpenError::ForeignIdentity { .. } => Self::OtherIdentity(foreign.to_string()),
            OpenError::BadIdentity { ref directory, .. } => {
                Self::Directory { directory: directory.clone(), why: error.to_string() }
            }
            marks @ OpenError::Marks { .. } => Self::Configuration(marks.to_string()),
            OpenError::Disk { directory, error } => Self::disk(&directory, error),
        }
    }
}

impl From<NodeError> for StartError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::NoVolume => Self::Configuration(error.to_string()),
            NodeError::Volume(error) => error.into(),
        }
    }
}

impl From<Fatal> for StartError {
    fn from(fatal: Fatal) -> Self {
        match fatal {
            other @ Fatal::OtherCluster { .. } => Self::OtherIdentity(other.to_string()),
            refused @ Fatal::WrongJoinToken { .. } => Self::Configuration(refused.to_string()),
            Fatal::UnsupportedProtocol { message } => Self::Configuration(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::ids::{ClusterId, SpuId, VolumeId};

    use super::*;

    #[test]
    fn every_cause_has_its_exit_code() {
        let directory = || "/d".to_owned();
        let foreign = OpenError::ForeignIdentity {
            directory: directory(),
            found_cluster: ClusterId([1; 16]),
            found_spu: SpuId(2),
            volume: VolumeId([3; 16]),
        };
        let cases: [(StartError, u8); 8] = [
            (OpenError::Locked { directory: directory() }.into(), 5),
            (foreign.into(), 5),
            (OpenError::BadIdentity { directory: directory(), why: "damaged" }.into(), 1),
            (OpenError::Disk { directory: directory(), error: DiskError::Locked }.into(), 5),
            (BindError::AddressInUse { address: "a:1".into() }.into(), 6),
            (BindError::Unusable { address: "a:1".into(), why: "not of this machine".into() }.into(), 7),
            (NodeError::NoVolume.into(), 7),
            (Fatal::OtherCluster { ours: ClusterId([1; 16]), message: "m".into() }.into(), 5),
        ];
        for (error, code) in cases {
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }
}
