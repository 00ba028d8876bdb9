//! What operators type, on a cluster of one process: profiles, health, disks, configuration, doctor, bench.

use std::process::Stdio;

use crate::documents::{event, level};
use crate::process::cluster::Cluster;
use crate::process::{Folder, command, free_addresses, plimsoll, terminate};
use serde_json::Value;

#[test]
fn a_drill_goes_there_and_back_and_is_never_taken_for_a_full_disk() {
    let mut cluster = Cluster::start("drill");
    assert_eq!(cluster.ask(&["topic", "create", "t"]).0, 0);
    cluster.wait(&["disk"], |disks| level(disks) == "normal");

    let dry = cluster.json(&["disk", "drill", "--spu", "1", "--dry-run"]);
    assert_eq!((&dry["dry_run"], level(&cluster.json(&["disk"]))), (&true.into(), "normal"));
    let (code, out, err) = cluster.ask(&["disk", "drill", "--spu", "1", "--ttl", "10min"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("undo: plimsoll disk drill --spu 1 --end"), "{out}");

    let disks = cluster.wait(&["disk"], |disks| level(disks) == "read-only");
    assert!(disks["volumes"][0]["drill_ms"].as_u64() > Some(0), "{disks:#}");
    let (code, err) = cluster.produce(&["t", "--deadline", "1s"], b"x\n");
    assert_eq!(code, 20, "{err}");
    assert!(err.contains("DISK_FULL"), "{err}");
    // A drill is a note, not a verdict.
    let health = cluster.wait(&["cluster", "health"], |health| {
        health["findings"][0]["code"] == "DISK_DRILL" || health["findings"][1]["code"] == "DISK_DRILL"
    });
    let findings = health["findings"].as_array().expect("a list");
    assert!(findings.iter().all(|finding| finding["code"] != "DISK_FULL"), "{health:#}");
    let events = cluster.wait(&["events"], |events| event(events, "volume_state").is_some());
    let drilled = event(&events, "volume_state").expect("waited for");
    assert_eq!(drilled["to"], "write_offline", "{events:#}");
    assert!(drilled["reason"].as_str().is_some_and(|why| why.starts_with("drill: disk full")), "{events:#}");

    assert_eq!(cluster.ask(&["disk", "drill", "--spu", "1", "--end"]).0, 0);
    cluster.wait(&["disk"], |disks| level(disks) == "normal" && disks["volumes"][0]["drill_ms"].is_null());
    let (code, err) = cluster.produce(&["t"], b"x\n");
    assert_eq!(code, 0, "{err}");
    let (code, out, _) = cluster.ask(&["cluster", "health"]);
    assert_eq!((code, out.starts_with("OK")), (0, true), "{out}");

    for (nonsense, code) in [
        (&["disk", "drill", "--spu", "9"][..], 4),
        (&["disk", "drill", "--spu", "1", "--volume", "/nowhere"], 4),
        (&["disk", "drill", "--spu", "1", "--volume", ""], 2),
        (&["disk", "drill", "--spu", "1", "--ttl", "2h"], 2),
        (&["disk", "drill", "--spu", "1", "--level", "failed"], 2),
        (&["disk", "borrow", "--spu", "1", "--bytes", "10XB"], 2),
        (&["disk", "borrow", "--spu", "1", "--bytes", "10TiB"], 1),
        (&["disk", "plan", "--spu", "9"], 4),
    ] {
        let (found, _, err) = cluster.ask(nonsense);
        assert_eq!(found, code, "{nonsense:?}: {err}");
    }
    terminate(&mut cluster.server);
}

#[test]
fn a_mark_is_lent_and_a_plan_is_only_a_plan() {
    let mut cluster = Cluster::start("lent");
    let create = ["topic", "create", "t", "--retention-bytes", "1MiB", "--segment-bytes", "1MiB"];
    assert_eq!(cluster.ask(&create).0, 0);
    let enter =
        |disks: &Value| disks["volumes"][0]["marks"]["readonly_enter_bytes"].as_u64().expect("a mark");
    let before = enter(&cluster.json(&["disk"]));
    let borrow = ["disk", "borrow", "--spu", "1", "--bytes", "4MiB", "--ttl", "1h"];
    assert_eq!(cluster.ask(&[&borrow[..], &["--dry-run"]].concat()).0, 0);
    assert_eq!(enter(&cluster.json(&["disk"])), before);
    let borrowed = cluster.json(&borrow);
    assert_eq!(borrowed["read_only_enter_bytes"], before - (4 << 20));
    cluster.wait(&["disk"], |disks| enter(disks) == before - (4 << 20));
    assert!(cluster.ask(&["disk"]).1.contains("mark lowered by 4MiB"));
    let events = cluster.wait(&["events"], |events| event(events, "mark_lowered").is_some());
    assert_eq!(
        event(&events, "mark_lowered").expect("waited for")["to"],
        "lowered by 4194304 bytes",
        "{events:#}"
    );
    assert_eq!(cluster.ask(&["disk", "borrow", "--spu", "1", "--bytes", "0"]).0, 0);
    cluster.wait(&["disk"], |disks| enter(disks) == before);
    cluster.wait(&["events"], |events| event(events, "mark_restored").is_some());

    let (code, err) = cluster.produce(
        &["t", "--linger", "0ms"],
        &vec![b'x'; 900_000].repeat(6).chunks(899_999).collect::<Vec<_>>().join(&b'\n'),
    );
    assert_eq!(code, 0, "{err}");
    let plan = cluster.json(&["disk", "plan"]);
    assert!(plan["volumes"][0]["bytes"].is_u64(), "{plan:#}");
    let dry = cluster.json(&["disk", "reclaim", "--spu", "1", "--target-free", "1MiB", "--dry-run"]);
    assert_eq!(dry["dry_run"], true);
    // Nothing may be deleted for a target beyond the disk: refused for disk, and told how much is missing.
    let (code, _, err) = cluster.ask(&["disk", "reclaim", "--spu", "1", "--target-free", "1TiB"]);
    assert_eq!(code, 20, "{err}");
    assert!(err.contains("missing"), "{err}");
    terminate(&mut cluster.server);
}

#[test]
fn what_is_typed_wrong_ends_with_a_sentence_and_nothing_half_done() {
    let mut cluster = Cluster::start("wrong");
    assert_eq!(cluster.ask(&["topic", "create", "t", "--partitions", "2"]).0, 0);
    for (arguments, code, named) in [
        (&["topic", "create", "two words"][..], 1, "INVALID_TOPIC"),
        (&["topic", "create", "two words", "--dry-run"], 1, "INVALID_TOPIC"),
        (&["topic", "create", "t", "--dry-run"], 1, "TOPIC_EXISTS"),
        (&["topic", "create", "u", "--replicas", "3", "--dry-run"], 1, "NO_PLACEMENT"),
        (&["topic", "create", "u", "--retention-bytes", "10XB"], 2, "10XB"),
        (&["topic", "create", "u", "--retention", "5 fortnights"], 2, "fortnights"),
        (&["topic", "create", "u", "--partitions", "-1"], 2, "-1"),
        (&["topic", "create", "u", "--partitions", "0"], 2, "--partitions"),
        (&["topic", "create", "u", "--replicas", "0"], 2, "--replicas"),
        (&["topic", "create", "u", "--min-in-sync", "0"], 2, "--min-in-sync"),
        (&["topic", "create", "u", "--retention", "0s"], 2, "--retention"),
        (&["topic", "create", "u", "--retention-bytes", "0"], 2, "--retention-bytes"),
        (&["topic", "create", "u", "--batch-bytes-max", "0"], 2, "--batch-bytes-max"),
        (&["topic", "create", "u", "--flush", "interval", "--flush-interval", "0s"], 2, "--flush-interval"),
        (&["topic", "create", "two words", "--partitions", "0"], 2, "--partitions"),
        (&["topic", "describe", "u"], 4, "u"),
        (&["topic", "alter", "t", "--retention", "0s"], 2, "forever"),
        (&["topic", "delete", "absent", "--dry-run"], 4, "absent"),
        (&["retention", "show", "absent"], 4, "absent"),
        (&["retention", "set", "t", "--for", "soon"], 2, "soon"),
        (&["produce", "t", "--file", "/"], 1, "directory"),
        (&["produce", "t", "--file", "/nowhere/at/all"], 1, "/nowhere/at/all"),
        (&["produce", "t", "--rate", "0"], 2, "--rate"),
        (&["produce", "t", "--header", "x"], 2, "KEY=VALUE"),
        (&["produce", "t", "--partition", "7"], 0, ""),
        (&["consume", "t", "--from", "soon"], 2, "earliest"),
        (&["consume", "t", "-f", "%q"], 2, "%s value"),
        (&["consume", "t", "--partition", "7", "--until-end"], 4, "7"),
        (&["consume", "t", "--replica", "9", "--until-end"], 4, "spu 9"),
        (&["spu", "describe", "9"], 4, "9"),
        (&["health", "mute", "DISK_FULL", "--for", "90d"], 2, "30d"),
        (&["health", "unmute", "DISK_FULL"], 4, "not muted"),
        (&["bench", "produce", "t", "--size", "1GiB"], 2, "--size"),
        (&["events", "--limit", "x"], 2, "x"),
        (&["top"], 2, "terminal"),
    ] {
        let (found, _, err) = cluster.ask(arguments);
        assert_eq!(found, code, "{arguments:?}: {err}");
        assert!(err.contains(named), "{arguments:?} should name {named}: {err}");
        assert!(!err.contains("panicked"), "{arguments:?}: {err}");
    }
    let (code, _, err) = plimsoll(&["health", "explain", "DISK_FUL"]);
    assert!(code == 2 && err.contains("no such code"), "{err}");
    let (code, err) =
        cluster.produce(&["t", "--format", "json"], b"{\"value\":\"a\"}\n{\"value\":\"b\"}\nnonsense\n");
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("line 3: not a JSON record") && err.contains("2 records were sent"), "{err}");
    assert_eq!(cluster.ask(&["consume", "t", "--until-end"]).1.lines().count(), 2);
    let (code, err) = cluster.produce(&["t", "--partition", "7"], b"x\n");
    assert_eq!(code, 4, "{err}");
    terminate(&mut cluster.server);
}

