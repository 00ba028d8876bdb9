//! What is around a command: a terminal, its environment, a controller that says nothing, files that are not its own.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll_host::Host;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

use crate::process::cluster::Cluster;
use crate::process::{Folder, Server, command, free_addresses, plimsoll, terminate};

/// A terminal that is only written to: our side and that of a process.
fn terminal() -> (File, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
    (File::from(ours), theirs)
}

/// Reads on until `enough`, or until nobody has the other side any more.
fn read_until(from: &mut File, text: &mut String, enough: impl Fn(&str) -> bool) {
    let mut part = [0; 4096];
    while !enough(text) {
        let Ok(read @ 1..) = from.read(&mut part) else { return };
        text.push_str(&String::from_utf8_lossy(&part[..read]));
    }
}

/// What it writes to standard output, which is a terminal.
fn on_terminal(mut command: Command) -> String {
    let (mut ours, theirs) = terminal();
    let mut child = Server(command.stdout(theirs).stderr(Stdio::null()).spawn().unwrap());
    // It holds the other side of the terminal, too.
    drop(command);
    let mut text = String::new();
    read_until(&mut ours, &mut text, |_| false);
    child.0.wait().unwrap();
    text
}

#[test]
fn colours_are_on_terminals_only_and_not_where_they_are_not_wanted() {
    let [nobody] = free_addresses();
    let doctor = || {
        let mut doctor = command(&["doctor", "--controller", &nobody]);
        doctor.env("TERM", "xterm");
        doctor
    };
    let with = |key: &str, value: &str| {
        let mut doctor = doctor();
        doctor.env(key, value);
        on_terminal(doctor)
    };
    let coloured = with("TERM", "xterm");
    assert!(coloured.contains("\x1b[31mFAIL\x1b[0m"), "{coloured:?}");
    // It counts only when it has a value.
    assert!(with("NO_COLOR", "").contains("\x1b[31mFAIL"));
    let plain = [with("NO_COLOR", "1"), with("TERM", "dumb")];
    let piped = String::from_utf8(doctor().output().unwrap().stdout).unwrap();
    for text in plain.iter().chain([&piped]) {
        assert!(text.contains("FAIL") && !text.contains('\x1b'), "{text:?}");
    }
}

#[test]
fn progress_is_told_on_a_terminal_and_not_among_the_data() {
    let mut cluster = Cluster::start("progress");
    assert_eq!(cluster.ask(&["topic", "create", "t"]).0, 0);
    let many = cluster.folder.file("many", &"line\n".repeat(100_000));
    let few = cluster.folder.file("few", &"line\n".repeat(100));
    let produce = |file: &str, more: &[&str]| {
        let (ours, theirs) = terminal();
        let arguments = [&["produce", "t", "--file", file, "--rate", "100"], more].concat();
        let mut command = cluster.command(&arguments);
        (Server(command.stdout(Stdio::piped()).stderr(theirs).spawn().unwrap()), ours)
    };
    let (mut child, mut ours) = produce(&many, &[]);
    let mut told = String::new();
    read_until(&mut ours, &mut told, |told| told.contains(" acknowledged, 0 failed"));
    assert!(told.contains(" records sent, ") && told.contains(" acknowledged, 0 failed"), "{told:?}");
    child.0.kill().unwrap();
    let mut out = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "");

    // A second of it, where it is not wanted.
    for more in [&["--quiet"][..], &["-o", "json"]] {
        let (mut child, mut ours) = produce(&few, more);
        let mut told = String::new();
        read_until(&mut ours, &mut told, |_| false);
        assert_eq!(child.0.wait().unwrap().code(), Some(0), "{told}");
        assert!(!told.contains(" records sent, "), "{told:?}");
    }
    terminate(&mut cluster.server);
}

#[test]
fn a_controller_that_says_nothing_is_code_3_after_the_time_that_was_given() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap().to_string();
    let clock = Host::real().clock;
    for arguments in
        [&["topic", "list"][..], &["disk"], &["cluster", "health"], &["produce", "t"], &["consume", "t"]]
    {
        let began = clock.now();
        let given = [arguments, &["--controller", &address, "--timeout", "1s"]].concat();
        let (code, out, err) = plimsoll(&given);
        assert_eq!((code, out.as_str()), (3, ""), "{arguments:?}: {err}");
        assert!(err.contains(&address), "{arguments:?}: {err}");
        let took = clock.now() - began;
        assert!(took < Duration::from_secs(30), "{arguments:?} took {took:?}");
    }
}

#[test]
fn what_is_wrong_in_the_environment_is_named() {
    let folder = Folder::new("environment");
    for (key, value, code, named) in [
        ("PLIMSOLL_TIMEOUT", "10XB", 2, "10XB"),
        ("PLIMSOLL_OUTPUT", "xml", 2, "xml"),
        ("PLIMSOLL_CONTROLLER", "nonsense", 2, "nonsense"),
        ("PLIMSOLL_CONTROLLER", "1@", 2, "not HOST:PORT"),
        ("PLIMSOLL_PROFILE", "absent", 7, "absent"),
    ] {
        let mut command = command(&["topic", "list"]);
        let output = command.env("XDG_CONFIG_HOME", &folder.0).env(key, value).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{key}={value}: {err}");
        assert!(err.contains(named) && output.stdout.is_empty(), "{key}={value}: {err}");
    }
}

#[test]
fn pages_are_written_over_pages_and_over_nothing_else() {
    let folder = Folder::new("pages-over");
    let dir = folder.path("");
    let foreign = folder.file("plimsoll-disk-drill.1", "mine");
    let man = ["man", "--dir", &dir];
    let (code, _, err) = plimsoll(&man);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains(&foreign) && err.contains("nothing was written"), "{err}");
    assert_eq!(std::fs::read_to_string(&foreign).unwrap(), "mine");
    assert!(!folder.0.join("plimsoll.1").exists(), "the first page is written before the last was looked at");
    let page = plimsoll(&["man"]).1;
    folder.file("plimsoll-disk-drill.1", &page);
    for _ in 0..2 {
        let (code, _, err) = plimsoll(&man);
        assert_eq!(code, 0, "{err}");
    }
    assert!(std::fs::read_to_string(&foreign).unwrap().contains("disk drill"));
}
