//! What `scripts/prove liveness` runs: real processes that stop, freeze, are cut off or killed. Each kind of fault once,
//! some clusters side by side; everything as often as it is to be shown, which takes half an hour, with
//! `PLIMSOLL_PROVE_FULL`.

use std::process::{Command, Output, Stdio};

/// What is played side by side, because it mostly waits. Parts with bounds of medians are left to the whole proof.
const ONCE: [&[&str]; 4] = [
    &["--quick"],
    &["long-stops", "scale-out", "--times", "1"],
    &["frozen-volume", "frozen-node", "--times", "1"],
    &["silent", "unheard", "--times", "1"],
];

#[test]
fn silence_is_not_death() {
    let built = plimsoll_chaos::process::find_binary();
    assert!(built.is_ok(), "{built:?}");
    let whole = std::env::var_os("PLIMSOLL_PROVE_FULL").is_some();
    let orders: &[&[&str]] = if whole { &[&[]] } else { &ONCE };
    let started: Vec<_> = orders
        .iter()
        .map(|order| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll-chaos"));
            command.arg("liveness").args(*order).stdin(Stdio::null()).stdout(Stdio::piped());
            command.stderr(Stdio::inherit()).spawn().expect("it starts")
        })
        .collect();
    // All of them end before any is judged: what one has mounted is taken down by itself.
    let ended: Vec<Output> =
        started.into_iter().map(|child| child.wait_with_output().expect("it ends")).collect();
    for (output, order) in ended.iter().zip(orders) {
        let told = String::from_utf8_lossy(&output.stdout);
        print!("{told}");
        assert!(output.status.success(), "{order:?}: {}; {told}", output.status);
        assert!(told.contains("CASES liveness"), "{order:?}: {told}");
    }
}

#[test]
fn an_unknown_part_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_plimsoll-chaos"))
        .args(["liveness", "no-such-part"])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-part"), "{output:?}");
}
