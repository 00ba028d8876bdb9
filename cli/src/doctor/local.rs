//! What can be seen of this machine without a cluster.

use std::path::{Path, PathBuf};

use plimsoll_host::config::ByteSize;
use rustix::process::{Resource, getrlimit};

use super::Check;
use crate::{files, profile};

/// A storage node keeps several files open for each replica.
const FILES_WANTED: u64 = 4096;
/// Below this a volume cannot tell its levels apart in practice.
const CAPACITY_MIN: u64 = 64 << 20;
/// The mark of read-only by default.
const READ_ONLY_PERCENT: u64 = 5;

pub(super) fn checks(data_dirs: &[PathBuf]) -> Vec<Check> {
    let mut checks = vec![settings(), open_files(), file_size(), entropy()];
    checks.extend(data_dirs.iter().flat_map(|dir| data_dir(dir)));
    checks
}

/// The files that every command reads.
fn settings() -> Check {
    let name = "settings of this user";
    match files::config_dir().and_then(|dir| profile::chosen(None).map(|chosen| (dir, chosen))) {
        Ok((dir, Some((profile, _)))) => Check::pass(name, format!("{}, profile {profile}", dir.display())),
        Ok((dir, None)) => Check::pass(name, format!("{}, no profile is used", dir.display())),
        Err(failure) => {
            let mut lines = failure.message.lines();
            let found = lines.next().unwrap_or_default().to_owned();
            Check::fail(name, found, lines.next().unwrap_or("correct it or delete it").to_owned())
        }
    }
}

fn open_files() -> Check {
    let name = "open files (RLIMIT_NOFILE)";
    let limit = getrlimit(Resource::Nofile).current;
    match limit {
        Some(limit) if limit < FILES_WANTED => Check::warn(
            name,
            format!("{limit}"),
            format!(
                "a storage node wants {FILES_WANTED}: `ulimit -n {FILES_WANTED}`, or LimitNOFILE in its unit"
            ),
        ),
        Some(limit) => Check::pass(name, limit.to_string()),
        None => Check::pass(name, "without limit"),
    }
}

fn file_size() -> Check {
    let name = "file size (RLIMIT_FSIZE)";
    match getrlimit(Resource::Fsize).current {
        Some(limit) => Check::warn(
            name,
            ByteSize(limit).to_string(),
            "appends beyond it are refused as a full disk (EFBIG): lift it with `ulimit -f unlimited`",
        ),
        None => Check::pass(name, "without limit"),
    }
}

/// Identities are random; a machine without /dev/urandom makes the same ones twice.
fn entropy() -> Check {
    let name = "random numbers";
    match files::open(Path::new("/dev/urandom")) {
        Ok(_) => Check::pass(name, "/dev/urandom"),
        Err(error) => Check::fail(name, error.to_string(), "mount /dev in this container"),
    }
}

fn data_dir(dir: &Path) -> Vec<Check> {
    let shown = dir.display();
    let name = |what: &str| format!("{shown}: {what}");
    let metadata = match std::fs::metadata(dir) {
        Ok(metadata) => metadata,
        Err(error) => {
            return vec![Check::fail(name("directory"), error.to_string(), "make it, or mount its disk")];
        }
    };
    if !metadata.is_dir() {
        return vec![Check::fail(name("directory"), "is a file", "name a directory")];
    }
    let mut checks = Vec::new();
    checks.push(match rustix::fs::access(dir, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK) {
        Ok(()) => Check::pass(name("rights"), "readable and writable"),
        Err(error) => {
            Check::fail(name("rights"), error.to_string(), "give it to the user that runs the node")
        }
    });
    match rustix::fs::statvfs(dir) {
        Ok(space) => checks.extend(space_checks(&name, &space)),
        Err(error) => checks.push(Check::fail(name("space"), error.to_string(), "look at the mount")),
    }
    checks
}

fn space_checks(name: &impl Fn(&str) -> String, space: &rustix::fs::StatVfs) -> Vec<Check> {
    let capacity = space.f_blocks.saturating_mul(space.f_frsize);
    // What a process without privileges may still use; `f_bfree` counts blocks that are reserved for root.
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let found = format!("{} of {} free", ByteSize(free), ByteSize(capacity));
    let room = name("room");
    let mut checks = Vec::new();
    checks.push(if capacity < CAPACITY_MIN {
        Check::fail(room, found, format!("a volume needs {} at least", ByteSize(CAPACITY_MIN)))
    } else if free < capacity / 100 * READ_ONLY_PERCENT {
        let remedy = "it would start read-only: make room, or set --byte-limit and the marks on purpose";
        Check::warn(room, found, remedy)
    } else {
        Check::pass(room, found)
    });
    if space.f_files > 0 {
        let found = format!("{} of {} inodes free", space.f_favail, space.f_files);
        let inodes = name("inodes");
        checks.push(if space.f_favail < space.f_files / 100 * READ_ONLY_PERCENT {
            Check::warn(inodes, found, "delete small files that do not belong there")
        } else {
            Check::pass(inodes, found)
        });
    }
    if space.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        checks.push(Check::fail(name("mount"), "read-only", "mount it for writing"));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::super::Result;
    use super::*;

    #[test]
    fn directories_are_told_from_what_is_none() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let of = |path: &Path| data_dir(path).into_iter().map(|check| check.result).max();
        assert!(of(dir) <= Some(Result::Warn), "{:?}", data_dir(dir));
        assert_eq!(of(&dir.join("Cargo.toml")), Some(Result::Fail));
        assert_eq!(of(&dir.join("absent")), Some(Result::Fail));
    }

    #[test]
    fn what_is_looked_at_always_is() {
        let checks = checks(&[]);
        assert_eq!(checks.len(), 4);
        for check in checks {
            assert_eq!(check.remedy.is_none(), check.result == Result::Pass, "{check:?}");
        }
    }
}
