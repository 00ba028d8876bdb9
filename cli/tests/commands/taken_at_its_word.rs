//! What is typed is honoured or refused, never read over.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::process::cluster::Cluster;
use crate::process::{Folder, Server, command, free_cluster_port, plimsoll, terminate};

#[test]
fn a_json_line_goes_to_the_partition_that_it_names_or_is_refused_by_its_line() {
    let mut cluster = Cluster::start("named-partition");
    let (code, out, err) = cluster.ask(&["topic", "create", "t", "--partitions", "2"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("2 partitions of 1 replicas"), "{out}");
    let read = || {
        let (code, out, err) = cluster.ask(&["consume", "t", "--until-end", "-f", "%p %s\\n"]);
        assert_eq!(code, 0, "{err}");
        let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let json = ["t", "--format", "json"];
    let named = br#"{"value":"a","partition":0}
{"value":"b","partition":1}
{"value":"c","partition":0}
{"value":"d","partition":1}
"#;
    let (code, err) = cluster.produce(&json, named);
    assert_eq!(code, 0, "{err}");
    assert_eq!(read(), ["0 a", "0 c", "1 b", "1 d"]);
    let (code, err) = cluster.produce(&["t", "--format", "json", "--partition", "1"], named);
    assert_eq!(code, 0, "{err}");
    assert_eq!(read().iter().filter(|line| line.starts_with("1 ")).count(), 6, "the flag wins");

    // One that is not there fails alone.
    let unknown = br#"{"value":"e","partition":0}
{"value":"f","partition":99}
{"value":"g","partition":1}
"#;
    let (code, err) = cluster.produce(&json, unknown);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("line 2: ") && err.contains("there is no partition 99"), "{err}");
    assert!(err.contains("2 records acknowledged, 1 failed"), "{err}");
    for (line, why) in [
        (&br#"["k","v"]"#[..], "it is no object"),
        (br#"{"value":"x","partition":-1}"#, "-1"),
        (b"{\"value\":}", "at column"),
    ] {
        let (code, err) = cluster.produce(&json, line);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("line 1: not a JSON record") && err.contains(why), "{err}");
        assert!(!err.contains("at line"), "{err}");
    }
    assert_eq!(read().len(), 10);

    // What one command prints, another takes; and each record can be asked for as any other document can.
    let (_, out, _) = cluster.ask(&["consume", "t", "--until-end", "-o", "json"]);
    // Partitions come in any order.
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(&out), sorted(&cluster.ask(&["consume", "t", "--until-end", "-f", "json"]).1));
    assert!(out.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["version"] == 1), "{out}");
    assert_eq!(cluster.ask(&["topic", "create", "copy", "--partitions", "2"]).0, 0);
    let (code, err) = cluster.produce(&["copy", "--format", "json"], out.as_bytes());
    assert_eq!(code, 0, "{err}");
    let copied = cluster.ask(&["consume", "copy", "--until-end", "-f", "%p %s\\n"]).1;
    assert_eq!(sorted(&copied), read());
    let values =
        |arguments: &[&str]| cluster.ask(&[&["consume", "copy", "--until-end"], arguments].concat()).1;
    assert_eq!(sorted(&values(&["-o", "table"])), sorted(&values(&[])));
    assert_eq!(sorted(&values(&["-o", "json", "-f", "value"])), sorted(&values(&[])));
    assert_eq!(values(&["-o", "yaml"]).matches("---\n").count(), 10);
    assert!(values(&["-o", "wide"]).lines().all(|line| line.matches('\t').count() == 4));
    let output = cluster.command(&["consume", "copy", "--until-end"]).env("PLIMSOLL_OUTPUT", "json").output();
    let output = String::from_utf8(output.unwrap().stdout).unwrap();
    assert_eq!(sorted(&output), sorted(&values(&["-o", "json"])));
    terminate(&mut cluster.server);
}

#[test]
fn what_a_dry_run_can_see_it_refuses() {
    let mut cluster = Cluster::start("dry-runs");
    assert_eq!(cluster.ask(&["topic", "create", "t", "--partitions", "2"]).0, 0);
    for (arguments, code, named) in [
        (&["controller", "transfer", "9"][..], 1, "there is no controller 9"),
        (&["controller", "transfer", "1"], 0, ""),
        (&["controller", "remove", "1"], 1, "the last controller can't be removed"),
        (&["controller", "remove", "9"], 1, "there is no controller 9"),
        (&["controller", "add", "1@h:7001"], 1, "controller 1 is there already"),
        (&["topic", "add-partitions", "t", "--to", "1"], 1, "never fewer"),
        (&["topic", "add-partitions", "t", "--to", "3"], 0, ""),
    ] {
        let (found, out, err) = cluster.ask(&[arguments, &["--dry-run"]].concat());
        assert_eq!(found, code, "{arguments:?}: {out}{err}");
        assert!(err.contains(named), "{arguments:?}: {err}");
        if code != 0 {
            let (found, _, real) = cluster.ask(arguments);
            assert_eq!(found, code, "{arguments:?} for real: {real}");
            assert!(real.contains(named), "{arguments:?} for real: {real}");
        }
    }
    let (code, _, err) = cluster.ask(&["controller", "add", "9@nonsense", "--dry-run"]);
    assert!(code == 2 && err.contains("ID@HOST:PORT"), "{err}");

    let (code, out, _) = cluster.ask(&["partition", "relief", "--cancel"]);
    assert!(code == 0 && out.starts_with("no relief was under way"), "{out}");
    let (code, _, err) = cluster.ask(&["retention", "set", "t"]);
    assert!(code == 2 && err.contains("plimsoll retention set --help"), "{err}");
    for verb in [&["disk", "plan"][..], &["disk", "borrow", "--spu", "1", "--bytes", "1MiB"]] {
        let (code, _, err) = cluster.ask(&[verb, &["--volume", ""]].concat());
        assert!(code == 2 && err.contains("--volume"), "{verb:?}: {err}");
    }
    terminate(&mut cluster.server);
}