#[test]
fn a_million_lines_come_back_and_a_reader_that_has_seen_enough_is_no_error() {
    let mut cluster = Cluster::start("million");
    assert_eq!(cluster.ask(&["topic", "create", "t", "--partitions", "2"]).0, 0);
    let mut lines = String::new();
    for number in 0..1_000_000 {
        lines.push_str(&format!("{number}\n"));
    }
    let file = cluster.folder.file("lines", &lines);
    let summary = cluster.json(&["produce", "t", "--file", &file]);
    assert_eq!((&summary["acked"], &summary["failed"]), (&1_000_000.into(), &0.into()));
    assert!(summary["latency_p99_us"].as_u64() >= summary["latency_p50_us"].as_u64(), "{summary}");
    let (code, out, err) = cluster.ask(&["consume", "t", "--until-end", "-f", "%p %o\\n"]);
    assert_eq!((code, out.lines().count()), (0, 1_000_000), "{err}");
    // Records without a key may all be in one of the two partitions.
    let last = cluster.ask(&["consume", "t", "--from", "-3", "--until-end"]).1.lines().count();
    assert!((3..=6).contains(&last), "{last}");

    let mut child = cluster
        .command(&["consume", "t", "--until-end"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));
    terminate(&mut cluster.server);
}

#[test]
fn health_says_the_verdict_first_and_mutes_for_one_person() {
    let mut cluster = Cluster::start("health");
    assert_eq!(cluster.ask(&["topic", "create", "t"]).0, 0);
    let health = cluster.wait(&["cluster", "health"], |health| health["verdict"] == "OK");
    assert_eq!(health["version"], 1);
    let (code, out, _) = cluster.ask(&["health", "mute", "SPU_OFFLINE", "--for", "1h"]);
    assert_eq!(code, 0);
    assert!(out.contains("undo: plimsoll health unmute SPU_OFFLINE"), "{out}");
    assert_eq!(cluster.ask(&["health", "unmute", "SPU_OFFLINE"]).0, 0);
    let (code, out, _) = plimsoll(&["health", "explain", "disk_full"]);
    assert_eq!(code, 0);
    assert!(out.contains("cause:") && out.contains("remedy:"), "{out}");
    assert!(plimsoll(&["health", "explain", "-o", "yaml"]).1.contains("code: \"DISK_FULL\""));

    let (code, out, err) = cluster.ask(&["doctor"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("PASS  controller") && out.contains("the port is open"), "{out}");
    let bundle = cluster.folder.path("bundle.json");
    let (code, _, err) = cluster.ask(&["doctor", "--bundle", &bundle, "--dry-run"]);
    assert!(code == 0 && err.contains("would write") && err.contains("nothing was changed"), "{err}");
    assert!(!std::fs::exists(&bundle).expect("known"), "it was only tried");
    let (code, _, err) = cluster.ask(&["doctor", "--bundle", &bundle]);
    assert!(code == 0 && err.contains(&format!("undo: rm {bundle}\n")), "{err}");
    let text = std::fs::read_to_string(&bundle).expect("a bundle");
    let bundled: Value = serde_json::from_str(&text).expect("JSON");
    for part in ["checks", "status", "topics", "events", "findings"] {
        assert!(!bundled[part].is_null(), "the bundle lacks {part}");
    }
    assert_eq!(cluster.ask(&["doctor", "--bundle", &bundle]).0, 2, "nothing is written over");

    let produced = cluster.json(&["bench", "produce", "t", "--records", "2000", "--size", "100"]);
    assert_eq!(produced["acked"], 2000);
    let consumed = cluster.json(&["bench", "consume", "t"]);
    assert_eq!((&consumed["records"], &consumed["bytes"]), (&2000.into(), &200_000.into()));
    terminate(&mut cluster.server);
}

#[test]
fn profiles_are_used_kept_and_told_apart() {
    let folder = Folder::new("profiles");
    let [nobody] = free_addresses();
    let run = |arguments: &[&str]| {
        let output = command(arguments).env("XDG_CONFIG_HOME", &folder.0).output().expect("the binary runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        (output.status.code().expect("it ends"), text(output.stdout), text(output.stderr))
    };
    assert_eq!(run(&["profile", "list"]).0, 0);
    assert_eq!(run(&["profile", "set", "a", "--controller", &nobody, "--dry-run"]).0, 0);
    assert!(run(&["profile", "list"]).1.contains("no profile"));
    let (code, out, _) = run(&["profile", "set", "a", "--controller", &nobody, "--timeout", "2s"]);
    assert_eq!(code, 0);
    assert!(out.contains("undo: plimsoll profile delete a"), "{out}");
    // The only one is used.
    let (code, out, _) = run(&["config", "view", "client"]);
    assert_eq!(code, 0);
    assert!(out.contains("profile a") && out.contains(&nobody) && out.contains("2s"), "{out}");
    let (code, _, err) = run(&["topic", "list"]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains(&nobody), "{err}");
    for (arguments, code, named) in [
        (&["topic", "list", "--profile", "b"][..], 7, "profile set b"),
        (&["profile", "use", "b"], 7, "there are: a"),
        (&["profile", "delete", "b"], 7, "there are: a"),
        (&["profile", "set", "two words", "--controller", "x:1"], 2, "two words"),
        (&["profile", "set", "b", "--controller", "nowhere"], 2, "nowhere"),
        (&["profile", "set", "b"], 2, "--controller"),
    ] {
        let (found, _, err) = run(arguments);
        assert_eq!(found, code, "{arguments:?}: {err}");
        assert!(err.contains(named), "{arguments:?}: {err}");
    }
    assert_eq!(run(&["profile", "delete", "a"]).0, 0);
    folder.file("plimsoll/profiles.toml", "nonsense = [");
    let (code, _, err) = run(&["topic", "list"]);
    assert_eq!(code, 7, "{err}");
    assert!(err.contains("profiles.toml"), "{err}");
    // Who names the cluster does not need the file.
    assert_eq!(run(&["topic", "list", "--controller", &nobody]).0, 3);
}

#[test]
fn pages_and_completion_are_made_from_the_arguments() {
    let folder = Folder::new("pages");
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, err) = plimsoll(&["completion", shell]);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("plimsoll") && out.contains("reclaim"), "{shell}");
    }
    assert_eq!(plimsoll(&["completion", "tcl"]).0, 2);
    assert!(plimsoll(&["man"]).1.contains(".TH plimsoll 1"));
    let dir = folder.path("man");
    let (code, _, err) = plimsoll(&["man", "--dir", &dir]);
    assert_eq!(code, 0, "{err}");
    for page in ["plimsoll.1", "plimsoll-disk-drill.1", "plimsoll-cluster-health.1"] {
        assert!(folder.0.join("man").join(page).is_file(), "{page}");
    }
}

