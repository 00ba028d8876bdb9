//! `--dry-run` where records and pages are concerned: everything is looked at and nothing is changed.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::process::cluster::Cluster;
use crate::process::{Folder, plimsoll, terminate};

/// Every record of the topic, as text.
fn all_of(cluster: &Cluster, topic: &str) -> String {
    let (code, out, err) = cluster.ask(&["consume", topic, "--until-end", "-f", "%p %o %s\\n"]);
    assert_eq!(code, 0, "{err}");
    out
}

#[test]
fn a_bench_is_looked_at_and_sends_nothing() {
    let mut cluster = Cluster::start("bench-dry");
    let create = ["topic", "create", "t", "--partitions", "3", "--batch-bytes-max", "16KiB"];
    assert_eq!(cluster.ask(&create).0, 0);
    assert_eq!(cluster.produce(&["t"], b"before\n").0, 0);
    let before = (all_of(&cluster, "t"), cluster.json(&["topic", "describe", "t"]));

    let bench =
        |topic: &str, more: &[&str]| cluster.ask(&[&["bench", "produce", topic, "--dry-run"], more].concat());
    let sized = ["--records", "2000", "--size", "1KiB", "--rate", "500", "--acks", "leader", "-o", "json"];
    let (code, out, err) = bench("t", &sized);
    assert_eq!(code, 0, "{err}");
    let would: Value = serde_json::from_str(&out).unwrap();
    let expected = json!({
        "version": 1, "dry_run": true, "undo": null, "change": would["change"],
        "topic": "t", "partitions": 3, "records": 2000, "record_bytes": 1024, "bytes": 2_048_000,
        "records_per_s": 500, "bytes_per_s": 512_000, "acks": "leader",
    });
    assert_eq!(would, expected);
    let (code, out, err) = bench("t", &["--records", "10", "--size", "1KiB"]);
    assert_eq!(code, 0, "{err}");
    let send = "would send 10 records of 1KiB, 10KiB in all, to 3 partitions of topic t, as fast as it goes";
    assert!(out.starts_with(send) && out.contains("nothing was changed"), "{out}");
    assert!(out.ends_with("undo: there is none\n"), "{out}");

    for (topic, more, code, named) in [
        ("absent", &[][..], 4, "absent"),
        ("t", &["--size", "16KiB"], 1, "RECORD_TOO_LARGE"),
        ("t", &["--size", "1GiB"], 2, "--size"),
        ("t", &["--batch-bytes", "1GiB"], 1, "buffer_bytes"),
        ("t", &["--acks", "some"], 2, "--acks"),
        ("t", &["--rate", "0"], 2, "--rate"),
    ] {
        let (found, out, err) = bench(topic, more);
        assert_eq!(found, code, "{more:?}: {out}{err}");
        assert!(err.contains(named), "{more:?}: {err}");
    }
    assert_eq!((all_of(&cluster, "t"), cluster.json(&["topic", "describe", "t"])), before);
    terminate(&mut cluster.server);
    let (code, _, err) = cluster.ask(&["bench", "produce", "t", "--dry-run"]);
    assert_eq!(code, 3, "nobody answers: {err}");
}

