//! Being allowed to mount.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// Set inside of the namespaces, to the user outside of them.
const INSIDE: &str = "PLIMSOLL_CHAOS_NAMESPACE";

/// The user, as seen from outside of any namespace of ours.
pub(super) fn user() -> u32 {
    let outside = std::env::var(INSIDE).ok().and_then(|user| user.parse().ok());
    outside.unwrap_or_else(|| rustix::process::geteuid().as_raw())
}

/// What this process may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// The real root.
    Root,
    /// Root of namespaces of its own.
    Namespace,
    /// No mounts.
    None,
}

/// What this process may do. Without privileges the program is run again in namespaces where it may mount;
/// then this call does not return.
///
/// Call it first thing: nothing that was started before survives.
pub fn privilege() -> Privilege {
    if std::env::var_os(INSIDE).is_some() {
        return Privilege::Namespace;
    }
    if rustix::process::geteuid().is_root() {
        return Privilege::Root;
    }
    let works = Command::new("unshare")
        .args(["-Urm", "mount", "-t", "tmpfs", "plimsoll-chaos", "/mnt"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if works && let Ok(program) = std::env::current_exe() {
        let error = Command::new("unshare")
            .arg("-Urm")
            .arg(program)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, rustix::process::geteuid().as_raw().to_string())
            .exec();
        tracing::warn!("unshare: {error}");
    }
    Privilege::None
}