#[test]
fn configuration_is_shown_with_its_origins() {
    let folder = Folder::new("origins");
    let file = folder.file("spu.toml", "id = 3\nlisten = \"127.0.0.1:7011\"\n");
    let view = ["config", "view", "spu", "--config", &file, "--data-dir", "/d", "-o", "json"];
    let output = command(&view).env("PLIMSOLL_RACK", "r1").output().expect("the binary runs");
    let view: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let origin = |key: &str| {
        let rows = view["values"].as_array().expect("rows");
        let row = rows.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("{key} in {view:#}"));
        (row["value"].clone(), row["origin"].as_str().expect("text").to_owned())
    };
    assert_eq!(origin("id"), (3.into(), file.clone()));
    assert_eq!(origin("rack"), ("r1".into(), "PLIMSOLL_RACK".to_owned()));
    assert_eq!(origin("data_dirs").1, "--data-dir");
    assert_eq!(origin("reclaim_percent"), (15.into(), "default".to_owned()));
    let (code, _, err) = plimsoll(&["config", "check", "spu", "--config", &file]);
    assert_eq!(code, 7, "{err}");
    assert!(err.contains("--data-dir"), "{err}");
    let good = ["config", "check", "spu", "--config", &file, "--data-dir", "/d", "--controller", "1@a:1"];
    assert_eq!(plimsoll(&good).0, 0, "{}", plimsoll(&good).2);
    assert_eq!(plimsoll(&["config", "check", "controller", "--id", "1"]).0, 7);
    assert_eq!(plimsoll(&["config", "check", "standalone"]).0, 0);
}