#[test]
fn a_group_is_looked_at_as_it_would_go_on_and_stays_as_it_is() {
    let mut cluster = Cluster::start("consume-dry");
    assert_eq!(cluster.ask(&["topic", "create", "t", "--partitions", "2"]).0, 0);
    for partition in ["0", "1"] {
        assert_eq!(cluster.produce(&["t", "--partition", partition], b"a\nb\nc\n").0, 0);
    }
    let look = |group: &str, more: &[&str]| {
        let dry = ["consume", "t", "--group", group, "--dry-run", "-f", "%p/%o %s\\n"];
        let (code, out, err) = cluster.ask(&[&dry[..], more].concat());
        assert_eq!(code, 0, "{err}");
        let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
        lines.sort();
        (lines, err)
    };
    // A group that nobody has seen stays unseen.
    let (lines, err) = look("new", &["--until-end", "--from", "-1"]);
    assert_eq!(lines, ["0/2 c", "1/2 c"]);
    assert!(err.contains("group new is not joined and nothing is committed; 0 of 2 partitions"), "{err}");
    assert_eq!(cluster.json(&["group", "list"])["groups"], json!([]));

    let reset = ["group", "reset", "g", "--topic", "t", "--partition", "1", "--to", "2"];
    assert_eq!(cluster.ask(&reset).0, 0);
    // But for the ages of heartbeats, which are none without members.
    let group = || cluster.json(&["group", "describe", "g"]);
    let before = group();
    let committed = before["offsets"].as_array().unwrap().iter().map(|read| &read["committed"]);
    assert_eq!(committed.collect::<Vec<_>>(), [&json!(2)], "{before:#}");
    for more in [&["--until-end"][..], &["--count", "4"]] {
        let (lines, err) = look("g", more);
        assert_eq!(lines, ["0/0 a", "0/1 b", "0/2 c", "1/2 c"], "from what is committed, else from --from");
        assert!(err.contains("1 of 2 partitions are read from its committed offsets"), "{err}");
        let reset = format!(
            "plimsoll group reset g --topic t --partition 1 --to 2 --controller {}",
            cluster.controller
        );
        assert!(err.contains(&format!("undo: {reset}\n")), "{err}");
        assert_eq!(group(), before);
    }

    for (line, named) in [
        ("consume t --dry-run", "--group"),
        ("consume t --group g --until-end", "--until-end"),
        ("consume t --group g --dry-run --partition 1", "--partition"),
    ] {
        let (code, _, err) = cluster.ask(&line.split(' ').collect::<Vec<_>>());
        assert!(code == 2 && err.contains(named), "{line} ended with {code}: {err}");
    }
    let (code, _, err) = cluster.ask(&["consume", "absent", "--group", "g", "--dry-run"]);
    assert_eq!(code, 4, "{err}");
    terminate(&mut cluster.server);
}

/// Files with their text.
fn files(folder: &std::path::Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text =
        |path: std::path::PathBuf| (path.display().to_string(), std::fs::read_to_string(&path).unwrap());
    entries.map(text).collect()
}

#[test]
fn pages_are_listed_and_none_is_written() {
    let folder = Folder::new("man-dry");
    let dir = folder.path("man");
    let list = || plimsoll(&["man", "--dir", &dir, "--dry-run"]);
    let (code, out, err) = list();
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(!folder.0.join("man").exists(), "not even the folder");
    let would: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("would write ")).collect();
    assert!(out.contains("nothing was changed\nundo: rm "), "{out}");

    assert_eq!(plimsoll(&["man", "--dir", &dir]).0, 0);
    let written = files(&folder.0.join("man"));
    assert_eq!(written.keys().map(String::as_str).collect::<Vec<_>>(), {
        let mut sorted = would.clone();
        sorted.sort_unstable();
        sorted
    });
    // One page is gone and one is older.
    #[expect(clippy::disallowed_methods, reason = "a page of the test")]
    std::fs::remove_file(folder.0.join("man/plimsoll-top.1")).unwrap();
    let mark = written[would[0]].lines().next().unwrap();
    folder.file("man/plimsoll-man.1", &format!("{mark}\nold\n"));
    let before = files(&folder.0.join("man"));
    let (code, out, _) = list();
    let count = |start: &str| out.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((code, count("would write "), count("would replace ")), (0, 1, would.len() - 1), "{out}");
    assert_eq!(files(&folder.0.join("man")), before);

    folder.file("man/plimsoll-top.1", "somebody else's");
    let (code, _, err) = list();
    assert!(code == 2 && err.contains("plimsoll-top.1"), "as without --dry-run: {err}");
    assert_eq!(plimsoll(&["man", "--dry-run"]).0, 2, "nothing would be written anyway");
}
