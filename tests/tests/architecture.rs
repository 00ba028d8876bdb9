//! The arrows between crates, and between rooms inside a crate. What is not allowed here is forbidden.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on, of ours. `tests` may on everything.
const ARROWS: [(&str, &[&str]); 9] = [
    ("proto", &[]),
    ("host", &["proto"]),
    ("storage", &["proto"]),
    ("spu", &["proto", "host", "storage"]),
    ("controller", &["proto", "host", "storage"]),
    ("client", &["proto", "host"]),
    ("cli", &["proto", "host", "spu", "controller", "client"]),
    ("history", &["proto"]),
    ("chaos", &["proto", "host", "client", "history"]),
];

/// Crates from outside that belong behind one door of ours.
const DOORS: [(&str, &str); 5] = [
    ("rocksdb", "controller"),
    ("raft", "controller"),
    ("fs2", "storage"),
    ("backoff", "host"),
    ("hyper-util", "host"),
];

/// Rooms of a crate (folder, or file without `.rs`) and the words that may not stand in them.
const ROOMS: [(&str, &[&str]); 13] = [
    (
        "spu/src/replica",
        &[
            "crate::runtime",
            "crate::session",
            "crate::peer",
            "crate::control",
            "plimsoll_host",
            "tokio::",
            "tracing::",
        ],
    ),
    ("spu/src/group", &["crate::session", "crate::peer", "crate::control", "crate::server"]),
    ("spu/src/group/assign", &["plimsoll_host", "tokio::", "tracing::", "crate::runtime"]),
    ("spu/src/group/group", &["plimsoll_host", "tokio::", "tracing::", "crate::runtime"]),
    ("spu/src/group/coordinator", &["plimsoll_host", "tokio::", "tracing::", "crate::runtime"]),
    ("spu/src/runtime", &["crate::session", "crate::control", "crate::server"]),
    ("spu/src/session", &["crate::peer", "crate::control", "crate::server"]),
    ("spu/src/peer", &["crate::session", "crate::control", "crate::server"]),
    ("spu/src/control", &["crate::session", "crate::peer", "crate::server"]),
    (
        "controller/src/cluster",
        &["crate::raft_runtime", "crate::session", "plimsoll_host", "tokio::", "tracing::"],
    ),
    (
        "controller/src/placement",
        &["crate::raft_runtime", "crate::session", "plimsoll_host", "tokio::", "tracing::"],
    ),
    (
        "controller/src/election",
        &["crate::raft_runtime", "crate::session", "plimsoll_host", "tokio::", "tracing::"],
    ),
    ("storage/src/fs", &["crate::segment", "crate::log", "crate::recovery", "crate::volume"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_path_buf()
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

fn metadata() -> Value {
    let text = cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    serde_json::from_str(&text).expect("cargo writes JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("cargo metadata has {key}"))
}

/// Our packages without the prefix, and all their dependencies of every kind.
fn packages() -> BTreeMap<String, Vec<Value>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies").clone();
            (short(text(package, "name")).to_owned(), dependencies)
        })
        .collect()
}

fn short(name: &str) -> &str {
    name.strip_prefix("plimsoll-").unwrap_or(name)
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let arrows: BTreeMap<_, _> = ARROWS.into_iter().collect();
    let packages = packages();
    for (package, dependencies) in &packages {
        let Some(allowed) = arrows.get(package.as_str()) else {
            assert_eq!(package, "tests", "a new crate needs its arrows here");
            continue;
        };
        for dependency in dependencies {
            let name = text(dependency, "name");
            if name.starts_with("plimsoll-") {
                assert!(allowed.contains(&short(name)), "{package} may not depend on {name}");
            }
        }
    }
    for package in arrows.keys() {
        assert!(packages.contains_key(*package), "{package} is gone, its arrows are not");
    }
}

#[test]
fn some_crates_stand_behind_one_door() {
    for (package, dependencies) in packages() {
        for dependency in dependencies {
            let name = text(&dependency, "name");
            if let Some((_, door)) = DOORS.iter().find(|(crate_name, _)| *crate_name == name) {
                assert_eq!(package, *door, "{name} belongs behind {door}");
            }
        }
    }
}

#[test]
fn the_binary_cannot_reach_anything_in_memory() {
    // `{f}` lists the features that are on; with `-p` only what this package asks for counts.
    let tree = cargo(&[
        "tree",
        "-p",
        "plimsoll-cli",
        "-e",
        "normal",
        "-f",
        "{p} [{f}]",
        "--prefix",
        "none",
        "--offline",
    ]);
    let ours: Vec<&str> = tree.lines().filter(|line| line.starts_with("plimsoll-")).collect();
    for name in ["plimsoll-storage", "plimsoll-controller"] {
        assert!(ours.iter().any(|line| line.starts_with(name)), "{name} is part of the binary");
    }
    let memory: Vec<_> = ours.iter().filter(|line| line.contains("memory-")).collect();
    assert!(memory.is_empty(), "{memory:?}");
}

#[test]
fn rooms_keep_their_doors_shut() {
    for (room, forbidden) in ROOMS {
        let files = files_of(&root().join(room));
        assert!(!files.is_empty(), "{room} is gone, its rule is not");
        for file in files {
            let source = std::fs::read_to_string(&file).expect("a source file");
            // Tests may look over the fence.
            let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            if file.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests")) {
                continue;
            }
            for (number, line) in source.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                let found: BTreeSet<_> = forbidden.iter().filter(|word| code.contains(**word)).collect();
                assert!(found.is_empty(), "{}:{} uses {found:?}", file.display(), number + 1);
            }
        }
    }
}

fn files_of(room: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(room) else {
        let file = room.with_extension("rs");
        return if file.exists() { vec![file] } else { Vec::new() };
    };
    entries
        .map(|entry| entry.expect("a readable directory").path())
        .flat_map(|path| match (path.is_dir(), path.extension().is_some_and(|e| e == "rs")) {
            (true, _) => files_of(&path),
            (false, true) => vec![path],
            (false, false) => Vec::new(),
        })
        .collect()
}
