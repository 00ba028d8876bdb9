//! Controllers whose journal or identity is damaged or gone: each refuses to start, says what is wrong with which file
//! and what to do, ends with exit code 1 and neither changes, deletes nor makes anything anew.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll_host::Clock;
use plimsoll_storage::fs::real::RealDisk;
use plimsoll_storage::fs::{Disk as _, OpenMode};
use plimsoll_tests::{Ended, Layout, LocalCluster, run_to_end};

const FAILED: i32 = 1;
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster that has seen a topic, and the data directory of its controller, which does not run any more.
async fn used() -> (LocalCluster, PathBuf) {
    let mut cluster =
        LocalCluster::start(Layout { controllers: 1, spus: 1, disk_bytes: None }).expect("a cluster starts");
    drop(cluster.online().await.expect("online"));
    let made = cluster.command(&["topic", "create", "kept"]).await.expect("it ends");
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    cluster.controller(1).kill();
    let data = cluster.scratch().folder("controller-1").expect("there");
    (cluster, data)
}

/// Everything below `folder`, with the bytes of each file.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// Starts the controller as its operator does, with the flag of its first start or without.
async fn run(cluster: &LocalCluster, data: &Path, bootstrap: bool) -> Ended {
    let (listen, data) = (&cluster.controller_addresses()[0], data.display().to_string());
    let mut arguments = vec!["controller", "run", "--id", "1", "--data-dir", &data, "--listen", listen];
    let members = cluster.members();
    arguments.extend(members.iter().map(String::as_str));
    if bootstrap {
        arguments.push("--bootstrap");
    }
    run_to_end(&arguments, "").await.expect("it ends by itself")
}

async fn assert_refused(cluster: &LocalCluster, data: &Path, words: &[&str]) {
    let before = contents(data);
    for bootstrap in [false, true] {
        let ended = run(cluster, data, bootstrap).await;
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, Some(FAILED), "bootstrap: {bootstrap}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        for word in words {
            assert!(said.contains(word), "bootstrap: {bootstrap}: '{word}' is missing in:\n{said}");
        }
        let after = contents(data);
        assert!(before.keys().eq(after.keys()), "{:?} became {:?}", before.keys(), after.keys());
        let changed: Vec<_> = before.iter().filter(|(path, bytes)| after[*path] != **bytes).collect();
        assert!(changed.is_empty(), "{:?} changed", changed.iter().map(|(path, _)| path).collect::<Vec<_>>());
    }
}

/// With everything back in its place the same controller knows the topic.
async fn assert_restored(mut cluster: LocalCluster) {
    cluster.controller(1).start().expect("started");
    drop(cluster.online().await.expect("online again"));
    let listed = cluster.command(&["topic", "list"]).await.expect("it ends");
    assert!(listed.stdout.contains("kept"), "{}{}", listed.stdout, listed.stderr);
}

/// Overwrites a part of a file, and returns what was there.
fn overwrite(data: &Path, file: &str, at: u64, with: &[u8]) -> Vec<u8> {
    let disk = RealDisk::open(data).unwrap();
    let file = disk.open(file, OpenMode::Write).unwrap();
    let mut before = vec![0; with.len()];
    assert_eq!(file.read_at(&mut before, at).unwrap(), with.len());
    file.write_at(with, at).unwrap();
    before
}

#[tokio::test]
async fn a_corrupt_journal_refuses_to_start() {
    let (cluster, data) = used().await;
    // The records begin at byte 8192; what comes first there was synced long ago.
    let before = overwrite(&data, "journal/a.log", 8200, &[0xff; 64]);
    assert_refused(&cluster, &data, &["journal/a.log", "damaged at byte 8192"]).await;
    overwrite(&data, "journal/a.log", 8200, &before);
    // Both copies of the head.
    let first = overwrite(&data, "journal/b.log", 0, &[0; 64]);
    let second = overwrite(&data, "journal/b.log", 4096, &[0; 64]);
    assert_refused(&cluster, &data, &["journal/b.log", "damaged", "head"]).await;
    overwrite(&data, "journal/b.log", 0, &first);
    overwrite(&data, "journal/b.log", 4096, &second);
    assert_restored(cluster).await;
}