#[test]
fn a_stream_of_events_is_versioned_and_not_limited_or_watched() {
    let mut cluster = Cluster::start("followed");
    for (output, version) in [("json", "{\"version\":1,"), ("yaml", "version: 1")] {
        let mut follows = cluster.command(&["events", "--follow", "-o", output]);
        let mut follows = Server(follows.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        let mut lines = BufReader::new(follows.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        // A document of YAML is some twenty lines, a new one begins behind the first.
        let first: Vec<String> =
            if output == "json" { lines.next().into_iter().collect() } else { lines.take(20).collect() };
        assert!(first.iter().any(|line| line.starts_with(version)), "{output}: {first:?}");
    }
    for with in ["--limit=3", "--watch"] {
        let (code, _, err) = cluster.ask(&["events", "--follow", with]);
        assert!(code == 2 && err.contains("--follow"), "{with}: {err}");
    }
    terminate(&mut cluster.server);
}

#[test]
fn controllers_that_cannot_be_are_told_before_anything_is_kept() {
    let folder = Folder::new("addresses");
    let run = |arguments: &[&str]| {
        let output = command(arguments).env("XDG_CONFIG_HOME", &folder.0).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for wrong in ["nonsense", "", "10XB", "h:0"] {
        let given = format!("--controller={wrong}");
        for (arguments, code) in [
            (&["config", "check", "client", &given][..], 7),
            (&["health", "mute", "DISK_FULL", &given], 2),
            (&["health", "mute", "DISK_FULL", &given, "--dry-run"], 2),
            (&["topic", "list", &given], 2),
        ] {
            let (found, err) = run(arguments);
            assert_eq!(found, Some(code), "{arguments:?}: {err}");
            assert!(err.contains(wrong) && err.contains("--controller"), "{arguments:?}: {err}");
        }
    }
    assert!(!folder.0.join("plimsoll").exists(), "nothing is kept");
    let checked = run(&["config", "check", "client", "--controller", "1@h:7001"]);
    assert_eq!(checked, (Some(0), String::new()));
}

#[test]
fn a_file_is_not_taken_for_a_folder_of_logs() {
    let folder = Folder::new("no-folder");
    let file = folder.file("file", "text");
    for verb in ["dump", "verify"] {
        let (code, out, err) = plimsoll(&["log", verb, &file]);
        assert_eq!((code, out.as_str()), (4, ""));
        assert!(err.contains(&format!("{file} is no directory; give a data directory")), "{err}");
    }
}

/// Stops what a test that failed left running.
struct Stop(String);

impl Drop for Stop {
    fn drop(&mut self) {
        plimsoll(&["cluster", "stop", "--dir", &self.0]);
    }
}

#[test]
fn a_local_cluster_is_checked_before_it_starts_and_says_what_it_does_not_take() {
    let folder = Folder::new("local-words");
    let dir = folder.path("cluster");
    let port = free_cluster_port();
    let (own, other) = (port.to_string(), (port - 1).to_string());
    let start = |port: &str, limit: &str, more: &[&str]| {
        let start = ["cluster", "start", "--local", "--dir", &dir, "--controllers", "1", "--spus", "1"];
        plimsoll(&[&start[..], &["--port", port, "--byte-limit", limit], more].concat())
    };
    for more in [&["--dry-run"][..], &[]] {
        let (code, _, err) = start(&own, "1", more);
        assert_eq!(code, 7, "{err}");
        assert!(err.contains("byte_limit is 1B"), "{err}");
        assert!(!folder.0.join("cluster").exists(), "nothing is begun");
    }

    let _stop = Stop(dir.clone());
    let (code, _, err) = start(&own, "64MiB", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(!err.contains("is not used"), "{err}");
    let (code, _, err) = start(&other, "128MiB", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains(&format!("--port {other} is not used")) && err.contains(&own), "{err}");
    assert!(err.contains("--byte-limit is not used for storage nodes that run already"), "{err}");
    let (code, _, err) = plimsoll(&["cluster", "start", "--local", "--dir", &dir]);
    assert!(code == 0 && !err.contains("is not used"), "what was not given is not missed: {err}");
}
