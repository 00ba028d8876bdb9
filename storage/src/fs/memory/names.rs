//! Names of the memory disk, and changes of them that a power loss may undo.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(u64),
}

/// One change of a directory that is not synced yet.
#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Add(String, Node),
    Remove(String),
    Rename(String, String),
}

impl NameChange {
    /// The directory whose sync makes it durable; a rename goes with the directory it leads to.
    pub(super) fn dir(&self) -> &str {
        match self {
            Self::Add(path, _) | Self::Remove(path) | Self::Rename(_, path) => parent(path),
        }
    }

    pub(super) fn apply(self, names: &mut BTreeMap<String, Node>) {
        match self {
            Self::Add(path, node) => {
                names.insert(path, node);
            }
            Self::Remove(path) => {
                names.remove(&path);
            }
            Self::Rename(from, to) => move_names(names, &from, &to),
        }
    }
}

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

pub(super) fn normal(path: &str) -> &str {
    if path == "." { "" } else { path }
}

pub(super) fn move_names(names: &mut BTreeMap<String, Node>, from: &str, to: &str) {
    let inside = format!("{from}/");
    let moved: Vec<String> =
        names.keys().filter(|name| *name == from || name.starts_with(&inside)).cloned().collect();
    for name in moved {
        if let Some(node) = names.remove(&name) {
            let rest = name.strip_prefix(from).unwrap_or_default();
            names.insert(format!("{to}{rest}"), node);
        }
    }
}

pub(super) fn files(names: &BTreeMap<String, Node>) -> BTreeSet<u64> {
    names
        .values()
        .filter_map(|node| match node {
            Node::File(inode) => Some(*inode),
            Node::Dir => None,
        })
        .collect()
}

/// Entries of a directory that did not survive are gone with it.
pub(super) fn drop_orphans(names: &mut BTreeMap<String, Node>) {
    let dirs: BTreeSet<String> =
        names.iter().filter(|(_, node)| **node == Node::Dir).map(|(path, _)| path.clone()).collect();
    names.retain(|path, _| {
        let mut dir = parent(path);
        while !dir.is_empty() {
            if !dirs.contains(dir) {
                return false;
            }
            dir = parent(dir);
        }
        true
    });
}
