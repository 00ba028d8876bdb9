//! `plimsoll cluster start|stop` as a program calls it.

#![allow(clippy::unwrap_used, reason = "a test")]

use crate::process::{Folder, free_cluster_port, plimsoll};
use serde_json::{Value, json};

/// Stops what a test that failed left running.
struct Stop(String);

impl Drop for Stop {
    fn drop(&mut self) {
        plimsoll(&["cluster", "stop", "--dir", &self.0]);
    }
}

/// The document that a command prints; standard error has nothing of it.
fn document(arguments: &[&str]) -> Value {
    let (code, out, err) = plimsoll(&[arguments, &["-o", "json"]].concat());
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"))
}

fn pids(document: &Value) -> Vec<Option<u64>> {
    document["processes"].as_array().unwrap().iter().map(|process| process["pid"].as_u64()).collect()
}

/// One that ended and that nobody has waited for yet has no command line.
fn runs(pid: u64) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn programs_learn_what_was_started_and_stopped() {
    let folder = Folder::new("local");
    let dir = folder.path("cluster");
    let port = free_cluster_port();
    let [first, spu] = [port, port + 10].map(|port| format!("127.0.0.1:{port}"));
    let port = port.to_string();
    let start = ["cluster", "start", "--local", "--dir", &dir, "--port", &port, "--byte-limit", "64MiB"];
    let start = [&start[..], &["--controllers", "1", "--spus", "1"]].concat();
    let stop = ["cluster", "stop", "--dir", &dir];

    let _stop = Stop(dir.clone());
    let would = document(&[&start[..], &["--dry-run"]].concat());
    assert_eq!((&would["dry_run"], pids(&would)), (&json!(true), vec![None, None]), "{would:#}");

    let started = document(&start);
    assert_eq!(started["version"], 1);
    assert_eq!(started["dir"], dir.as_str());
    assert_eq!(started["controllers"], json!([first]));
    assert_eq!(started["change"], format!("started 1 controllers and 1 storage nodes in {dir}"));
    assert_eq!(started["undo"], format!("plimsoll cluster stop --dir {dir}"));
    let found: Vec<u64> = pids(&started).into_iter().flatten().collect();
    assert!(found.len() == 2 && found.iter().all(|pid| runs(*pid)), "{started:#}");
    let process = |role: &str, address: &str, pid: u64, was_running: bool| {
        let data_dir = format!("{dir}/{role}-1");
        json!({
            "role": role, "id": 1, "address": address, "pid": pid, "was_running": was_running,
            "data_dir": data_dir, "log": format!("{data_dir}.log"),
        })
    };
    let both =
        |was: bool| [process("controller", &first, found[0], was), process("spu", &spu, found[1], was)];
    assert_eq!(started["processes"], json!(both(false)));

    let again = document(&start);
    assert_eq!(again["processes"], json!(both(true)), "{again:#}");
    assert!(again["change"].as_str().unwrap().ends_with("is running already"), "{again:#}");

    let would = document(&[&stop[..], &["--dry-run"]].concat());
    assert_eq!((&would["dry_run"], &would["processes"]), (&json!(true), &json!(both(true))));
    let stopped = document(&stop);
    assert_eq!(stopped["processes"], json!(both(true)), "{stopped:#}");
    assert_eq!(stopped["undo"], format!("plimsoll cluster start --local --dir {dir}"));
    assert!(!found.iter().any(|pid| runs(*pid)), "{stopped:#}");
    let again = document(&stop);
    assert_eq!((&again["undo"], pids(&again)), (&Value::Null, vec![None, None]), "{again:#}");
}
