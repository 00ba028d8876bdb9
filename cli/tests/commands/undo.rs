//! What takes a change back: named by every command that changes something, and good as it is typed.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::process::cluster::Cluster;
use crate::process::local::Local;
use crate::process::{command, free_addresses, free_cluster_port, plimsoll, terminate};

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

#[test]
fn every_command_that_changes_something_names_its_undo_or_that_there_is_none() {
    let local = Local::start("undo-all", 3, 2);
    let (at, records) = (&local.controllers, local.folder.file("records", "one\ntwo\n"));
    local.must(&format!("topic create t --replicas 2 --controller {at}"));
    local.must(&format!("produce t --file {records} --controller {at}"));
    local.must(&format!("consume t --group g --count 1 --controller {at}"));
    local.must(&format!("health mute DISK_FULL --controller {at}"));
    local.must("profile set a --controller c1:7001");
    local.must("profile set b --controller c2:7001");

    let other = local.folder.path("other");
    let start = format!("cluster start --local --port {}", free_cluster_port());
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
        ("partition relief --cancel".to_owned(), false),
        ("retention set t --for 1h".to_owned(), true),
        ("group reset g --to latest".to_owned(), true),
        ("group delete g".to_owned(), false),
        (format!("produce t --file {records}"), false),
        ("bench produce t --records 5".to_owned(), false),
        ("consume t --group g --count 1".to_owned(), true),
        (format!("man --dir {}", local.folder.path("man")), true),
        (format!("doctor --local --bundle {}", local.folder.path("bundle")), true),
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
            if let Some(told) = PLAIN.iter().find(|plain| *plain.0 == **name).map(|plain| plain.1) {
                let full = format!("{line} --dry-run{named}");
                let (code, out, err) = local.run(&full.split(' ').collect::<Vec<_>>());
                assert_eq!(code, 0, "{full}: {out}{err}");
                let told = undo_in(if told == Told::Error { &err } else { &out });
                // A file is not the cluster's.
                let good = |undo: &str| undo.starts_with("rm ") || undo.ends_with(&named);
                assert!(undone && told.is_some_and(good), "{full}: {told:?}");
                continue;
            }
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

/// Where a command that prints no document says its undo.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Output,
    Error,
}

/// Records, pages and findings are no documents of a change.
const PLAIN: [(&str, Told); 3] = [("consume", Told::Error), ("man", Told::Output), ("doctor", Told::Error)];

/// The undo among lines; `None` where they say that there is none.
fn undo_in(text: &str) -> Option<&str> {
    let undo = text.lines().find_map(|line| line.strip_prefix("undo: "));
    let undo = undo.unwrap_or_else(|| panic!("no word of an undo: {text}"));
    Some(undo).filter(|undo| !undo.starts_with("there is none"))
}

#[test]
fn what_was_done_with_records_and_pages_is_followed_by_its_undo() {
    let mut cluster = Cluster::start("undo-done");
    // What a bench sends is no text.
    assert_eq!(cluster.ask(&["topic", "create", "b"]).0, 0);
    assert_eq!(undo_in(&cluster.ask(&["bench", "produce", "b", "--records", "3", "--size", "8"]).1), None);
    let benched = cluster.json(&["bench", "produce", "b", "--records", "3", "--size", "8"]);
    assert!(benched.get("undo").is_some_and(Value::is_null), "{benched:#}");
    assert_eq!(cluster.ask(&["topic", "create", "t", "--partitions", "2"]).0, 0);
    let (code, err) = cluster.produce(&["t"], b"a\nb\nc\nd\ne\nf\ng\nh\n");
    assert_eq!((code, undo_in(&err)), (0, None));

    // Of a group that was not there, and of one that was.
    let named = format!("--controller {}", cluster.controller);
    let committed = || {
        let offsets = cluster.json(&["group", "describe", "g"])["offsets"].clone();
        offsets.as_array().unwrap().iter().filter_map(|read| read["committed"].as_u64()).sum::<u64>()
    };
    let config = cluster.folder.path("config");
    let (code, _, err) = cluster.ask(&["consume", "t", "--group", "g", "--count", "3"]);
    let gone = undo_in(&err).unwrap_or_else(|| panic!("{err}"));
    assert_eq!((code, gone), (0, format!("plimsoll group delete g {named}").as_str()));
    assert_eq!(committed(), 3);
    let (code, _, err) = cluster.ask(&["consume", "t", "--group", "g", "--count", "5"]);
    assert_eq!((code, committed()), (0, 8), "{err}");
    type_into_shell(undo_in(&err).unwrap_or_else(|| panic!("{err}")), &config);
    assert_eq!(committed(), 3, "{err}");
    type_into_shell(gone, &config);
    assert_eq!(cluster.ask(&["group", "describe", "g"]).0, 4);

    let dir = cluster.folder.path("two words");
    let (code, _, err) = plimsoll(&["man", "--dir", &dir]);
    assert_eq!(code, 0, "{err}");
    let (again, _, replaced) = plimsoll(&["man", "--dir", &dir]);
    assert_eq!((again, undo_in(&replaced)), (0, None), "what was there before is gone");
    type_into_shell(undo_in(&err).unwrap_or_else(|| panic!("{err}")), &config);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "{err}");
    terminate(&mut cluster.server);
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
