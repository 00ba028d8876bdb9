//! One suite for every metadata store.
#![cfg(test)]

use std::path::Path;
use std::sync::Arc;

use plimsoll_storage::fs::classify::Operation;
use plimsoll_storage::fs::faulty::{Fault, FaultKind, FaultyDisk, Then};
use plimsoll_storage::fs::real::RealDisk;
use plimsoll_storage::fs::{Disk as _, OpenMode};

use super::{Batch, MemoryStore, MetadataError, MetadataStore, RocksSettings, RocksStore, Stored};

pub(super) fn batch(index: u64, changes: &[(&str, Option<&str>)], replace_all: bool) -> Batch {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let changes = changes.iter().map(|(key, value)| (bytes(key), value.map(bytes))).collect();
    Batch { changes, replace_all, applied_index: index, applied_term: 2 }
}

pub(super) fn stored(index: u64, records: &[(&str, &str)]) -> Option<Stored> {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let records = records.iter().map(|(key, value)| (bytes(key), bytes(value))).collect();
    Some(Stored { applied_index: index, applied_term: 2, records })
}

/// `open` gives the store as a new process would find it.
pub(super) fn suite(mut open: impl FnMut() -> Box<dyn MetadataStore>) {
    let mut store = open();
    assert_eq!(store.load(), Ok(None), "empty");
    let writes = [
        (batch(5, &[("a", Some("1")), ("b", Some("2"))], false), stored(5, &[("a", "1"), ("b", "2")])),
        (batch(6, &[("a", None), ("c", Some(""))], false), stored(6, &[("b", "2"), ("c", "")])),
        (batch(7, &[("a", None)], false), stored(7, &[("b", "2"), ("c", "")])),
        (batch(9, &[("z", Some("9"))], true), stored(9, &[("z", "9")])),
        (batch(10, &[], true), stored(10, &[])),
    ];
    for (write, expected) in writes {
        assert_eq!(store.write(&write), Ok(()));
        assert_eq!(store.load(), Ok(expected.clone()));
        drop(store);
        store = open();
        assert_eq!(store.load(), Ok(expected), "after a restart");
    }
}

#[test]
fn memory_conforms() {
    let store = MemoryStore::default();
    suite(|| Box::new(store.clone()));
    store.set_full(true);
    assert_eq!(store.clone().write(&batch(11, &[], false)), Err(MetadataError::NoRoom));
    store.set_full(false);
    assert_eq!(store.clone().load(), Ok(stored(10, &[])));
}

fn rocks(root: &Path, settings: RocksSettings) -> RocksStore {
    RocksStore::new(Arc::new(RealDisk::open(root).expect("a directory")), root, settings)
}

pub(super) fn small() -> RocksSettings {
    RocksSettings {
        margin_bytes: 1 << 20,
        ballast_bytes: 1 << 20,
        flushes_per_compaction: 2,
        ..RocksSettings::default()
    }
}

#[test]
fn rocks_conforms() {
    let dir = crate::raft_runtime::testing::TempDir::new("rocks");
    suite(|| Box::new(rocks(dir.path(), small())));
}

/// RocksDB begins another log of its own when it flushes what it had written to the former one.
#[test]
fn rocks_keeps_no_log_of_its_own() {
    let dir = crate::raft_runtime::testing::TempDir::new("rocks-log");
    let logs = || {
        let disk = RealDisk::open(dir.path()).expect("a directory");
        let names = disk.list("metadata").expect("made").into_iter().map(|entry| entry.name);
        let logs = names.filter(|name| name.ends_with(".log"));
        let bytes = |name: &str| {
            let file = disk.open(&format!("metadata/{name}"), OpenMode::Read).expect("there");
            file.len().expect("known")
        };
        logs.map(|name| (bytes(&name), name)).collect::<Vec<_>>()
    };
    let mut store = rocks(dir.path(), RocksSettings { flushes_per_compaction: 3, ..small() });
    store.write(&batch(1, &[], true)).expect("there is room");
    let first = logs();
    assert!(matches!(&first[..], [(0, _)]), "the one that it is opened with: {first:?}");
    for index in 2..9 {
        store.write(&batch(index, &[("a", Some("1"))], index % 2 == 0)).expect("there is room");
        assert_eq!(logs(), first, "after write {index}");
    }
}

#[test]
fn rocks_is_not_touched_without_room() {
    let dir = crate::raft_runtime::testing::TempDir::new("rocks-room");
    let mut store = rocks(dir.path(), small());
    store.write(&batch(3, &[("a", Some("1"))], false)).expect("there is room");
    drop(store);
    let greedy = RocksSettings { margin_bytes: u64::MAX / 2, ..small() };
    let mut store = rocks(dir.path(), greedy);
    assert_eq!(store.load(), Err(MetadataError::NoRoom));
    assert_eq!(store.write(&batch(4, &[], true)), Err(MetadataError::NoRoom));
    assert_eq!(rocks(dir.path(), small()).load(), Ok(stored(3, &[("a", "1")])));
}

#[test]
fn an_unreadable_rocks_directory_is_begun_anew() {
    let dir = crate::raft_runtime::testing::TempDir::new("rocks-rot");
    let mut store = rocks(dir.path(), small());
    store.write(&batch(3, &[("a", Some("1"))], false)).expect("there is room");
    drop(store);
    let disk = RealDisk::open(dir.path()).expect("a directory");
    crate::raft_runtime::testing::overwrite_all(&disk, "metadata", b"rot");
    let mut store = rocks(dir.path(), small());
    assert_eq!(store.load(), Ok(None));
    store.write(&batch(4, &[("b", Some("2"))], false)).expect("there is room");
    assert_eq!(store.load(), Ok(stored(4, &[("b", "2")])));
}

/// The room may have gone while RocksDB was opened, and what emptying gave back before it is opened again.
#[test]
fn a_rocks_directory_is_begun_anew_only_while_there_is_room() {
    // The same files each time, so that the calls are the same.
    let rotten = || {
        let dir = crate::raft_runtime::testing::TempDir::new("rocks-anew");
        let (disk, faults) = FaultyDisk::new(Arc::new(RealDisk::open(dir.path()).expect("a directory")));
        let settings = RocksSettings { ballast_bytes: 0, ..small() };
        let path = dir.path().to_owned();
        let shared = disk.clone();
        let open = move || RocksStore::new(Arc::new(shared.clone()), &path, settings.clone());
        open().write(&batch(3, &[("a", Some("1"))], true)).expect("there is room");
        crate::raft_runtime::testing::overwrite_all(&disk, "metadata", b"rot");
        faults.reset();
        (dir, disk, faults, open)
    };
    let (_dir, _, faults, open) = rotten();
    assert_eq!(open().load(), Ok(None), "begun anew");
    let calls = faults.trace();
    let looks = (1..).zip(&calls).filter(|(_, (what, _))| *what == Operation::Space).map(|(at, _)| at);
    let [_, failed, emptied] = looks.collect::<Vec<_>>()[..] else {
        panic!("around each opening: {calls:?}")
    };

    for (at, left) in [(failed, true), (emptied, false)] {
        let (_dir, disk, faults, open) = rotten();
        faults.arm(Fault { kind: FaultKind::Dead, call: at, then: Then::Works });
        assert_eq!(open().load(), Err(MetadataError::NoRoom));
        assert_eq!(faults.fired(), [(at, Operation::Space)]);
        let files = disk.list("metadata").expect("it is there");
        assert_eq!(
            !files.is_empty(),
            left,
            "an opening that met a full disk is no rot, and RocksDB opens nothing"
        );
        assert_eq!(open().load(), Ok(None), "later there is room");
    }
}
