//! The demo as an end-to-end test: real processes, real disks, the verdict of the last line.

use std::process::{Command, Stdio};

#[test]
fn the_demo_passes() {
    let built = plimsoll_chaos::process::find_binary();
    assert!(built.is_ok(), "{built:?}");
    // The story goes to the log of the test, the result to standard output.
    let output = Command::new(env!("CARGO_BIN_EXE_plimsoll-chaos"))
        .args(["demo", "--json", "--no-color"])
        .stdin(Stdio::null())
        .output()
        .expect("the demo starts");
    let story = String::from_utf8_lossy(&output.stderr);
    let result: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no result ({error}); the story:\n{story}"));
    assert_eq!(result["result"], "PASS", "{result:#}\n{story}");
    assert!(output.status.success(), "{}", output.status);
    assert!(result["seconds"].as_u64().is_some_and(|seconds| seconds < 120), "{result:#}");
}
