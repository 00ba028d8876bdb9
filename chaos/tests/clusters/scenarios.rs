//! The quick scenarios as an end-to-end test: nothing acknowledged is lost when disks fill.

use std::process::{Command, Stdio};

#[test]
fn the_quick_scenarios_hold() {
    let built = plimsoll_chaos::process::find_binary();
    assert!(built.is_ok(), "{built:?}");
    // The story goes to the log of the test, the outcomes to standard output.
    let output = Command::new(env!("CARGO_BIN_EXE_plimsoll-chaos"))
        .args(["run", "--smoke", "--json", "--no-color"])
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    let story = String::from_utf8_lossy(&output.stderr);
    let outcomes: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no outcomes ({error}); the story:\n{story}"));
    assert!(!outcomes.is_empty(), "{story}");
    if outcomes.iter().all(|outcome| outcome["verdict"] == "skip") {
        println!("SKIPPED the_quick_scenarios_hold: {}", outcomes[0]["reasons"][0]);
        return;
    }
    for outcome in &outcomes {
        assert_eq!(outcome["verdict"], "pass", "{outcome:#}\n{story}");
    }
    assert!(output.status.success(), "{}", output.status);
}

#[test]
fn an_unknown_scenario_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_plimsoll-chaos"))
        .args(["run", "no-such-scenario"])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-scenario"), "{output:?}");
}
