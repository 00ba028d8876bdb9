//! What takes a change back: named by every command that changes something, and good as it is typed.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

use crate::process::cluster::Cluster;
use crate::process::{Folder, command, free_addresses, plimsoll, terminate};

/// Every command that has `--dry-run`, as the help tells it.
fn changing(words: &[&str], found: &mut BTreeSet<String>) {
    let (code, help, err) = plimsoll(&[words, &["--help"]].concat());
    assert_eq!(code, 0, "{words:?}: {err}");
    if help.contains("--dry-run") {
        found.insert(words.join(" "));
    }
    let inner = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in inner.take_while(|line| !line.is_empty()) {
        // What does not fit beside a command goes on in the next line, further in.
        let Some(name) = line.strip_prefix("  ").filter(|line| !line.starts_with(' ')) else { continue };
        let name = name.split(' ').next().unwrap();
        if name != "help" {
            changing(&[words, &[name]].concat(), found);
        }
    }
}

/// Three controllers and two storage nodes, stopped at the end.
struct Local {
    folder: Folder,
    dir: String,
    controllers: String,
}

impl Local {
    fn start(name: &str) -> Self {
        let folder = Folder::new(name);
        let dir = folder.path("cluster");
        let mut local = Self { folder, dir, controllers: String::new() };
        let port = local.ports();
        let start = ["cluster", "start", "--local", "--dir", &local.dir, "--byte-limit", "64MiB"];
        let size = ["--controllers", "3", "--spus", "2", "--port", &port, "-o", "json"];
        let (code, out, err) = local.run(&[&start[..], &size].concat());
        assert_eq!(code, 0, "{out}{err}");
        let started: Value = serde_json::from_str(&out).unwrap();
        let named: Vec<&str> =
            started["controllers"].as_array().unwrap().iter().map(|at| at.as_str().unwrap()).collect();
        local.controllers = named.join(",");
        local
    }

