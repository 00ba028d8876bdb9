//! What `scripts/prove liveness` runs: real processes that stop, freeze, are cut off or killed. One cluster for a
//! minute; everything, which takes most of an hour, with `PLIMSOLL_PROVE_FULL`.

use std::process::{Command, Stdio};

#[test]
fn silence_is_not_death() {
    let built = plimsoll_chaos::process::find_binary();
    assert!(built.is_ok(), "{built:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll-chaos"));
    command.arg("liveness").stdin(Stdio::null()).stderr(Stdio::inherit());
    if std::env::var_os("PLIMSOLL_PROVE_FULL").is_none() {
        command.arg("--quick");
    }
    let output = command.output().expect("it starts");
    let told = String::from_utf8_lossy(&output.stdout);
    print!("{told}");
    assert!(output.status.success(), "{}; {told}", output.status);
    assert!(told.contains("CASES liveness"), "{told}");
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