#[test]
fn every_format_is_told_and_watching_goes_on_until_nobody_reads() {
    assert!(plimsoll(&["version", "-o", "yaml"]).1.starts_with("---\n"));
    assert_eq!(plimsoll(&["version", "-o", "wide"]).0, 0);
    assert_eq!(plimsoll(&["version", "-o", "xml"]).0, 2);
    let mut cluster = Cluster::start("watching");
    let mut child = cluster
        .command(&["disk", "--watch=100ms", "-o", "yaml"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let mut out = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut documents = 0;
    while documents < 3 {
        let mut line = String::new();
        assert!(std::io::BufRead::read_line(&mut out, &mut line).expect("text") > 0, "it goes on");
        documents += usize::from(line == "---\n");
    }
    drop(out);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    terminate(&mut cluster.server);
}

#[test]
fn without_a_home_there_are_no_profiles_and_none_are_needed() {
    let [nobody] = free_addresses();
    let run = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.env_remove("HOME").env_remove("XDG_CONFIG_HOME").env("PLIMSOLL_TIMEOUT", "1s");
        command.output().expect("the binary runs").status.code()
    };
    assert_eq!(run(&["topic", "list", "--controller", &nobody]), Some(3));
    assert_eq!(run(&["config", "view", "client"]), Some(0));
    assert_eq!(run(&["topic", "list", "--profile", "a"]), Some(7));
    assert_eq!(run(&["profile", "list"]), Some(7));
}