    /// Controllers take the first and those behind it, storage nodes the tenth after it and those behind.
    fn ports(&self) -> String {
        loop {
            let [first]: [String; 1] = free_addresses();
            let port: u16 = first.rsplit_once(':').unwrap().1.parse().unwrap();
            let free = |more| TcpListener::bind(("127.0.0.1", port.saturating_add(more))).is_ok();
            if [0, 1, 2, 10, 11].into_iter().all(free) {
                return port.to_string();
            }
        }
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = command(arguments);
        command.env("XDG_CONFIG_HOME", self.folder.path("config"));
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn must(&self, line: &str) {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (code, out, err) = self.run(&arguments);
        assert_eq!(code, 0, "{line}: {out}{err}");
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        drop(self.run(&["cluster", "stop", "--dir", &self.dir]));
    }
}

#[test]
fn every_command_that_changes_something_names_its_undo_or_that_there_is_none() {
    let local = Local::start("undo-all");
    let (at, records) = (&local.controllers, local.folder.file("records", "one\ntwo\n"));
    local.must(&format!("topic create t --replicas 2 --controller {at}"));
    local.must(&format!("produce t --file {records} --controller {at}"));
    local.must(&format!("consume t --group g --count 1 --controller {at}"));
    local.must(&format!("health mute DISK_FULL --controller {at}"));
    local.must("profile set a --controller c1:7001");
    local.must("profile set b --controller c2:7001");

    let other = local.folder.path("other");
    let start = format!("cluster start --local --port {}", local.ports());
    let leader = leader(&local);
    // A command, and whether anything takes it back.
    let mut cases = vec![
        (format!("{start} --dir {other}"), true),
        (format!("cluster stop --dir {}", local.dir), true),
        ("controller add 9@127.0.0.1:7009".to_owned(), true),
        ("controller remove 3".to_owned(), false),
        ("controller transfer 2".to_owned(), true),
        ("spu cordon 1".to_owned(), true),
        ("spu drain 1".to_owned(), true),
        ("spu offline 1".to_owned(), true),
        ("spu online 1".to_owned(), false),
        ("topic create u".to_owned(), true),
        ("topic alter t --retention 1h".to_owned(), true),
        ("topic add-partitions t --to 4".to_owned(), false),
        ("topic delete t".to_owned(), false),
        (format!("partition reassign t/0 --to {leader}"), true),
        // Who leads already: then there is nothing to take back.
        (format!("partition elect t/0 --to {leader}"), false),
        ("partition relief".to_owned(), false),
        ("retention set t --for 1h".to_owned(), true),
        ("group reset g --to latest".to_owned(), true),
        ("group delete g".to_owned(), false),
        (format!("produce t --file {records}"), false),
        ("disk reclaim --spu 1 --target-free 1MiB".to_owned(), false),
        ("disk borrow --spu 1 --bytes 1MiB".to_owned(), true),
        ("disk drill --spu 1".to_owned(), true),
        ("health mute SPU_OFFLINE".to_owned(), true),
        ("health unmute DISK_FULL".to_owned(), true),
        ("profile set c --controller c3:7001".to_owned(), true),
        ("profile use b".to_owned(), true),
        ("profile delete a".to_owned(), true),
    ];
    let mut all = BTreeSet::new();
    changing(&[], &mut all);
    assert!(all.len() > 20, "the help is read wrongly: {all:?}");
    let names = |line: &str, name: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '));
    for name in &all {
        let case = |line: &str| line == name || names(line, name);
        let mut found = cases.extract_if(.., |(line, _)| case(line)).peekable();
        assert!(found.peek().is_some(), "`{name}` has --dry-run, and is not tried here");
        for (line, undone) in found {
            let (_, help, _) = local.run(&[&name.split(' ').collect::<Vec<_>>()[..], &["--help"]].concat());
            // Those that talk to a cluster say to which.
            let named =
                if help.contains("--profile") { format!(" --controller {at}") } else { String::new() };
            let full = format!("{line} --dry-run -o json{named}");
            let (code, out, err) = local.run(&full.split(' ').collect::<Vec<_>>());
            assert_eq!(code, 0, "{full}: {out}{err}");
            let document: Value = serde_json::from_str(&out).unwrap();
            assert_eq!((&document["version"], &document["dry_run"]), (&1.into(), &true.into()), "{full}");
            let undo = document.get("undo").unwrap_or_else(|| panic!("{full} has no undo: {document:#}"));
            assert_eq!(undo.is_string(), undone, "{full}: {undo}");
            if let Some(undo) = undo.as_str() {
                assert!(undo.starts_with("plimsoll ") && undo.ends_with(&named), "{full}: {undo}");
            }
        }
    }
    assert!(cases.is_empty(), "these have no --dry-run: {cases:?}");
}

/// Who leads the partition of topic t.
fn leader(local: &Local) -> u64 {
    let described = ["topic", "describe", "t", "-o", "json", "--controller", &local.controllers];
    let (code, out, err) = local.run(&described);
    assert_eq!(code, 0, "{err}");
    let topic: Value = serde_json::from_str(&out).unwrap();
    topic["topic"]["partitions"][0]["leader"].as_u64().unwrap_or_else(|| panic!("{topic:#}"))
}

/// Types it into a shell, where `plimsoll` is this one.
fn type_into_shell(undo: &str, config: &str) {
    let function = format!("plimsoll() {{ '{}' \"$@\"; }}", env!("CARGO_BIN_EXE_plimsoll"));
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{function}; {undo}")).env("XDG_CONFIG_HOME", config);
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("PLIMSOLL_")) {
        shell.env_remove(key);
    }
    let output = shell.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{undo}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_undo_as_it_is_typed_takes_back_what_was_done_on_the_cluster_that_was_named() {
    let mut cluster = Cluster::start("undo");
    let [nobody] = free_addresses();
    let config = cluster.folder.path("profiles");
    let run = |arguments: &[&str]| {
        let output = command(arguments).env("XDG_CONFIG_HOME", &config).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {err}");
        String::from_utf8(output.stdout).unwrap()
    };
    let undo = |arguments: &[&str]| {
        let document: Value = serde_json::from_str(&run(&[arguments, &["-o", "json"]].concat())).unwrap();
        document["undo"].as_str().unwrap_or_else(|| panic!("{document:#}")).to_owned()
    };
    // Without a flag a command would talk to nobody.
    run(&["profile", "set", "nobody", "--controller", &nobody]);
    run(&["profile", "set", "far", "--controller", &cluster.controller]);
    run(&["profile", "use", "nobody"]);

    let topics = || cluster.json(&["topic", "list"]).to_string();
    for flag in [["--profile", "far"], ["--controller", &cluster.controller]] {
        let undo = undo(&[&["topic", "create", "made"][..], &flag].concat());
        assert!(undo.ends_with(&flag.join(" ")) && topics().contains("\"made\""), "{undo}");
        type_into_shell(&undo, &config);
        assert!(!topics().contains("\"made\""), "{undo}");
    }

    // Offsets, of a group whose name a shell would take apart.
    let group = "it's two words";
    assert_eq!(cluster.ask(&["topic", "create", "t"]).0, 0);
    assert_eq!(cluster.produce(&["t"], b"a\nb\nc\nd\n").0, 0);
    let (code, _, err) = cluster.ask(&["consume", "t", "--group", group, "--count", "3"]);
    assert_eq!(code, 0, "{err}");
    let committed = || cluster.json(&["group", "describe", group])["offsets"][0]["committed"].clone();
    assert_eq!(committed(), 3);
    let back = undo(&["group", "reset", group, "--to", "earliest", "--profile", "far"]);
    assert_eq!(committed(), 0);
    type_into_shell(&back, &config);
    assert_eq!(committed(), 3, "{back}");
    // A group that was not there before.
    let gone = undo(&["group", "reset", "new", "--topic", "t", "--to", "2", "--profile", "far"]);
    assert_eq!(gone, "plimsoll group delete new --profile far");
    type_into_shell(&gone, &config);
    assert_eq!(cluster.ask(&["group", "describe", "new"]).0, 4);
    terminate(&mut cluster.server);
}
