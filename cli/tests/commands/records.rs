//! Lines that become records: some that cannot, at a rate, and only looked at.

use serde_json::Value;

use crate::process::cluster::Cluster;
use crate::process::terminate;

#[test]
fn a_record_that_is_too_large_fails_alone_among_good_ones() {
    let mut cluster = Cluster::start("large-between");
    assert_eq!(cluster.ask(&["topic", "create", "t"]).0, 0);
    let mut input = b"good\n".repeat(5);
    input.extend(vec![b'x'; 40_000_000]);
    input.push(b'\n');
    input.extend(b"good\n".repeat(5));
    let (code, err) = cluster.produce(&["t"], &input);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("line 6: RECORD_TOO_LARGE"), "{err}");
    assert!(err.contains("10 records acknowledged, 1 failed"), "{err}");
    assert_eq!(cluster.ask(&["consume", "t", "--until-end"]).1, "good\n".repeat(10));
    terminate(&mut cluster.server);
}

#[test]
fn a_rate_is_kept() {
    let mut cluster = Cluster::start("rate");
    assert_eq!(cluster.ask(&["topic", "create", "t"]).0, 0);
    let file = cluster.folder.file("lines", &"line\n".repeat(201));
    let summary = cluster.json(&["produce", "t", "--file", &file, "--rate", "100"]);
    assert_eq!(summary["acked"], 201);
    // The last is due 2 s after the first; much later only where the machine has no time at all.
    let elapsed = summary["elapsed_ms"].as_u64();
    assert!(elapsed >= Some(2_000) && elapsed < Some(30_000), "{summary:#}");
    terminate(&mut cluster.server);
}

#[test]
fn a_dry_run_looks_at_every_line_and_sends_none() {
    let mut cluster = Cluster::start("produce-dry");
    let create = ["topic", "create", "t", "--partitions", "2", "--batch-bytes-max", "16KiB"];
    assert_eq!(cluster.ask(&create).0, 0);
    let large = "x".repeat(16 << 10);
    let good = cluster.folder.file("good", "one\ntwo\nthree\n");
    let bad = cluster.folder.file("bad", &format!("one\n{large}\ntwo\n"));
    let lines = ["{\"value\":\"x\"}", "nonsense", "{\"value\":\"x\",\"partition\":7}", "{\"key\":\"k\"}"];
    let json = cluster.folder.file("json", &lines.join("\n"));
    for (arguments, code, records, failed, error) in [
        (&["t", "--file", &good][..], 0, 3, 0, None),
        (&["t", "--file", &good, "--partition", "1"], 0, 3, 0, None),
        (&["t", "--file", &good, "--partition", "2"], 4, 0, 3, Some("line 1: there is no partition 2")),
        (&["t", "--file", &bad], 1, 2, 1, Some("line 2: RECORD_TOO_LARGE")),
        (&["t", "--file", &json, "--format", "json"], 1, 2, 2, Some("line 2: not a JSON record")),
    ] {
        let dry = [&["produce"], arguments, &["--dry-run", "-o", "json"]].concat();
        let (found, out, err) = cluster.ask(&dry);
        assert_eq!(found, code, "{arguments:?}: {out}{err}");
        let checked: Value = serde_json::from_str(&out).expect("JSON");
        let counts = (checked["records"].as_u64(), checked["failed"].as_u64());
        assert_eq!(counts, (Some(records), Some(failed)), "{arguments:?}: {checked:#}");
        let told = checked["first_error"].as_str();
        assert_eq!(told.is_some(), error.is_some(), "{checked:#}");
        if let Some(text) = told {
            let error = error.expect("one is told");
            assert!(text.starts_with(error) && err.contains(error), "{arguments:?}: {checked:#}{err}");
        }
    }
    let (code, _, err) = cluster.ask(&["produce", "absent", "--file", &good, "--dry-run"]);
    assert!(code == 4 && err.contains("absent"), "{code}: {err}");
    let (code, out, err) = cluster.ask(&["produce", "t", "--file", &good, "--dry-run"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("would send 3 records of 11B to topic t"), "{out}");
    assert_eq!(cluster.ask(&["consume", "t", "--until-end"]).1, "", "something was sent");
    terminate(&mut cluster.server);
}
