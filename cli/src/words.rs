//! The words for states, as printed and as in JSON.

use plimsoll_client::{DiskCause, DiskLevel, VolumeState};
use plimsoll_proto::v1::SpuState;

pub(crate) fn level(level: DiskLevel) -> &'static str {
    match level {
        DiskLevel::Unspecified => "unknown",
        DiskLevel::Normal => "normal",
        DiskLevel::Reclaim => "reclaim",
        DiskLevel::Throttle => "throttle",
        DiskLevel::ReadOnly => "read-only",
        DiskLevel::Failed => "failed",
    }
}

pub(crate) fn cause(cause: DiskCause) -> Option<&'static str> {
    match cause {
        DiskCause::Unspecified => None,
        DiskCause::Bytes => Some("bytes"),
        DiskCause::Inodes => Some("inodes"),
        DiskCause::Quota => Some("quota"),
        DiskCause::Limit => Some("limit"),
        DiskCause::Hold => Some("hold"),
    }
}

pub(crate) fn spu_state(state: SpuState) -> &'static str {
    match state {
        SpuState::Unspecified => "unknown",
        SpuState::Joining => "joining",
        SpuState::Online => "online",
        SpuState::Suspect => "suspect",
        SpuState::Draining => "draining",
        SpuState::Offline => "offline",
    }
}

pub(crate) fn volume_state(state: VolumeState) -> &'static str {
    match state {
        VolumeState::Unspecified => "unknown",
        VolumeState::Writable => "writable",
        VolumeState::WriteOffline => "write_offline",
        VolumeState::Stalled => "stalled",
        VolumeState::Failed => "failed",
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