/// Where records begin, which of them hold entries, and where all of them end.
fn records(data: &Path) -> (Vec<u64>, Vec<u64>, u64) {
    let bytes = std::fs::read(data.join("journal/a.log")).unwrap();
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut at, mut all, mut entries) = (8192, Vec::new(), Vec::new());
    while bytes[at..].starts_with(b"PLJR") {
        all.push(at as u64);
        if number(at + 36) == 3 {
            entries.push(at as u64);
        }
        at += (56 + number(at + 40) as usize).next_multiple_of(8);
    }
    (all, entries, at as u64)
}

/// What was synced last has nothing behind it that tells of it, but for the head.
#[tokio::test]
async fn rot_in_the_last_record_refuses_to_start() {
    let (mut cluster, data) = used().await;
    let (_, entries, _) = records(&data);
    let last = *entries.last().unwrap();
    let before = overwrite(&data, "journal/a.log", last + 60, &[0xff]);
    assert_refused(&cluster, &data, &["journal/a.log", &format!("damaged at byte {last}"), "--id"]).await;
    overwrite(&data, "journal/a.log", last + 60, &before);
    // After an orderly end that holds for the very last byte.
    cluster.controller(1).start().expect("started");
    drop(cluster.online().await.expect("online again"));
    cluster.controller(1).terminate();
    let ends = Clock::real();
    while cluster.controller(1).ended().expect("it can be waited for").is_none() {
        assert!(ends.now() < PATIENCE, "it does not end: {}", cluster.logs());
        ends.sleep(Duration::from_millis(20)).await;
    }
    let (all, _, end) = records(&data);
    let before = overwrite(&data, "journal/a.log", end - 1, &[0xff]);
    let last = all.last().unwrap();
    assert_refused(&cluster, &data, &["journal/a.log", &format!("damaged at byte {last}")]).await;
    overwrite(&data, "journal/a.log", end - 1, &before);
    assert_restored(cluster).await;
}

#[tokio::test]
async fn a_journal_of_another_length_refuses_to_start() {
    let (cluster, data) = used().await;
    let disk = RealDisk::open(&data).unwrap();
    let file = disk.open("journal/b.log", OpenMode::Write).unwrap();
    let whole = file.len().unwrap();
    file.set_len(whole / 2).unwrap();
    assert_refused(&cluster, &data, &["journal/b.log", "damaged", "length"]).await;
    file.set_len(whole).unwrap();
    drop(file);
    assert_restored(cluster).await;
}

#[tokio::test]
async fn a_journal_that_is_gone_refuses_to_start() {
    let (cluster, data) = used().await;
    let disk = RealDisk::open(&data).unwrap();
    disk.rename("journal/a.log", "journal/kept").unwrap();
    assert_refused(&cluster, &data, &["journal/a.log", "missing"]).await;
    disk.rename("journal/kept", "journal/a.log").unwrap();
    disk.rename("journal", "kept").unwrap();
    assert_refused(&cluster, &data, &["journal/a.log", "missing"]).await;
    disk.rename("kept", "journal").unwrap();
    assert_restored(cluster).await;
}

#[tokio::test]
async fn an_identity_that_is_corrupt_or_gone_refuses_to_start() {
    let (cluster, data) = used().await;
    let first = overwrite(&data, "controller.id", 0, &[0xff; 64]);
    let second = overwrite(&data, "controller.id", 4096, &[0xff; 64]);
    assert_refused(&cluster, &data, &["damaged", "controller.id", "restore it", "new --id"]).await;
    overwrite(&data, "controller.id", 0, &first);
    overwrite(&data, "controller.id", 4096, &second);
    let disk = RealDisk::open(&data).unwrap();
    disk.rename("controller.id", "kept").unwrap();
    assert_refused(&cluster, &data, &["controller.id is missing beside a journal", "new --id"]).await;
    disk.rename("kept", "controller.id").unwrap();
    assert_restored(cluster).await;
}
