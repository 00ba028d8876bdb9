//! The words for states, as printed and as in JSON.

use plimsoll_client::{DiskCause, DiskLevel, VolumeState};
use plimsoll_proto::v1::{SpuDuty, SpuState};

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

pub(crate) fn duty(duty: SpuDuty) -> &'static str {
    match duty {
        SpuDuty::Serving => "serving",
        SpuDuty::Cordoned => "cordoned",
        SpuDuty::Draining => "draining",
        SpuDuty::Offline => "offline",
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

/// A length of time for people, in its greatest unit and the next.
pub(crate) fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..172_800 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Bytes with their sign, for what grows and shrinks.
pub(crate) fn signed_bytes(bytes: i64) -> String {
    let size = plimsoll_host::config::ByteSize(bytes.unsigned_abs());
    match bytes {
        0 => "0B".to_owned(),
        1.. => format!("+{size}"),
        _ => format!("-{size}"),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
