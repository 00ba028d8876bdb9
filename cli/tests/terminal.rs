//! `plimsoll top` in a real terminal: one that `script` makes, of a given size.

#![allow(clippy::unwrap_used, reason = "a test")]

mod process;

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use process::{Folder, Server, command, free_addresses, plimsoll, terminate};

/// What is drawn until `words` are all there; then `q` is pressed. The exit code, and what was drawn.
fn top_until(controller: &str, size: (u16, u16), words: &[&str]) -> (Option<i32>, String) {
    let binary = env!("CARGO_BIN_EXE_plimsoll");
    let (columns, rows) = size;
    let line =
        format!("stty cols {columns} rows {rows}; exec {binary} top --every 200ms --controller {controller}");
    // A picture without the words ends in time, too.
    let mut child = Command::new("timeout")
        .args(["120", "script", "-qefc", &line, "/dev/null"])
        .env("XDG_CONFIG_HOME", env!("CARGO_TARGET_TMPDIR"))
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut drawn, mut part) = (Vec::new(), [0; 4096]);
    let mut pressed = false;
    loop {
        let read = screen.read(&mut part).unwrap_or(0);
        if read == 0 {
            break;
        }
        drawn.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&drawn);
        if !pressed && words.iter().all(|word| text.contains(word)) {
            keys.write_all(b"q").unwrap();
            pressed = true;
        }
    }
    (child.wait().unwrap().code(), String::from_utf8_lossy(&drawn).into_owned())
}

#[test]
fn top_draws_in_a_real_terminal_and_leaves_it_as_it_was() {
    if Command::new("script").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED top_draws_in_a_real_terminal_and_leaves_it_as_it_was: there is no `script`");
        return;
    }
    let folder = Folder::new("terminal");
    let [controller, spu] = free_addresses();
    let data = folder.path("data");
    let serve = ["standalone", "--data-dir", &data, "--listen", &controller, "--spu-listen", &spu];
    let serve = [&serve[..], &["--byte-limit", "256MiB"]].concat();
    let mut server = Server(command(&serve).stderr(Stdio::null()).spawn().unwrap());
    let created = || plimsoll(&["topic", "create", "orders", "--controller", &controller]).0 == 0;
    assert!((0..20).any(|_| created()), "it serves");

    for size in [(80, 24), (200, 50)] {
        let words = ["OK", "volumes", "orders", "groups: none", "topic_created", "q quit"];
        let (code, drawn) = top_until(&controller, size, &words);
        assert_eq!(code, Some(0), "{size:?}: {drawn:?}");
        // The screen of before comes back (xterm: leave the alternate screen).
        assert!(drawn.contains("\u{1b}[?1049h") && drawn.contains("\u{1b}[?1049l"), "{size:?}: {drawn:?}");
    }
    terminate(&mut server);
}
