//! `plimsoll produce` that is stopped: exactly what it did is said.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::documents::level;
use crate::process::cluster::Cluster;
use crate::process::{Server, terminate};

fn start(cluster: &Cluster, arguments: &[&str]) -> Server {
    let mut command = cluster.command(&[&["produce"], arguments].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Server(command.spawn().unwrap())
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), signal).unwrap();
}

fn records(cluster: &Cluster, topic: &str) -> usize {
    let (code, out, err) = cluster.ask(&["consume", topic, "--until-end"]);
    assert_eq!(code, 0, "{err}");
    out.lines().count()
}

/// What is left of its output, and how it ended.
fn ended(child: &mut Server) -> (Option<i32>, String, String) {
    let read = |from: &mut dyn std::io::Read| {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    };
    let out = read(child.0.stdout.as_mut().unwrap());
    let err = child.0.stderr.as_mut().map(|err| read(err)).unwrap_or_default();
    (child.0.wait().unwrap().code(), out, err)
}

#[test]
fn what_was_sent_before_a_signal_is_waited_for_and_counted() {
    let mut cluster = Cluster::start("interrupted");
    let lines = cluster.folder.file("lines", &"line\n".repeat(100_000));
    for (topic, asked, code, name) in
        [("int", Signal::INT, 130, "SIGINT"), ("term", Signal::TERM, 143, "SIGTERM")]
    {
        assert_eq!(cluster.ask(&["topic", "create", topic]).0, 0);
        // In the middle of a file that would take half an hour.
        let mut child = start(&cluster, &[topic, "--file", &lines, "--rate", "50", "-o", "json"]);
        assert!((0..5000).any(|_| records(&cluster, topic) >= 5), "it sends");
        signal(&child.0, asked);
        let (found, out, err) = ended(&mut child);
        assert_eq!(found, Some(code), "{err}");
        let summary: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&summary["acked"], &summary["failed"]), (&records(&cluster, topic).into(), &0.into()));
        assert!(err.contains(&format!("ended by {name}: no more lines were read")), "{err}");

        // Where nothing more comes, and reading does not return.
        let before = records(&cluster, topic);
        let mut child = start(&cluster, &[topic]);
        let mut stdin = child.0.stdin.take().unwrap();
        stdin.write_all(b"a\nb\nc\nno end of this line yet").unwrap();
        assert!((0..5000).any(|_| records(&cluster, topic) == before + 3), "it sends");
        signal(&child.0, asked);
        let (found, out, err) = ended(&mut child);
        drop(stdin);
        assert_eq!((found, out.as_str()), (Some(code), ""), "{err}");
        assert!(err.contains("3 records acknowledged, 0 failed"), "{err}");
        assert_eq!(records(&cluster, topic), before + 3);
    }
    terminate(&mut cluster.server);
}

#[test]
fn a_second_signal_does_not_wait_and_says_what_is_not_known() {
    let mut cluster = Cluster::start("interrupted-twice");
    assert_eq!(cluster.ask(&["topic", "create", "t"]).0, 0);
    for twice in [false, true] {
        // What is shown of the drill before must be over, or it is taken for the next one.
        cluster.wait(&["disk"], |disks| level(disks) == "normal");
        // Nothing is acknowledged while a disk seems to be full.
        assert_eq!(cluster.ask(&["disk", "drill", "--spu", "1", "--ttl", "10min"]).0, 0);
        cluster.wait(&["disk"], |disks| level(disks) == "read-only");
        let mut child = start(&cluster, &["t", "--deadline", "10min"]);
        let mut stdin = child.0.stdin.take().unwrap();
        stdin.write_all(b"a\n").unwrap();
        let mut said = BufReader::new(child.0.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut wait = |words: &str| {
            let line = said.find(|line| line.contains(words));
            line.unwrap_or_else(|| panic!("it never says {words}"))
        };
        wait("DISK_FULL");
        signal(&child.0, Signal::INT);
        wait("stopping; waiting for 1 records under way");
        if twice {
            signal(&child.0, Signal::INT);
            wait("ended by SIGINT: 0 records acknowledged, 0 failed, 1 may or may not have been written");
        }
        assert_eq!(cluster.ask(&["disk", "drill", "--spu", "1", "--end"]).0, 0);
        if !twice {
            wait("1 records acknowledged, 0 failed");
            wait("ended by SIGINT: no more lines were read");
        }
        assert_eq!(ended(&mut child).0, Some(130));
        drop(stdin);
    }
    terminate(&mut cluster.server);
}
